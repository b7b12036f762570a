/** The steps of a new process after a crash: in which order, and what becomes of what the old one had asked of the owner (hazards F38, F39). */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { DlmClient } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { decodeMountGroupMessage } from "../../../dlmd/wire/mount-group.ts";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { OPCODE } from "../../../overlay/fuse/abi.ts";
import { AfterCrash } from "../../../overlay/crash/after-crash.ts";
import { readJournal } from "../../../overlay/crash/before.ts";
import { Journal } from "../../../overlay/crash/journal.ts";
import { JOURNAL_BYTES } from "../../../overlay/crash/layout.ts";
import type { OpenFile } from "../../../overlay/inode/handles.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { AskedCall, Outcome } from "../../../overlay/lower/wire/call-types.ts";
import type { CallAgain, MadeAgain } from "../../../overlay/lower/remote/again.ts";
import { CALLS, callOfType } from "../../../overlay/lower/wire/calls.ts";
import { FrameType } from "../../../overlay/lower/wire/frame.ts";
import {
  CRASH_LOCKS_LOOK_MS,
  type GoOnAfterCrash,
  goOnAfterCrash,
  requireKept,
  succeed,
  SYNC_AGAIN_MS,
  syncBefore,
} from "../../../overlay/serve/mount-crash.ts";
import { crashConstants } from "../crash/constants.ts";

const DEAD = 7;
const OWN = 8;
/** It would have gone on, and has crashed, too. */
const HEIR = 9;
const FILE: FileId = { ino: 12, generation: 3 };
const HANDLE = 5 as LowerHandle;

let memory: ArrayBuffer;
let journal: Journal;
let steps: string[];
let lost: FileId[];
let asked: { client: number; calls: readonly AskedCall[] }[];
let outcomes: Outcome[];
/** Made again, and what the owner says of each. */
let again: string[];
/** How often the owner was asked before. */
let madeAfter: number[];
let answers: MadeAgain[];

function behindWrite(): [Uint8Array, Uint8Array] {
  const request = { handle: HANDLE, data: new Uint8Array(3), offset: 0, append: false, room: false, tell: null, promised: true };
  const writer = new ByteWriter();
  CALLS.write.request.write(writer, request);
  return [writer.copy(), Uint8Array.of(1, 2, 3)];
}

const errno = (number: number): Uint8Array => Uint8Array.of(number, 0, 0, 0);
const refusedWith = (number: number): Outcome => ({ state: "answered", type: FrameType.FAILED, body: errno(number) });

function hostOf(after: AfterCrash, changes: Partial<GoOnAfterCrash> = {}): GoOnAfterCrash {
  const host = {
    client: { info: { clientId: OWN }, endKept: async (clientId: number) => void steps.push(`end ${clientId}`) },
    handOff: { mount: { inodes: { all: () => [] } }, begin: () => void steps.push("begin") },
    coherence: {
      rest: { hasTokens: true, settled: () => void steps.push("settled") },
      dropBefore: async () => void steps.push("drop"),
      coverOpen: async () => void steps.push("cover"),
    },
    remote: {
      outcomes: async (client: number, calls: readonly AskedCall[]) => {
        steps.push("ask");
        asked.push({ client, calls });
        return outcomes;
      },
      noteLost: (id: FileId) => void lost.push(id),
      close: (handle: number) => void steps.push(`close ${handle}`),
      openedAt: { epoch: 3, cleanAfter: 0 },
      isBroken: () => false,
      makeAgain: async ({ type, body, sure }: CallAgain) => {
        madeAfter.push(asked.length);
        again.push(`${callOfType(type)} ${Buffer.from(body).toString("hex")}${sure ? ", sure" : ""}`);
        return answers.shift();
      },
    },
    held: [],
    isOther: false,
    journal,
    leaseHolds: () => true,
    hasFileLocksHere: () => true,
    hasAskedFileLocks: () => Promise.resolve(),
    hasFileLocks: () => true,
    hasSameOwner: () => true,
    noteOwner: () => void steps.push("note owner"),
    check: () => undefined,
    log: silentLog,
    ...changes,
  };
  after.inherits([{ clientId: DEAD, locks: [] }]);
  return host as unknown as GoOnAfterCrash;
}

const IN_HEADER_BYTES = 40;

