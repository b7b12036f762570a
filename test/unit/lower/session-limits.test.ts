/** Limits and times of a session between a caller and its owner: at the limit it goes on, one beyond it what the comment says happens. */
import { WireError } from "../../../dlmd/base/error.ts";
import { Duplex } from "node:stream";
import { createServer } from "node:net";
import type { TLSSocket } from "node:tls";
import { afterEach, describe, expect, it, vi } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { SecureConnection } from "../../../dlmd/tls/secure-connection.ts";
import { encodeHello } from "../../../overlay/lower/wire/handshake.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { WELCOME_TIMEOUT_MS } from "../../../overlay/lower/remote/connection.ts";
import { MAX_OUTSTANDING_CALLS, MAX_WAITING_CALLS } from "../../../overlay/lower/remote/waiting-calls.ts";
import { type ConnectionHost, ServerConnection } from "../../../overlay/lower/server/connection.ts";
import { MAX_SESSION_HANDLES } from "../../../overlay/lower/server/session-handles.ts";
import {
  MAX_REMEMBERED_ANSWERS,
  MAX_RUNNING_BYTES,
  MAX_RUNNING_CALLS,
  ServerSession,
  TOGETHER_BYTES_MAX,
} from "../../../overlay/lower/server/session.ts";
import { encodeFrame, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "../../../overlay/lower/wire/frame.ts";
import type { CallName, RequestOf } from "../../../overlay/lower/wire/call-types.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { TEST_OWNER, TEST_VOLUME } from "../../compliance/lower-fixture.ts";
import { SAMPLES } from "../../vector/lower/samples.ts";
import { caller, errnoOf, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const inode = { ino: 12, generation: 1 };
const sessionId = { nodeid: 1, incarnation: "i1", clientId: 3, ownerEpoch: 1 };
const never = (): Promise<never> => new Promise(() => undefined);

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function bodyOf<K extends CallName>(call: K, request: RequestOf<K>): Uint8Array {
  const writer = new ByteWriter();
  CALLS[call].request.write(writer, request);
  return writer.copy();
}

/** With the types of its answers. */
function sessionOf(lower: Partial<LocalLower>, mayServe?: () => boolean): { session: ServerSession; answers: number[] } {
  const session = new ServerSession(
    sessionId,
    { failedSyncs: () => 0, ...lower } as LocalLower,
    silentLog,
    () => undefined,
    () => Promise.reject(new Error("not asked for")),
    mayServe,
  );
  const answers: number[] = [];
  session.sink = { answer: (type) => void answers.push(type), isFull: false, resume: () => undefined };
  return { session, answers };
}

describe("a session at the owner", () => {
  it("has at most MAX_SESSION_HANDLES open files: then open and create fail", () => {
    const { session, answers } = sessionOf({ open: () => 7 as never });
    session.receive("claimed", 0, new Uint8Array(0));
    const open = (handle: number): void =>
      session.receive("open", handle, bodyOf("open", { id: inode, flags: RDWR, handle, promised: false }));
    for (let handle = 1; handle <= MAX_SESSION_HANDLES; handle++) open(handle);
    expect([session.openHandles, answers.includes(FrameType.FAILED)]).toEqual([MAX_SESSION_HANDLES, false]);
    open(MAX_SESSION_HANDLES + 1);
    expect([session.openHandles, answers.at(-1)]).toEqual([MAX_SESSION_HANDLES, FrameType.FAILED]);
    const handle = MAX_SESSION_HANDLES + 2;
    const create = bodyOf("create", { parent: inode, name: name("f"), handle, flags: RDWR, mode: 0o644, caller, tellParent: false });
    answers.length = 0;
    session.receive("create", handle, create);
    const tmpfile = (id: number, number: number): void =>
      session.receive(
        "tmpfile",
        id,
        bodyOf("tmpfile", { parent: inode, handle: number, flags: RDWR, mode: 0o644, caller, linkable: true }),
      );
    tmpfile(handle + 1, handle);
    expect(answers).toEqual([FrameType.FAILED, FrameType.FAILED]);
  });

  it("a file without a name has a number of its own, and ends with its caller", async () => {
    const closed: number[] = [];
    let made = 0;
    const { session, answers } = sessionOf({
      tmpfile: () => {
        made += 1;
        return { entry: { id: inode, attr: SAMPLES.getattr.answer }, handle: made as never };
      },
      close: (handle) => void closed.push(handle),
    });
    const tmpfile = (id: number, handle: number): void =>
      session.receive("tmpfile", id, bodyOf("tmpfile", { parent: inode, handle, flags: RDWR, mode: 0o644, caller, linkable: true }));
    tmpfile(1, 7);
    // Sent again over another connection: made once.
    tmpfile(1, 7);
    tmpfile(2, 7);
    const done = CALLS.tmpfile.type | FrameType.ANSWER;
    expect([made, answers, session.openHandles]).toEqual([1, [done, done, FrameType.FAILED], 1]);
    await session.close();
    expect(closed).toEqual([1]);
  });

  it("two files that are made at once have two numbers: the second one is refused, and its close waits for the first", async () => {
    const closed: number[] = [];
    const makes: (() => void)[] = [];
    const { session, answers } = sessionOf({
      tmpfile: () =>
        new Promise((resolve) =>
          makes.push(() => resolve({ entry: { id: inode, attr: SAMPLES.getattr.answer }, handle: makes.length as never })),
        ),
      close: (handle) => void closed.push(handle),
    });
    const tmpfile = bodyOf("tmpfile", { parent: inode, handle: 7, flags: RDWR, mode: 0o644, caller, linkable: true });
    session.receive("tmpfile", 1, tmpfile);
    session.receive("tmpfile", 2, tmpfile);
    session.receive("close", 3, bodyOf("close", { handles: [7] }));
    expect([makes.length, answers]).toEqual([1, [FrameType.FAILED]]);
    for (const make of makes) make();
    await until(() => answers.length === 3);
    expect([session.openHandles, closed]).toEqual([0, [1]]);
  });

  it("does not take one file for another that has the same number", () => {
    const { session, answers } = sessionOf({ open: () => 7 as never });
    const open = (id: number, ino: number): void =>
      session.receive("open", id, bodyOf("open", { id: { ino, generation: 1 }, flags: RDWR, handle: 1, promised: false }));
    for (const [at, ino] of [12, 12, 13].entries()) open(at + 1, ino);
    const done = CALLS.open.type | FrameType.ANSWER;
    expect([session.openHandles, answers]).toEqual([1, [done, done, FrameType.FAILED]]);
  });

  it("files for which there was no room when they were opened again are kept, and the others are open", () => {
    const pinned: number[] = [];
    const { session, answers } = sessionOf({ open: () => 7 as never, pin: ({ ino }) => void pinned.push(ino) });
    for (let handle = 1; handle <= MAX_SESSION_HANDLES + 1; handle++) {
      session.receive("open", handle, bodyOf("open", { id: { ino: handle, generation: 1 }, flags: RDWR, handle, promised: false }));
    }
    expect([session.openHandles, answers.at(-1), pinned]).toEqual([MAX_SESSION_HANDLES, FrameType.FAILED, [MAX_SESSION_HANDLES + 1]]);
  });

  it("files that could not be opened again count as open files, once; those beyond MAX_SESSION_HANDLES are kept as well", () => {
    const pinned = { count: 0 };
    let fails = true;
    const { session, answers } = sessionOf({
      open: () => {
        if (fails) throw errnoError(E.EMFILE);
        return 7 as never;
      },
      pin: () => void (pinned.count += 1),
      unpin: () => void (pinned.count -= 1),
    });
    let id = 0;
    const open = (handle: number, promised = false): number | undefined => {
      id += 1;
      session.receive("open", id, bodyOf("open", { id: inode, flags: RDWR, handle, promised }));
      return answers.at(-1);
    };
    for (let handle = 1; handle <= MAX_SESSION_HANDLES; handle++) open(handle);
    expect(pinned.count).toBe(MAX_SESSION_HANDLES);
    fails = false;
    // The owner's own mount may have had so many: what finds no room is open there all the same.
    expect([open(MAX_SESSION_HANDLES + 1), pinned.count]).toEqual([FrameType.FAILED, MAX_SESSION_HANDLES + 1]);
    const create = { parent: inode, name: name("f"), handle: MAX_SESSION_HANDLES + 2, flags: RDWR, mode: 0o644, caller, tellParent: false };
    session.receive("create", id + 1, bodyOf("create", create));
    expect(answers.at(-1)).toBe(FrameType.FAILED);
    // The same one again, at the limit.
    id += 1;
    expect(open(1)).toBe(CALLS.open.type | FrameType.ANSWER);
    expect([session.openHandles, pinned.count]).toEqual([1, MAX_SESSION_HANDLES]);
    // What is opened after the claim is no other owner's, but for what a program there has open already.
    session.receive("claimed", id + 1, new Uint8Array(0));
    id += 1;
    expect([open(MAX_SESSION_HANDLES + 2), pinned.count]).toEqual([FrameType.FAILED, MAX_SESSION_HANDLES]);
    expect([open(MAX_SESSION_HANDLES + 3, true), pinned.count]).toEqual([FrameType.FAILED, MAX_SESSION_HANDLES + 1]);
  });

  it("is full with MAX_RUNNING_CALLS calls", () => {
    const { session } = sessionOf({ statfs: never });
    for (let id = 1; id < MAX_RUNNING_CALLS; id++) session.receive("statfs", id, new Uint8Array(0));
    expect(session.full).toBe(false);
    session.receive("statfs", MAX_RUNNING_CALLS, new Uint8Array(0));
    expect(session.full).toBe(true);
  });

  it("is full with calls of MAX_RUNNING_BYTES", () => {
    const { session } = sessionOf({ open: () => 7 as never, write: never });
    session.receive("open", 1, bodyOf("open", { id: inode, flags: RDWR, handle: 1, promised: false }));
    const head = bodyOf("write", {
      handle: 1,
      data: new Uint8Array(0),
      offset: 0,
      append: false,
      promised: false,
      room: false,
      tell: null,
    });
    const body = Buffer.concat([head], 1024 * 1024);
    const calls = MAX_RUNNING_BYTES / body.length;
    for (let id = 2; id < calls + 1; id++) session.receive("write", id, body);
    expect([session.runningCalls, session.full]).toEqual([calls - 1, false]);
    session.receive("write", calls + 1, body);
    expect([session.runningCalls, session.full]).toEqual([calls, true]);
  });
});

describe("what other nodes ask to read", () => {
  const MIB = 1024 * 1024;
  const MUCH = 512;
  const asked = {
    read: bodyOf("read", { handle: 1, offset: 0, bytes: MIB, open: null }),
    fetch: bodyOf("fetch", { id: inode, handle: 1, offset: 0, bytes: MIB }),
    readdir: bodyOf("readdir", { handle: 1, cookie: 0n, bytes: MIB, listing: "names" }),
    readMany: bodyOf("readMany", { ids: Array.from({ length: 64 }, () => inode) }),
  };

  function reading(call: keyof typeof asked, lower: Partial<LocalLower>): ReturnType<typeof sessionOf> {
    const made = sessionOf({ open: () => 7 as never, close: () => undefined, ...lower });
    made.session.receive("open", 1, bodyOf("open", { id: inode, flags: RDWR, handle: 1, promised: false }));
    for (let id = 2; id < MUCH + 2; id++) made.session.receive(call, id, asked[call]);
    return made;
  }

  it.each([
    ["read", MAX_RUNNING_BYTES / MIB],
    ["fetch", MAX_RUNNING_BYTES / MIB],
    ["readdir", MAX_RUNNING_BYTES / MIB],
    // Of 64 files with up to 8 KiB.
    ["readMany", (2 * MAX_RUNNING_BYTES) / MIB],
  ] as const)("takes no more than MAX_RUNNING_BYTES at a time, though all has come: %s", (call, calls) => {
    const opened: MaybePromise<never>[] = [7 as never];
    const { session } = reading(call, {
      open: () => opened.shift() ?? never(),
      read: never,
      readdir: never,
      getattr: () => SAMPLES.getattr.answer,
    });
    // And their own bytes: one less, or none.
    expect([calls - session.runningCalls < 2, session.runningCalls <= calls, session.full]).toEqual([true, true, true]);
  });

  it("is begun as what was before it ends, in its order", async () => {
    const ends: (() => void)[] = [];
    const { session, answers } = reading("read", { read: () => new Promise((resolve) => ends.push(() => resolve(new Uint8Array(1)))) });
    const most = ends.length;
    for (let at = 0; at < MUCH; at++) {
      ends[at]?.();
      await new Promise((resolve) => setImmediate(resolve));
      expect(answers).toHaveLength(at + 2);
      expect(session.runningCalls).toBe(Math.min(most, MUCH - at - 1));
    }
    expect([ends.length, session.full]).toEqual([MUCH, false]);
  });

  it("waits while too much of what was answered has not left, also where nothing runs", () => {
    let read = 0;
    const { session, answers } = sessionOf({
      open: () => 7 as never,
      read: () => {
        read += 1;
        return new Uint8Array(MIB);
      },
    });
    session.receive("open", 1, bodyOf("open", { id: inode, flags: RDWR, handle: 1, promised: false }));
    let room = 16;
    session.sink = {
      answer(type) {
        answers.push(type);
        room -= 1;
      },
      get isFull(): boolean {
        return room <= 0;
      },
      resume: () => undefined,
    };
    for (let id = 2; id < MUCH + 2; id++) session.receive("read", id, asked.read);
    expect([read, session.runningCalls, session.full]).toEqual([16, 0, true]);
    room = 16;
    session.startQueued();
    expect([read, session.full]).toEqual([32, true]);
    room = MUCH;
    session.startQueued();
    expect([read, session.full]).toEqual([MUCH, false]);
  });
});

describe("what comes after a write that a program need not wait for (hazard F23)", () => {
  const write = bodyOf("write", { handle: 1, data: new Uint8Array(1), offset: 0, append: false, promised: true, room: false, tell: null });
  const none = new Uint8Array(0);

  function writing(mayServe?: () => boolean): { session: ServerSession; answers: number[]; begun: () => number; end: () => void } {
    let begun = 0;
    const ends: (() => void)[] = [];
    const lower: Partial<LocalLower> = {
      open: () => 7 as never,
      write: () => new Promise((resolve) => ends.push(() => resolve({ offset: 0, bytes: 1 }))),
      syncfs: () => void (begun += 1),
      close: () => undefined,
    };
    const { session, answers } = sessionOf(lower, mayServe);
    session.receive("open", 1, bodyOf("open", { id: inode, flags: RDWR, handle: 1, promised: false }));
    session.receive("write", 2, write);
    return { session, answers, begun: () => begun, end: () => ends.shift()?.() };
  }

  it("waits for its end; the session is full meanwhile, and goes on then", async () => {
    const { session, answers, begun, end } = writing();
    let resumed = 0;
    session.sink = { answer: (type) => void answers.push(type), isFull: false, resume: () => void (resumed += 1) };
    session.receive("syncfs", 3, none);
    // The caller has connected again.
    session.receive("syncfs", 3, none);
    session.receive("write", 4, write);
    session.receive("syncfs", 5, none);
    expect([begun(), session.full, resumed]).toEqual([0, true, 0]);
    end();
    await vi.waitFor(() => expect(begun()).toBe(1));
    expect([session.full, resumed]).toEqual([true, 0]);
    end();
    await vi.waitFor(() => expect(begun()).toBe(2));
    expect([session.full, resumed]).toEqual([false, 1]);
  });

  it("is not begun while the owner may not serve", async () => {
    let mayServe = false;
    const { session, begun, end } = writing(() => mayServe);
    // The connection may be gone meanwhile.
    session.sink = null;
    session.receive("syncfs", 3, none);
    end();
    await vi.waitFor(() => expect(session.runningCalls).toBe(0));
    session.startQueued();
    // What comes meanwhile comes after it.
    session.receive("syncfs", 4, none);
    expect([begun(), session.full]).toEqual([0, true]);
    mayServe = true;
    session.startQueued();
    expect([begun(), session.full]).toEqual([2, false]);
  });

  it("is begun once where the look at the lease lets the owner serve again", async () => {
    const looks: (() => void)[] = [];
    const { session, begun, end } = writing(() => {
      looks.shift()?.();
      return true;
    });
    looks.push(() => session.startQueued());
    for (const id of [3, 4]) session.receive("syncfs", id, none);
    end();
    await vi.waitFor(() => expect(session.runningCalls).toBe(0));
    expect([begun(), looks.length]).toEqual([2, 0]);
  });

  it("is refused when it is more than MAX_RUNNING_CALLS, or does not decode, and not begun when the session has ended", async () => {
    const { session, begun, end } = writing();
    expect(() => session.receive("getattr", 3, new Uint8Array(1))).toThrow(WireError);
    for (let id = 0; id < MAX_RUNNING_CALLS; id++) session.receive("syncfs", 10 + id, none);
    expect(() => session.receive("syncfs", 10 + MAX_RUNNING_CALLS, none)).toThrow(WireError);
    const retired = session.retire();
    end();
    await retired;
    expect(begun()).toBe(0);
  });
});

describe("writes that wait and go on in each other (hazard F23)", () => {
  const half = TOGETHER_BYTES_MAX / 2;
  const body = (offset: number, bytes: number): Uint8Array => {
    const head = bodyOf("write", { handle: 1, data: new Uint8Array(0), offset, append: false, promised: true, room: false, tell: null });
    return Buffer.concat([head], head.length + bytes);
  };

  interface Writing {
    readonly session: ServerSession;
    readonly answers: number[];
    /** How long they are, as they begin. */
    readonly written: number[];
    readonly end: () => void;
  }

  /** One is under way, two wait. */
  function three(bytes: number): Writing {
    const written: number[] = [];
    const ends: (() => void)[] = [];
    const lower: Partial<LocalLower> = {
      open: () => 7 as never,
      write: (_handle, data, offset) => {
        written.push(data.byteLength);
        const made = { offset, bytes: data.byteLength };
        return new Promise((resolve) => ends.push(() => resolve(made)));
      },
    };
    const { session, answers } = sessionOf(lower);
    session.receive("open", 1, bodyOf("open", { id: inode, flags: RDWR, handle: 1, promised: false }));
    session.receive("write", 2, body(0, 1));
    session.receive("write", 3, body(1, half));
    session.receive("write", 4, body(1 + half, bytes));
    return { session, answers, written, end: () => ends.shift()?.() };
  }

  it.each([
    ["TOGETHER_BYTES_MAX are one call", half, [1, 2 * half]],
    ["one byte more is two", half + 1, [1, half, half + 1]],
  ])("%s", async (_what, bytes, wanted) => {
    const { session, answers, written, end } = three(bytes);
    expect([written, session.full]).toEqual([[1], true]);
    await vi.waitFor(() => {
      end();
      expect(answers).toHaveLength(4);
    });
    expect([written, session.full, session.runningCalls]).toEqual([wanted, false, 0]);
  });

  it("are not begun when the session has ended; one that has is answered", async () => {
    const { session, answers, written, end } = three(half);
    const retired = session.retire();
    end();
    await retired;
    expect([written, answers.length]).toEqual([[1], 2]);
    const other = three(half);
    other.end();
    await vi.waitFor(() => expect(other.written).toEqual([1, 2 * half]));
    let over = false;
    const ends = other.session.retire().then(() => (over = true));
    expect([over, other.answers.length]).toEqual([false, 2]);
    other.end();
    await ends;
    expect(other.answers).toHaveLength(4);
  });
});

/** The socket of a caller whose bytes are pushed into it, and which reads nothing if it is stuck. */
class FakeSocket extends Duplex {
  remoteAddress = "127.0.0.1";
  stuck = false;

  override _read(): void {
    // Pushed by the test.
  }

  override _write(_chunk: Buffer, _encoding: string, done: () => void): void {
    if (!this.stuck) done();
  }
}

describe("a connection at the owner", () => {
  const hello = encodeHello({ version: LOWER_WIRE_VERSION, ...TEST_VOLUME, session: sessionId });
  const statfs = encodeFrame(CALLS.statfs.type, 1, new Uint8Array(0));

  function connected(session: Partial<ServerSession>): {
    connection: ServerConnection;
    socket: FakeSocket;
    whys: string[];
    host: { mayServe: boolean };
  } {
    const whys: string[] = [];
    const host: ConnectionHost & { mayServe: boolean } = {
      owner: { ...TEST_OWNER, epoch: 1 },
      mayServe: true,
      closing: false,
      counters: { received: 0, sent: 0, bytesReceived: 0, bytesSent: 0, refused: 0 },
      received: () => undefined,
      freeMemory: () => undefined,
      check: () => null,
      attach: () => ({ session: session as ServerSession, resumed: false }),
      welcome: () => ({ owner: { ...TEST_OWNER, epoch: 1 }, cleanAfter: 0, letGoAfter: 0, root: inode, hasAcls: false, exclusive: true }),
      welcomed: () => undefined,
      refused: () => undefined,
      ended: (_connection, _address, why) => void whys.push(why),
    };
    const socket = new FakeSocket();
    const secure = { socket: socket as unknown as TLSSocket, key: { id: "k" } } as unknown as SecureConnection;
    const connection = new ServerConnection(host, secure, () => undefined);
    socket.emit("data", encodeFrame(FrameType.HELLO, 0, hello));
    return { connection, socket, whys, host };
  }

  it("ends when its caller has not acknowledged MAX_REMEMBERED_ANSWERS", () => {
    const calls: string[] = [];
    const session = { full: false, rememberedAnswers: MAX_REMEMBERED_ANSWERS, receive: (call: string) => void calls.push(call) };
    const { socket } = connected(session);
    socket.emit("data", statfs);
    expect([calls, socket.destroyed]).toEqual([["statfs"], false]);
    session.rememberedAnswers += 1;
    socket.emit("data", statfs);
    expect([calls, socket.destroyed]).toEqual([["statfs"], true]);
  });

  it("ends when its caller begins a frame of more than MAX_FRAME_BYTES", () => {
    const begun = (bytes: number): boolean => {
      const { socket } = connected({ full: false, rememberedAnswers: 0 });
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes);
      socket.emit("data", length);
      return !socket.destroyed;
    };
    expect([begun(MAX_FRAME_BYTES), begun(MAX_FRAME_BYTES + 1)]).toEqual([true, false]);
  });

  it("is not read while more than MAX_UNSENT_BYTES of answers wait in it", () => {
    const { connection, socket } = connected({ full: false, rememberedAnswers: 0, receive: () => undefined, startQueued: () => undefined });
    socket.stuck = true;
    const fill = (bytes: number): void => void socket.write(Buffer.alloc(bytes));
    fill(16 * 1024 * 1024);
    socket.emit("data", statfs);
    expect(socket.isPaused()).toBe(false);
    fill(1);
    socket.emit("data", statfs);
    expect(socket.isPaused()).toBe(true);
    connection.resume();
    expect(socket.isPaused()).toBe(true);
  });

  it("has what waits begun when its answers have left, unless it was replaced", () => {
    let started = 0;
    const session = {
      full: false,
      sink: null as ServerConnection | null,
      rememberedAnswers: 0,
      receive: () => undefined,
      startQueued: () => void (started += 1),
    };
    const { connection, socket } = connected(session);
    socket.emit("drain");
    expect(started).toBe(0);
    session.sink = connection;
    socket.emit("drain");
    expect(started).toBe(1);
  });

  it("counts answers that are not in its socket yet: they leave at the end of what has come", () => {
    const full: boolean[] = [];
    const session = {
      full: false,
      rememberedAnswers: 0,
      receive: () => {
        full.push(connection.isFull);
        connection.answer(FrameType.ANSWER, 1, new Uint8Array(0), new Uint8Array(8 * 1024 * 1024), false);
      },
    };
    const { connection, socket } = connected(session);
    socket.emit("data", Buffer.concat([statfs, statfs, statfs]));
    expect(full).toEqual([false, false, true]);
  });

  it("waits FAREWELL_MS for a caller that does not go", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { connection } = connected({});
    let left = false;
    const leave = async (): Promise<void> => {
      await connection.farewell();
      left = true;
    };
    void leave();
    await vi.advanceTimersByTimeAsync(999);
    expect(left).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(left).toBe(true);
  });

  it("sees that a caller goes which says something after the farewell, though the owner may not serve any more", async () => {
    const { connection, socket, host } = connected({});
    const told = connection.farewell();
    host.mayServe = false;
    socket.emit("data", statfs);
    expect(socket.isPaused()).toBe(false);
    socket.destroy();
    await told;
  });
});

