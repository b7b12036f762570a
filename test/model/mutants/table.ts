/** Mutants of the overlay: one rule broken each, in a way that a program can see. What must notice them is the specification (try.ts). */
import type { Mutation } from "../../sim/mutation.ts";

/** The lab has two nodes. Node 1 is the owner: its lower is local, that of node 2 is remote. */
export type Through = "node 1" | "node 2" | "both";

export interface Mutant extends Pick<Mutation, "id" | "breaks" | "file" | "find" | "replace"> {
  /** Mounts through which calls are made in turn. "both": through one alone nothing is seen. */
  readonly through: Through;
  /** Programs make calls at once: no order of one call after the other shows it. */
  readonly atOnce?: true;
}

const dataOp = "overlay/op/data.ts";
const create = "overlay/op/create.ts";
const write = "overlay/op/write.ts";
const rename = "overlay/op/rename.ts";
const xattr = "overlay/op/xattr.ts";
const reply = "overlay/fuse/reply.ts";
const localAttributes = "overlay/lower/local/attributes.ts";
const localData = "overlay/lower/local/data.ts";
const localNames = "overlay/lower/local/names.ts";
const directory = "overlay/lower/local/directory.ts";
const known = "overlay/lower/remote/known.ts";
const values = "overlay/lower/wire/values.ts";
const calls = "overlay/lower/wire/calls.ts";
const names = "overlay/coherence/names/names.ts";
const revoke = "overlay/coherence/lock/revoke.ts";

