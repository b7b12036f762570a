/** Extended attributes. Sources: xattr(7), setxattr(2); fs/xattr.c of Linux 6.18. */
import { inodeOf, notOpen, type OnTarget, targetOf } from "./attributes.ts";
import { isRoot, may, owns, READ, STICKY, WRITE } from "./permission.ts";
import { type Operation, operation, type Refuse, refuse } from "./rule.ts";
import type { Inode } from "./state.ts";

export interface Named extends OnTarget {
  readonly name: string;
}

const NAME_MAX = 255;
const P = "fs/xattr.c xattr_permission";
const isUser = (name: string): boolean => name.startsWith("user.");
const isTrusted = (name: string): boolean => name.startsWith("trusted.");
const carriesUser = ({ type }: Inode): boolean => type === "file" || type === "directory";

function badName<A extends Named>(call: string): Refuse<null, A> {
  return refuse(
    "ERANGE",
    `${call}: no name, or one of more than 255 bytes`,
    "fs/xattr.c import_xattr_name",
    (_, { name }) => name === "" || Buffer.byteLength(name) > NAME_MAX,
  );
}

/** xattr_permission, and which handler there is. */
function permission<A extends Named>(call: string, mask: number): Refuse<Inode | null, A>[] {
  const hidden = mask === READ ? "ENODATA" : "EPERM";
  const sticky: Refuse<Inode | null, A> = refuse(
    "EPERM",
    `${call}: user.* of a stranger's sticky directory`,
    P,
    (inode, { name }, { caller }) => {
      const { type, mode } = inodeOf(inode);
      return isUser(name) && type === "directory" && (mode & STICKY) !== 0 && !owns(caller.user, inodeOf(inode));
    },
  );
  return [
    refuse(hidden, `${call}: trusted.* without CAP_SYS_ADMIN`, P, (_, { name }, { caller }) => isTrusted(name) && !isRoot(caller.user)),
    refuse(
      hidden,
      `${call}: user.* of what is neither file nor directory`,
      P,
      (inode, { name }) => isUser(name) && !carriesUser(inodeOf(inode)),
    ),
    ...(mask === WRITE ? [sticky] : []),
    refuse(
      "EACCES",
      `${call}: it may not be ${mask === READ ? "read" : "written"}`,
      P,
      (inode, { name }, { caller }) => !isTrusted(name) && !may(caller.user, inodeOf(inode), mask),
    ),
    refuse(
      "EOPNOTSUPP",
      `${call}: no such class of names`,
      "xattr(7); fs/xattr.c xattr_resolve_name",
      (_, { name }) => !isUser(name) && !isTrusted(name),
    ),
    refuse(
      "EINVAL",
      `${call}: a class without a name`,
      "fs/xattr.c xattr_resolve_name",
      (_, { name }) => name === "user." || name === "trusted.",
    ),
  ];
}

export interface SetXattr extends Named {
  readonly value: string;
  readonly flag: "CREATE" | "REPLACE" | null;
}

export const setxattr: Operation<SetXattr> = operation<SetXattr, Inode | null>({
  name: "setxattr",
  source: "setxattr(2); fs/xattr.c setxattr_copy, vfs_setxattr",
  first: [
    badName("setxattr"),
    refuse("E2BIG", "setxattr: a value of more than 64 KiB", "fs/xattr.c setxattr_copy", (_, { value }) => value.length > 65536),
  ],
  given: targetOf,
  refusals: [
    notOpen("setxattr"),
    ...permission<SetXattr>("setxattr", WRITE),
    refuse(
      "EEXIST",
      "setxattr: XATTR_CREATE, and it is there",
      "setxattr(2)",
      (inode, { name, flag }) => flag === "CREATE" && inodeOf(inode).xattrs.has(name),
    ),
    refuse(
      "ENODATA",
      "setxattr: XATTR_REPLACE, and it is not there",
      "setxattr(2)",
      (inode, { name, flag }) => flag === "REPLACE" && !inodeOf(inode).xattrs.has(name),
    ),
  ],
  effect(inode, { name, value }, world) {
    const { ino, xattrs } = inodeOf(inode);
    // A file system may see that the value is the same, and leave the time: the model says nothing of it then.
    const ctime = xattrs.get(name) === value ? null : world.now;
    world.change(ino, { xattrs: new Map(xattrs).set(name, value), ctime });
    return null;
  },
});

export const getxattr: Operation<Named> = operation<Named, Inode | null>({
  name: "getxattr",
  source: "getxattr(2); fs/xattr.c vfs_getxattr",
  first: [badName("getxattr")],
  given: targetOf,
  refusals: [
    notOpen("getxattr"),
    ...permission<Named>("getxattr", READ),
    refuse("ENODATA", "getxattr: it is not there", "getxattr(2)", (inode, { name }) => !inodeOf(inode).xattrs.has(name)),
  ],
  effect: (inode, { name }) => inodeOf(inode).xattrs.get(name),
});

export const listxattr: Operation<OnTarget> = operation<OnTarget, Inode | null>({
  name: "listxattr",
  source: "listxattr(2); fs/xattr.c vfs_listxattr",
  given: targetOf,
  refusals: [notOpen("listxattr")],
  effect: (inode, _, { caller }) => [...inodeOf(inode).xattrs.keys()].filter((name) => !isTrusted(name) || isRoot(caller.user)).toSorted(),
});

export const removexattr: Operation<Named> = operation<Named, Inode | null>({
  name: "removexattr",
  source: "removexattr(2); fs/xattr.c vfs_removexattr",
  first: [badName("removexattr")],
  given: targetOf,
  refusals: [
    notOpen("removexattr"),
    ...permission<Named>("removexattr", WRITE),
    refuse("ENODATA", "removexattr: it is not there", "removexattr(2)", (inode, { name }) => !inodeOf(inode).xattrs.has(name)),
  ],
  effect(inode, { name }, world) {
    const { ino, xattrs } = inodeOf(inode);
    const left = new Map(xattrs);
    left.delete(name);
    world.change(ino, { xattrs: left, ctime: world.now });
    return null;
  },
});
