/** GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR. The kernel caches none of them but the ACLs, which INVAL_INODE drops. */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { GetxattrRequest, ListxattrRequest, RemovexattrRequest, SetxattrRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import { ACCESS_ACL, DEFAULT_ACL } from "../lower/linux.ts";
import { changeFor } from "../lower/lower.ts";
import { CAPABILITY } from "../lower/xattr-names.ts";
import { andThen, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { changedNames } from "./change.ts";
import { noteMade } from "./orphans.ts";
import { S_ISGID } from "./linux.ts";
import { type Mount, inodeOf } from "./mount.ts";
import { checkOwner, losesSetgid } from "./ownership.ts";
import { isSticky } from "./permission.ts";
import { pinned, pinnedData } from "./pinned.ts";
import { noteChange } from "./victim.ts";

const USER_PREFIX = "user.";

function isUncapped({ coherence }: Mount, inode: InodeRecord): boolean {
  return inode.uncappedHold !== 0 && inode.uncappedHold === coherence.grantId(inode);
}

export function getxattr(mount: Mount, call: Call, request: GetxattrRequest): MaybePromise<void> {
  const inode = inodeOf(mount, request.fuseNodeid);
  return pinnedXattrs(mount, call, inode, () => {
    // What the kernel asks before the first write to a file: too often for an error that is thrown.
    if (request.name.equals(CAPABILITY) && isUncapped(mount, inode)) return void call.error(E.ENODATA);
    return andThen(mount.lower.getxattr(inode.id, request.name), (value) => answerXattr(call, request.size, value));
  });
}

export function listxattr(mount: Mount, call: Call, request: ListxattrRequest): MaybePromise<void> {
  const inode = inodeOf(mount, request.fuseNodeid);
  return pinnedXattrs(mount, call, inode, () =>
    andThen(mount.lower.listxattr(inode.id), (list) => answerXattr(call, request.size, request.uid === 0 ? list : withoutTrusted(list))),
  );
}

/** The lower, which sees root, lists names that it would not show to others (fs/ext4/xattr_trusted.c). The kernel has no hand in it. */
function withoutTrusted(list: Buffer): Buffer {
  const names = list
    .toString("latin1")
    .split("\0")
    .filter((name) => name !== "" && !name.startsWith("trusted."));
  return Buffer.from(names.map((name) => `${name}\0`).join(""), "latin1");
}

/** A write(2) that asks whether there are capabilities to be cleared has the inode's lock (mm/filemap.c, file_remove_privs), so it passes a revoke. */
function pinnedXattrs(mount: Mount, call: Call, inode: InodeRecord, work: () => MaybePromise<void>): MaybePromise<void> {
  return pinnedData(mount, call, { inode, mode: Mode.PR, cached: inode.kind === "file" }, work);
}

function answerXattr(call: Call, room: number, value: Buffer): void {
  if (room === 0) call.xattrSize(value.length);
  else if (value.length > room) throw errnoError(E.ERANGE);
  else call.data(value);
}

export function setxattr(mount: Mount, call: Call, request: SetxattrRequest): MaybePromise<void> {
  const inode = inodeOf(mount, request.fuseNodeid);
  inode.uncappedHold = 0;
  noteChange(mount, inode);
  return changeXattr(mount, call, inode, request.name, async () => {
    const loses = await losesByAcl(mount, call, request, inode);
    await changeFor(mount.lower, call.unique, () => mount.lower.setxattr(inode.id, request.name, request.value, request.flags));
    // Hazard F50.
    noteMade(call, [inode]);
    if (loses) await killSetgid(mount, inode);
  });
}

async function losesByAcl(mount: Mount, call: Call, { name, aclKillSgid }: SetxattrRequest, inode: InodeRecord): Promise<boolean> {
  return name.equals(ACCESS_ACL) && (aclKillSgid || (await losesSetgid(mount, call, inode)));
}

/**
 * What posix_acl_update_mode (fs/posix_acl.c) does for a caller outside of the owning group, whatever the inode and its mode: the lower saw
 * root. A default ACL changes no mode.
 */
async function killSetgid(mount: Mount, inode: InodeRecord): Promise<void> {
  const attr = await mount.lower.getattr(inode.id);
  if ((attr.mode & S_ISGID) !== 0) await mount.lower.setattr(inode.id, { mode: attr.mode & 0o7777 & ~S_ISGID }, null);
}

export async function removexattr(mount: Mount, call: Call, request: RemovexattrRequest): Promise<void> {
  const inode = inodeOf(mount, request.fuseNodeid);
  const own = mount.coherence.sizes.own.lock(inode, call.pid);
  if (own !== null) {
    await own;
    call.error(E.ENODATA);
    return;
  }
  noteChange(mount, inode);
  const remove = (): MaybePromise<void> => mount.lower.removexattr(inode.id, request.name);
  await changeXattr(mount, call, inode, request.name, () => changeFor(mount.lower, call.unique, remove));
}

function changeXattr(mount: Mount, call: Call, inode: InodeRecord, name: Buffer, change: () => MaybePromise<void>): MaybePromise<void> {
  mount.coherence.sizes.locked(inode, call);
  return pinned(mount, call, inode, Mode.EX, () =>
    andThen(checkXattr(mount, call, inode, name), () => answerChange(mount, call, inode, change)),
  );
}

function answerChange(mount: Mount, call: Call, inode: InodeRecord, change: () => MaybePromise<void>): MaybePromise<void> {
  return andThen(changedNames(mount, call, { inodes: [inode], named: [inode] }, change), () => void call.empty());
}

/** Hazard F38: the process before has changed it, and maybe not what follows. */
export function xattrMade(mount: Mount, call: Call, request: SetxattrRequest | RemovexattrRequest): MaybePromise<void> {
  const inode = inodeOf(mount, request.fuseNodeid);
  mount.coherence.sizes.locked(inode, call);
  const rest = async (): Promise<void> => {
    if (request.op === "setxattr" && (await losesByAcl(mount, call, request, inode))) await killSetgid(mount, inode);
  };
  return pinned(mount, call, inode, Mode.EX, () => answerChange(mount, call, inode, rest));
}

/** EPERM: who may write to a file may change its attributes but for ACLs; those of a sticky directory are its owner's (fs/xattr.c, xattr_permission). Hazard F36. */
function checkXattr(mount: Mount, call: Call, inode: InodeRecord, name: Buffer): MaybePromise<void> {
  if (name.equals(ACCESS_ACL) || name.equals(DEFAULT_ACL)) return checkOwner(mount, call, inode);
  if (inode.kind === "directory" && call.uid !== 0 && name.indexOf(USER_PREFIX) === 0)
    return andThen(mount.lower.ownership(inode.id), (now) => (isSticky(now) ? checkOwner(mount, call, inode) : undefined));
}
