/** Every operation: a request, the call of the lower that decides, and the locks. */
import type { Lower } from "../../../overlay/lower/lower.ts";
import type { Operation } from "../../../overlay/op/perform.ts";
import { Workbench } from "./workbench.ts";

export interface OperationRow {
  readonly op: Operation["op"];
  readonly request: (bench: Workbench) => Record<string, unknown>;
  /** The lower's call that decides. */
  readonly lower: keyof Lower;
  /** It is made for this request (hazard F38). */
  readonly isMadeFor?: boolean;
  /** The locks it needs: inode key and mode; empty: none. */
  readonly pins: readonly string[];
  /**
   * Inodes whose attributes, as they were told before, are outdated before the reply (hazard F4). Not after SETATTR, WRITE (but for that of a mapping) and COPY_FILE_RANGE: of those the
   * kernel drops older answers itself, as it does of the target of LINK, and of what it removes.
   */
  readonly outdates?: readonly string[];
}

const name = Buffer.from("name");
const newName = Buffer.from("new");
const supplementaryGids: readonly number[] = [];
const ROOT_PR = "pin 2.0 PR";
const ROOT_EX = "pin 2.0 EX";
const FILE_PR = "pin 20.1 PR";
const FILE_EX = "pin 20.1 EX";
const NEW_PR = "pin 21.1 PR";
const ROOT = "outdated 2.0 but of 42";
const FILE = "outdated 20.1 but of 42";
const node = (bench: Workbench): { fuseNodeid: number } => ({ fuseNodeid: bench.file.fuseNodeid });
const opened = (bench: Workbench): { fuseNodeid: number; fh: number } => ({ ...node(bench), fh: bench.openFile().fh });
const data = Buffer.alloc(10);

