/** Hazard F38, over the real wire: what became of the calls of a process that has died, and what of them is made for the next one. */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { MAX_OUTCOMES, OUTCOMES_BYTES_MAX } from "../../../overlay/lower/limits.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import type { CallJournal } from "../../../overlay/lower/remote/call-journal.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { ServerSession } from "../../../overlay/lower/server/session.ts";
import { decodeWith } from "../../../overlay/lower/wire/call-codecs.ts";
import type { AskedCall, CallName, Outcome, RequestOf } from "../../../overlay/lower/wire/call-types.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { FrameType } from "../../../overlay/lower/wire/frame.ts";
import { TEST_CALLER } from "../../compliance/lower-fixture.ts";
import { entryOf, FILE, OTHER } from "../op/scripted-lower.ts";
import { caller, errnoOf, name, type Owner, type Proxy, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const DEAD = TEST_CALLER.clientId;
const ORPHANS = ".coverlay.orphans";

/** What a process has asked for, as the next one asks about it. */
class PlayedJournal implements CallJournal {
  readonly asked: AskedCall[] = [];
  begun(id: number, type: number, _request: number, body: Uint8Array | null, data: Uint8Array | null): void {
    this.asked.push({ id, type, body: body === null ? null : Buffer.concat([body, data ?? new Uint8Array(0)]) });
  }
  answered(): void {
    // All are asked about.
  }
  over(): void {
    // All are asked about.
  }
  last(count: number): AskedCall[] {
    return this.asked.slice(-count);
  }
}

interface Scene {
  readonly one: Owner;
  readonly proxy: Proxy;
  readonly dead: RemoteLower;
  readonly journal: PlayedJournal;
  /** The process has died, and the next one is there. */
  readonly next: () => Promise<RemoteLower>;
  /** Of the owner's lower, in the order in which they began. */
  readonly begun: string[];
  /** Holds the owner's writes back until it is called. */
  readonly open: () => void;
}

async function scene(holdsWrites = false): Promise<Scene> {
  const begun: string[] = [];
  let open = (): void => undefined;
  const opened = holdsWrites ? new Promise<void>((resolve) => (open = resolve)) : Promise.resolve();
  const one = await lab.owner(1, (lower) => ({
    ...lower,
    mkdir: (...given: Parameters<LocalLower["mkdir"]>) => {
      begun.push(`mkdir ${given[1].toString()}`);
      return lower.mkdir(...given);
    },
    setxattr: (...given: Parameters<LocalLower["setxattr"]>) => {
      begun.push(`setxattr ${given[1].toString()}`);
      return lower.setxattr(...given);
    },
    write: async (handle, data, offset, append) => {
      begun.push(`write ${Buffer.from(data).toString()}`);
      await opened;
      return lower.write(handle, data, offset, append);
    },
  }));
  const proxy = await lab.proxyTo(one);
  const journal = new PlayedJournal();
  const dead = lab.remote({}, silentLog, { journal });
  await dead.connect(proxy.address, 1);
  const next = async (): Promise<RemoteLower> => {
    dead.shutdown();
    const lower = lab.remote({ clientId: DEAD + 40 });
    await lower.connect(one.address, 1);
    return lower;
  };
  return { one, proxy, dead, journal, next, begun, open: () => open() };
}

const make = (lower: RemoteLower, called: string): Promise<unknown> =>
  Promise.resolve(lower.mkdir(lower.root, name(called), 0o755, caller)).catch((error: unknown) => error);

function madeIno(outcome: Outcome | undefined): number | null {
  if (outcome?.state !== "answered" || outcome.type !== (CALLS.mkdir.type | FrameType.ANSWER)) return null;
  return decodeWith(CALLS.mkdir.answer, outcome.body).entry.id.ino;
}

const onDisk = (...called: string[]): string => path.join(lab.place.path, ...called);

async function behind(lower: RemoteLower, handle: Parameters<RemoteLower["writeBehind"]>[0], text: string, at: number): Promise<void> {
  await lower.writeBehind(handle, Buffer.from(text), at).catch(() => undefined);
}

describe("calls of a process that has died", () => {
  it("that were made are answered as they were; what did not come was not made, and is not when it comes", async () => {
    const { proxy, dead, journal, next, begun } = await scene();
    proxy.holdAnswers = true;
    void make(dead, "came");
    void dead.setxattr(dead.root, name("user.none"), Buffer.from("v"), 2)?.catch(() => undefined);
    await until(() => begun.length === 2);
    proxy.holdRequests = true;
    const late = new Promise<void>((resolve) => (proxy.onRequest = resolve));
    void make(dead, "late");
    await late;
    const lower = await next();
    const outcomes = await lower.outcomes(DEAD, journal.asked);
    expect(outcomes.map(({ state }) => state)).toEqual(["answered", "answered", "not-made"]);
    expect(madeIno(outcomes[0])).toBe(fs.statSync(onDisk("came")).ino);
    expect(outcomes[1]).toEqual({
      state: "answered",
      type: FrameType.FAILED,
      body: Uint8Array.from(new ByteWriter().u32(E.ENODATA).copy()),
    });
    proxy.arrive();
    await lower.getattr(lower.root);
    expect([begun, fs.existsSync(onDisk("late"))]).toEqual([["mkdir came", "setxattr user.none"], false]);
    expect(await lower.outcomes(DEAD, journal.asked)).toEqual(outcomes);
  });

  it("of which a program was told are made, in their order, and once", async () => {
    const { proxy, dead, journal, next, begun } = await scene();
    const { handle } = await dead.create(dead.root, name("f"), RDWR, 0o644, caller);
    expect(dead.mayWriteBehind(handle, 0, 9)).toBe(true);
    const first = behind(dead, handle, "first", 0);
    dead.hurry();
    await first;
    proxy.dropRequests = true;
    void behind(dead, handle, "second", 0);
    void behind(dead, handle, "third", 3);
    dead.hurry();
    const lower = await next();
    const asked = journal.last(3);
    expect(asked.map(({ body }) => body !== null)).toEqual([true, true, true]);
    const outcomes = await lower.outcomes(DEAD, asked);
    expect(outcomes.map(({ state }) => state)).toEqual(["answered", "answered", "answered"]);
    expect(await lower.outcomes(DEAD, asked)).toEqual(outcomes);
    expect([begun, fs.readFileSync(onDisk("f"), "utf8")]).toEqual([["write first", "write second", "write third"], "secthird"]);
  });

  it("of which a program was told, and that fail now, are answered so", async () => {
    const lower = await (await scene()).next();
    const asked = [{ id: 50, type: CALLS.write.type, body: writeBody({ handle: 99 }) }];
    const failed = { state: "answered", type: FrameType.FAILED, body: Uint8Array.from(new ByteWriter().u32(E.EBADF).copy()) };
    expect([await lower.outcomes(DEAD, asked), await lower.outcomes(DEAD, asked)]).toEqual([[failed], [failed]]);
  });

  it("that run, and that wait behind one of which a program was told, are awaited", async () => {
    const { dead, journal, next, begun, open } = await scene(true);
    const { handle } = await dead.create(dead.root, name("f"), RDWR, 0o644, caller);
    void behind(dead, handle, "slow", 0);
    void make(dead, "queued");
    await until(() => begun.length === 1);
    const lower = await next();
    let outcomes: readonly Outcome[] | null = null;
    const told = lower.outcomes(DEAD, journal.last(2)).then((all) => (outcomes = all));
    await lower.getattr(lower.root);
    expect([outcomes, begun]).toEqual([null, ["write slow"]]);
    open();
    expect((await told).map(({ state }) => state)).toEqual(["answered", "answered"]);
    expect([begun, fs.existsSync(onDisk("queued"))]).toEqual([["write slow", "mkdir queued"], true]);
  });

  it("are awaited where nobody asks about one of them, and nothing is taken any more", async () => {
    const { one, proxy, dead, next, begun, open } = await scene(true);
    const { handle } = await dead.create(dead.root, name("f"), RDWR, 0o644, caller);
    void behind(dead, handle, "slow", 0);
    dead.hurry();
    await until(() => begun.length === 1);
    proxy.holdRequests = true;
    const late = new Promise<void>((resolve) => (proxy.onRequest = resolve));
    void make(dead, "late");
    await late;
    const lower = await next();
    let outcomes: readonly Outcome[] | null = null;
    const told = lower.outcomes(DEAD, []).then((all) => (outcomes = all));
    await lower.getattr(lower.root);
    expect(outcomes).toBe(null);
    open();
    expect(await told).toEqual([]);
    proxy.arrive();
    expect([await lab.refusal({}, one), fs.existsSync(onDisk("late")), fs.readFileSync(onDisk("f"), "utf8")]).toEqual([
      "gone",
      false,
      "slow",
    ]);
  });

  it("are not known of a client that has no session, and it gets none any more", async () => {
    const { one, next } = await scene();
    const lower = await next();
    expect(await lower.outcomes(77, [{ id: 1, type: CALLS.mkdir.type, body: null }])).toEqual([{ state: "unknown-session" }]);
    expect(await lab.refusal({ clientId: 77 }, one)).toBe("gone");
    expect(await lab.refusal({ clientId: 78 }, one)).toBe("welcome");
  });

  it("its files stay open until its client is gone, and no connection of it is served", async () => {
    const { one, dead, journal, next } = await scene();
    await one.lower.openOrphans(false);
    await one.lower.recoverOrphans();
    const { entry } = await dead.create(dead.root, name("f"), RDWR, 0o644, caller);
    await dead.unlink(dead.root, name("f"), entry.id);
    const lower = await next();
    expect((await lower.outcomes(DEAD, journal.last(1))).length).toBe(1);
    expect([await lab.refusal({}, one), fs.readdirSync(onDisk(ORPHANS)).length]).toEqual(["gone", 1]);
    await one.server.closeSessions([TEST_CALLER]);
    expect([fs.readdirSync(onDisk(ORPHANS)).length, await lower.outcomes(DEAD, journal.last(1))]).toEqual([
      0,
      [{ state: "unknown-session" }],
    ]);
  });

  it("a file that it made without a name is opened by the next one, and lives on", async () => {
    const { one, proxy, dead, journal, next } = await scene();
    await one.lower.openOrphans(false);
    await one.lower.recoverOrphans();
    proxy.holdAnswers = true;
    void errnoOf(async () => dead.tmpfile(dead.root, RDWR, 0o600, caller, true));
    await until(() => one.lower.openHandles === 1);
    const lower = await next();
    const [outcome] = await lower.outcomes(DEAD, journal.last(1));
    const body = outcome?.state === "answered" ? outcome.body : new Uint8Array(0);
    const { id } = decodeWith(CALLS.tmpfile.answer, body);
    const handle = await lower.open(id, RDWR);
    await one.server.closeSessions([TEST_CALLER]);
    expect((await lower.write(handle, Buffer.from("x"), 0, false)).bytes).toBe(1);
    expect([(await lower.link(id, lower.root, name("named"))).nlink, fs.readFileSync(onDisk("named"), "utf8")]).toEqual([1, "x"]);
  });

  it("any number is asked about, none too, in parts that fit into a frame", async () => {
    const { dead, next, one } = await scene();
    const { handle } = await dead.create(dead.root, name("f"), RDWR, 0o644, caller);
    const lower = await next();
    const { received } = one.server.counters;
    const parts = async (asked: readonly AskedCall[]): Promise<number> => {
      const before = one.server.counters.received;
      expect((await lower.outcomes(DEAD, asked)).length).toBe(asked.length);
      return one.server.counters.received - before;
    };
    expect(received).toBeGreaterThan(0);
    const many = (count: number): AskedCall[] =>
      Array.from({ length: count }, (_, id) => ({ id: 1000 + id, type: CALLS.mkdir.type, body: null }));
    expect([await parts([]), await parts(many(MAX_OUTCOMES)), await parts(many(MAX_OUTCOMES + 1))]).toEqual([1, 1, 2]);
    const half = writeBody({ handle, data: Buffer.alloc(OUTCOMES_BYTES_MAX / 2) });
    const large = [1, 2, 3].map((id) => ({ id: 5000 + id, type: CALLS.write.type, body: half }));
    expect(await parts(large)).toBe(3);
  });
});

function writeBody(request: Partial<RequestOf<"write">>): Uint8Array {
  const whole = { handle: 1, offset: 0, append: false, promised: true, room: false, tell: null, data: Buffer.from("x"), ...request };
  const writer = new ByteWriter();
  CALLS.write.request.write(writer, whole);
  return Buffer.concat([writer.copy(), whole.data]);
}

describe("what is refused", () => {
  const asked = (type: number, body: Uint8Array | null): AskedCall => ({ id: 1, type, body });
  it.each<[string, number, AskedCall]>([
    ["a question about itself", DEAD + 40, asked(CALLS.mkdir.type, null)],
    ["a call that there is not", DEAD, asked(0x6f, null)],
    ["one that is not remembered", DEAD, asked(CALLS.getattr.type, null)],
    ["a body of one that a program waits for", DEAD, asked(CALLS.write.type, writeBody({ promised: false }))],
    ["a body of another kind of call", DEAD, asked(CALLS.mkdir.type, writeBody({}))],
    ["a damaged body", DEAD, asked(CALLS.write.type, Buffer.alloc(3))],
  ])("%s: EINVAL", async (_what, client, call) => {
    const { next, begun } = await scene();
    const lower = await next();
    expect([await errnoOf(() => lower.outcomes(client, [call])), begun]).toEqual([E.EINVAL, []]);
    await lower.getattr(lower.root);
  });
});

it("a question about more calls than one takes ends the connection", () => {
  const codec = CALLS.outcomes.request;
  const encoded = (count: number): Uint8Array => {
    const writer = new ByteWriter();
    codec.write(writer, { client: 1, calls: Array.from({ length: count }, (_, at) => ({ id: at, type: 7, body: null })) });
    return writer.copy();
  };
  expect(decodeWith(codec, encoded(MAX_OUTCOMES)).calls.length).toBe(MAX_OUTCOMES);
  expect(() => decodeWith(codec, encoded(MAX_OUTCOMES + 1))).toThrow(WireError);
});

describe("a session whose process has died", () => {
  const id = { nodeid: 1, incarnation: "i1", clientId: 3, ownerEpoch: 1 };
  const bodyOf = <K extends CallName>(call: K, request: RequestOf<K>): Uint8Array => {
    const writer = new ByteWriter();
    CALLS[call].request.write(writer, request);
    return writer.copy();
  };
  const directory = (called: string): Uint8Array =>
    bodyOf("mkdir", { parent: { ino: 2, generation: 0 }, name: name(called), tellParent: false, mode: 0o755, caller });
  const question = [
    { id: 1, type: CALLS.write.type, body: null },
    { id: 2, type: CALLS.mkdir.type, body: null },
    { id: 3, type: CALLS.write.type, body: writeBody({}) },
  ];

  /** A write of which a program was told runs, and a mkdir waits behind it. */
  function waiting(): {
    session: ServerSession;
    end: () => void;
    synced: () => void;
    opened: () => void;
    made: string[];
    may: { serve: boolean };
  } {
    const made: string[] = [];
    const nothing = (): void => undefined;
    let [end, synced, opened] = [nothing, nothing, nothing];
    const may = { serve: true };
    const lower = {
      write: (): Promise<unknown> => {
        made.push("write");
        return new Promise((resolve) => (end = () => resolve({ offset: 0, bytes: 1 })));
      },
      mkdir: (): unknown => {
        made.push("mkdir");
        return entryOf(OTHER);
      },
      read: () => {
        made.push("read");
        return new Promise(() => undefined);
      },
      fsync: () => {
        made.push("fsync");
        return new Promise<void>((resolve) => (synced = resolve));
      },
      open: () => {
        made.push("open");
        return new Promise<number>((resolve) => (opened = () => resolve(8)));
      },
      create: () => ({ entry: entryOf(FILE), handle: 7 }),
      xattrNames: () => null,
      room: () => 0,
      close: () => undefined,
      failedSyncs: () => 0,
    } as unknown as LocalLower;
    const nobody = (): Promise<never> => Promise.reject(new Error("not asked for"));
    const session = new ServerSession(
      id,
      lower,
      silentLog,
      () => undefined,
      nobody,
      () => may.serve,
    );
    const create = { parent: { ino: 2, generation: 0 }, name: name("f"), tellParent: false, mode: 0o644, caller, flags: RDWR, handle: 1 };
    session.receive("create", 9, bodyOf("create", create));
    session.receive("write", 1, writeBody({}));
    session.receive("mkdir", 2, directory("d"));
    return { session, end: () => end(), synced: () => synced(), opened: () => opened(), made, may };
  }
  const states = async (outcomes: Promise<readonly Outcome[]>): Promise<string[]> => (await outcomes).map(({ state }) => state);
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  it("takes nothing more, and answers nobody", async () => {
    const { session, end, made } = waiting();
    const answers: number[] = [];
    session.sink = { answer: (type) => void answers.push(type), isFull: false, resume: () => undefined };
    const outcomes = session.outcomes(question);
    const late = (): void => {
      session.receive("mkdir", 10, directory("late"));
      session.receive("create", 9, new Uint8Array(0));
    };
    late();
    end();
    await until(() => made.filter((call) => call === "write").length === 2);
    late();
    end();
    await outcomes;
    late();
    expect([made, answers, session.runningCalls]).toEqual([["write", "mkdir", "write"], [], 0]);
  });

  it("nobody waits for what changes nothing, unless it is asked about: a disk may be slow", async () => {
    const { session, end, synced, made } = waiting();
    session.receive("read", 20, bodyOf("read", { handle: 1, offset: 0, bytes: 1, open: null }));
    session.receive("fsync", 21, bodyOf("fsync", { handle: 1, dataOnly: false }));
    const fsync = { id: 21, type: CALLS.fsync.type, body: null };
    let ofSync: string[] | null = null;
    const sync = states(session.outcomes([fsync])).then((all) => (ofSync = all));
    const outcomes = states(session.outcomes(question));
    end();
    await until(() => made.includes("write") && made.length === 5);
    end();
    expect([await outcomes, session.runningCalls, ofSync]).toEqual([["answered", "answered", "answered"], 2, null]);
    expect(made).toEqual(["write", "mkdir", "read", "fsync", "write"]);
    synced();
    expect([await sync, session.runningCalls]).toEqual([["answered"], 1]);
  });

  it("an open that runs is awaited: it may cut its file", async () => {
    const { session, end, opened, made } = waiting();
    session.receive("open", 20, bodyOf("open", { id: FILE, flags: RDWR | fs.constants.O_TRUNC, handle: 2, promised: false }));
    let isTold = false;
    const told = session.outcomes([]).then(() => (isTold = true));
    end();
    await until(() => made.includes("open"));
    await turn();
    expect([isTold, session.runningCalls]).toEqual([false, 1]);
    opened();
    await told;
    expect(session.runningCalls).toBe(0);
  });

  it("an owner that may not serve makes nothing meanwhile, and all of it then", async () => {
    const { session, end, made, may } = waiting();
    may.serve = false;
    const outcomes = states(session.outcomes(question));
    end();
    await turn();
    expect(made).toEqual(["write"]);
    may.serve = true;
    session.startQueued();
    await until(() => made.length === 3);
    end();
    expect([await outcomes, made]).toEqual([
      ["answered", "answered", "answered"],
      ["write", "mkdir", "write"],
    ]);
  });

  it("two questions at a time make nothing twice", async () => {
    const { session, end, made } = waiting();
    const both = [session.outcomes(question), session.outcomes(question)].map(states);
    end();
    await until(() => made.length === 3);
    end();
    expect([await Promise.all(both), made.length]).toEqual([
      [
        ["answered", "answered", "answered"],
        ["answered", "answered", "answered"],
      ],
      3,
    ]);
  });

  it("an owner that ends in good order begins nothing more, and says so", async () => {
    const { session, end, made } = waiting();
    const outcomes = states(session.outcomes(question));
    const retired = session.retire();
    end();
    await retired;
    expect([await outcomes, made]).toEqual([["answered", "not-made", "not-made"], ["write"]]);
  });

  it("one that ends waits for nothing but what runs, and nothing is known of its calls", async () => {
    const { session, end, made, may } = waiting();
    may.serve = false;
    const outcomes = states(session.outcomes(question));
    end();
    await turn();
    await session.close();
    expect([await outcomes, made]).toEqual([["unknown-session", "unknown-session", "unknown-session"], ["write"]]);
  });
});