/** A WRITE that the kernel has sent again, or another request without a body. */
function sentAgain(number: number, write: { data: string; fromCache: boolean } | null): Buffer {
  const data = Buffer.from(write?.data ?? "");
  const bytes = Buffer.alloc(IN_HEADER_BYTES + (write === null ? 0 : 40 + data.length));
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(write === null ? OPCODE.FUSE_STATFS : OPCODE.FUSE_WRITE, 4);
  bytes.writeUInt32LE(number, 8);
  bytes.writeUInt32LE(0x8000_0000, 12);
  if (write !== null) {
    bytes.writeUInt32LE(data.length, 56);
    bytes.writeUInt32LE(write.fromCache ? 1 : 0, 60);
    data.copy(bytes, 80);
  }
  return bytes;
}

/** As a new process finds what was written. */
function crashed(): AfterCrash {
  const after = new AfterCrash(memory);
  journal = new Journal(memory, silentLog);
  journal.goOn(after.before.rows);
  return after;
}

beforeEach(() => {
  memory = new ArrayBuffer(JOURNAL_BYTES);
  journal = new Journal(memory, silentLog);
  journal.setConstants(crashConstants);
  journal.client = DEAD;
  journal.servingClient = DEAD;
  journal.openedAtOwner({ handle: HANDLE, id: FILE, flags: 2, directory: false });
  [steps, lost, asked, outcomes, again, answers, madeAfter] = [[], [], [], [], [], [], []];
});

describe("the old process", () => {
  const groupOf = (refusal: string | null): [DlmClient, [number, string][]] => {
    const said: [number, string][] = [];
    const client = {
      info: { clientId: OWN },
      inherited: async () => [{ clientId: DEAD, locks: [{ resource: "i12-3", mode: Mode.EX }] }],
      farewell: async (clientId: number, group: string, data: Uint8Array) => {
        said.push([clientId, `${group} ${decodeMountGroupMessage(data).kind}`]);
        if (refusal !== null) throw new OperatingError("refused", { code: refusal, hint: "" });
      },
    };
    return [client as unknown as DlmClient, said];
  };

  it("says bye in its group, and its locks are known", async () => {
    const [client, said] = groupOf(null);
    const after = crashed();
    await succeed({ afterCrash: after, journal }, client, "vol-1", "uuid-1");
    expect(said).toEqual([[DEAD, expect.stringMatching(/uuid-1 bye$/)]]);
    expect(after.kept).toHaveLength(1);
  });

  it("one that is in no group has said it; any other refusal ends this process", async () => {
    await succeed({ afterCrash: crashed(), journal }, groupOf("not-joined")[0], "vol-1", "uuid-1");
    journal.servingClient = DEAD;
    const refused = succeed({ afterCrash: crashed(), journal }, groupOf("not-kept")[0], "vol-1", "uuid-1");
    await expect(refused).rejects.toMatchObject({ code: "not-kept" });
  });

  it("its heir is written down before it has any of its locks: if that one's are given away nobody goes on", async () => {
    await succeed({ afterCrash: crashed(), journal }, groupOf(null)[0], "vol-1", "uuid-1");
    const third = crashed();
    expect(third.before.heirs).toEqual([OWN]);
    const dead = { clientId: DEAD, locks: [] };
    expect(() => third.inherits([dead])).toThrow(/given the locks of the crashed process away \(client 8\)/);
    third.inherits([dead, { clientId: OWN, locks: [] }]);
    journal.servingClient = OWN;
    expect(crashed().before.heirs).toEqual([]);
  });
});

it("without the locks of the process that served nobody goes on: what the kernel has was covered by them", () => {
  const locks: readonly [] = [];
  expect(() => crashed().inherits([])).toThrow(/dlmd has given the locks of the crashed process away \(client 7\)/);
  expect(() => crashed().inherits([{ clientId: OWN, locks }])).toThrow(/client 7/);
  crashed().inherits([
    { clientId: DEAD, locks },
    { clientId: OWN, locks },
  ]);
  expect(crashed().kept).toEqual([]);
});

it("a third process needs the locks of the second one, once that one has ended the first one's", async () => {
  const after = crashed();
  await goOnAfterCrash(after, hostOf(after));
  expect(readJournal(memory).servingClient).toBe(OWN);
});

