/** open(2) and close(2). Source: fs/namei.c path_openat, open_last_lookups, do_open, may_open of Linux 6.18. */
import { createIn } from "./names.ts";
import { lookup, type Last, parentOf, throughLink, walk } from "./path.ts";
import { EXEC, may, modeAfterWrite, owns, READ, STICKY, WRITE } from "./permission.ts";
import { holds, type Operation, operation, refuse, Unspecified } from "./rule.ts";
import type { Inode } from "./state.ts";
import type { World } from "./world.ts";

export type OpenFlag = "CREAT" | "EXCL" | "TRUNC" | "APPEND" | "DIRECTORY" | "NOFOLLOW" | "NOATIME";

export interface Open {
  readonly path: string;
  readonly access: "RDONLY" | "WRONLY" | "RDWR";
  readonly flags: readonly OpenFlag[];
  readonly mode: number;
  readonly slot: number;
}

interface Opened {
  /** Where the walk ended; null of a call without O_CREAT. */
  readonly last: Last | null;
  readonly inode: Inode | null;
}

const has = ({ flags }: Open, flag: OpenFlag): boolean => flags.includes(flag);

/** A link in the last place is followed, and the name that it leads to may be made. */
function whereToCreate(world: World, args: Open): Opened {
  const follow = !has(args, "NOFOLLOW") && !has(args, "EXCL");
  for (let last = parentOf(world, args.path); ; ) {
    if (last.kind !== "normal") return { last, inode: last.kind === "dotdot" ? world.inode(last.dir.parent) : last.dir };
    if (last.slash) return { last, inode: null };
    const inode = lookup(world, last.dir, last.name);
    if (inode?.type !== "symlink" || !follow) return { last, inode };
    last = throughLink(world, last.dir, inode, last.links, true);
  }
}

const wanted = (args: Open): number =>
  (args.access === "WRONLY" ? 0 : READ) | (args.access === "RDONLY" && !has(args, "TRUNC") ? 0 : WRITE);

/** may_create_in_sticky. */
function isGuarded(world: World, dir: Inode, inode: Inode): boolean {
  const { user } = world.caller;
  const { protectedFifos, protectedRegular } = world.kernel;
  if ((dir.mode & STICKY) === 0 || inode.uid === dir.uid || inode.uid === user.uid) return false;
  if (inode.type === "file" && protectedRegular === 0) return false;
  if (inode.type === "fifo" && protectedFifos === 0) return false;
  if ((dir.mode & 0o002) !== 0) return true;
  const strict = (inode.type === "fifo" && protectedFifos >= 2) || (inode.type === "file" && protectedRegular >= 2);
  return (dir.mode & 0o020) !== 0 && strict;
}

const hasReader = (world: World, inode: Inode): boolean =>
  world.opens(inode.ino).some((handle) => handle.read && handle.mount === world.caller.mount);

const created = holds("open: the file is made, and open whatever its mode", "open(2) O_CREAT; fs/namei.c do_open");
const cut = holds("open: O_TRUNC cuts a file to nothing, and its set-user-ID goes as at a write", "open(2); fs/open.c do_truncate");
const replaced = holds("open: the slot was in use, and what it held is closed", "this model");

