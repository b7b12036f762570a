/** Calls about what is in a file. Sources: fs/read_write.c, fs/open.c, fs/ext4/file.c of Linux 6.18; POSIX.1-2017. */
import { inodeOf, notOpen, targetOf } from "./attributes.ts";
import { walk } from "./path.ts";
import { may, modeAfterWrite, WRITE } from "./permission.ts";
import { holds, type Operation, operation, type Refuse, refuse, type Rule, Unspecified } from "./rule.ts";
import type { Handle, Inode } from "./state.ts";
import type { World } from "./world.ts";

export interface OnSlot {
  readonly slot: number;
}

/** A position, or null: that of the handle, which moves. */
export interface At extends OnSlot {
  readonly offset: number | null;
}

interface Opened {
  readonly handle: Handle | null;
  readonly inode: Inode | null;
}

const opened = (world: World, { slot }: OnSlot): Opened => {
  const handle = world.handle(slot);
  return { handle, inode: handle === null ? null : world.inode(handle.ino) };
};
const handleOf = ({ handle }: Opened): Handle => {
  if (handle === null) throw new Error("a refusal before this one says that it is open");
  return handle;
};

function absent<A>(call: string): Refuse<Opened, A> {
  return refuse("EBADF", `${call}: it is not open`, `${call}(2)`, ({ handle }) => handle === null);
}

function negative<A extends At>(call: string): Refuse<null, A> {
  return refuse(
    "EINVAL",
    `${call}: a negative position`,
    "pread(2); fs/read_write.c ksys_pread64",
    (_, { offset }) => offset !== null && offset < 0,
  );
}

function noPosition<A extends At>(call: string): Refuse<Opened, A> {
  return refuse(
    "ESPIPE",
    `${call}: a position in a FIFO`,
    "pread(2); fs/read_write.c ksys_pread64",
    ({ inode }, { offset }) => offset !== null && inode?.type === "fifo",
  );
}

/** Positions have 63 bits. */
const POSITION_MAX = 2n ** 63n - 1n;

function tooFar<A extends At & { readonly length: number }>(call: string): Refuse<Opened, A> {
  return refuse(
    "EINVAL",
    `${call}: up to a position that no number is for`,
    "fs/read_write.c rw_verify_area",
    (_, { offset, length }) => offset !== null && BigInt(offset) + BigInt(length) > POSITION_MAX,
  );
}

const setuidGoes = holds(
  "write: set-user-ID goes, and set-group-ID, if a stranger or the owner writes",
  "write(2); fs/inode.c file_remove_privs",
);
const sparse = holds("write: behind the end, zeros lie between", "lseek(2)");
const appended = holds("write: O_APPEND goes to the end, whatever position is given", "open(2) O_APPEND; pwrite(2) BUGS");
const nothing = holds("write: of no bytes changes nothing", "write(2)");
export const writeRules: readonly Rule[] = [setuidGoes, sparse, appended, nothing];

/** Longer files are real, but have no place in a model's memory. */
const MAX_MODEL_BYTES = 2 ** 24;

function checkRoom(bytes: number): void {
  if (bytes > MAX_MODEL_BYTES) throw new Unspecified("a file that is longer than the model's memory");
}

/** New contents: times, and the bits that go. */
function alter(world: World, inode: Inode, data: Uint8Array): void {
  const mode = modeAfterWrite(world.caller.user, inode);
  if (mode !== inode.mode) world.reach(setuidGoes);
  world.change(inode.ino, { data, mode, mtime: world.now, ctime: world.now });
}

const resized = (data: Uint8Array, length: number): Uint8Array => {
  const made = new Uint8Array(length);
  made.set(data.subarray(0, length));
  return made;
};

function overwritten(data: Uint8Array, offset: number, bytes: Uint8Array): Uint8Array {
  const made = resized(data, Math.max(data.length, offset + bytes.length));
  made.set(bytes, offset);
  return made;
}

export interface Read extends At {
  readonly length: number;
}

export const read: Operation<Read> = operation<Read, Opened>({
  name: "read",
  source: "read(2), pread(2); fs/read_write.c vfs_read",
  first: [negative("read")],
  given: opened,
  refusals: [
    absent("read"),
    noPosition("read"),
    refuse("EBADF", "read: it is not open for reading", "fs/read_write.c vfs_read", (given) => !handleOf(given).read),
    tooFar("read"),
    refuse("EISDIR", "read: a directory", "fs/libfs.c generic_read_dir", ({ inode }) => inode?.type === "directory"),
  ],
  effect(given, { slot, offset, length }, world) {
    const inode = inodeOf(given.inode);
    const handle = handleOf(given);
    if (inode.type !== "file") throw new Unspecified("the bytes of a FIFO are not the file system's");
    const from = offset ?? handle.position;
    const bytes = inode.data.slice(from, from + length);
    world.change(inode.ino, { atime: null });
    if (offset === null) world.setHandle(slot, { ...handle, position: from + bytes.length });
    return Buffer.from(bytes).toString("latin1");
  },
});