const onOwner: readonly Mutant[] = [
  {
    id: "umask-forgotten",
    breaks: "what is made has all bits of its mode: the umask is missing",
    file: create,
    find: "umask: mount.dontMask ? umask : 0 }",
    replace: "umask: 0 }",
    through: "node 1",
  },
  {
    id: "group-of-root",
    breaks: "what is made belongs to the group of root",
    file: create,
    find: "return { uid: call.uid, gid: call.gid, umask",
    replace: "return { uid: call.uid, gid: 0, umask",
    through: "node 1",
  },
  {
    id: "errno-of-a-huge-size",
    breaks: "truncate(2) to more than any file has: EINVAL, not EFBIG",
    file: "overlay/op/attr.ts",
    find: "change.size > Number.MAX_SAFE_INTEGER) throw errnoError(E.EFBIG)",
    replace: "change.size > Number.MAX_SAFE_INTEGER) throw errnoError(E.EINVAL)",
    through: "node 1",
  },
  {
    id: "errno-order-of-long-names",
    breaks: "a name that is too long is told absent before it is told too long",
    file: "overlay/lower/local/local.ts",
    find: "isAbsent: (parent, name) => name.length <= NAME_MAX && context.names.get(parent, name) === null,",
    replace: "isAbsent: (parent, name) => context.names.get(parent, name) === null,",
    through: "node 1",
  },
  {
    id: "errno-of-a-long-name",
    breaks: "a name that is too long: EINVAL, not ENAMETOOLONG",
    file: "overlay/lower/limits.ts",
    find: "if (name.length > NAME_MAX) throw errnoError(E.ENAMETOOLONG);",
    replace: "if (name.length > NAME_MAX) throw errnoError(E.EINVAL);",
    through: "node 1",
  },
  {
    id: "mtime-not-set",
    breaks: "utimensat(2) leaves the mtime",
    file: localAttributes,
    find: "timeFields(mtime);",
    replace: "timeFields(undefined);",
    through: "node 1",
  },
  {
    id: "mtime-in-seconds",
    breaks: "the nanoseconds of the mtime are lost in a reply",
    file: reply,
    find: "write32(buffer, at + 52, a.mtimeNsec);",
    replace: "write32(buffer, at + 52, 0);",
    through: "node 1",
  },
  {
    id: "ctime-is-mtime",
    breaks: "a reply has the mtime in place of the ctime",
    file: reply,
    find: "write64(buffer, at + 40, a.ctimeSec);",
    replace: "write64(buffer, at + 40, a.mtimeSec);",
    through: "node 1",
  },
  {
    id: "ftruncate-without-size",
    breaks: "ftruncate(2) changes no size",
    file: localAttributes,
    find: "if (usable) return context.handles.use(file, (fd) => apply(fd, fd));",
    replace: "if (usable) return context.handles.use(file, (fd) => apply(fd, null));",
    through: "node 1",
  },
  {
    id: "truncate-without-zeros",
    breaks: "truncate(2) to a shorter size leaves the old bytes for the next longer one",
    file: localAttributes,
    find: "steps.push(() => context.native.pool.data.ftruncate(sizeFd, size));",
    replace:
      "steps.push(() => (context.sync.stat(sizeFd, context.stat) === 0 && size > 0 && size < (context.stat[STAT.SIZE] as number) ? 0 : context.native.pool.data.ftruncate(sizeFd, size)));",
    through: "node 1",
  },
  {
    id: "append-over-the-start",
    breaks: "a write with O_APPEND goes to the beginning",
    file: localData,
    find: "append ? RWF.APPEND : 0)",
    replace: "0)",
    through: "node 1",
  },
  {
    id: "write-keeps-setuid",
    breaks: "set-user-ID stays when a stranger writes",
    file: write,
    find: "kills && before === null ? killSuidgid(mount, call, file, request.offset, append) : null",
    replace: "null",
    through: "node 1",
  },
  {
    id: "fallocate-keeps-setuid",
    breaks: "set-user-ID stays after fallocate(2) of a stranger",
    file: dataOp,
    find: "      killed = await killSetId(mount, call, file);\n",
    replace: "",
    through: "node 1",
  },
  {
    id: "setgid-stays",
    breaks: "set-group-ID stays where set-user-ID goes",
    file: localAttributes,
    find: "const group = (mode & S.IXGRP) !== 0 ? S.ISGID : 0;",
    replace: "const group = 0;",
    through: "node 1",
  },
  {
    id: "xattr-flag-ignored",
    breaks: "XATTR_CREATE and XATTR_REPLACE are ignored",
    file: localAttributes,
    find: "context.metadata.setxattr(fd, name, value, flags)",
    replace: "context.metadata.setxattr(fd, name, value, 0)",
    through: "node 1",
  },
  {
    id: "trusted-shown-to-all",
    breaks: "listxattr(2) shows trusted.* to everybody",
    file: xattr,
    find: "request.uid === 0 ? list : withoutTrusted(list)",
    replace: "list",
    through: "node 1",
  },
  {
    id: "readdir-once",
    breaks: "a directory that is read again through one handle is empty",
    file: directory,
    find: "if (directory.position !== cookie) seekTo(context, fd, cookie);",
    replace: "",
    through: "node 1",
  },
  {
    id: "readdir-first-page",
    breaks: "of a directory with many names the first page is all that is listed",
    file: directory,
    find: "if (count === 0) {",
    replace: "if (count === 0 || cookie > 0n) {",
    through: "node 1",
  },
  {
    id: "readdir-omits-the-last",
    breaks: "the last name of a page is left out",
    file: directory,
    find: "const all = parseEntries(buffer.subarray(0, count));",
    replace: "const all = parseEntries(buffer.subarray(0, count)); if (cookie > 0n) all.splice(-1, 1);",
    through: "node 1",
  },
  {
    id: "nlink-of-a-link",
    breaks: "the reply to link(2) has the link count from before it",
    file: create,
    find: "giveEntry(mount, call, inode, attr, terms.of(inode, attr.size, call.pid, null, { dir, name, stands }));",
    replace:
      "giveEntry(mount, call, inode, { ...attr, nlink: attr.nlink - 1 }, { ...terms.of(inode, attr.size, call.pid, null, { dir, name, stands }), attrValid: true });",
    through: "node 1",
  },
  {
    id: "seek-data-for-hole",
    breaks: "SEEK_DATA and SEEK_HOLE answer with the place that was asked about",
    file: localData,
    find: "checked(await context.native.pool.data.lseek(fd, offset, whence))",
    replace: "offset",
    through: "node 1",
  },
];

const onOther: readonly Mutant[] = [
  {
    id: "remote-umask",
    breaks: "the umask is lost on the way to the owner",
    file: values,
    find: "writer.u32(caller.uid).u32(caller.gid).u32(caller.umask);",
    replace: "writer.u32(caller.uid).u32(caller.gid).u32(0);",
    through: "node 2",
  },
  {
    id: "remote-setuid",
    breaks: "that set-user-ID must go is lost on the way to the owner",
    file: values,
    find: "if (change.killSuidgid === true) bits |= CHANGES.killSuidgid;",
    replace: "",
    through: "node 2",
  },
  {
    id: "remote-copy-offset",
    breaks: "copy_file_range(2) reads at the offset at which it writes",
    file: calls,
    find: "void w.u32(q.inHandle).u64(q.inOffset)",
    replace: "void w.u32(q.inHandle).u64(q.outOffset)",
    through: "node 2",
  },
  {
    id: "remote-rename-flags",
    breaks: "RENAME_NOREPLACE and RENAME_EXCHANGE are lost on the way to the owner",
    file: calls,
    find: "w.u32(q.flags);\n        v.writeFileId(w, q.expectedOld);",
    replace: "w.u32(0);\n        v.writeFileId(w, q.expectedOld);",
    through: "node 2",
  },
  {
    id: "remote-times-in-seconds",
    breaks: "the nanoseconds of a time that is set are lost on the way to the owner",
    file: values,
    find: "  return { sec, nsec };",
    replace: "  return { sec, nsec: 0 };",
    through: "node 2",
  },
  {
    id: "remote-size-forgotten",
    breaks: "that a size is set is lost on the way to the owner",
    file: values,
    find: "if (has(CHANGES.size)) change.size = reader.u64();",
    replace: "if (has(CHANGES.size)) reader.u64();",
    through: "node 2",
  },
];

