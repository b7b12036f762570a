/**
 * What a lower tells of directories that got another name or parent (hazard F46). It tells before it answers what it was asked after that, so who gets the attributes of a
 * directory has heard of each move of it.
 */
import type { FileId } from "./lower.ts";

export interface MoveListener {
  /** That directory was renamed by somebody. */
  moved(id: FileId): void;
  /** Any directory may have been. */
  missed(): void;
}

/** Of one mount, whichever lower it has. */
export class DirectoryMoves implements MoveListener {
  /** Whose kernel may have names; null: it has none yet. */
  listener: MoveListener | null = null;

  moved(id: FileId): void {
    this.listener?.moved(id);
  }

  missed(): void {
    this.listener?.missed();
  }
}
