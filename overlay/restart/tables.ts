/** The tables of a mount as a RestartState, and back (hazard F33). */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Negotiated } from "../fuse/init.ts";
import type { Inode } from "../coherence/cover.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { LowerHandle } from "../lower/lower.ts";
import type { OpenAtOwner } from "../lower/remote/core.ts";
import type { Mount } from "../op/mount.ts";
import type { SessionHandOff } from "../session/mount-session.ts";
import type { RestartState } from "./state.ts";

export interface Given {
  readonly handOff: Pick<SessionHandOff, "mount" | "negotiated" | "held">;
  readonly connection: number;
  readonly ownerEpoch: number;
  readonly open: OpenAtOwner;
}

/** null: the kernel still knows a file that was lost with an owner, and whose identity another one has. */
export function stateOf({ handOff, connection, ownerEpoch, open }: Given): RestartState | null {
  const { mount, negotiated, held } = handOff;
  const inodes = mount.inodes.rows();
  if (inodes === null) return null;
  const { files, nextFh } = mount.handles.all();
  const mapped = new Set(files.filter(({ inode }) => inode.cover.token?.mapped === true).map(({ inode }) => inode.fuseNodeid));
  const standIns = mount.standIns.all();
  return {
    connection,
    ownerEpoch,
    negotiated: { ...negotiated, flags: String(negotiated.flags) },
    inodes: [...inodes.rows],
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
    openFiles: [...open.files],
    unsynced: {
      ...open.unsynced,
      changed: open.unsynced.changed.map(([key, change]) => [key, change]),
      lost: open.unsynced.lost.map(([key, loss]) => [key, loss]),
    },
    staleOnce: [...mount.staleOnce.all()],
    standIns: {
      shownTo: standIns.shownTo.map(([fuseNodeid, tid]) => [fuseNodeid, tid]),
      threads: standIns.threads.map(([tid, walked]) => [tid, walked]),
    },
    held: held.map((bytes) => bytes.toString("base64")),
  };
}

export function negotiatedOf({ negotiated }: RestartState): Negotiated {
  return { ...negotiated, flags: BigInt(negotiated.flags) };
}

export function openAtOwnerOf({ openFiles, unsynced }: RestartState): OpenAtOwner {
  return { files: openFiles.map((file) => ({ ...file, handle: file.handle as LowerHandle })), unsynced };
}

export function heldOf({ held }: RestartState): Buffer[] {
  return held.map((bytes) => Buffer.from(bytes, "base64"));
}

export interface Restored {
  readonly inodes: readonly InodeRecord[];
  /** Write tokens, and how many handles have them. */
  readonly tokens: readonly { readonly inode: Inode; readonly users: number; readonly mapped: boolean }[];
}

/** Fills the empty tables of a new session. */
export function restoreTables(mount: Mount, state: RestartState): Restored {
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
    files.push({ ...handle, inode, lowerHandle: lowerHandle as LowerHandle, directory: inode.kind === "directory" });
  }
  mount.handles.restore(files, state.nextFh);
  mount.staleOnce.restore(state.staleOnce);
  mount.standIns.restore(state.standIns);
  const mapped = new Set(state.mapped);
  return {
    inodes: state.inodes.map(({ fuseNodeid }) => inodeOf(fuseNodeid)),
    tokens: [...users].map(([inode, count]) => ({ inode, users: count, mapped: mapped.has(inode.fuseNodeid) })),
  };
}
