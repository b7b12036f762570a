/** From a request's bytes to its handler: what waits for the lease. */
import { describe, expect, it } from "vitest";
import { errnoError, E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { OPCODE } from "../../../overlay/fuse/abi.ts";
import { RESENT } from "../../../overlay/fuse/unique.ts";
import { endlessLease, type KeptAnswer } from "../../../overlay/lease/lease.ts";
import { REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import { isWrittenBack } from "../../../overlay/coherence/pages/write-order.ts";
import { RequestBuffers } from "../../../overlay/session/buffers.ts";
import { Dispatch, type DispatchOptions, type RequestsBefore } from "../../../overlay/session/dispatch.ts";
import { Interrupts } from "../../../overlay/session/interrupt.ts";
import { Workbench } from "../op/workbench.ts";

const HEAD_BYTES = 40;
const WRITE_CACHE = 1;

/** Of a session to which nothing else happens. */
const usual = {
  log: silentLog,
  init: () => undefined,
  retrieved: () => undefined,
  fail: (error) => expect.fail(error.message),
} satisfies Partial<DispatchOptions>;

/** A WRITE of ten bytes at 0, as it is read from the device. */
function writePacket(fuseNodeid: number, fh: number, writeFlags: number): Buffer {
  const packet = Buffer.alloc(HEAD_BYTES + 40 + 10);
  packet.writeUInt32LE(packet.length, 0);
  packet.writeUInt32LE(OPCODE.FUSE_WRITE, 4);
  packet.writeBigUInt64LE(6n, 8);
  packet.writeBigUInt64LE(BigInt(fuseNodeid), 16);
  // fuse_write_in: fh, offset, size, write_flags, lock_owner, flags, padding.
  packet.writeBigUInt64LE(BigInt(fh), HEAD_BYTES);
  packet.writeUInt32LE(10, HEAD_BYTES + 16);
  packet.writeUInt32LE(writeFlags, HEAD_BYTES + 20);
  return packet;
}

it("a thread of our own that asks for what the kernel has forgotten is refused without a lease; others wait (hazard F29)", async () => {
  const OWN_THREAD = 9;
  const bench = new Workbench();
  const own = { ...bench.coherence.sizes.own, isOwnThread: (tid: number) => tid === OWN_THREAD };
  Object.assign(bench.coherence, { sizes: { ...bench.coherence.sizes, own } });
  const errnos: number[] = [];
  const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
  const dispatch = new Dispatch({
    mount: bench.mount,
    port: {
      buffer,
      write: () => errnos.push(-buffer.readInt32LE(4)),
      writeWithBody: () => 0,
      log: silentLog,
      lease: { ...endlessLease, holds: () => false, again: () => new Promise(() => undefined) },
    },
    buffers: new RequestBuffers(64 * 1024, () => undefined),
    interrupts: new Interrupts({ readStatus: () => null } as never),
    ...usual,
  });
  const lookup = { op: "lookup", unique: 2, uid: 0, gid: 0, fuseNodeid: bench.file.fuseNodeid } as const;
  dispatch.serve({ ...lookup, pid: 42, name: Buffer.from(".") });
  dispatch.serve({ ...lookup, pid: OWN_THREAD, name: Buffer.from("name") });
  await new Promise((resolve) => setImmediate(resolve));
  expect(errnos).toEqual([]);
  for (const name of [".", ".."]) dispatch.serve({ ...lookup, pid: OWN_THREAD, name: Buffer.from(name) });
  expect(errnos).toEqual([E.ESTALE, E.ESTALE]);
});

it("an unlock that waits for the lease waits on through a signal, as on one machine; a request for a lock does not", async () => {
  const bench = new Workbench();
  const { fh } = bench.openFile();
  const unlocked: unknown[] = [];
  Object.assign(bench.mount, { fileLocks: { unlock: (...what: unknown[]) => (unlocked.push(what), "granted") } });
  let end = (): void => {};
  const again = new Promise<void>((resolve) => (end = resolve));
  let holds = false;
  const errnos: [number, number][] = [];
  const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
  const note = (): number => errnos.push([Number(buffer.readBigUInt64LE(8)), Math.abs(buffer.readInt32LE(4))]);
  const interrupts = new Interrupts({ readStatus: () => "", every: () => () => undefined });
  const dispatch = new Dispatch({
    mount: bench.mount,
    port: { buffer, write: note, writeWithBody: note, log: silentLog, lease: { ...endlessLease, holds: () => holds, again: () => again } },
    buffers: new RequestBuffers(64 * 1024, () => undefined),
    interrupts,
    ...usual,
  });
  const lock = { op: "setlk", uid: 0, gid: 0, pid: 42, fuseNodeid: bench.file.fuseNodeid, fh, owner: 5n, start: 0n, end: 9n } as const;
  // flock(2) asks for both so.
  for (const [type, unique] of [["unlock", 2] as const, ["write", 4] as const]) {
    dispatch.serve({ ...lock, type, unique, lockPid: 42, flock: true, wait: true });
    interrupts.receive(unique);
  }
  await new Promise((resolve) => setImmediate(resolve));
  expect([errnos, unlocked]).toEqual([[[4, E.EINTR]], []]);
  holds = true;
  end();
  await dispatch.drained();
  interrupts.stop();
  expect([errnos.at(-1), unlocked.length]).toEqual([[2, 0], 1]);
});

it.each([
  ["holds again", false],
  ["is over", true],
])("a write-back that waits for the lease counts from when it came, until the lease %s and it is answered", async (_lease, over) => {
  const bench = new Workbench();
  const { fh } = bench.openFile();
  let end = (): void => {};
  const again = new Promise<void>((resolve, reject) => (end = over ? () => reject(errnoError(E.EIO)) : resolve));
  let held = false;
  const buffers = new RequestBuffers(64 * 1024, () => undefined);
  const dispatch = new Dispatch({
    mount: bench.mount,
    port: {
      buffer: Buffer.alloc(REPLY_BUFFER_BYTES),
      write: () => 0,
      writeWithBody: () => 0,
      log: silentLog,
      lease: { ...endlessLease, holds: () => held, again: () => again },
    },
    buffers,
    interrupts: new Interrupts({ readStatus: () => null } as never),
    ...usual,
  });
  const receive = (writeFlags: number): void => {
    const packet = writePacket(bench.file.fuseNodeid, fh, writeFlags);
    packet.copy(buffers.current);
    dispatch.receive(packet.length);
  };
  receive(0);
  expect(isWrittenBack(bench.file)).toBe(false);
  receive(WRITE_CACHE);
  expect(isWrittenBack(bench.file)).toBe(true);
  held = true;
  end();
  await dispatch.drained();
  expect(isWrittenBack(bench.file)).toBe(false);
  expect([dispatch.counters.bugs, bench.file.requests]).toEqual([0, null]);
});

/** After a crash; null: the process before had come to rest. Gives errnos of answers, and what was asked of the lower. */
function resumed(before: Partial<RequestsBefore> | null): { bench: Workbench; dispatch: Dispatch; errnos: number[]; replied: number[] } {
  const bench = new Workbench();
  const errnos: number[] = [];
  const replied: number[] = [];
  const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
  const journal = { replied: (request: number) => void replied.push(request) };
  const dispatch = new Dispatch({
    mount: bench.mount,
    port: { buffer, write: () => errnos.push(-buffer.readInt32LE(4)), writeWithBody: () => 0, log: silentLog, lease: endlessLease },
    buffers: new RequestBuffers(64 * 1024, () => undefined),
    interrupts: new Interrupts({ readStatus: () => null } as never),
    ...usual,
    journal: journal as never,
    before: before === null ? null : { made: () => null, givenHandle: () => null, ...before },
  });
  return { bench, dispatch, errnos, replied };
}

describe("a request that the kernel sends again after a crash (hazards F38, F39)", () => {
  const mkdir = { op: "mkdir", uid: 0, gid: 0, pid: 42, name: Buffer.from("new"), mode: 0o755, umask: 0, supplementaryGids: [] } as const;

  it("is answered with what was refused, and nothing is asked of the lower; the same from now on is made", async () => {
    const { bench, dispatch, errnos, replied } = resumed({ made: (request) => (request === 100 ? { errno: E.EDQUOT } : null) });
    const request = { ...mkdir, fuseNodeid: bench.inodes.root.fuseNodeid };
    dispatch.serve({ ...request, unique: 100 + RESENT });
    await dispatch.drained();
    expect([errnos, bench.lower.calls.filter((call) => call.startsWith("mkdir"))]).toEqual([[E.EDQUOT], []]);
    for (const unique of [100, 102 + RESENT]) dispatch.serve({ ...request, unique });
    await dispatch.drained();
    expect(bench.lower.calls.filter((call) => call.startsWith("mkdir"))).toHaveLength(2);
    expect(replied).toEqual([100, 100, 102]);
  });

  it.each([
    ["is told the truth of a file that is gone: it may have had its one ESTALE", {}, E.ENOENT],
    ["where the process before had come to rest has its one ESTALE, if it had none there (hazard F42)", null, E.ESTALE],
  ] as const)("%s", async (_, before, errno) => {
    const { bench, dispatch, errnos } = resumed(before);
    bench.lower.errors.set("getxattr", [E.ESTALE]);
    const asked = { op: "getxattr", uid: 0, gid: 0, pid: 42, name: Buffer.from("user.a"), size: 10 } as const;
    dispatch.serve({ ...asked, fuseNodeid: bench.file.fuseNodeid, unique: 100 + RESENT });
    await dispatch.drained();
    expect(errnos).toEqual([errno]);
  });

  it("closes the handle with which it was about to be answered", async () => {
    const given: { fh: number | null } = { fh: null };
    const { bench, dispatch } = resumed({ givenHandle: (request) => (request === 100 ? given.fh : null) });
    const file = bench.openFile();
    given.fh = file.fh;
    dispatch.serve({ op: "open", uid: 0, gid: 0, pid: 42, unique: 102 + RESENT, fuseNodeid: bench.file.fuseNodeid, flags: 0 } as never);
    await dispatch.drained();
    expect(bench.mount.handles.get(file.fh)).toBe(file);
    dispatch.serve({ op: "open", uid: 0, gid: 0, pid: 42, unique: 100 + RESENT, fuseNodeid: bench.file.fuseNodeid, flags: 0 } as never);
    await dispatch.drained();
    expect(bench.mount.handles.get(file.fh)).toBeUndefined();
  });
});

/** Hazard F42. */
describe("what ends with an error when dlmd has died", () => {
  const OWN_THREAD = 9;
  const setUp = (hasChanged: (request: number) => boolean) => {
    const bench = new Workbench();
    const sent: [number, number][] = [];
    const replied: number[] = [];
    const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
    const note = (): number => sent.push([Number(buffer.readBigUInt64LE(8)), Math.abs(buffer.readInt32LE(4))]);
    const interrupts = new Interrupts({ readStatus: () => null, every: () => () => undefined });
    const dispatch = new Dispatch({
      mount: bench.mount,
      port: { buffer, write: note, writeWithBody: note, log: silentLog, lease: endlessLease },
      buffers: new RequestBuffers(64 * 1024, () => undefined),
      interrupts,
      ...usual,
      journal: { replied: (request: number) => void replied.push(request), hasChanged } as never,
    });
    const getattr = { op: "getattr", uid: 0, gid: 0, fuseNodeid: bench.file.fuseNodeid, fh: null } as const;
    return { bench, sent, replied, interrupts, dispatch, getattr };
  };
  /** Its handler ends so. */
  const failing = (bench: Workbench): void => void Object.assign(bench.lower, { getattr: () => Promise.reject(errnoError(E.EINTR)) });

  it("has no answer, here or when its caller is killed; what a thread of this process waits for has one, and what goes well", async () => {
    const { bench, sent, replied, interrupts, dispatch, getattr } = setUp(() => false);
    dispatch.leave({ isOwn: (tid) => tid === OWN_THREAD });
    dispatch.serve({ ...getattr, pid: 42, unique: 2 });
    await dispatch.drained();
    failing(bench);
    dispatch.serve({ ...getattr, pid: 42, unique: 4 });
    dispatch.serve({ ...getattr, pid: OWN_THREAD, unique: 6 });
    await dispatch.drained();
    interrupts.stop();
    expect(sent).toEqual([
      [2, 0],
      [6, E.EINTR],
    ]);
    // Its calls are not forgotten.
    expect([replied, dispatch.left, dispatch.counters.bugs]).toEqual([[2, 6], 1, 0]);
  });

  it("must not be made again if it has changed something, and if nobody has written that down", async () => {
    const changed = setUp((request) => request === 4);
    changed.dispatch.leave({ isOwn: () => false });
    failing(changed.bench);
    changed.dispatch.serve({ ...changed.getattr, pid: 42, unique: 2 });
    await changed.dispatch.drained();
    expect(changed.dispatch.left).toBe(1);
    changed.dispatch.serve({ ...changed.getattr, pid: 42, unique: 4 });
    await changed.dispatch.drained();
    expect(changed.dispatch.left).toBeNull();
  });
});

describe("an answer that waits for the lease is not noted as given before it leaves (hazard F38)", () => {
  const OWN_UNIQUE = 2;
  const setUp = () => {
    const bench = new Workbench();
    const events: string[] = [];
    const kept: KeptAnswer[] = [];
    const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
    let killed = false;
    const interrupts = new Interrupts({ readStatus: () => (killed ? null : ""), every: () => () => undefined });
    const dispatch = new Dispatch({
      mount: bench.mount,
      port: {
        buffer,
        write: () => events.push(`to the kernel: ${-buffer.readInt32LE(4)}`),
        writeWithBody: () => 0,
        log: silentLog,
        lease: { ...endlessLease, holds: () => false, keep: (answer) => void kept.push(answer) },
      },
      buffers: new RequestBuffers(64 * 1024, () => undefined),
      interrupts,
      ...usual,
      journal: { replied: (request: number) => void events.push(`replied ${request}`), hasChanged: () => false } as never,
    });
    const kill = (): void => {
      killed = true;
      interrupts.receive(OWN_UNIQUE);
    };
    const request = { op: "getattr", unique: OWN_UNIQUE, uid: 0, gid: 0, pid: 42, fuseNodeid: bench.file.fuseNodeid, fh: null } as const;
    dispatch.serve(request);
    return { dispatch, events, kept, interrupts, kill };
  };

  it.each([
    ["the lease holds again", 0, ({ kept }: ReturnType<typeof setUp>) => kept.forEach((answer) => answer.release())],
    ["the mount is taken out", E.EIO, ({ kept }: ReturnType<typeof setUp>) => kept.forEach((answer) => answer.giveUp())],
    ["its caller is killed", 0, ({ kill }: ReturnType<typeof setUp>) => kill()],
    ["the session ends", 0, ({ interrupts }: ReturnType<typeof setUp>) => interrupts.stop()],
  ])("until %s", async (_, errno, end) => {
    const one = setUp();
    await one.dispatch.drained();
    expect([one.events, one.kept.length]).toEqual([[], 1]);
    end(one);
    expect(one.events).toEqual([`to the kernel: ${errno}`, `replied ${OWN_UNIQUE}`]);
    expect([one.interrupts.has(OWN_UNIQUE), one.dispatch.counters.bugs]).toEqual([false, 0]);
  });

  it("nor is one whose caller was told EINTR, before its handler has ended", async () => {
    const one = setUp();
    one.kill();
    expect(one.events).toEqual([`to the kernel: ${E.EINTR}`]);
    await one.dispatch.drained();
    expect([one.events, one.kept]).toEqual([[`to the kernel: ${E.EINTR}`, `replied ${OWN_UNIQUE}`], []]);
  });
});
