/** The access ACL of an inode, where the checks of this room need it (hazards F12, F36). */
import { E, isErrno } from "../../dlmd/base/errno.ts";
import { type MaybePromise, withErrors } from "../../dlmd/base/maybe-promise.ts";
import type { InodeRecord } from "../inode/table.ts";
import { ACCESS_ACL } from "../lower/linux.ts";
import type { Mount } from "./mount.ts";

/** As in the extended attribute; null: it has none, or can have none: a symbolic link. */
export function accessAcl(mount: Mount, inode: InodeRecord): MaybePromise<Buffer | null> {
  if (!mount.lower.hasAcls) return null;
  return withErrors<Buffer | null>(
    () => mount.lower.getxattr(inode.id, ACCESS_ACL),
    (error) => {
      if (isErrno(error, E.ENODATA) || isErrno(error, E.EOPNOTSUPP)) return null;
      throw error;
    },
  );
}