it.each([true, false])(
  "what it made as the owner, before it gave the volume away, is asked of nobody: it is made, or found to be (F41, sure: %s)",
  async (sure) => {
    journal.making(CALLS.unlink.type, 100, Uint8Array.of(1), sure);
    journal.begun(2, CALLS.mkdir.type, 102, Uint8Array.of(3), null);
    answers = [{ failed: false, body: Uint8Array.of(9) }];
    outcomes = [{ state: "not-made" }];
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after, { held: [sentAgain(100, null), sentAgain(102, null)] }));
    expect(again).toEqual([`unlink 01${sure ? ", sure" : ""}`]);
    // The owner is done first with what a process between has asked for.
    expect(madeAfter).toEqual([1]);
    const mkdir = { id: 2, type: CALLS.mkdir.type, body: null };
    expect(asked.map(({ calls }) => calls)).toEqual([[], [mkdir]]);
    expect([after.made(100), after.made(102)]).toEqual([{ type: CALLS.unlink.type, body: Uint8Array.of(9) }, null]);
  },
);

it("another owner meanwhile ends it, and the next process goes on there: what this one has open is open nowhere", async () => {
  const after = crashed();
  await expect(goOnAfterCrash(after, hostOf(after, { hasSameOwner: () => false }))).rejects.toMatchObject({ code: "owner-changed" });
  expect(steps).toEqual(["ask", "drop", "settled", "cover"]);
});

it("the locks that were taken over may go when all is settled (hazard F38); the kernel has nothing of before when the old client's locks go, and is read after that", async () => {
  journal.begun(1, CALLS.mkdir.type, 100, null, null);
  outcomes = [{ state: "not-made" }];
  const after = crashed();
  await goOnAfterCrash(after, hostOf(after));
  expect(steps).toEqual(["ask", "drop", "settled", "cover", "note owner", `end ${DEAD}`, "begin"]);
});

it("waits for the locks that dlmd kept, and for a lease; a failure meanwhile ends it", async () => {
  const after = crashed();
  let looks = 0;
  const rest = {
    get hasTokens(): boolean {
      looks += 1;
      return looks > 3;
    },
    settled: () => void steps.push("settled"),
  };
  let leases = 0;
  const leaseHolds = (): boolean => {
    leases += 1;
    return leases > 2;
  };
  const coherence = {
    rest,
    dropBefore: async () => void steps.push("drop"),
    coverOpen: async () => void steps.push("cover"),
  } as unknown as GoOnAfterCrash["coherence"];
  await goOnAfterCrash(after, hostOf(after, { coherence, leaseHolds }));
  expect([looks, leases, steps]).toEqual([4, 3, ["ask", "drop", "settled", "cover", "note owner", `end ${DEAD}`, "begin"]]);
  const check = (): void => {
    throw new Error("dlmd is gone");
  };
  steps.length = 0;
  await expect(goOnAfterCrash(after, hostOf(after, { leaseHolds: () => false, check }))).rejects.toThrow("dlmd is gone");
  expect(steps).toEqual(["ask", "drop", "settled"]);
});

it("a file of a program that the owner could not open ends the mount for good; at another owner its calls do, as ever", async () => {
  journal.giving(100, { fh: 1, inode: { fuseNodeid: 12 }, lowerHandle: HANDLE } as unknown as OpenFile);
  const after = crashed();
  const remote = { ...hostOf(after).remote, isBroken: () => true } as unknown as GoOnAfterCrash["remote"];
  await expect(goOnAfterCrash(after, hostOf(after, { remote }))).rejects.toMatchObject({ code: "crash-lost" });
  await goOnAfterCrash(after, hostOf(after, { remote, isOther: true }));
});

/** Both a change that a request waits for and one that was made behind. */
function beginBoth(): void {
  const [body, data] = behindWrite();
  journal.begun(1, CALLS.write.type, 0, body, data);
  journal.begun(2, CALLS.mkdir.type, 100, null, null);
}

it("an answer of another owner than the process before had says nothing, also if that one came before it was asked: the next process goes on there", async () => {
  beginBoth();
  outcomes = [{ state: "unknown-session" }, { state: "unknown-session" }];
  const after = crashed();
  const remote = { ...hostOf(after).remote, openedAt: { epoch: crashConstants.ownerEpoch + 1, cleanAfter: crashConstants.ownerEpoch } };
  const host = hostOf(after, { remote, held: [sentAgain(100, null)] });
  await expect(goOnAfterCrash(after, host)).rejects.toMatchObject({ code: "owner-changed" });
  expect([steps, lost, after.made(100), readJournal(memory).calls.map(({ outcome }) => outcome)]).toEqual([
    ["ask"],
    [],
    null,
    ["unknown", "unknown"],
  ]);
});