export const open: Operation<Open> = operation<Open, Opened>({
  name: "open",
  source: "open(2); fs/namei.c path_openat",
  clauses: [created, cut, replaced],
  first: [
    refuse(
      "EINVAL",
      "open: O_CREAT and O_DIRECTORY together",
      "fs/open.c build_open_flags, since Linux 6.4",
      (_, args) => has(args, "CREAT") && has(args, "DIRECTORY"),
    ),
  ],
  given: (world, args) =>
    has(args, "CREAT") ? whereToCreate(world, args) : { last: null, inode: walk(world, args.path, !has(args, "NOFOLLOW")) },
  refusals: [
    refuse(
      "EISDIR",
      "open: O_CREAT of a name with a slash behind it",
      "fs/namei.c open_last_lookups",
      ({ last }) => last?.kind === "normal" && last.slash,
    ),
    refuse(
      "EACCES",
      "open: O_CREAT in a directory that may not be written",
      "fs/namei.c may_o_create",
      ({ last, inode }, _, world) => last !== null && inode === null && !may(world.caller.user, last.dir, WRITE | EXEC),
    ),
    refuse(
      "EEXIST",
      "open: O_EXCL, and the name is there",
      "fs/namei.c do_open",
      ({ last, inode }, args) => last !== null && inode !== null && has(args, "EXCL"),
    ),
    refuse(
      "EISDIR",
      "open: O_CREAT of a directory",
      "fs/namei.c do_open",
      ({ last, inode }) => last !== null && inode?.type === "directory",
    ),
    refuse(
      "EACCES",
      "open: O_CREAT of a stranger's file in a sticky directory",
      "proc_sys_fs(5) protected_regular, protected_fifos; fs/namei.c may_create_in_sticky",
      ({ last, inode }, _, world) => last !== null && inode !== null && isGuarded(world, last.dir, inode),
    ),
    refuse(
      "ENOTDIR",
      "open: O_DIRECTORY of what is none",
      "fs/namei.c do_open",
      ({ inode }, args) => inode !== null && has(args, "DIRECTORY") && inode.type !== "directory",
    ),
    refuse("ELOOP", "open: O_NOFOLLOW of a symbolic link", "fs/namei.c may_open", ({ inode }) => inode?.type === "symlink"),
    refuse(
      "EISDIR",
      "open: a directory for writing",
      "fs/namei.c may_open",
      ({ inode }, args) => inode?.type === "directory" && (wanted(args) & WRITE) !== 0,
    ),
    refuse(
      "EACCES",
      "open: its mode does not allow it",
      "fs/namei.c may_open",
      ({ inode }, args, world) => inode !== null && !may(world.caller.user, inode, wanted(args)),
    ),
    refuse(
      "EPERM",
      "open: O_NOATIME of a stranger's",
      "fs/namei.c may_open",
      ({ inode }, args, world) => inode !== null && has(args, "NOATIME") && !owns(world.caller.user, inode),
    ),
    refuse("ENXIO", "open: a socket", "open(2); fs/inode.c no_open", ({ inode }) => inode?.type === "socket"),
    refuse(
      "ENXIO",
      "open: a FIFO for writing only, without a reader, O_NONBLOCK",
      "fifo(7); fs/pipe.c fifo_open",
      ({ inode }, args, world) => inode?.type === "fifo" && args.access === "WRONLY" && !hasReader(world, inode),
    ),
  ],
  effect({ last, inode: there }, args, world) {
    if (there?.type === "char") throw new Unspecified("a device answers, not the file system");
    let inode = there;
    if (inode === null) {
      if (last === null) throw new Error("open without an inode");
      inode = createIn(world, last.dir, last.name, "file", args.mode & 0o7777);
      world.reach(created);
    } else if (has(args, "TRUNC") && inode.type === "file") {
      world.reach(cut);
      const mode = modeAfterWrite(world.caller.user, inode);
      world.change(inode.ino, { data: new Uint8Array(), mode, mtime: world.now, ctime: world.now });
    }
    if (world.handle(args.slot) !== null) world.reach(replaced);
    const { mount } = world.caller;
    const read = args.access !== "WRONLY";
    const write = args.access !== "RDONLY";
    world.setHandle(args.slot, { ino: inode.ino, mount, read, write, append: has(args, "APPEND"), position: 0 });
    return null;
  },
});

export const close: Operation<{ slot: number }> = operation({
  name: "close",
  source: "close(2)",
  given: () => null,
  refusals: [refuse("EBADF", "close: it is not open", "close(2)", (_, { slot }, world) => world.handle(slot) === null)],
  effect(_, { slot }, world) {
    world.setHandle(slot, null);
    return null;
  },
});
