/** The tables of a mount as a RestartState, and back (hazard F33). */
import { assert } from "../../dlmd/base/assert.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Negotiated } from "../fuse/init.ts";
import type { InheritedToken, LateRow } from "../coherence/rest.ts";
import { type FileLockRow, lockFile, type LockOwner } from "../file-lock/api.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { LowerHandle } from "../lower/lower.ts";
import type { OpenAtOwner } from "../lower/remote/core.ts";
import type { Mount } from "../op/mount.ts";
import type { SessionHandOff } from "../session/mount-session.ts";
import type { LockOwnerState, RestartState } from "./state.ts";

export interface Given {
  readonly handOff: Pick<SessionHandOff, "mount" | "negotiated" | "held">;
  readonly connection: number;
  readonly ownerEpoch: number;
  readonly open: OpenAtOwner;
  readonly lates: readonly LateRow[];
  readonly fileLocks: readonly FileLockRow[];
  readonly hasOwned: boolean;
  readonly shared: readonly number[];
}

/** null: the kernel still knows a file that was lost with an owner, and whose identity another one has. */
export function stateOf({ handOff, connection, ownerEpoch, open, lates, fileLocks, hasOwned, shared }: Given): RestartState | null {
  const { mount, negotiated, held } = handOff;
  const inodes = mount.inodes.rows();
  if (inodes === null) return null;
  const { files, nextFh } = mount.handles.all();
  // What this process reads ahead by itself is its own, and ends with it.
  const opened = new Set(files.map(({ inode }) => inode.fuseNodeid));
  const rows = inodes.rows.filter(({ fuseNodeid, nlookup }) => nlookup > 0 || opened.has(fuseNodeid));
  const known = new Set(rows.map(({ fuseNodeid }) => fuseNodeid));
  const byPrograms = new Set(files.map(({ lowerHandle }) => lowerHandle));
  const mapped = new Set(files.filter(({ inode }) => inode.cover.token?.mapped === true).map(({ inode }) => inode.fuseNodeid));
  const standIns = mount.standIns.all();
  return {
    connection,
    ownerEpoch,
    negotiated: negotiatedState(negotiated),
    inodes: rows,
    nextCounted: inodes.nextCounted,
    handles: files.map(({ fh, inode, lowerHandle, writable, cached, writeToken, mappable, manyNew }) => ({
      fh,
      fuseNodeid: inode.fuseNodeid,
      lowerHandle,
      writable,
      cached,
      writeToken,
      mappable,
      manyNew,
    })),
    nextFh,
    mapped: [...mapped],
    // The sentinel of hazard F5 is no safe integer; both are beyond any size.
    lates: lates
      .filter(({ fuseNodeid }) => known.has(fuseNodeid))
      .map(({ end, ...late }) => ({ ...late, end: Number.isSafeInteger(end) ? end : null })),
    openFiles: open.files.filter(({ handle }) => byPrograms.has(handle)),
    unsynced: {
      ...open.unsynced,
      changed: open.unsynced.changed.map(([key, change]) => [key, change]),
      lost: open.unsynced.lost.map(([key, loss]) => [key, loss]),
    },
    staleOnce: [...mount.staleOnce.all()],
    fileLocks: lockStates(fileLocks, files),
    hasOwned,
    standIns: {
      shownTo: standIns.shownTo.map(([fuseNodeid, tid]) => [fuseNodeid, tid]),
      threads: standIns.threads.map(([tid, walked]) => [tid, walked]),
    },
    custody: null,
    gaveBack: false,
    held: held.map((bytes) => bytes.toString("base64")),
    again: false,
    shared: [...shared],
  };
}

type FileLockStates = RestartState["fileLocks"];

/** A file that is locked is open. */
function lockStates(rows: readonly FileLockRow[], open: readonly OpenFile[]): FileLockStates {
  const nodeids = new Map(open.map(({ inode }) => [lockFile(inode), inode.fuseNodeid]));
  return rows.map(({ file, shared, held, users }) => {
    const fuseNodeid = nodeids.get(file);
    assert(fuseNodeid !== undefined, `${file} is locked, and nobody has it open`);
    return {
      fuseNodeid,
      shared,
      held: held.map(({ owner, range: { type, start, end }, pid, heldMs }) => ({
        ...ownerState(owner),
        type,
        start: String(start),
        end: String(end),
        pid,
        heldMs,
      })),
      users: users.map(({ owner, handles }) => ({ ...ownerState(owner), handles: [...handles] })),
    };
  });
}

const ownerState = ({ kind, owner }: LockOwner): LockOwnerState => ({ kind, owner: String(owner) });
const lockOwner = ({ kind, owner }: LockOwnerState): LockOwner => ({ kind, owner: BigInt(owner) });