it("what an owner that is about to end has answered is true: nobody makes that once more", async () => {
  beginBoth();
  outcomes = [{ state: "not-made" }, { state: "answered", type: CALLS.mkdir.type | FrameType.ANSWER, body: Uint8Array.of(9) }];
  const after = crashed();
  await expect(goOnAfterCrash(after, hostOf(after, { held: [sentAgain(100, null)] }))).rejects.toMatchObject({ code: "owner-changed" });
  expect([new AfterCrash(memory).made(100), lost]).toEqual([{ type: CALLS.mkdir.type, body: Uint8Array.of(9) }, []]);
});

it("an owner that does not make what a program was told to be made is about to end: the next process has the next owner make it", async () => {
  beginBoth();
  outcomes = [{ state: "not-made" }, { state: "not-made" }];
  const after = crashed();
  await expect(goOnAfterCrash(after, hostOf(after, { held: [sentAgain(100, null)] }))).rejects.toMatchObject({ code: "owner-changed" });
  expect([steps, lost, readJournal(memory).calls.map(({ outcome }) => outcome)]).toEqual([["ask"], [], ["unknown", "unknown"]]);
});

describe("a change that a request waits for", () => {
  it.each<[string, Outcome, object | null]>([
    [
      "was made",
      { state: "answered", type: CALLS.mkdir.type | FrameType.ANSWER, body: Uint8Array.of(9) },
      { type: CALLS.mkdir.type, body: Uint8Array.of(9) },
    ],
    ["was refused", refusedWith(E.EEXIST), { errno: E.EEXIST }],
    ["was not made, and is to be", { state: "not-made" }, null],
    ["may have been made: EIO", { state: "unknown-session" }, { errno: E.EIO }],
  ])("%s", async (_, outcome, made) => {
    journal.begun(1, CALLS.mkdir.type, 100, null, null);
    outcomes = [outcome];
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after, { held: [sentAgain(100, null)] }));
    expect(asked).toEqual([{ client: DEAD, calls: [{ id: 1, type: CALLS.mkdir.type, body: null }] }]);
    expect(after.made(100)).toEqual(made);
    // And the same for a third process.
    expect(new AfterCrash(memory).made(100)).toEqual(made);
    expect(lost).toEqual([]);
  });

  it("was made, and the kernel does not send the request again: its caller was killed, and nothing stays of it", async () => {
    journal.begun(1, CALLS.mkdir.type, 100, null, null);
    outcomes = [{ state: "answered", type: CALLS.mkdir.type | FrameType.ANSWER, body: Uint8Array.of(9) }];
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after));
    expect([after.made(100), readJournal(memory).calls]).toEqual([null, []]);
  });
});

it("a change whose outcome was known already, of a request that does not come again, was answered: nothing stays of it for later processes", async () => {
  for (const request of [100, 102]) {
    journal.begun(request, CALLS.mkdir.type, request, null, null);
    journal.answered(request, false, Uint8Array.of(9));
  }
  const after = crashed();
  await goOnAfterCrash(after, hostOf(after, { held: [sentAgain(102, null)] }));
  expect(readJournal(memory).calls.map(({ request }) => request)).toEqual([102]);
  expect(new AfterCrash(memory).made(102)).toEqual({ type: CALLS.mkdir.type, body: Uint8Array.of(9) });
});

it.each([false, true])(
  "the owner takes nothing more of any process before, also where nothing is known to be under way (hazard F38); another owner: %s",
  async (isOther) => {
    const after = crashed();
    const host = hostOf(after, { isOther });
    after.inherits([DEAD, HEIR].map((clientId) => ({ clientId, locks: [] })));
    await goOnAfterCrash(after, host);
    expect(asked).toEqual([DEAD, HEIR].map((client) => ({ client, calls: [] })));
    expect(steps.slice(0, 3)).toEqual(["ask", "ask", "drop"]);
  },
);