/** Stale caches: another mount must have looked before, and must look again. */
const onBoth: readonly Mutant[] = [
  {
    id: "stale-attributes",
    breaks: "a lock goes, and the kernel keeps the attributes and pages of a file",
    file: revoke,
    find: 'return { what: cover.kind === "file" ? "pages-and-size" : "pages", except: heldBack(cover, revoke) };',
    replace: 'return { what: "late" };',
    through: "both",
  },
  {
    id: "stale-link-attributes",
    breaks: "a lock goes, and the kernel keeps the attributes of what is no file and no directory",
    file: revoke,
    find: 'return { what: cover.kind === "file" ? "pages-and-size" : "pages", except: heldBack(cover, revoke) };',
    replace: 'return cover.kind === "file" ? { what: "pages-and-size", except: heldBack(cover, revoke) } : { what: "late" };',
    through: "both",
  },
  {
    id: "stale-directory-attributes",
    breaks: "a directory's lock goes, and the kernel keeps its attributes",
    file: "overlay/coherence/kernel/revoke-round.ts",
    find: "return this.#caches.invalidateAttributes(dir.fuseNodeid);",
    replace: "return [0];",
    through: "both",
  },
  {
    id: "stale-names",
    breaks: "a directory's lock goes, and the kernel keeps the names of its files",
    file: names,
    find: "if (!valid) continue;",
    replace: "if (!valid || told.child !== null) continue;",
    through: "both",
  },
  {
    id: "stale-absent-names",
    breaks: "a directory's lock goes, and the kernel keeps the names that were not there",
    file: names,
    find: "if (!valid) continue;",
    replace: "if (!valid || told.child === null) continue;",
    through: "both",
  },
  {
    id: "stale-moved-name",
    breaks: "after a rename nobody remembers that the kernel has the new name",
    file: rename,
    find: "  coherence.names.moveEntry(oldDir, request.name, newDir, request.newName);\n",
    // Of both names: the kernel was told of the new one, too, when it looked for it before the rename.
    replace: "  coherence.names.dropEntry(oldDir, request.name); coherence.names.dropEntry(newDir, request.newName);\n",
    through: "both",
  },
  {
    // What the kernel was told of the new name is remembered beside it, until it forgets a directory that was replaced there.
    id: "stale-moved-name-alone",
    breaks: "after a rename nobody remembers that the kernel has the old name's file at the new one",
    file: rename,
    find: "  coherence.names.moveEntry(oldDir, request.name, newDir, request.newName);\n",
    replace: "  coherence.names.dropEntry(oldDir, request.name);\n",
    through: "both",
  },
  {
    id: "rename-forgets-the-other-name",
    breaks: "after a rename between two names of one file the first one is told absent",
    file: "overlay/lower/directory-names.ts",
    find: "(flags & RENAME.EXCHANGE) !== 0 || fileKey(replaced) === fileKey(moved)",
    replace: "(flags & RENAME.EXCHANGE) !== 0",
    through: "both",
  },
  {
    id: "stale-exchanged-names",
    breaks: "after an exchange nobody remembers that the kernel has the two names",
    file: rename,
    find: "coherence.names.exchangeEntries(oldDir, request.name, newDir, request.newName);",
    replace: "coherence.names.dropEntry(oldDir, request.name); coherence.names.dropEntry(newDir, request.newName);",
    through: "both",
  },
  {
    id: "stale-nlink-after-link",
    breaks: "link(2) leaves the inode's lock where it is: its link count is old elsewhere",
    file: create,
    find: "const wants = [dir, inode].map((one) => ({ inode: one, mode: Mode.EX }));",
    replace: "const wants = [dir].map((one) => ({ inode: one, mode: Mode.EX }));",
    through: "both",
  },
  {
    id: "stale-nlink-after-unlink",
    breaks: "unlink(2) leaves the inode's lock where it is: its other name has an old link count elsewhere",
    file: "overlay/op/remove.ts",
    find: "    { inode, mode: Mode.EX },\n",
    replace: "",
    through: "both",
  },
  {
    id: "stale-replaced-by-rename",
    breaks: "rename(2) leaves the lock of what it replaces where it is",
    file: rename,
    find: "inode, ...(replaced.inode === null ? [] : [replaced.inode])];",
    replace: "inode];",
    through: "both",
  },
  {
    id: "stale-moved-ctime",
    breaks: "rename(2) leaves the lock of what it moves where it is",
    file: rename,
    find: "const wants = inodes.map((one) => ({ inode: one, mode: Mode.EX }));",
    replace: "const wants = inodes.filter((one) => one !== inode).map((one) => ({ inode: one, mode: Mode.EX }));",
    through: "both",
  },
  {
    id: "stale-xattr-ctime",
    breaks: "setxattr(2) is made under a lock for reading",
    file: xattr,
    find: "return pinned(mount, call, inode, Mode.EX, () =>\n    andThen(checkXattr(",
    replace: "return pinned(mount, call, inode, Mode.PR, () =>\n    andThen(checkXattr(",
    through: "both",
  },
  {
    id: "stale-mode",
    breaks: "chmod, chown, utimes and truncate are made under a lock for reading",
    file: "overlay/op/attr.ts",
    find: "{ inode, mode: Mode.EX, cached, unstable: truncates }",
    replace: "{ inode, mode: Mode.PR, cached, unstable: truncates }",
    through: "both",
  },
  {
    id: "stale-after-fallocate",
    breaks: "fallocate(2) is made under a lock for reading",
    file: dataOp,
    find: "pinnedData(mount, call, { inode, mode: Mode.EX, cached, unstable }",
    replace: "pinnedData(mount, call, { inode, mode: Mode.PR, cached, unstable }",
    through: "both",
  },
  {
    id: "stale-after-copy",
    breaks: "copy_file_range(2) is made under a lock for reading of its target",
    file: dataOp,
    find: "{ inode: target.inode, mode: Mode.EX },",
    replace: "{ inode: target.inode, mode: Mode.PR },",
    through: "both",
  },
  {
    id: "stale-listing",
    breaks: "a name is made under a lock for reading of its directory",
    file: create,
    find: "return pinned(mount, call, dir, Mode.EX, () => withErrors(work, inGoneDirectory));",
    replace: "return pinned(mount, call, dir, Mode.PR, () => withErrors(work, inGoneDirectory));",
    through: "both",
  },
  {
    id: "stale-known-attributes",
    breaks: "what a node knows of an inode counts when its lock has been elsewhere since",
    file: known,
    find: "known.hold !== 0 && known.hold === this.#holds.of(id) ? known : undefined",
    replace: "known.hold !== 0 ? known : undefined",
    through: "both",
  },
  {
    id: "stale-known-names",
    breaks: "names that a node knows of a directory count when its lock has been elsewhere since",
    file: known,
    find: "if (known === undefined || known.namesHold !== known.hold) return undefined;",
    replace: "if (known === undefined) return undefined;",
    through: "both",
  },
];

