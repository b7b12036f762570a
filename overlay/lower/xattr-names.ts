/** What a list of an inode's extended attributes says (listxattr(2): names, each with a NUL behind it). */
import { ACCESS_ACL, DEFAULT_ACL } from "./linux.ts";

/** Longer lists are not told with attributes. */
export const XATTR_NAMES_TOLD_MAX = 256;

/** File capabilities (capabilities(7)). A change of the data may take them away. */
export const CAPABILITY: Buffer = Buffer.from("security.capability");
/** On a kernel with SELinux each inode has one, whether a list names it or not (fs/xattr.c, xattr_getsecurity). */
export const SELINUX: Buffer = Buffer.from("security.selinux");

const CLASSES = ["user.", "trusted."];
const LISTED: ReadonlySet<string> = new Set([ACCESS_ACL, DEFAULT_ACL, CAPABILITY, SELINUX].map((name) => name.toString("latin1")));

export function isNamed(list: Buffer, name: Buffer): boolean {
  if (list.length === 0) return false;
  return `\0${list.toString("latin1")}`.includes(`\0${name.toString("latin1")}\0`);
}

/**
 * Whether a list says that there is no attribute of that name. Else there may be one that a list leaves out, or another error: EINVAL of a class without a name
 * (fs/xattr.c, xattr_resolve_name).
 */
export function saysOf(name: Buffer): boolean {
  const text = name.toString("latin1");
  return CLASSES.some((prefix) => text.startsWith(prefix) && text !== prefix) || LISTED.has(text);
}

/** Whether what a list named is what it names after changes of the data, too. */
export function isLasting(list: Buffer): boolean {
  return list.length === 0 || !`\0${list.toString("latin1")}`.includes("\0security.");
}