export const operationRows: readonly OperationRow[] = [
  { op: "lookup", request: () => ({ name }), lower: "lookup", pins: [ROOT_PR, FILE_PR] },
  { op: "getattr", request: (b) => ({ ...node(b), fh: null }), lower: "getattr", pins: [FILE_PR] },
  { op: "statx", request: (b) => ({ ...node(b), fh: null }), lower: "getattr", pins: [FILE_PR] },
  {
    op: "setattr",
    request: (b) => ({ ...node(b), fh: null, change: { mode: 0o600 } }),
    lower: "setattr",
    isMadeFor: true,
    pins: [FILE_EX],
  },
  { op: "readlink", request: node, lower: "readlink", pins: [] },
  {
    op: "symlink",
    request: () => ({ name, target: name, supplementaryGids }),
    lower: "symlink",
    isMadeFor: true,
    pins: [ROOT_EX, NEW_PR],
    outdates: [ROOT],
  },
  {
    op: "mkdir",
    request: () => ({ name, mode: 0o755, umask: 0, supplementaryGids }),
    lower: "mkdir",
    isMadeFor: true,
    pins: [ROOT_EX, NEW_PR],
    outdates: [ROOT],
  },
  {
    op: "mknod",
    request: () => ({ name, mode: 0o644, umask: 0, rdevMajor: 0, rdevMinor: 0, supplementaryGids }),
    lower: "mknod",
    isMadeFor: true,
    pins: [ROOT_EX, NEW_PR],
    outdates: [ROOT],
  },
  {
    op: "create",
    request: () => ({ name, mode: 0o644, umask: 0, flags: 0o102, supplementaryGids }),
    lower: "create",
    isMadeFor: true,
    pins: [ROOT_EX, NEW_PR],
    outdates: [ROOT],
  },
  {
    op: "tmpfile",
    request: () => ({ mode: 0o644, umask: 0, flags: 0o2, supplementaryGids }),
    lower: "tmpfile",
    isMadeFor: true,
    pins: [ROOT_PR, NEW_PR],
  },
  {
    op: "link",
    request: (b) => ({ name, targetFuseNodeid: b.file.fuseNodeid }),
    lower: "link",
    isMadeFor: true,
    pins: [ROOT_EX, FILE_EX],
    outdates: [ROOT],
  },
  { op: "unlink", request: () => ({ name }), lower: "unlink", isMadeFor: true, pins: [ROOT_EX, FILE_EX], outdates: [ROOT] },
  { op: "rmdir", request: () => ({ name }), lower: "rmdir", isMadeFor: true, pins: [ROOT_EX, FILE_EX], outdates: [ROOT] },
  {
    op: "rename",
    request: () => ({ name, newFuseNodeid: 1, newName, flags: 0 }),
    lower: "rename",
    isMadeFor: true,
    pins: [ROOT_EX, ROOT_EX, FILE_EX],
    outdates: [ROOT, ROOT, FILE],
  },
  { op: "open", request: (b) => ({ ...node(b), flags: 0o2 }), lower: "open", pins: [] },
  { op: "opendir", request: () => ({ flags: 0 }), lower: "opendir", pins: [] },
  { op: "read", request: (b) => ({ ...opened(b), offset: 0, size: 10, flags: 2, lockOwner: 0n }), lower: "read", pins: [FILE_PR] },
  {
    op: "write",
    request: (b) => ({ ...opened(b), offset: 0, data, flags: 2, fromCache: false, killSuidgid: false }),
    lower: "write",
    isMadeFor: true,
    pins: [FILE_EX],
  },
  {
    op: "write",
    request: (b) => ({ ...opened(b), offset: 0, data, flags: 2, fromCache: true, killSuidgid: false }),
    lower: "write",
    isMadeFor: true,
    pins: [FILE_EX],
    outdates: [`${FILE}, not held`],
  },
  { op: "fsync", request: (b) => ({ ...opened(b), dataOnly: false }), lower: "fsync", isMadeFor: true, pins: [FILE_PR] },
  { op: "fsyncdir", request: (b) => ({ fh: b.openDirectory().fh, dataOnly: false }), lower: "fsyncdir", isMadeFor: true, pins: [] },
  {
    op: "fallocate",
    request: (b) => ({ ...opened(b), offset: 0, length: 10, mode: 0 }),
    lower: "fallocate",
    isMadeFor: true,
    pins: [FILE_EX],
    outdates: [FILE],
  },
  { op: "lseek", request: (b) => ({ ...opened(b), offset: 0, whence: 3 }), lower: "lseek", pins: [FILE_PR] },
  { op: "readdir", request: (b) => ({ fh: b.openDirectory().fh, cookie: 0n, size: 4096 }), lower: "readdir", pins: [ROOT_PR] },
  { op: "readdirplus", request: (b) => ({ fh: b.openDirectory().fh, cookie: 0n, size: 4096 }), lower: "readdir", pins: [ROOT_PR, FILE_PR] },
  { op: "getxattr", request: (b) => ({ ...node(b), name, size: 100 }), lower: "getxattr", pins: [FILE_PR] },
  { op: "listxattr", request: (b) => ({ ...node(b), size: 100 }), lower: "listxattr", pins: [FILE_PR] },
  {
    op: "setxattr",
    request: (b) => ({ ...node(b), name, value: data, flags: 0, aclKillSgid: true }),
    lower: "setxattr",
    isMadeFor: true,
    pins: [FILE_EX],
    outdates: [FILE],
  },
  { op: "removexattr", request: (b) => ({ ...node(b), name }), lower: "removexattr", isMadeFor: true, pins: [FILE_EX], outdates: [FILE] },
  { op: "ioctl", request: (b) => ({ ...opened(b), kind: "flags", value: null }), lower: "fileAttributes", pins: [] },
  {
    op: "ioctl",
    request: (b) => ({ ...opened(b), kind: "flags", value: Buffer.alloc(4) }),
    lower: "setFileAttributes",
    isMadeFor: true,
    pins: [FILE_EX],
    outdates: ["outdated 20.1 but of 0"],
  },
  { op: "statfs", request: () => ({}), lower: "statfs", pins: [] },
  { op: "syncfs", request: () => ({}), lower: "syncfs", pins: [] },
  {
    op: "copyFileRange",
    request: (b) => ({
      ...opened(b),
      offset: 0,
      outFuseNodeid: b.file.fuseNodeid,
      outFh: b.openFile().fh,
      outOffset: 50,
      length: 10,
      flags: 0,
    }),
    lower: "copyFileRange",
    isMadeFor: true,
    pins: [FILE_PR, FILE_EX],
  },
];

export function prepare(row: OperationRow): { bench: Workbench; request: Record<string, unknown> & { op: Operation["op"] } } {
  const bench = new Workbench();
  bench.coherence.told.set("2.0 name", bench.file);
  bench.coherence.told.set("2.0 new", null);
  return { bench, request: { op: row.op, ...row.request(bench) } };
}
