/**
 * A lower that this node has just mounted, as its owner: the calls on it, the watch over its disk, and the server for other nodes. If one of
 * them can not be had, or the disk fails meanwhile, all is undone in reverse, and the mount is given back.
 */
import type { LocalLower } from "../lower/local/local.ts";
import type { LowerServer } from "../lower/server/server.ts";
import type { LowerMount } from "../volume/lower-mount.ts";
import type { GuardedDisk } from "./withdrawal.ts";

/** The part of the owner that is mounted here, while it is. */
export interface OwnedLower {
  readonly mount: LowerMount;
  readonly local: LocalLower;
  readonly server: LowerServer;
  /** null: a directory, which has no disk that could be given up. */
  readonly disk: GuardedDisk | null;
  readonly port: number;
}

export interface OwnedLowerParts {
  readonly createLocal: () => Promise<LocalLower>;
  readonly guard: (local: LocalLower) => GuardedDisk | null;
  readonly createServer: (served: LocalLower, disk: GuardedDisk | null) => LowerServer;
  /** Where the server listens. */
  readonly address: string;
  /** The mount, or a part of it, could not be given back: only the end of this process lets others go on. */
  readonly notReleased: (error: Error) => void;
}

/** Throws what its parts throw, and Error if the disk failed meanwhile; then nothing is left of it. */
export async function serveMounted(mount: LowerMount, parts: OwnedLowerParts): Promise<OwnedLower> {
  let local: LocalLower | null = null;
  let disk: GuardedDisk | null = null;
  let server: LowerServer | null = null;
  try {
    local = await parts.createLocal();
    disk = parts.guard(local);
    server = parts.createServer(disk?.guard.served ?? local, disk);
    const port = await server.listen(parts.address, 0);
    if (disk !== null && disk.guard.why !== null) throw new Error(`the disk failed as it was mounted: ${disk.guard.why}`);
    return { mount, local, server, disk, port };
  } catch (error) {
    // Whatever one of them throws, the disk is let go in the end: no other node could have it.
    for (const undo of [() => server?.close(), () => local?.shutdown(), () => disk?.end(), () => mount.release()]) {
      try {
        await undo();
      } catch (failure) {
        parts.notReleased(failure instanceof Error ? failure : new Error(String(failure)));
      }
    }
    throw error;
  }
}