describe("a caller", () => {
  it("sends at most MAX_OUTSTANDING_CALLS at a time, and the others when those are answered", async () => {
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const owner = await lab.owner(1, (lower) => ({
      ...lower,
      async statfs() {
        await gate;
        return await lower.statfs();
      },
    }));
    const lower = lab.remote();
    await lower.connect(owner.address, 1);
    const before = lower.counters.messagesSent;
    const calls = Array.from({ length: MAX_OUTSTANDING_CALLS + 1 }, async () => await lower.statfs());
    expect(lower.counters.messagesSent - before).toBe(MAX_OUTSTANDING_CALLS);
    release();
    await Promise.all(calls);
    expect(lower.counters.messagesSent - before).toBe(MAX_OUTSTANDING_CALLS + 1);
  });

  it("has at most MAX_WAITING_CALLS that wait: then ENOMEM", async () => {
    const owner = await lab.owner();
    const lower = lab.remote();
    await lower.connect(owner.address, 1);
    const { root } = lower;
    lower.ownerLost();
    const ends = Array.from({ length: MAX_WAITING_CALLS }, async () => await errnoOf(() => lower.getattr(root)));
    expect(await errnoOf(() => lower.getattr(root))).toBe(E.ENOMEM);
    lower.shutdown();
    expect(new Set(await Promise.all(ends))).toEqual(new Set([E.EIO]));
  });

  it("tries again after RECONNECT_MIN_MS, doubling up to RECONNECT_MAX_MS, and logs it once in LOG_INTERVAL_MS", async () => {
    const owner = await lab.owner();
    const logged: unknown[] = [];
    const lower = lab.remote({}, { ...silentLog, warn: (fields) => void logged.push(fields["retryMs"]) });
    // A port at which nobody listens.
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    const timers = vi.spyOn(globalThis, "setTimeout");
    const delays = (): number[] => timers.mock.calls.map(([, delay]) => delay ?? 0).filter((delay) => delay !== WELCOME_TIMEOUT_MS);
    void Promise.resolve(lower.connect({ ...owner.address, port }, 1)).catch(() => undefined);
    for (let tries = 1; tries <= 9; tries++) {
      await until(() => delays().length === tries);
      vi.advanceTimersByTime(delays().at(-1) ?? 0);
    }
    expect(delays()).toEqual([10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    expect(logged).toEqual([10]);
    // The ninth failure was 2.27 s after the first, the sixteenth was 9.27 s after it.
    for (let tries = 10; tries <= 16; tries++) {
      await until(() => delays().length === tries);
      expect(logged).toEqual([10]);
      vi.advanceTimersByTime(1000);
    }
    await until(() => delays().length === 17);
    expect(logged).toEqual([10, 1000]);
    lower.shutdown();
  });

  it("waits FORGET_MS for what was read from an owner that died, before it asks the next one", async () => {
    const lower = lab.remote({}, silentLog, { onOwnerDied: never });
    await lower.connect((await lab.owner(1)).address, 1);
    lower.ownerLost();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const timers = vi.spyOn(globalThis, "setTimeout");
    const second = await lab.owner(2);
    lower.ownerFound(second.address, 2);
    let answered = false;
    const ask = async (): Promise<void> => {
      await lower.getattr(lower.root);
      answered = true;
    };
    const answer = ask();
    await until(() => timers.mock.calls.some(([, delay]) => delay === 1000));
    await vi.advanceTimersByTimeAsync(999);
    expect([answered, second.server.counters.received]).toEqual([false, 1]);
    vi.advanceTimersByTime(1);
    await answer;
    expect(answered).toBe(true);
  });
});