export interface Write extends At {
  /** So many bytes of this letter. */
  readonly letter: string;
  readonly length: number;
}

const writesAt = ({ handle, inode }: Opened, { offset }: Pick<At, "offset">): number =>
  handle?.append === true ? (inode?.data.length ?? 0) : (offset ?? handle?.position ?? 0);

export const WRITE_TOO_FAR = "write: at a position where no file has a byte";

export const write: Operation<Write> = operation<Write, Opened>({
  name: "write",
  source: "write(2), pwrite(2); fs/read_write.c vfs_write",
  first: [negative("write")],
  given: opened,
  refusals: [
    absent("write"),
    noPosition("write"),
    refuse("EBADF", "write: it is not open for writing", "fs/read_write.c vfs_write", (given) => !handleOf(given).write),
    tooFar("write"),
    refuse(
      "EFBIG",
      WRITE_TOO_FAR,
      "fs/read_write.c generic_write_check_limits",
      (given, args, { kind }) => given.inode?.type === "file" && args.length > 0 && BigInt(writesAt(given, args)) >= kind.maxFileBytes,
    ),
  ],
  effect(given, { slot, offset, letter, length }, world) {
    const inode = inodeOf(given.inode);
    const handle = handleOf(given);
    if (inode.type !== "file") throw new Unspecified("the bytes of a FIFO are not the file system's");
    if (length === 0) {
      world.reach(nothing);
      return 0;
    }
    const at = writesAt(given, { offset });
    checkRoom(at + length);
    if (handle.append) world.reach(appended);
    if (at > inode.data.length) world.reach(sparse);
    alter(world, inode, overwritten(inode.data, at, new Uint8Array(length).fill(letter.charCodeAt(0))));
    if (offset === null) world.setHandle(slot, { ...handle, position: at + length });
    return length;
  },
});

export interface Lseek extends OnSlot {
  readonly offset: number;
  readonly whence: "SET" | "CUR" | "END";
}

const seekTo = ({ inode, handle }: Opened, { offset, whence }: Lseek): number =>
  offset + (whence === "SET" ? 0 : whence === "CUR" ? (handle?.position ?? 0) : (inode?.data.length ?? 0));

export const lseek: Operation<Lseek> = operation<Lseek, Opened>({
  name: "lseek",
  source: "lseek(2); fs/read_write.c generic_file_llseek_size",
  given: opened,
  refusals: [
    absent("lseek"),
    refuse("ESPIPE", "lseek: a FIFO", "lseek(2)", ({ inode }) => inode?.type === "fifo"),
    refuse(
      "EINVAL",
      "lseek: to a negative position",
      "lseek(2)",
      (given, args) => inodeOf(given.inode).type === "file" && seekTo(given, args) < 0,
    ),
  ],
  effect(given, args, world) {
    if (inodeOf(given.inode).type !== "file") throw new Unspecified("positions in a directory are cookies");
    const position = seekTo(given, args);
    world.setHandle(args.slot, { ...handleOf(given), position });
    return position;
  },
});

export interface Truncate {
  readonly path: string;
  readonly length: number;
}

const tooLong = (world: World, length: number): boolean => BigInt(length) > world.kind.maxFileBytes;

function setLength(world: World, inode: Inode, length: number, always: boolean): null {
  checkRoom(length);
  const early = length === 0 && inode.data.length === 0 && world.kind.emptyTruncateKeepsSetuid && !always;
  if (early) return null;
  const mode = modeAfterWrite(world.caller.user, inode);
  // Where the length stays, truncate(2) may leave the times, as XFS does, or set them, as ext4 does.
  const time = always || length !== inode.data.length ? world.now : null;
  if (mode !== inode.mode) world.reach(setuidGoes);
  world.change(inode.ino, { data: resized(inode.data, length), mode, mtime: time, ctime: time });
  return null;
}

export const truncate: Operation<Truncate> = operation<Truncate, Inode>({
  name: "truncate",
  source: "truncate(2); fs/open.c vfs_truncate",
  first: [refuse("EINVAL", "truncate: a negative length", "fs/open.c do_sys_truncate", (_, { length }) => length < 0)],
  given: (world, { path }) => walk(world, path, true),
  refusals: [
    refuse("EISDIR", "truncate: a directory", "fs/open.c vfs_truncate", ({ type }) => type === "directory"),
    refuse("EINVAL", "truncate: what is no file", "fs/open.c vfs_truncate", ({ type }) => type !== "file"),
    refuse(
      "EACCES",
      "truncate: it may not be written",
      "fs/open.c vfs_truncate",
      (inode, _, { caller }) => !may(caller.user, inode, WRITE),
    ),
    refuse("EFBIG", "truncate: longer than a file can be", "fs/attr.c inode_newsize_ok", (_, { length }, world) => tooLong(world, length)),
  ],
  effect: (inode, { length }, world) => setLength(world, inode, length, false),
});

