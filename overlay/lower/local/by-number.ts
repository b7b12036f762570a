/**
 * The local lower: inodes that are found by their number, or as the directory in which one is, and by no name (hazard F29). An inode is opened by a file
 * handle, and that has a generation. ext2_nfs_get_inode and ext4_nfs_get_inode take 0 for any. XFS takes the right one alone
 * (fs/xfs/xfs_export.c, xfs_nfs_get_inode), and tells it (ioctl_xfs_bulkstat(2)).
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { checked, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { HANDLE_BUFFER_BYTES, STAT } from "../../../native/index.ts";
import { O } from "../linux.ts";
import type { Entry, FileId } from "../lower.ts";
import { getattr } from "./attributes.ts";
import { shownPath } from "./containment.ts";
import { attrOfFd, type LocalContext, ownHandle, sameId } from "./context.ts";

const ANY_GENERATION = 0;

const SLASH = 0x2f;
const UP = Buffer.from("..");
/** XFS says EINVAL of a number that no inode can have. */
const NO_INODE: ReadonlySet<number> = new Set([E.ENOENT, E.EINVAL]);

/** ESTALE: there is none, or none that may be found so. */
export async function byNumber(context: LocalContext, ino: number): Promise<Entry> {
  if (ino === context.root.ino) return await mayBeFound(context, context.root);
  if (!Number.isSafeInteger(ino) || ino < 1 || ino > context.format.inoMax) throw errnoError(E.ESTALE);
  return await mayBeFound(context, await identityOf(context, { ino, generation: await generationOf(context, ino) }));
}

async function generationOf(context: LocalContext, ino: number): Promise<number> {
  if (context.findsGeneration === "any") return ANY_GENERATION;
  if (context.findsGeneration === "never") throw errnoError(E.ESTALE);
  const result = await context.native.pool.metadata.generationXfs(context.rootFd, ino);
  if (NO_INODE.has(-result)) throw errnoError(E.ESTALE);
  return checked(result);
}

/** What the inode is that this handle opens. */
async function identityOf(context: LocalContext, id: FileId): Promise<FileId> {
  const { native, rootFd, format } = context;
  const fd = checked(await native.pool.metadata.openByHandle(rootFd, ownHandle(context, id), O.PATH));
  try {
    const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
    checked(native.sync.handleOf(fd, handle));
    return format.decode(handle);
  } finally {
    native.sync.close(fd);
  }
}

/** Not what coverlay hides, nor what has no name; and of a directory as lower (hazard R19) what is in it, which getattr proves. */
async function mayBeFound(context: LocalContext, id: FileId): Promise<Entry> {
  if (await context.hidden.has(id)) throw errnoError(E.ESTALE);
  const attr = await getattr(context, id);
  if (attr.nlink === 0) throw errnoError(E.ESTALE);
  return { id, attr };
}

/** ENAMETOOLONG: of more than 4095 bytes, with the place where the lower is mounted. */
function placeOf(fd: number): Buffer {
  try {
    return shownPath(fd);
  } catch (error) {
    throw errnoError((error as NodeJS.ErrnoException).code === "ENAMETOOLONG" ? E.ENAMETOOLONG : E.EIO);
  }
}

/** Hazard F46. By the kernel's cache of names, since this lower changes them. ESTALE: it is the root, or was removed. */
export function pathOf(context: LocalContext, id: FileId): MaybePromise<Buffer> {
  return context.directories.use(id, (dirfd) => {
    if (attrOfFd(context, dirfd).nlink === 0) throw errnoError(E.ESTALE);
    const [root, found] = [placeOf(context.rootFd), placeOf(dirfd)];
    // Of a root that is the top of its mount name space, or of none: "/".
    const above = root.at(-1) === SLASH ? root.length : root.length + 1;
    if (found.length <= above || !found.subarray(0, root.length).equals(root) || found[above - 1] !== SLASH) throw errnoError(E.ESTALE);
    return found.subarray(above);
  });
}

/** ESTALE: it has none (the root, or one that was removed), or none that may be found. */
export async function parentOf(context: LocalContext, id: FileId): Promise<Entry> {
  if (sameId(id, context.root)) throw errnoError(E.ESTALE);
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  await context.directories.use(id, async (dirfd) => {
    checked(await context.native.pool.metadata.lookup(dirfd, UP, false, new Float64Array(STAT.FIELDS), handle));
  });
  return await mayBeFound(context, context.format.decode(handle));
}