const atOnce: readonly Mutant[] = [
  {
    id: "exclusive-for-two",
    breaks: "open(2) with O_CREAT and O_EXCL opens what another program made meanwhile",
    file: create,
    find: "if (!isErrno(error, E.EEXIST) || (request.flags & O_EXCL) !== 0) throw error;",
    replace: "if (!isErrno(error, E.EEXIST)) throw error;",
    through: "both",
    atOnce: true,
  },
  {
    id: "append-where-the-kernel-believes",
    breaks: "a write with O_APPEND goes where this node's kernel last saw the end",
    file: write,
    find: "(request.flags & O_APPEND) !== 0 || isSentinelOffset(request.offset);",
    replace: "isSentinelOffset(request.offset);",
    through: "both",
    atOnce: true,
  },
  {
    id: "removes-what-came-later",
    breaks: "unlink(2) and rmdir(2) remove whatever has the name by then",
    file: localNames,
    find: "if (!sameId(entry.id, expected)) throw errnoError(E.ESTALE);",
    replace: "",
    through: "both",
    atOnce: true,
  },
];

export const mutants: readonly Mutant[] = [...onOwner, ...onOther, ...onBoth, ...atOnce];

/** A rule that something else stands in for, where the mutants are tried: no program there can see it broken. */
export interface Equivalent extends Mutant {
  readonly because: string;
}

export const equivalents: readonly Equivalent[] = [];