describe("a change that was made behind", () => {
  it.each<[string, Outcome, readonly FileId[]]>([
    ["is made", { state: "answered", type: CALLS.write.type | FrameType.ANSWER, body: new Uint8Array() }, []],
    ["is refused: it is lost", refusedWith(E.ENOSPC), [FILE]],
    ["is of a file that is gone", refusedWith(E.ESTALE), []],
    ["is lost with its session", { state: "unknown-session" }, [FILE]],
  ])("%s", async (_, outcome, losses) => {
    const [body, data] = behindWrite();
    journal.begun(2, CALLS.write.type, 0, body, data);
    outcomes = [outcome];
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after));
    expect(asked[0]?.calls).toEqual([{ id: 2, type: CALLS.write.type, body: Buffer.from([...body, ...data]) }]);
    expect(lost).toEqual(losses);
    // A third process tells of it, too.
    expect(readJournal(memory).calls.map((call) => call.outcome)).toEqual(losses.map(() => "failed"));
  });

  it("and was refused before the crash, when nobody had been told: it is lost", async () => {
    const [body, data] = behindWrite();
    journal.begun(2, CALLS.write.type, 0, body, data);
    journal.answered(2, true, errno(E.ENOSPC));
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after));
    expect([asked, lost]).toEqual([[{ client: DEAD, calls: [] }], [FILE]]);
  });

  it("and was refused to a file that is closed since: nobody could be told, and the mount ends", async () => {
    const [body, data] = behindWrite();
    journal.begun(2, CALLS.write.type, 0, body, data);
    journal.answered(2, true, errno(E.ENOSPC));
    journal.closedAtOwner(HANDLE);
    const after = crashed();
    await expect(goOnAfterCrash(after, hostOf(after))).rejects.toMatchObject({ code: "crash-lost" });
    expect(lost).toEqual([]);
  });

  it("goes before those that came after it", async () => {
    const [body, data] = behindWrite();
    journal.begun(3, CALLS.mkdir.type, 100, null, null);
    journal.begun(2, CALLS.write.type, 0, body, data);
    outcomes = [{ state: "answered", type: CALLS.write.type | FrameType.ANSWER, body: new Uint8Array() }, { state: "not-made" }];
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after));
    expect(asked[0]?.calls.map(({ id }) => id)).toEqual([2, 3]);
  });
});

it("goes on at the owner that it had, or at one that found the disk clean after that one, and at no other", () => {
  const { before } = crashed();
  const { ownerEpoch } = crashConstants;
  const require = (epoch: number, cleanAfter: number): number => requireKept(before, { openedAt: { epoch, cleanAfter } });
  expect([require(ownerEpoch, 0), require(ownerEpoch + 1, ownerEpoch)]).toEqual([ownerEpoch, ownerEpoch + 1]);
  // A process in between has found it so.
  expect(requireKept({ constants: { ...before.constants, kept: true } }, { openedAt: { epoch: 9, cleanAfter: 0 } })).toBe(9);
  for (const cleanAfter of [0, ownerEpoch - 1, ownerEpoch + 1])
    expect(() => require(ownerEpoch + 2, cleanAfter)).toThrow(/not known to be clean after the owner with epoch 3/);
});

describe("at another owner, which found the disk clean (hazard F41)", () => {
  const made: MadeAgain = { failed: false, body: Uint8Array.of(9) };
  const goOn = async (held: readonly Buffer[]): Promise<AfterCrash> => {
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after, { isOther: true, held }));
    return after;
  };

  it("is asked of nothing: what a request waits for is made there before the locks go, with the data that came again", async () => {
    journal.making(CALLS.write.type, 100, Uint8Array.of(1, 2), false);
    journal.making(CALLS.mkdir.type, 102, Uint8Array.of(3), false);
    answers = [made, { failed: true, body: errno(E.EIO) }];
    const after = await goOn([sentAgain(100, { data: "data", fromCache: false }), sentAgain(102, null)]);
    expect([asked, again]).toEqual([[{ client: DEAD, calls: [] }], [`write 0102${Buffer.from("data").toString("hex")}`, "mkdir 03"]]);
    expect([after.made(100), after.made(102)]).toEqual([{ type: CALLS.write.type, body: Uint8Array.of(9) }, { errno: E.EIO }]);
    expect(steps).toEqual(["ask", "drop", "settled", "cover", "note owner", `end ${DEAD}`, "begin"]);
    expect(new AfterCrash(memory).made(102)).toEqual({ errno: E.EIO });
  });

  it("one that the kernel has not sent again was answered: it is not made once more", async () => {
    journal.making(CALLS.unlink.type, 100, Uint8Array.of(1), true);
    const after = await goOn([]);
    expect([again, after.made(100), readJournal(memory).calls]).toEqual([[], null, []]);
  });

  it("pages of a mapping are written when they come, under the lock that stays here for them", async () => {
    journal.making(CALLS.write.type, 100, Uint8Array.of(1), false);
    const after = await goOn([sentAgain(100, { data: "page", fromCache: true })]);
    // Whichever process makes it, it is a change of that one.
    expect([again, after.made(100), readJournal(memory).calls]).toEqual([[], null, []]);
  });

  it.each<[string, MadeAgain, readonly FileId[]]>([
    ["is made", made, []],
    ["is refused: it is lost", { failed: true, body: errno(E.ENOSPC) }, [FILE]],
    ["is of a file that is gone", { failed: true, body: errno(E.ESTALE) }, []],
  ])("a change that was made behind %s; its file, which no program has open, is closed", async (_, answer, losses) => {
    const [body, data] = behindWrite();
    journal.begun(2, CALLS.write.type, 0, body, data);
    answers = [answer];
    await goOn([]);
    expect([again.length, lost]).toEqual([1, losses]);
    expect(steps).toEqual(["ask", `close ${HANDLE}`, "drop", "settled", "cover", "note owner", `end ${DEAD}`, "begin"]);
    expect(readJournal(memory).calls.map((call) => call.outcome)).toEqual(losses.map(() => "failed"));
  });
});

