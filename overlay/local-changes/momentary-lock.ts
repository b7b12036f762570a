/** A lock of an inode that is had for a moment: when it was granted, every node has given up what it had cached under a mode that this one excludes. */
import type { Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { type FileId, fileKey } from "../lower/lower.ts";

/** Resolves when it was had. Rejects with what dlmd says; without dlmd it stays as it is, and the mount ends. */
export function hadFor(lockspace: Lockspace, id: FileId, mode: typeof Mode.PR | typeof Mode.EX): Promise<void> {
  return new Promise((resolve, reject) => {
    const lock = lockspace.createLock(`i${fileKey(id)}`, {
      ast: (_, status) => {
        if (status === "granted") {
          lock.unlock(0);
          resolve();
        } else if (status !== "unlocked") reject(lock.error ?? new Error(`a lock of ${fileKey(id)}: ${status}`));
      },
      bast: () => undefined,
    });
    lock.request(mode, 0);
  });
}