export interface Ftruncate extends OnSlot {
  readonly length: number;
}

export const ftruncate: Operation<Ftruncate> = operation<Ftruncate, Opened>({
  name: "ftruncate",
  source: "ftruncate(2); fs/open.c do_ftruncate",
  first: [refuse("EINVAL", "ftruncate: a negative length", "fs/open.c do_sys_ftruncate", (_, { length }) => length < 0)],
  given: opened,
  refusals: [
    absent("ftruncate"),
    refuse(
      "EINVAL",
      "ftruncate: not a file that is open for writing",
      "fs/open.c do_ftruncate",
      (given) => given.inode?.type !== "file" || !handleOf(given).write,
    ),
    refuse("EFBIG", "ftruncate: longer than a file can be", "fs/attr.c inode_newsize_ok", (_, { length }, world) => tooLong(world, length)),
  ],
  effect: (given, { length }, world) => setLength(world, inodeOf(given.inode), length, true),
});

export interface Fallocate extends OnSlot {
  readonly mode: readonly ("KEEP_SIZE" | "PUNCH_HOLE" | "ZERO_RANGE")[];
  readonly offset: number;
  readonly length: number;
}

const zeroes = holds("fallocate: a hole or a range of zeros reads as zeros", "fallocate(2)");
const grows = holds("fallocate: without KEEP_SIZE the file ends behind the range", "fallocate(2)");

export const FALLOCATE_TOO_FAR = "fallocate: a range that ends where no file can";

export const fallocate: Operation<Fallocate> = operation<Fallocate, Opened>({
  name: "fallocate",
  source: "fallocate(2); fs/open.c vfs_fallocate",
  clauses: [zeroes, grows],
  given: opened,
  refusals: [
    absent("fallocate"),
    refuse(
      "EINVAL",
      "fallocate: a negative offset, or no length",
      "fs/open.c vfs_fallocate",
      (_, { offset, length }) => offset < 0 || length <= 0,
    ),
    refuse(
      "EOPNOTSUPP",
      "fallocate: two modes, or PUNCH_HOLE without KEEP_SIZE",
      "fs/open.c vfs_fallocate",
      (_, { mode }) => mode.includes("PUNCH_HOLE") && (!mode.includes("KEEP_SIZE") || mode.includes("ZERO_RANGE")),
    ),
    refuse("EBADF", "fallocate: it is not open for writing", "fs/open.c vfs_fallocate", (given) => !handleOf(given).write),
    refuse("ESPIPE", "fallocate: a FIFO", "fs/open.c vfs_fallocate", ({ inode }) => inode?.type === "fifo"),
    refuse(
      "EFBIG",
      FALLOCATE_TOO_FAR,
      "fs/open.c vfs_fallocate",
      (_, { offset, length }, { kind }) => BigInt(offset) + BigInt(length) > kind.maxFileBytes,
    ),
  ],
  effect({ inode }, { mode, offset, length }, world) {
    const before = inodeOf(inode);
    checkRoom(offset + length);
    const end = mode.includes("KEEP_SIZE") ? before.data.length : Math.max(before.data.length, offset + length);
    if (end > before.data.length) world.reach(grows);
    const data = resized(before.data, end);
    if (mode.includes("PUNCH_HOLE") || mode.includes("ZERO_RANGE")) {
      world.reach(zeroes);
      data.fill(0, Math.min(offset, end), Math.min(offset + length, end));
    }
    alter(world, before, data);
    return null;
  },
});

export interface CopyRange {
  readonly from: number;
  readonly fromOffset: number;
  readonly to: number;
  readonly toOffset: number;
  readonly length: number;
}

interface Copied {
  readonly from: Opened;
  readonly to: Opened;
}

/** Of a file system that shares them between files. */
const BLOCK_BYTES = 4096;
const wholeBlocks = (length: number): number => length - (length % BLOCK_BYTES);
const asked = (given: Copied, { fromOffset, length }: CopyRange): number =>
  Math.max(0, Math.min(length, inodeOf(given.from.inode).data.length - fromOffset));

/**
 * How much of that length is shared: all of the blocks' rest only where both files end with it. 0: nothing is, and it is copied.
 * Source: fs/remap_range.c generic_remap_checks, generic_remap_check_len.
 */
