/** What the requests of a mount work with, whatever brings them here: made when the transport is there, and given up when it has ended. */
import { UnderWay } from "../../dlmd/base/under-way.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { andThen } from "../../dlmd/base/maybe-promise.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { type Credentials, credentialsOf } from "../caller/status.ts";
import { isRenaming } from "../caller/threads.ts";
import type { SessionCoherence } from "../coherence/api.ts";
import { type FileLocking, forgetLocks } from "../file-lock/api.ts";
import { HandleTable } from "../inode/handles.ts";
import { InodeTable } from "../inode/table.ts";
import type { DirectoryMoves } from "../lower/directory-moves.ts";
import type { Lower } from "../lower/lower.ts";
import { EstaleRetry } from "../op/estale-retry.ts";
import { FilesAhead } from "../op/files-ahead.ts";
import type { Mount } from "../op/mount.ts";
import { MovedDirectories } from "../op/moved-directories.ts";
import { PlaceholderInodes } from "../op/placeholder-inodes.ts";
import { Prefetch } from "../op/prefetch.ts";
import { ChangesAhead } from "../op/changes-ahead.ts";
import { WalkAhead } from "../op/walk-ahead.ts";
import type { Dispatch } from "./dispatch.ts";
import type { SessionJournal } from "./session-journal.ts";
import type { SessionSystem } from "./system.ts";

export interface SessionState {
  readonly mount: Mount;
  readonly dispatch: Dispatch;
  readonly coherence: SessionCoherence;
}

export interface MountParts {
  readonly lower: Lower;
  readonly system: SessionSystem;
  readonly log: Log;
  readonly coherence: SessionCoherence;
  readonly fileLocks: FileLocking | null;
  /** File locks come here; else the kernel keeps them to itself. */
  readonly clusterLocks: boolean;
  /** Mount.dontMask. */
  readonly dontMask: boolean;
  /** Mount.handleKillpriv. */
  readonly handleKillpriv: boolean;
  /** Mount.fileAttributes. */
  readonly fileAttributes: boolean;
  /** FLUSHes of that inode come here from now on, or no more. */
  readonly askFlush: (fuseNodeid: number, asked: boolean) => void;
  /** For a process that goes on after a crash; null: none can. */
  readonly journal?: SessionJournal | null;
  /** What the lower tells of directories; null: nothing. */
  readonly moves?: DirectoryMoves | null;
  /** MovedDirectoriesOptions.walk */
  readonly walk?: ((path: Buffer) => Promise<number>) | null;
}

export function createMount(parts: MountParts): Mount {
  const {
    lower,
    system,
    log,
    coherence,
    fileLocks,
    clusterLocks,
    dontMask,
    handleKillpriv,
    fileAttributes,
    askFlush,
    journal = null,
    moves = null,
    walk = null,
  } = parts;
  const { operations } = coherence;
  const asked = new Set<number>();
  const ahead = new Prefetch(lower, operations);
  operations.onExpected = (inode): void => {
    ahead.startUnderLock(inode);
    void andThen(operations.sizes.anticipate(inode), () => operations.unpin(inode, Mode.PR));
  };
  const inodes: InodeTable = new InodeTable({
    root: lower.root,
    journal,
    createCover: (id, kind) => coherence.createCover(id, kind),
    dropped: (inode, removed) => {
      if (removed) coherence.removed(inode);
      if (inode.kind === "directory") moved.isPlaced(inode);
      if (inode.kind === "file") forgetLocks(fileLocks, inode);
      if (asked.delete(inode.fuseNodeid)) askFlush(inode.fuseNodeid, false);
      coherence.forgotten(inode);
    },
  });
  const moved = new MovedDirectories({ inodes, pathOf: (id) => lower.pathOf(id), walk, log });
  if (moves !== null) moves.listener = moved;
  operations.onUnknown = (inode): void => {
    const record = inodes.get(inode.fuseNodeid);
    if (record !== undefined) inodes.unknown(record);
  };
  const now = (): number => performance.now();
  const filesAhead = new FilesAhead({ lower, now });
  return {
    lower,
    coherence: operations,
    inodes,
    handles: new HandleTable(journal),
    staleOnce: new EstaleRetry(),
    standIns: new PlaceholderInodes(),
    moved,
    ahead,
    walkAhead: new WalkAhead({
      lower,
      coherence: operations,
      inodes,
      listed: ({ cover }, entries, first) => filesAhead.listed(cover.key, entries, first),
      now,
    }),
    changesAhead: new ChangesAhead({ lower, coherence: operations, inodes, now }),
    filesAhead,
    writesBehind: new UnderWay(),
    log,
    dontMask,
    handleKillpriv,
    fileAttributes,
    credentials: (pid) => (pid === 0 ? null : seenCredentials(system, pid)),
    isRenaming,
    fileLocks: clusterLocks ? fileLocks : null,
    askFlush: ({ fuseNodeid }) => {
      if (asked.has(fuseNodeid)) return;
      asked.add(fuseNodeid);
      askFlush(fuseNodeid, true);
    },
  };
}

/** Who has capabilities may have them in a user namespace of its own, where anybody has all. */
function seenCredentials(system: SessionSystem, pid: number): Credentials | null {
  const status = system.readStatus(pid);
  const who = status === null ? null : credentialsOf(status);
  if (who === null || who.capabilities === 0n) return who;
  const idMaps = system.readIdMaps(pid);
  if (idMaps === undefined) return { ...who, capabilities: 0n };
  return idMaps === null ? who : { ...who, idMaps };
}

/** In the reverse order of what uses what. `isGiven`: to another process (hazard F35). */
export async function endState({ mount, dispatch, coherence }: SessionState, lower: Lower, isGiven: boolean = false): Promise<void> {
  mount.moved.end();
  await dispatch.drained();
  await mount.writesBehind.idle();
  for (const file of mount.handles.takeAll()) {
    lower.close(file.lowerHandle);
    if (file.writeToken) mount.coherence.closeForWrite(file.inode);
  }
  await Promise.all([mount.walkAhead.stop(), mount.changesAhead.stop(), mount.filesAhead.stop()]);
  mount.inodes.clear();
  await coherence.close(isGiven);
}
