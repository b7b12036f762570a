/**
 * LOOKUP of "." and "..": the kernel was given a file handle (open_by_handle_at(2), or an NFS client's) of an inode that it has forgotten, and asks for that
 * inode by its number, and for the directory in which a directory is. fs/fuse/inode.c, fuse_get_dentry and fuse_get_parent: it compares the
 * generation itself. No name is told, so no lock of a directory is needed; but that of births, because who comes by a directory meets what was made there
 * when dlmd knows it. overlay/op/README.md, "File handles"; hazards F29 and F51.
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { LookupRequest } from "../fuse/request.ts";
import { inoOf } from "../inode/numbers.ts";
import { type InodeRecord, inodeKind } from "../inode/table.ts";
import type { Attr } from "../lower/lower.ts";
import type { Call } from "./call.ts";
import { giveEntry } from "./lookup.ts";
import { type Mount, inodeOf, remembered } from "./mount.ts";
import { pinned } from "./pinned.ts";

const DOT = 0x2e;

const isSelf = (name: Buffer): boolean => name.length === 1 && name[0] === DOT;
const isParent = (name: Buffer): boolean => name.length === 2 && name[0] === DOT && name[1] === DOT;

export function isByHandle({ name }: LookupRequest): boolean {
  return isSelf(name) || isParent(name);
}

/**
 * A thread of our own wants to look at an inode that the kernel has forgotten (coherence/size/own-inodes.ts). A revoke may wait for it, so it must not wait
 * for a lock, a lease or an owner. There is nothing to be looked at.
 */
export function isOwnByHandle(mount: Mount, request: LookupRequest, pid: number): boolean {
  return isByHandle(request) && mount.coherence.sizes.own.isOwnThread(pid);
}

export function lookupByHandle(mount: Mount, call: Call, request: LookupRequest): Promise<void> {
  if (isOwnByHandle(mount, request, call.pid)) throw errnoError(E.ESTALE);
  return isParent(request.name) ? lookupParent(mount, call, request.fuseNodeid) : lookupSelf(mount, call, request.fuseNodeid);
}

async function lookupSelf(mount: Mount, call: Call, fuseNodeid: number): Promise<void> {
  const known = mount.inodes.get(fuseNodeid);
  if (known !== undefined) {
    await tell(mount, call, known);
    return;
  }
  const ino = inoOf(fuseNodeid);
  if (ino === null) throw errnoError(E.ESTALE);
  const found = await mount.lower.byNumber(ino);
  await mount.coherence.untilBirthsKnown(call);
  await remembered(mount, found, async (inode) => {
    // Another generation has the inode number by now; or the kernel has this inode by another number: the root, or one that was counted.
    if (inode.fuseNodeid !== fuseNodeid) throw errnoError(E.ESTALE);
    await tell(mount, call, inode);
  });
}

async function lookupParent(mount: Mount, call: Call, fuseNodeid: number): Promise<void> {
  const dir = inodeOf(mount, fuseNodeid);
  if (dir.kind !== "directory") throw errnoError(E.ESTALE);
  const found = await mount.lower.parentOf(dir.id);
  await mount.coherence.untilBirthsKnown(call);
  await remembered(mount, found, (parent) => tell(mount, call, parent));
}

/** Under its own lock, as every LOOKUP: what was found without it may be gone. */
async function tell(mount: Mount, call: Call, inode: InodeRecord): Promise<void> {
  const { coherence } = mount;
  await pinned(mount, call, inode, Mode.PR, async () => {
    const since = coherence.since();
    const read = (): Promise<Attr> => attrOfNamed(mount, inode);
    const answer = (attr: Attr): void => giveEntry(mount, call, inode, attr, coherence.terms.of(inode, attr.size, call.pid, since, null));
    const attr = await read();
    if (coherence.sizes.known(inode)) answer(attr);
    else await coherence.sizes.tell(inode, call, read, answer);
  });
}

/** ESTALE: it has no name, though it may be open somewhere; or an inode of another kind has its identity. */
async function attrOfNamed(mount: Mount, inode: InodeRecord): Promise<Attr> {
  const attr = await mount.lower.getattr(inode.id);
  if (attr.nlink === 0 || inodeKind(attr.mode) !== inode.kind) throw errnoError(E.ESTALE);
  return attr;
}
