/** The steps of a new process after a crash: in which order, and what becomes of what the old one had asked of the owner (hazards F38, F39). */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { DlmClient } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { decodeMountGroupMessage } from "../../../dlmd/wire/mount-group.ts";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { AfterCrash } from "../../../overlay/crash/after-crash.ts";
import { readJournal } from "../../../overlay/crash/before.ts";
import { Journal } from "../../../overlay/crash/journal.ts";
import { JOURNAL_BYTES } from "../../../overlay/crash/layout.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { AskedCall, Outcome } from "../../../overlay/lower/wire/call-types.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { FrameType } from "../../../overlay/lower/wire/frame.ts";
import { type GoOnAfterCrash, goOnAfterCrash, succeed, SYNC_AGAIN_MS, syncBefore } from "../../../overlay/serve/mount-crash.ts";
import { crashConstants } from "../crash/constants.ts";

const DEAD = 7;
const OWN = 8;
const FILE: FileId = { ino: 12, generation: 3 };
const HANDLE = 5 as LowerHandle;

let memory: ArrayBuffer;
let journal: Journal;
let steps: string[];
let lost: FileId[];
let asked: { client: number; calls: readonly AskedCall[] }[];
let outcomes: Outcome[];

function behindWrite(): [Uint8Array, Uint8Array] {
  const request = { handle: HANDLE, data: new Uint8Array(3), offset: 0, append: false, tell: null, promised: true };
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
    coherence: { rest: { hasTokens: true }, dropBefore: async () => void steps.push("drop") },
    remote: {
      brokenFiles: 0,
      outcomes: async (client: number, calls: readonly AskedCall[]) => {
        steps.push("ask");
        asked.push({ client, calls });
        return outcomes;
      },
      noteLost: (id: FileId) => void lost.push(id),
    },
    journal,
    leaseHolds: () => true,
    hasFileLocks: () => true,
    hasSameOwner: () => true,
    check: () => undefined,
    log: silentLog,
    ...changes,
  };
  after.inherits([{ clientId: DEAD, locks: [] }]);
  return host as unknown as GoOnAfterCrash;
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
  [steps, lost, asked, outcomes] = [[], [], [], []];
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

it("another owner meanwhile ends it: what it has open is open nowhere", async () => {
  const after = crashed();
  await expect(goOnAfterCrash(after, hostOf(after, { hasSameOwner: () => false }))).rejects.toMatchObject({ code: "other-owner" });
  expect(steps).toEqual(["drop"]);
});

it("the kernel has nothing of before when the old client's locks go, and is read after that", async () => {
  journal.begun(1, CALLS.mkdir.type, 100, null, null);
  outcomes = [{ state: "not-made" }];
  const after = crashed();
  await goOnAfterCrash(after, hostOf(after));
  expect(steps).toEqual(["ask", "drop", `end ${DEAD}`, "begin"]);
});

it("waits for the locks that dlmd kept, and for a lease; a failure meanwhile ends it", async () => {
  const after = crashed();
  let looks = 0;
  const rest = {
    get hasTokens(): boolean {
      looks += 1;
      return looks > 3;
    },
  };
  let leases = 0;
  const leaseHolds = (): boolean => {
    leases += 1;
    return leases > 2;
  };
  const coherence = { rest, dropBefore: async () => void steps.push("drop") } as unknown as GoOnAfterCrash["coherence"];
  await goOnAfterCrash(after, hostOf(after, { coherence, leaseHolds }));
  expect([looks, leases, steps]).toEqual([4, 3, ["drop", `end ${DEAD}`, "begin"]]);
  const check = (): void => {
    throw new Error("dlmd is gone");
  };
  steps.length = 0;
  await expect(goOnAfterCrash(after, hostOf(after, { leaseHolds: () => false, check }))).rejects.toThrow("dlmd is gone");
  expect(steps).toEqual(["drop"]);
});

it("a file that the owner could not open ends the mount for good", async () => {
  const after = crashed();
  const remote = { brokenFiles: 1 } as unknown as GoOnAfterCrash["remote"];
  await expect(goOnAfterCrash(after, hostOf(after, { remote }))).rejects.toMatchObject({ code: "crash-lost" });
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
    await goOnAfterCrash(after, hostOf(after));
    expect(asked).toEqual([{ client: DEAD, calls: [{ id: 1, type: CALLS.mkdir.type, body: null }] }]);
    expect(after.made(100)).toEqual(made);
    // And the same for a third process.
    expect(new AfterCrash(memory).made(100)).toEqual(made);
    expect(lost).toEqual([]);
  });
});

describe("a change that was made behind", () => {
  it.each<[string, Outcome, readonly FileId[]]>([
    ["is made", { state: "answered", type: CALLS.write.type | FrameType.ANSWER, body: new Uint8Array() }, []],
    ["is refused: it is lost", refusedWith(E.ENOSPC), [FILE]],
    ["is of a file that is gone", refusedWith(E.ESTALE), []],
    ["is lost with its session", { state: "unknown-session" }, [FILE]],
    ["is not made any more: it is lost", { state: "not-made" }, [FILE]],
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
    expect([asked, lost]).toEqual([[], [FILE]]);
  });

  it("goes before those that came after it", async () => {
    const [body, data] = behindWrite();
    journal.begun(3, CALLS.mkdir.type, 100, null, null);
    journal.begun(2, CALLS.write.type, 0, body, data);
    outcomes = [{ state: "not-made" }, { state: "not-made" }];
    const after = crashed();
    await goOnAfterCrash(after, hostOf(after));
    expect(asked[0]?.calls.map(({ id }) => id)).toEqual([2, 3]);
  });
});

it("what was changed before is synced again and again, until it is on the disk or the mount ends", async () => {
  vi.useFakeTimers();
  const results: (Error | null)[] = [errnoError(E.EIO), errnoError(E.ENOSPC), null];
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