/** The locks of one file in a state. */
export function heldIn({ held }: FileLockStates[number]): FileLockRow["held"] {
  return held.map(({ type, start, end, pid, heldMs, ...one }) => ({
    owner: lockOwner(one),
    range: { type, start: BigInt(start), end: BigInt(end) },
    pid,
    heldMs,
  }));
}

function lockRow(row: FileLockStates[number], inode: InodeRecord): FileLockRow {
  const { shared, users } = row;
  return {
    file: lockFile(inode),
    shared,
    held: heldIn(row),
    users: users.map(({ handles, ...one }) => ({ owner: lockOwner(one), handles })),
  };
}

export function negotiatedState(negotiated: Negotiated): RestartState["negotiated"] {
  return { ...negotiated, flags: String(negotiated.flags) };
}

export function negotiatedOf({ negotiated }: RestartState): Negotiated {
  return { ...negotiated, flags: BigInt(negotiated.flags) };
}

export function openAtOwnerOf({ openFiles, unsynced }: RestartState): OpenAtOwner {
  return { files: openFiles.map((file) => ({ ...file, handle: file.handle as LowerHandle })), unsynced };
}

/** Of files that are open without a write token: their locks, which dlmd has kept. A page of them may wait for a READ that was not answered. */
function openWithoutToken(
  files: readonly OpenFile[],
  users: ReadonlyMap<InodeRecord, number>,
  keptOf: ((inode: InodeRecord) => InheritedToken["kept"]) | undefined,
): InheritedToken[] {
  const inodes = new Set(files.map(({ inode }) => inode).filter((inode) => inode.kind === "file" && !users.has(inode)));
  return [...inodes].flatMap((inode) => {
    const kept = keptOf?.(inode);
    return kept === undefined || kept.mode === Mode.NL ? [] : [{ inode, users: 0, mapped: false, kept }];
  });
}

export function heldOf({ held }: RestartState): Buffer[] {
  return held.map((bytes) => Buffer.from(bytes, "base64"));
}

export interface Restored {
  /** By the kernel's numbers. */
  readonly inodes: ReadonlyMap<number, InodeRecord>;
  /** Write tokens, and how many handles have them. */
  readonly tokens: readonly InheritedToken[];
  readonly lates: readonly LateRow[];
  readonly fileLocks: readonly FileLockRow[];
}

/** Fills the empty tables of a new session. */
export function restoreTables(mount: Mount, state: RestartState, keptOf?: (inode: InodeRecord) => InheritedToken["kept"]): Restored {
  mount.inodes.restore(state.inodes, state.nextCounted);
  const inodeOf = (fuseNodeid: number): InodeRecord => {
    const found = mount.inodes.get(fuseNodeid);
    if (found === undefined)
      throw new OperatingError(`inode ${fuseNodeid} is not in the state`, { code: "bad-state", hint: "Mount again." });
    return found;
  };
  const users = new Map<InodeRecord, number>();
  const files: OpenFile[] = [];
  for (const { fuseNodeid, lowerHandle, ...handle } of state.handles) {
    const inode = inodeOf(fuseNodeid);
    mount.inodes.opened(inode, handle.mappable);
    if (handle.writeToken) users.set(inode, (users.get(inode) ?? 0) + 1);
    files.push({ ...handle, inode, lowerHandle: lowerHandle as LowerHandle, directory: inode.kind === "directory", endCookie: null });
  }
  mount.handles.restore(files, state.nextFh);
  mount.staleOnce.restore(state.staleOnce);
  mount.standIns.restore(state.standIns);
  // Hazard F46: what was moved while no process listened.
  mount.moved.missed();
  const mapped = new Set(state.mapped);
  const locked = state.fileLocks.map((row) => ({ row, inode: inodeOf(row.fuseNodeid) }));
  // Their close(2) gives up locks.
  for (const { inode } of locked) mount.askFlush(inode);
  return {
    inodes: new Map(state.inodes.map(({ fuseNodeid }) => [fuseNodeid, inodeOf(fuseNodeid)])),
    lates: state.lates.map(({ end, ...late }) => ({ ...late, end: end ?? Number.POSITIVE_INFINITY })),
    fileLocks: locked.map(({ row, inode }) => lockRow(row, inode)),
    tokens: [
      ...[...users].map(([inode, count]) => {
        const kept = keptOf?.(inode);
        return { inode, users: count, mapped: mapped.has(inode.fuseNodeid), ...(kept === undefined ? {} : { kept }) };
      }),
      ...openWithoutToken(files, users, keptOf),
    ],
  };
}