it("locks that do not come for files which dlmd does not know are waited for one second", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const after = crashed();
  const coherence = {
    rest: { hasTokens: true, settled: () => undefined },
    dropBefore: () => Promise.resolve(),
    coverOpen: () => new Promise(() => undefined),
  } as unknown as GoOnAfterCrash["coherence"];
  const words: string[] = [];
  const log = { ...silentLog, warn: (_: unknown, text: string) => void words.push(text) } as typeof silentLog;
  const done = goOnAfterCrash(after, hostOf(after, { coherence, log }));
  await vi.advanceTimersByTimeAsync(999);
  expect(steps).toEqual(["ask"]);
  await vi.advanceTimersByTimeAsync(1);
  await done;
  expect(steps).toEqual(["ask", "note owner", `end ${DEAD}`, "begin"]);
  expect(words).toEqual([expect.stringContaining("have not come")]);
  vi.useRealTimers();
});

it("what was changed before is synced again where there was no memory, until it is on the disk or the mount ends", async () => {
  vi.useFakeTimers();
  const results: (Error | null)[] = [errnoError(E.ENOMEM), errnoError(E.ENOMEM), null];
  let tries = 0;
  const remote = {
    syncBefore: async (): Promise<void> => {
      const error = results[tries] ?? null;
      tries += 1;
      if (error !== null) throw error;
    },
  };
  const synced = syncBefore(remote, () => false, silentLog);
  await vi.advanceTimersByTimeAsync(SYNC_AGAIN_MS - 1);
  expect(tries).toBe(1);
  await vi.advanceTimersByTimeAsync(1 + SYNC_AGAIN_MS);
  expect([await synced, tries]).toEqual([true, 3]);
  tries = 0;
  const never = syncBefore(remote, () => tries > 0, silentLog);
  await vi.advanceTimersByTimeAsync(SYNC_AGAIN_MS);
  expect([await never, tries]).toEqual([false, 1]);
  vi.useRealTimers();
});

it.each([E.ENOSPC, E.EIO])(
  "a sync that failed with %i is not asked again, as the next one would say 0 of what is lost (hazard H8)",
  async (errno) => {
    let tries = 0;
    const remote = {
      syncBefore: (): Promise<void> => {
        tries += 1;
        return tries === 1 ? Promise.reject(errnoError(errno)) : Promise.resolve();
      },
    };
    expect([await syncBefore(remote, () => false, silentLog), tries]).toEqual([false, 1]);
  },
);

it("file locks in dlmd's service go over when the old process is gone for dlmd, and calls begin when they are here (hazard F45)", async () => {
  let [here, there] = [false, false];
  let known: () => void = () => undefined;
  const hasAskedFileLocks = (): Promise<void> => new Promise((resolve) => (known = resolve));
  const after = crashed();
  const done = goOnAfterCrash(after, hostOf(after, { hasFileLocksHere: () => here, hasAskedFileLocks, hasFileLocks: () => there }));
  const looked = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5 * CRASH_LOCKS_LOOK_MS));
  await looked();
  expect(steps).toEqual([]);
  here = true;
  await looked();
  expect(steps).toEqual([]);
  known();
  await looked();
  expect(steps).toEqual(["ask", "drop", "settled", "cover", "note owner", `end ${DEAD}`]);
  there = true;
  await done;
  expect(steps.at(-1)).toBe("begin");
});
