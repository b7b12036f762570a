/** Requests that are kept for another process of the mount: which pass, and that each begins once (hazard F33). */
import { describe, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Inode } from "../../../overlay/coherence/cover.ts";
import type { Heard } from "../../../overlay/coherence/names/listings.ts";
import { OPCODE } from "../../../overlay/fuse/abi.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import { REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import { RequestBuffers } from "../../../overlay/session/buffers.ts";
import { Dispatch } from "../../../overlay/session/dispatch.ts";
import { Interrupts } from "../../../overlay/session/interrupt.ts";
import { Workbench } from "../op/workbench.ts";

const HEAD_BYTES = 40;
const OWN_THREAD = 9;

function packet(opcode: number, unique: number, fuseNodeid: number, pid: number, bodyBytes: number): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES + bodyBytes);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(BigInt(unique), 8);
  bytes.writeBigUInt64LE(BigInt(fuseNodeid), 16);
  bytes.writeUInt32LE(pid, 32);
  return bytes;
}

function setUp(): { bench: Workbench; dispatch: Dispatch; answered: number[]; receive: (bytes: Buffer) => void } {
  const bench = new Workbench();
  const answered: number[] = [];
  const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
  const note = (): number => answered.push(Number(buffer.readBigUInt64LE(8)));
  const buffers = new RequestBuffers(64 * 1024, () => undefined);
  const dispatch = new Dispatch({
    mount: bench.mount,
    port: { buffer, write: note, writeWithBody: note, log: silentLog, lease: endlessLease },
    buffers,
    interrupts: new Interrupts({ readStatus: () => null } as never),
    log: silentLog,
    init: () => undefined,
    retrieved: () => undefined,
    fail: (error) => expect.fail(error.message),
  });
  const receive = (bytes: Buffer): void => {
    bytes.copy(buffers.current);
    dispatch.receive(bytes.length);
    // The next request comes into the same buffer.
    buffers.current.fill(0xff, 0, bytes.length);
  };
  return { bench, dispatch, answered, receive };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

it("what has not begun is kept as it came, and begins once, in its order", async () => {
  const { bench, dispatch, answered, receive } = setUp();
  dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
  const first = packet(OPCODE.FUSE_GETATTR, 1, bench.file.fuseNodeid, 42, 16);
  const second = packet(OPCODE.FUSE_STATFS, 2, 1, 42, 0);
  receive(first);
  receive(second);
  await turn();
  expect(answered).toEqual([]);
  expect(dispatch.heldRequests).toEqual([first, second]);
  dispatch.letGo();
  await turn();
  expect(answered).toEqual([1, 2]);
  expect(dispatch.heldRequests).toEqual([]);
});

it("F33: no lock is asked for ahead meanwhile", () => {
  const { bench, dispatch } = setUp();
  const held = [vi.spyOn(bench.mount.changesAhead, "hold"), vi.spyOn(bench.mount.walkAhead, "hold")];
  dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
  expect(held.map(({ mock }) => mock.calls)).toEqual([[[true]], [[true]]]);
  dispatch.letGo();
  expect(held.map(({ mock }) => mock.calls)).toEqual([
    [[true], [false]],
    [[true], [false]],
  ]);
});

it("requests of this process's own threads pass, and data of inodes that may have pages; other data does when it may", async () => {
  const { bench, dispatch, answered, receive } = setUp();
  let mayHavePages = false;
  dispatch.hold({ mayHavePages: () => mayHavePages, isOwn: (tid) => tid === OWN_THREAD });
  const setattr = packet(OPCODE.FUSE_SETATTR, 1, bench.file.fuseNodeid, 42, 88);
  receive(setattr);
  receive(packet(OPCODE.FUSE_GETATTR, 2, bench.file.fuseNodeid, 42, 16));
  receive(packet(OPCODE.FUSE_GETATTR, 3, bench.file.fuseNodeid, OWN_THREAD, 16));
  await turn();
  expect(answered).toEqual([3]);
  dispatch.passHeld();
  await turn();
  expect(answered).toEqual([3]);
  // Its lock came back for an operation that runs.
  mayHavePages = true;
  dispatch.passHeld();
  await turn();
  expect(answered).toEqual([3, 1]);
  expect(dispatch.heldRequests).toHaveLength(1);
});

it("FORGET passes: the state has the lookups that are left", () => {
  const { bench, dispatch, receive } = setUp();
  bench.file.nlookup = 3;
  dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
  const forget = packet(OPCODE.FUSE_FORGET, 0, bench.file.fuseNodeid, 0, 8);
  forget.writeBigUInt64LE(2n, HEAD_BYTES);
  receive(forget);
  expect(bench.file.nlookup).toBe(1);
  expect(dispatch.heldRequests).toEqual([]);
});

it("INTERRUPT of a request that runs passes; of one that is kept it is kept behind it", () => {
  const { bench, dispatch, receive } = setUp();
  dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
  const request = packet(OPCODE.FUSE_GETATTR, 8, bench.file.fuseNodeid, 42, 16);
  const interrupt = packet(OPCODE.FUSE_INTERRUPT, 9, 0, 42, 8);
  interrupt.writeBigUInt64LE(8n, HEAD_BYTES);
  receive(request);
  receive(interrupt);
  expect(dispatch.heldRequests).toEqual([request, interrupt]);
});

it("READLINK passes while the link may have pages: the kernel has one of them locked until it is answered", async () => {
  const { bench, dispatch, answered, receive } = setUp();
  const rig = { mayHavePages: true };
  dispatch.hold({ mayHavePages: () => rig.mayHavePages, isOwn: () => false });
  receive(packet(OPCODE.FUSE_READLINK, 1, bench.file.fuseNodeid, 42, 0));
  await turn();
  expect(answered).toEqual([1]);
  rig.mayHavePages = false;
  receive(packet(OPCODE.FUSE_READLINK, 2, bench.file.fuseNodeid, 42, 0));
  expect(dispatch.heldRequests).toHaveLength(1);
});

it("INTERRUPT of one that was kept, and has begun since, stops it", async () => {
  const { bench, dispatch, answered, receive } = setUp();
  const rig = { mayHavePages: false };
  dispatch.hold({ mayHavePages: () => rig.mayHavePages, isOwn: () => false });
  // It waits for a lock, so that there is something to stop.
  let end: () => void = () => undefined;
  const waits = new Promise<void>((resolve) => (end = resolve));
  Object.assign(bench.mount.lower, { setattr: () => waits.then(() => Promise.reject(new Error("not asked for"))) });
  const interrupt = packet(OPCODE.FUSE_INTERRUPT, 9, 0, 42, 8);
  interrupt.writeBigUInt64LE(8n, HEAD_BYTES);
  receive(packet(OPCODE.FUSE_SETATTR, 8, bench.file.fuseNodeid, 42, 88));
  receive(interrupt);
  const { heldBytes } = dispatch;
  expect([dispatch.heldRequests.length, heldBytes]).toEqual([2, HEAD_BYTES + 88 + HEAD_BYTES + 8]);
  rig.mayHavePages = true;
  dispatch.passHeld();
  expect([dispatch.heldRequests.length, dispatch.heldBytes]).toEqual([0, 0]);
  end();
  await turn();
  expect(answered).toContain(8);
});

it("what is held of an ended connection is dropped", async () => {
  const { bench, dispatch, answered, receive } = setUp();
  dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
  receive(packet(OPCODE.FUSE_GETATTR, 1, bench.file.fuseNodeid, 42, 16));
  dispatch.dropHeld();
  dispatch.letGo();
  await turn();
  expect(answered).toEqual([]);
});

it("that a request came shows what its thread has done, also if it is kept", () => {
  const { bench, dispatch, receive } = setUp();
  const heard: unknown[] = [];
  Object.assign(bench.mount.coherence.sizes, { heard: (tid: number) => heard.push(tid) });
  const names = (request: Heard, inode: Inode | undefined): void => void heard.push([request.op, request.pid, inode]);
  Object.assign(bench.mount.coherence.names, { heard: names });
  receive(packet(OPCODE.FUSE_GETATTR, 1, bench.file.fuseNodeid, 41, 16));
  expect(heard.splice(0)).toEqual([41, ["getattr", 41, bench.file]]);
  dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
  receive(packet(OPCODE.FUSE_GETATTR, 2, bench.file.fuseNodeid, 42, 16));
  expect([heard, dispatch.heldRequests.length]).toEqual([[42, ["getattr", 42, bench.file]], 1]);
});

/** SETLKW of the whole file, by owner `unique`. */
function waitsForLock(unique: number, fuseNodeid: number, fh: number): Buffer {
  const bytes = packet(OPCODE.FUSE_SETLKW, unique, fuseNodeid, 42, 48);
  bytes.writeBigUInt64LE(BigInt(fh), HEAD_BYTES);
  bytes.writeBigUInt64LE(BigInt(unique), HEAD_BYTES + 8);
  bytes.writeBigUInt64LE(2n ** 63n - 1n, HEAD_BYTES + 24);
  bytes.writeUInt32LE(1, HEAD_BYTES + 32);
  return bytes;
}

describe("calls that wait for file locks (hazard F45)", () => {
  const waits = (): ReturnType<typeof setUp> & { first: Buffer; second: Buffer; asked: bigint[]; end: (status: string) => void } => {
    const { bench, ...set } = setUp();
    const asked: bigint[] = [];
    const ends: ((status: string) => void)[] = [];
    const fileLocks = {
      lock: (_: string, __: number, { owner }: { readonly owner: bigint }) => {
        asked.push(owner);
        return { done: new Promise((resolve) => ends.push(resolve)), cancel: () => undefined };
      },
    };
    Object.assign(bench.mount, { fileLocks });
    const { fh } = bench.openFile();
    const [first, second] = [waitsForLock(11, bench.file.fuseNodeid, fh), waitsForLock(12, bench.file.fuseNodeid, fh)];
    set.receive(first);
    set.receive(second);
    const end = (status: string): void => {
      for (const one of ends.splice(0)) one(status);
    };
    return { bench, ...set, first, second, asked, end };
  };

  it("end, and stand before all that is kept, in the order in which they came", async () => {
    const { bench, dispatch, receive, answered, first, second, asked, end } = waits();
    dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
    const later = packet(OPCODE.FUSE_GETATTR, 13, bench.file.fuseNodeid, 42, 16);
    receive(later);
    dispatch.underWay.yieldFileLocks();
    end("canceled");
    await turn();
    expect([dispatch.heldRequests, dispatch.heldBytes, dispatch.running, answered]).toEqual([
      [first, second, later],
      first.length + second.length + later.length,
      0,
      [],
    ]);
    dispatch.letGo();
    await turn();
    expect([asked, answered]).toEqual([[11n, 12n, 11n, 12n], [13]]);
  });

  it("begin again at once where nothing is kept any more", async () => {
    const { dispatch, answered, asked, end } = waits();
    dispatch.hold({ mayHavePages: () => false, isOwn: () => false });
    dispatch.underWay.yieldFileLocks();
    dispatch.letGo();
    end("canceled");
    await turn();
    expect([asked, answered]).toEqual([[11n, 12n, 11n, 12n], []]);
    end("granted");
    await turn();
    expect(answered).toEqual([11, 12]);
  });
});