function shared(given: Copied, { fromOffset, toOffset }: CopyRange, length: number): number {
  if (fromOffset % BLOCK_BYTES !== 0 || toOffset % BLOCK_BYTES !== 0) return 0;
  const isToEnd = fromOffset + length === inodeOf(given.from.inode).data.length;
  return isToEnd && toOffset + length >= inodeOf(given.to.inode).data.length ? length : wholeBlocks(length);
}
const types = ({ from, to }: Copied): (string | undefined)[] => [from.inode?.type, to.inode?.type];

const endsWithABlock = holds("copy_file_range: where blocks are shared, it ends with one", "fs/remap_range.c generic_remap_checks");

export const copyFileRange: Operation<CopyRange> = operation<CopyRange, Copied>({
  name: "copy_file_range",
  source: "copy_file_range(2); fs/read_write.c vfs_copy_file_range, generic_copy_file_checks",
  clauses: [endsWithABlock],
  given: (world, { from, to }) => ({ from: opened(world, { slot: from }), to: opened(world, { slot: to }) }),
  refusals: [
    refuse("EBADF", "copy_file_range: one is not open", "copy_file_range(2)", ({ from, to }) => from.handle === null || to.handle === null),
    refuse("EISDIR", "copy_file_range: one is a directory", "fs/read_write.c generic_file_rw_checks", (given) =>
      types(given).includes("directory"),
    ),
    refuse("EINVAL", "copy_file_range: one is no file", "fs/read_write.c generic_file_rw_checks", (given) =>
      types(given).some((type) => type !== "file"),
    ),
    refuse(
      "EBADF",
      "copy_file_range: not open for reading, for writing, or open for appending",
      "fs/read_write.c generic_file_rw_checks",
      ({ from, to }) => !handleOf(from).read || !handleOf(to).write || handleOf(to).append,
    ),
    refuse("EINVAL", "copy_file_range: two parts of one file that overlap", "fs/read_write.c generic_copy_file_checks", (given, args) => {
      const length = asked(given, args);
      const overlap = args.toOffset + length > args.fromOffset && args.toOffset < args.fromOffset + length;
      return given.from.inode?.ino === given.to.inode?.ino && overlap;
    }),
  ],
  effect(given, args, world) {
    const wanted = asked(given, args);
    const part = world.kind.clones ? shared(given, args, wanted) : 0;
    const length = part === 0 ? wanted : part;
    if (length === 0) return 0;
    if (length < wanted) world.reach(endsWithABlock);
    const bytes = inodeOf(given.from.inode).data.slice(args.fromOffset, args.fromOffset + length);
    const to = inodeOf(given.to.inode);
    if (given.from.inode !== null) world.change(given.from.inode.ino, { atime: null });
    alter(world, world.inode(to.ino), overwritten(to.data, args.toOffset, bytes));
    return length;
  },
});

export const fsync: Operation<{ slot: number; dataOnly: boolean }> = operation<{ slot: number; dataOnly: boolean }, Inode | null>({
  name: "fsync",
  source: "fsync(2), fdatasync(2); fs/sync.c do_fsync",
  given: (world, { slot }) => targetOf(world, { target: { slot } }),
  refusals: [
    notOpen("fsync"),
    refuse("EINVAL", "fsync: a FIFO", "fsync(2); fs/sync.c vfs_fsync_range", (inode) => inodeOf(inode).type === "fifo"),
  ],
  // What it promises is in blocks.ts: no other call sees a difference before a crash.
  effect: () => null,
});

/** Where bytes are that are not zero: a file system may call more than that data, never less. */
export interface SeekBounds {
  readonly least: number;
  readonly most: number | null;
}

export interface SeekData extends OnSlot {
  readonly offset: number;
  readonly what: "DATA" | "HOLE";
}

export const seekData: Operation<SeekData> = operation<SeekData, Opened>({
  name: "seek_data",
  source: "lseek(2) SEEK_DATA, SEEK_HOLE",
  given: opened,
  refusals: [
    absent("seek_data"),
    refuse("ESPIPE", "seek_data: a FIFO", "lseek(2)", ({ inode }) => inode?.type === "fifo"),
    refuse(
      "ENXIO",
      "seek_data: at the end or behind it, or before the file",
      "lseek(2) ENXIO",
      ({ inode }, { offset }) => inode?.type === "file" && (offset < 0 || offset >= inode.data.length),
    ),
  ],
  effect({ inode }, { offset, what }): SeekBounds {
    const { data, type } = inodeOf(inode);
    if (type !== "file") throw new Unspecified("positions in a directory are cookies");
    const next = data.findIndex((byte, at) => at >= offset && byte !== 0);
    if (what === "DATA") return { least: offset, most: next === -1 ? null : next };
    const end = next === offset ? offset + run(data, offset) : offset;
    return { least: end, most: data.length };
  },
});

/** So many bytes from there are not zero. */
function run(data: Uint8Array, from: number): number {
  const zero = data.indexOf(0, from);
  return (zero === -1 ? data.length : zero) - from;
}
