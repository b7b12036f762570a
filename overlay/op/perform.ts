/** A decoded request to its handler: the one total switch. What concerns the session itself (INIT, INTERRUPT, DESTROY) is not for here. */
import { assertNever } from "../../dlmd/base/assert.ts";
import type { DestroyRequest, ForgetRequest, InitRequest, InterruptRequest, NotifyReplyRequest, Request } from "../fuse/request.ts";
import { getattr, readlink, setattr, statfs, syncfs } from "./attr.ts";
import type { Call } from "./call.ts";
import { create, link, mkdir, mknod, symlink, tmpfile } from "./create.ts";
import { copyFileRange, fallocate, fsync, lseek, read } from "./data.ts";
import { readdir } from "./dir.ts";
import { ioctl } from "./ioctl.ts";
import { getlk, setlk } from "./lock.ts";
import { lookup } from "./lookup.ts";
import { isByHandle, lookupByHandle } from "./lookup-handle.ts";
import type { Mount } from "./mount.ts";
import { flush, open, opendir, release } from "./open.ts";
import { remove } from "./remove.ts";
import { rename } from "./rename.ts";
import { write } from "./write.ts";
import { getxattr, listxattr, removexattr, setxattr } from "./xattr.ts";

/** What is answered, and by an operation. */
export type Operation = Exclude<Request, InitRequest | ForgetRequest | InterruptRequest | NotifyReplyRequest | DestroyRequest>;

/** Answers `call`, exactly once, or fails: the Errno to answer with, or a bug. May throw at once or reject. */
export function perform(mount: Mount, call: Call, request: Operation): Promise<void> | void {
  switch (request.op) {
    case "lookup":
      return isByHandle(request) ? lookupByHandle(mount, call, request) : lookup(mount, call, request);
    case "getattr":
    case "statx":
      return getattr(mount, call, request);
    case "setattr":
      return mount.staleOnce.onInode(call, () => setattr(mount, call, request));
    case "readlink":
      return readlink(mount, call, request);
    case "symlink":
      return symlink(mount, call, request);
    case "mknod":
      return mknod(mount, call, request);
    case "mkdir":
      return mkdir(mount, call, request);
    case "unlink":
    case "rmdir":
      return remove(mount, call, request);
    case "rename":
      return rename(mount, call, request);
    case "link":
      return link(mount, call, request);
    case "open":
      return mount.staleOnce.onInode(call, () => open(mount, call, request));
    case "opendir":
      return mount.staleOnce.onInode(call, () => opendir(mount, call, request));
    case "read":
      return read(mount, call, request);
    case "write":
      return write(mount, call, request);
    case "statfs":
      return statfs(mount, call);
    case "release":
    case "releasedir":
      return release(mount, call, request);
    case "flush":
      return flush(mount, call, request);
    case "getlk":
      return getlk(mount, call, request);
    case "setlk":
      return setlk(mount, call, request);
    case "fsync":
    case "fsyncdir":
      return fsync(mount, call, request);
    case "setxattr":
      return mount.staleOnce.onInode(call, () => setxattr(mount, call, request));
    case "getxattr":
      return mount.staleOnce.onInode(call, () => getxattr(mount, call, request));
    case "listxattr":
      return mount.staleOnce.onInode(call, () => listxattr(mount, call, request));
    case "removexattr":
      return mount.staleOnce.onInode(call, () => removexattr(mount, call, request));
    case "readdir":
    case "readdirplus":
      return readdir(mount, call, request);
    case "create":
      return create(mount, call, request);
    case "tmpfile":
      return tmpfile(mount, call, request);
    case "fallocate":
      return fallocate(mount, call, request);
    case "lseek":
      return lseek(mount, call, request);
    case "copyFileRange":
      return copyFileRange(mount, call, request);
    case "ioctl":
      return ioctl(mount, call, request);
    case "syncfs":
      return syncfs(mount, call);
    case "unserved":
      call.error(request.errno);
      return;
    default:
      return assertNever(request, "request");
  }
}
