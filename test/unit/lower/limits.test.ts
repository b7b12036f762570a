/** Tables and values of the lower that have a limit: at it all is well, one beyond it what its comment says happens. */
import { closeSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { ByteReader, ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { DirectoryNames, NAMES_MAX, NAMES_OF_A_DIRECTORY_MAX } from "../../../overlay/lower/directory-names.ts";
import { DiskGuard, MAX_PARKED_CALLS } from "../../../overlay/lower/server/disk-guard.ts";
import { decodeHello, encodeHello } from "../../../overlay/lower/wire/handshake.ts";
import { checkName, MAX_GETATTR_MANY, MAX_IO_BYTES, MAX_LOOKUP_MANY, MAX_NAMES_TOLD } from "../../../overlay/lower/limits.ts";
import { NAME_MAX, PATH_MAX, XATTR_LIST_MAX, XATTR_SIZE_MAX } from "../../../overlay/lower/linux.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { Attr, FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import { MAX_OPEN_HANDLES, OpenHandles } from "../../../overlay/lower/local/open-handles.ts";
import { MAX_REMOTE_HANDLES, RemoteHandles } from "../../../overlay/lower/remote/handles.ts";
import {
  REMOVED_KEPT_MAX,
  REMOVED_KEPT_MS,
  REMOVED_REMEMBERED_MAX,
  RemovedInodes,
  type RemovedInodesOptions,
} from "../../../overlay/lower/local/removed-inodes.ts";
import { COLD_LOOKUPS_MIN, WarmUp } from "../../../overlay/lower/local/warm-up.ts";
import { encodeFrame, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_HELLO_FRAME_BYTES } from "../../../overlay/lower/wire/frame.ts";
import { decodeWith } from "../../../overlay/lower/wire/call-codecs.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { MAX_NAME_BYTES, MAX_XATTR_BYTES, readDirPage, readName, writeDirPage, writeName } from "../../../overlay/lower/wire/values.ts";
import { nativeAddon, type Native } from "../../../native/index.ts";
import { caller, errnoOf, name, RDWR, remoteLab } from "./remote-lab.ts";

const id = (ino: number): FileId => ({ ino, generation: 1 });
/** One byte of that many. */
const long = (bytes: number): Buffer => Buffer.alloc(bytes, "x");

afterEach(() => {
  vi.useRealTimers();
});

describe("removed inodes", () => {
  const attr = { mode: 0o100644, nlink: 1, size: 7 } as Attr;
  const closed: number[] = [];
  const close = (fd: number): number => closed.push(fd);
  const native = {
    sync: { close },
    pool: { data: { close: async (fd: number) => close(fd) } },
  } as unknown as RemovedInodesOptions["native"];
  afterEach(() => {
    closed.length = 0;
  });

  it("are kept for REMOVED_KEPT_MS", async () => {
    vi.useFakeTimers();
    const removed = new RemovedInodes({ native, now: () => Date.now() });
    removed.keep(5, id(12), attr, false);
    await vi.advanceTimersByTimeAsync(REMOVED_KEPT_MS - 1);
    expect([removed.count, closed]).toEqual([1, []]);
    await vi.advanceTimersByTimeAsync(1);
    expect([removed.count, closed]).toEqual([0, [5]]);
  });

  it("of more than REMOVED_KEPT_MAX the oldest is closed", () => {
    vi.useFakeTimers();
    const removed = new RemovedInodes({ native });
    for (let fd = 1; fd <= REMOVED_KEPT_MAX; fd++) removed.keep(fd, id(fd), attr, false);
    expect(closed).toEqual([]);
    removed.keep(REMOVED_KEPT_MAX + 1, id(REMOVED_KEPT_MAX + 1), attr, false);
    expect([removed.count, closed]).toEqual([REMOVED_KEPT_MAX, [1]]);
  });

  it("of more than REMOVED_REMEMBERED_MAX the older half is forgotten", () => {
    const removed = new RemovedInodes({ native });
    for (let ino = 1; ino <= REMOVED_REMEMBERED_MAX; ino++) removed.keep(-1, id(ino), attr, false);
    expect(removed.attrOf(id(1))?.size).toBe(7);
    removed.keep(-1, id(REMOVED_REMEMBERED_MAX + 1), attr, false);
    expect(removed.attrOf(id(1))).toBeUndefined();
    expect(removed.attrOf(id(REMOVED_REMEMBERED_MAX / 2))).toBeUndefined();
    expect(removed.attrOf(id(REMOVED_REMEMBERED_MAX / 2 + 1))).toMatchObject({ size: 7, nlink: 0 });
  });
});

describe("names that are known", () => {
  const enter = (names: DirectoryNames, directory: FileId, count: number): void => {
    for (let at = 0; at < count; at++) names.is(directory, name(`f${at}`), id(100 + at));
  };

  it("of a directory with more than NAMES_OF_A_DIRECTORY_MAX are forgotten", () => {
    const names = new DirectoryNames();
    names.made(id(2));
    enter(names, id(2), NAMES_OF_A_DIRECTORY_MAX);
    expect([names.count, names.get(id(2), name("absent"))]).toEqual([NAMES_OF_A_DIRECTORY_MAX, null]);
    names.is(id(2), name("another"), id(99));
    expect([names.count, names.get(id(2), name("absent"))]).toEqual([0, undefined]);
  });

  it("are at most NAMES_MAX: beyond, the oldest directory is forgotten", () => {
    const names = new DirectoryNames();
    const half = NAMES_MAX / 2;
    enter(names, id(2), half);
    enter(names, id(3), half);
    expect(names.count).toBe(NAMES_MAX);
    names.is(id(4), name("another"), id(99));
    expect(names.count).toBe(half + 1);
    expect([2, 3].map((ino) => names.get(id(ino), name("f0")))).toEqual([undefined, id(100)]);
  });
});

describe("open files", () => {
  it("of the owner are at most MAX_OPEN_HANDLES: then ENFILE", async () => {
    const handles = new OpenHandles({} as Native, () => undefined);
    for (let fd = 1; fd < MAX_OPEN_HANDLES; fd++) handles.add(fd, id(12), RDWR, false);
    expect(await errnoOf(() => handles.checkRoom())).toBe(0);
    handles.add(5, id(12), RDWR, false);
    expect(await errnoOf(() => handles.checkRoom())).toBe(E.ENFILE);
  });

  it("of the owner have 32-bit numbers, which begin again from 1", () => {
    const handles = new OpenHandles({} as Native, () => undefined, 0xffff_fffe);
    const added = [5, 6, 7, 8].map((fd) => handles.add(fd, id(12), RDWR, false));
    expect(added).toEqual([0xffff_fffe, 0xffff_ffff, 1, 2]);
  });

  it("of a caller are at most MAX_REMOTE_HANDLES: then ENFILE", async () => {
    const handles = new RemoteHandles();
    for (let at = 0; at < MAX_REMOTE_HANDLES; at++) handles.add(handles.allocate(), id(12), RDWR, false, 0);
    expect(await errnoOf(() => handles.allocate())).toBe(E.ENFILE);
    const [first] = handles.all();
    if (first !== undefined) handles.remove(first.handle);
    expect(await errnoOf(() => handles.allocate())).toBe(0);
  });

  it("of a caller have 32-bit numbers, which begin again from 1 without those in use", () => {
    const handles = new RemoteHandles(0xffff_ffff);
    handles.adopt({ handle: 1 as LowerHandle, id: id(12), flags: RDWR, directory: false, lossesTold: 0 });
    const one = handles.allocate();
    handles.add(one, id(12), RDWR, false, 0);
    expect([one, handles.allocate()]).toEqual([0xffff_ffff, 2]);
  });
});

describe("reading ahead", () => {
  it.each([
    ["remembers a directory among DIRECTORIES_MAX", 255, 1],
    ["forgets it with one more", 256, 0],
  ])("%s", (_title, others, runs) => {
    let begun = 0;
    const use = (): Promise<never> => {
      begun += 1;
      return new Promise(() => undefined);
    };
    const warmUp = new WarmUp({} as Native, { use }, silentLog);
    const noteCold = (ino: number, times: number): void => {
      for (let at = 0; at < times; at++) warmUp.noteCold(id(ino));
    };
    noteCold(2, COLD_LOOKUPS_MIN - 1);
    for (let at = 0; at < others; at++) noteCold(100 + at, 1);
    noteCold(2, 1);
    expect(begun).toBe(runs);
  });
});

describe("calls of the owner's own mount", () => {
  it("that wait for the next owner are at most MAX_PARKED_CALLS: then ENOMEM", async () => {
    const statfs = (): never => {
      throw errnoError(E.EROFS);
    };
    const guard = new DiskGuard({
      local: { statfs } as unknown as LocalLower,
      readOnly: false,
      isDamaged: () => false,
      probe: async () => true,
      mayWithdraw: () => true,
      withdraw: () => undefined,
      log: silentLog,
    });
    const ends = Array.from({ length: MAX_PARKED_CALLS }, async () => await errnoOf(() => guard.own.statfs()));
    expect(await errnoOf(() => guard.own.statfs())).toBe(E.ENOMEM);
    guard.end();
    expect(new Set(await Promise.all(ends))).toEqual(new Set([E.EIO]));
  });
});

describe("values on the wire", () => {
  const reader = (write: (writer: ByteWriter) => unknown): ByteReader => {
    const writer = new ByteWriter();
    write(writer);
    return new ByteReader(writer.copy());
  };

  it("a name has at most MAX_NAME_BYTES", () => {
    const read = (bytes: number): number => readName(reader((w) => writeName(w, long(bytes)))).length;
    expect(read(MAX_NAME_BYTES)).toBe(MAX_NAME_BYTES);
    expect(() => read(MAX_NAME_BYTES + 1)).toThrow(WireError);
  });

  it("a page of a directory has at most MAX_DIR_ENTRIES", () => {
    const read = (count: number): number => {
      const entries = Array.from({ length: count }, (_, at) => ({ name: name("f"), type: 8, ino: 12, cookie: BigInt(at) }));
      return readDirPage(reader((w) => writeDirPage(w, { end: true, entries }))).entries.length;
    };
    expect(read(65_536)).toBe(65_536);
    expect(() => read(65_537)).toThrow(WireError);
  });

  it("an extended attribute has at most MAX_XATTR_BYTES", () => {
    const read = (bytes: number): number => {
      const writer = new ByteWriter();
      CALLS.getxattr.answer.write(writer, long(bytes));
      return decodeWith(CALLS.getxattr.answer, writer.copy()).length;
    };
    expect(read(MAX_XATTR_BYTES)).toBe(MAX_XATTR_BYTES);
    expect(() => read(MAX_XATTR_BYTES + 1)).toThrow(WireError);
  });

  it("a frame has at most MAX_HELLO_FRAME_BYTES before the caller is known", () => {
    const push = (bytes: number): number => {
      let found = 0;
      // The length does not count itself; type and id do count.
      new FrameReader().push(encodeFrame(FrameType.HELLO, 0, long(bytes - 5)), (_type, _id, body) => {
        found = body.byteLength;
      });
      return found;
    };
    expect(push(MAX_HELLO_FRAME_BYTES)).toBe(MAX_HELLO_FRAME_BYTES - 5);
    expect(() => push(MAX_HELLO_FRAME_BYTES + 1)).toThrow(WireError);
  });

  it("a text of the handshake has at most MAX_TEXT_BYTES", () => {
    const session = { nodeid: 1, incarnation: "i", clientId: 1, ownerEpoch: 1 };
    const read = (bytes: number): number =>
      decodeHello(encodeHello({ version: LOWER_WIRE_VERSION, clusterName: "c".repeat(bytes), volumeUuid: "v", session })).clusterName
        .length;
    expect(read(512)).toBe(512);
    expect(() => read(513)).toThrow(WireError);
  });
});

describe("what a call may ask for", () => {
  const lab = remoteLab();
  const kinds = ["the owner's mount", "another node's mount"] as const;
  const lowerOf = async (
    kind: (typeof kinds)[number],
  ): Promise<Pick<LocalLower, "root" | "lookup" | "lookupMany" | "getattrMany" | "create" | "write" | "read" | "setxattr" | "symlink">> => {
    const owner = await lab.owner();
    if (kind === "the owner's mount") return owner.lower;
    const remote = lab.remote();
    await remote.connect(owner.address, 1);
    return remote;
  };

  it("a name has at most NAME_MAX bytes: ENAMETOOLONG", async () => {
    expect(await errnoOf(() => checkName(long(NAME_MAX)))).toBe(0);
    expect(await errnoOf(() => checkName(long(NAME_MAX + 1)))).toBe(E.ENAMETOOLONG);
  });

  it.each(kinds)("of %s: MAX_LOOKUP_MANY names and MAX_GETATTR_MANY inodes, E2BIG", async (kind) => {
    const lower = await lowerOf(kind);
    const names = (count: number): Buffer[] => Array.from({ length: count }, () => name("absent"));
    const ids = (count: number): FileId[] => Array.from({ length: count }, () => lower.root);
    expect(await errnoOf(() => lower.lookupMany(lower.root, names(MAX_LOOKUP_MANY)))).toBe(0);
    expect(await errnoOf(() => lower.lookupMany(lower.root, names(MAX_LOOKUP_MANY + 1)))).toBe(E.E2BIG);
    expect(await errnoOf(() => lower.getattrMany(ids(MAX_GETATTR_MANY)))).toBe(0);
    expect(await errnoOf(() => lower.getattrMany(ids(MAX_GETATTR_MANY + 1)))).toBe(E.E2BIG);
  });

  it("of names of a directory, MAX_NAMES_TOLD are told, and of more none; an answer with more is refused", async () => {
    const { lower } = await lab.owner();
    const { id: dir } = await lower.mkdir(lower.root, name("d"), 0o755, caller);
    const make = (no: number): unknown => lower.mknod(dir, name(`f${no}`), 0o010644, 0, 0, caller);
    for (let no = 0; no < MAX_NAMES_TOLD; no += 1) await make(no);
    expect(lower.namesSince(dir, 0)?.names).toHaveLength(MAX_NAMES_TOLD);
    await make(MAX_NAMES_TOLD);
    expect(lower.namesSince(dir, 0)).toBeNull();
    const decoded = (count: number): number | undefined => {
      const names = { version: 1, all: true, names: Array.from({ length: count }, () => name("f")), gone: [] };
      const writer = new ByteWriter();
      CALLS.lookupSince.answer.write(writer, { entry: null, names });
      return decodeWith(CALLS.lookupSince.answer, writer.copy()).names?.names.length;
    };
    expect(decoded(MAX_NAMES_TOLD)).toBe(MAX_NAMES_TOLD);
    expect(() => decoded(MAX_NAMES_TOLD + 1)).toThrow(WireError);
  });

  it.each(kinds)("of %s: MAX_IO_BYTES of data, EINVAL", async (kind) => {
    const lower = await lowerOf(kind);
    const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    expect(await errnoOf(() => lower.write(handle, long(MAX_IO_BYTES), 0, false))).toBe(0);
    expect(await errnoOf(() => lower.write(handle, long(MAX_IO_BYTES + 1), 0, false))).toBe(E.EINVAL);
    expect((await lower.read(handle, 0, MAX_IO_BYTES)).length).toBe(MAX_IO_BYTES);
    expect(await errnoOf(() => lower.read(handle, 0, MAX_IO_BYTES + 1))).toBe(E.EINVAL);
  });

  // Other file systems have no room for so many names.
  it.skipIf(process.geteuid?.() !== 0).each(["inline", "pool"] as const)(
    "names of extended attributes beyond XATTR_LIST_MAX bytes in all, E2BIG: calls of metadata %s",
    async (metadataCalls) => {
      const rootFd = nativeAddon().mountDetached("tmpfs", "none", [], 0, []);
      const lower = createLocalLower({ native: nativeAddon(), rootFd, metadataCalls, log: silentLog });
      try {
        // 256 bytes each, with the NUL behind it.
        const add = async (at: number): Promise<void> =>
          lower.setxattr(lower.root, name(`trusted.${String(at).padStart(247, "a")}`), long(1), 0);
        for (let at = 0; at < XATTR_LIST_MAX / 256; at++) await add(at);
        expect((await lower.listxattr(lower.root)).length).toBe(XATTR_LIST_MAX);
        await add(XATTR_LIST_MAX);
        expect(await errnoOf(() => lower.listxattr(lower.root))).toBe(E.E2BIG);
      } finally {
        await lower.shutdown();
        closeSync(rootFd);
      }
    },
  );

  it("beyond XATTR_SIZE_MAX, E2BIG, and from PATH_MAX on, ENAMETOOLONG: the owner is not asked", async () => {
    const owner = await lab.owner();
    const lower = lab.remote();
    await lower.connect(owner.address, 1);
    const set = (bytes: number): Promise<number> => errnoOf(() => lower.setxattr(lower.root, name("user.a"), long(bytes), 0));
    const link = (bytes: number): Promise<number> => errnoOf(() => lower.symlink(lower.root, name("link"), long(bytes), caller));
    const before = lower.counters.messagesSent;
    expect(await set(XATTR_SIZE_MAX + 1)).toBe(E.E2BIG);
    expect(await link(PATH_MAX)).toBe(E.ENAMETOOLONG);
    expect(lower.counters.messagesSent).toBe(before);
    // The owner's file system has limits of its own.
    await set(XATTR_SIZE_MAX);
    await link(PATH_MAX - 1);
    expect(lower.counters.messagesSent).toBeGreaterThanOrEqual(before + 2);
  });
});
