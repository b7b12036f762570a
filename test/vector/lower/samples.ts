/** One value of each call and answer between overlays, and of each handshake message. */
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import type { Attr, Entry } from "../../../overlay/lower/lower.ts";
import type { AnswerOf, CallName, RequestOf } from "../../../overlay/lower/wire/call-types.ts";

const id = { ino: 0x1_2345_6789, generation: 0xfedc_ba98 };
const other = { ino: 12, generation: 0 };
const caller = { uid: 1000, gid: 100, umask: 0o022 };
const name = Buffer.from([0x61, 0xff, 0x62]);
const attr: Attr = {
  ino: id.ino,
  mode: 0o104755,
  nlink: 2,
  uid: 1000,
  gid: 100,
  size: 2 ** 53 - 1,
  blocks: 8,
  blksize: 4096,
  rdevMajor: 8,
  rdevMinor: 1,
  atimeSec: 1_795_000_000,
  atimeNsec: 999_999_999,
  mtimeSec: -1,
  mtimeNsec: 1,
  ctimeSec: 0,
  ctimeNsec: 0,
  btimeSec: 1_700_000_000,
  btimeNsec: 0xffff_ffff,
};
const entry: Entry = { id, attr };

export const SAMPLES: { readonly [K in CallName]: { readonly request: RequestOf<K>; readonly answer: AnswerOf<K> } } = {
  lookup: { request: { parent: other, name }, answer: entry },
  byNumber: { request: { ino: 2 ** 40 - 1 }, answer: entry },
  pathOf: { request: { id }, answer: Buffer.from("a/b c") },
  parentOf: { request: { id }, answer: entry },
  getattr: { request: { id }, answer: attr },
  getattrMany: { request: { ids: [id, other, id] }, answer: [attr, null, { ...attr, xattrNames: Buffer.from("user.a\0") }] },
  setattr: {
    request: {
      id,
      change: { mode: 0o644, uid: 1, gid: 2, size: 3, atime: { sec: -4, nsec: 5 }, mtime: "now", killSuidgid: true },
      handle: 9,
      promised: true,
    },
    answer: { attr, room: true },
  },
  readlink: { request: { id }, answer: Buffer.from("target") },
  create: {
    request: { parent: other, name, tellParent: true, mode: 0o600, caller, flags: 2, handle: 7 },
    answer: { entry, parent: attr, room: true },
  },
  tmpfile: {
    request: { parent: other, mode: 0o640, caller, flags: 0o4010002, linkable: true, handle: 7 },
    answer: { id, attr: { ...attr, nlink: 0 } },
  },
  mkdir: { request: { parent: other, name, tellParent: false, mode: 0o755, caller }, answer: { entry, parent: null } },
  mknod: {
    request: { parent: other, name, tellParent: true, mode: 0o020600, caller, rdevMajor: 1, rdevMinor: 3 },
    answer: { entry, parent: attr },
  },
  symlink: {
    request: { parent: other, name, tellParent: true, target: Buffer.from("../x"), caller },
    answer: { entry, parent: attr },
  },
  unlink: { request: { parent: other, name, tellParent: true, expected: id }, answer: { parent: attr } },
  rmdir: { request: { parent: other, name, tellParent: false, expected: id }, answer: { parent: null } },
  rename: {
    request: {
      oldParent: other,
      oldName: name,
      newParent: id,
      newName: Buffer.from("n"),
      flags: 1,
      expectedOld: id,
      expectedNew: null,
      tell: true,
    },
    answer: { oldParent: attr, newParent: null, moved: attr },
  },
  link: { request: { id, newParent: other, newName: name, tellParent: true }, answer: { attr, parent: attr } },
  open: { request: { id, flags: 2, handle: 7, promised: true }, answer: undefined },
  opendir: { request: { id, handle: 8, promised: true }, answer: undefined },
  close: { request: { handles: [7, 8] }, answer: undefined },
  fetch: {
    request: { id, handle: 7, offset: 2 ** 53 - 4096, bytes: 4096 },
    answer: { attr, data: Buffer.from("data") },
  },
  read: { request: { handle: 7, offset: 2 ** 53 - 4096, bytes: 4096, open: { id, flags: 0x8000 } }, answer: Buffer.from("data") },
  fileAttributes: { request: { handle: 7, kind: "flags" }, answer: Buffer.from([0x10, 0, 8, 0]) },
  setFileAttributes: { request: { handle: 7, kind: "fsxattr", value: Buffer.alloc(28, 3) }, answer: undefined },
  readMany: { request: { ids: [id, other] }, answer: [null, Buffer.from("data")] },
  write: {
    request: { handle: 7, offset: 4096, append: false, promised: true, room: true, tell: id, data: Buffer.from("data") },
    answer: { offset: 4096, bytes: 4, room: true, attr },
  },
  fsync: { request: { handle: 7, dataOnly: true }, answer: undefined },
  fsyncdir: { request: { handle: 8, dataOnly: false }, answer: undefined },
  fallocate: { request: { handle: 7, mode: 3, offset: 4096, bytes: 8192 }, answer: undefined },
  lseek: { request: { handle: 7, offset: 5, whence: 4 }, answer: 65_536 },
  copyFileRange: { request: { inHandle: 7, inOffset: 1, outHandle: 8, outOffset: 2, bytes: 3 }, answer: 3 },
  readdir: {
    request: { handle: 8, cookie: 2n ** 63n - 1n, bytes: 4096, listing: "entries" },
    answer: {
      end: false,
      entries: [
        { name: Buffer.from("."), type: 4, ino: 2, cookie: 1n },
        { name, type: 8, ino: id.ino, cookie: 2n ** 63n - 1n, entry },
      ],
    },
  },
  statfs: {
    request: undefined,
    answer: { blocks: 2 ** 40, bfree: 5, bavail: 4, files: 3, ffree: 2, bsize: 4096, frsize: 4096, namelen: 255 },
  },
  getxattr: { request: { id, name: Buffer.from("user.a") }, answer: Buffer.from("value") },
  setxattr: { request: { id, name: Buffer.from("user.a"), value: Buffer.from("value"), flags: 1 }, answer: undefined },
  listxattr: { request: { id }, answer: Buffer.from("user.a\0user.b\0") },
  removexattr: { request: { id, name: Buffer.from("user.a") }, answer: undefined },
  getattrSince: {
    request: { id, since: 2 ** 40 },
    answer: { attr, names: { version: 2 ** 40 + 3, all: true, names: [name], gone: [] } },
  },
  lookupSince: {
    request: { parent: other, name, since: 2 ** 40 },
    answer: { entry, names: { version: 2 ** 40 + 3, all: false, names: [name, Buffer.from("b")], gone: [Buffer.from("c")] } },
  },
  lookupMany: { request: { parent: other, names: [name, Buffer.from("b")] }, answer: [entry, null] },
  syncfs: { request: undefined, answer: undefined },
  claimed: { request: undefined, answer: undefined },
  deposit: {
    request: {
      epoch: 7,
      ticket: "00112233445566778899aabbccddeeff",
      isLast: false,
      dlmdDied: true,
      tokens: [id, other],
      locked: [other],
      sharedLocks: [
        {
          id: other,
          owner: { kind: "flock", owner: 2n ** 64n - 1n },
          range: { type: "write", start: 0n, end: maxOffset },
          heldMs: 2 ** 40,
        },
        { id, owner: { kind: "posix", owner: 9n }, range: { type: "read", start: 5n, end: 5n }, heldMs: 0 },
      ],
      shared: [id],
    },
    answer: { refused: "no" },
  },
  kept: { request: { id: 9, refused: "it is ending" }, answer: undefined },
  collect: { request: { ticket: "00112233445566778899aabbccddeeff" }, answer: { found: true } },
  outcomes: {
    request: {
      client: 2 ** 40,
      calls: [
        { id: 0xffff_ffff, type: 18, body: Buffer.from("data") },
        { id: 1, type: 7, body: null },
      ],
    },
    answer: [{ state: "answered", type: 0x92, body: Uint8Array.from([1, 2]) }, { state: "not-made" }, { state: "unknown-session" }],
  },
  handOver: { request: { epoch: 2 ** 40, heir: 3 }, answer: { heir: 3, refused: "node3 is the owner already" } },
};
