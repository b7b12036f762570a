/** A mount for the models of operations: with nothing read ahead, no file locks, and callers without credentials of their own. */
import { silentLog } from "../../../dlmd/base/log.ts";
import { UnderWay } from "../../../dlmd/base/under-way.ts";
import { HandleTable } from "../../../overlay/inode/handles.ts";
import { EstaleRetry } from "../../../overlay/op/estale-retry.ts";
import { FilesAhead } from "../../../overlay/op/files-ahead.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import { MovedDirectories } from "../../../overlay/op/moved-directories.ts";
import { PlaceholderInodes } from "../../../overlay/op/placeholder-inodes.ts";
import { Prefetch } from "../../../overlay/op/prefetch.ts";
import { ChangesAhead } from "../../../overlay/op/changes-ahead.ts";
import { WalkAhead } from "../../../overlay/op/walk-ahead.ts";

export function modelMount({ lower, coherence, inodes }: Pick<Mount, "lower" | "coherence" | "inodes">): Mount {
  const now = (): number => 0;
  return {
    lower,
    coherence,
    inodes,
    handles: new HandleTable(),
    staleOnce: new EstaleRetry(),
    standIns: new PlaceholderInodes(),
    moved: new MovedDirectories({ inodes, pathOf: () => Buffer.from(""), walk: () => Promise.resolve(0), log: silentLog }),
    ahead: new Prefetch(lower, coherence),
    walkAhead: new WalkAhead({ lower, coherence, inodes, listed: () => undefined, now }),
    changesAhead: new ChangesAhead({ lower, coherence, inodes, now }),
    filesAhead: new FilesAhead({ lower, now }),
    writesBehind: new UnderWay(),
    log: silentLog,
    dontMask: true,
    handleKillpriv: true,
    fileAttributes: true,
    credentials: () => null,
    isRenaming: () => false,
    fileLocks: null,
    askFlush: () => undefined,
  };
}
