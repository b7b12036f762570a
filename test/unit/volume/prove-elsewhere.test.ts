/** Whether a life of another node is over: what its lock manager must have seen, and for how long it is asked. */
import { describe, expect, it } from "vitest";
import { UNKNOWN_MACHINE } from "../../../dlmd/base/machine.ts";
import type { LifeAnswer, LifeSeen, ProcessLife } from "../../../dlmd/client/api.ts";
import type { Life, Proof } from "../../../overlay/volume/life.ts";
import type { FenceJudged } from "../../../overlay/volume/fence-proof.ts";
import {
  createProveGoneAnywhere,
  FENCE_BLOCK_MS,
  FENCE_LIMIT_MS,
  FENCE_POLL_MS,
  judgeAnswer,
  PROVE_LIMIT_MS,
  PROVE_POLL_MS,
} from "../../../overlay/volume/prove-elsewhere.ts";

const life: Life = {
  nodeid: 2,
  incarnation: "aa",
  clientId: 3,
  epoch: 4,
  bootId: "boot",
  machineId: "machine",
  pid: 7,
  startTime: 8n,
  device: "/dev/sdb",
  hostName: "two",
};
const seen = (what: Partial<LifeSeen>): LifeAnswer => ({
  seen: { bootId: "boot", machineId: "machine", process: "gone", device: "free", ...what },
});

describe("an answer", () => {
  const of = (answer: LifeAnswer): Proof => judgeAnswer(life, answer, "node2").proof;

  it("is a proof of a process that is gone, if nothing has the device", () => {
    expect(of(seen({}))).toEqual({ kind: "ended" });
    expect(of(seen({ bootId: "other", process: "alive", device: "busy" }))).toEqual({ kind: "rebooted" });
  });

  it("of another boot is a proof of the machine alone that the life names, so far as machines can be told apart", () => {
    const rebooted = (own: string, now: string): Proof =>
      judgeAnswer({ ...life, machineId: own }, seen({ bootId: "other", machineId: now }), "node2").proof;
    const refused = {
      kind: "none",
      why: expect.stringContaining("node2 is another machine than the one that had /dev/sdb mounted (two)") as string,
    };
    expect(rebooted("machine", "machine")).toEqual({ kind: "rebooted" });
    expect(rebooted("machine", "another")).toEqual(refused);
    const unknown = (which: string): Proof => ({
      kind: "none",
      why: `nothing tells whether node2 is the same machine as the one that had /dev/sdb mounted (two): ${which}, so its boot proves nothing`,
    });
    expect(rebooted("machine", UNKNOWN_MACHINE)).toEqual(unknown("it has no /etc/machine-id"));
    expect(rebooted(UNKNOWN_MACHINE, UNKNOWN_MACHINE)).toEqual(unknown("it has no /etc/machine-id"));
    expect(rebooted(UNKNOWN_MACHINE, "machine")).toEqual(unknown("the block names no machine id"));
    // Of version 1.
    expect(rebooted("", "machine")).toEqual(unknown("the block names no machine id"));
    expect(rebooted("", "")).toMatchObject({ kind: "none" });
    // The same boot is the same machine.
    expect(of(seen({ machineId: "another" }))).toEqual({ kind: "ended" });
  });

  it("is none otherwise, in words", () => {
    const rest: LifeAnswer[] = [
      { missing: "it left" },
      seen({ bootId: "" }),
      seen({ process: "alive" }),
      seen({ process: "unknown" }),
      ...(["busy", "silent", "missing", "not-a-device", "failed"] as const).map((device) => seen({ device })),
    ];
    const proofs = rest.map(of);
    expect(proofs.map(({ kind }) => kind)).toEqual(rest.map(() => "none"));
    expect(new Set(proofs.map((proof) => (proof.kind === "none" ? proof.why : ""))).size).toBe(rest.length);
  });
});

interface Bench {
  readonly asked: ProcessLife[];
  /** Of fences: for a first mount? */
  readonly fences: boolean[];
  readonly told: string[];
  waitedMs(): number;
  /** From then on the owner's block names another life, or none. */
  blockChangesAtMs: number;
  prove(life: Life): Promise<Proof>;
}

/** Answers in turn, the last one for ever; time passes with `wait` alone. */
function bench(answers: readonly LifeAnswer[], fenced: readonly (FenceJudged | null)[] = [null]): Bench {
  let nowMs = 0;
  const asked: ProcessLife[] = [];
  const fences: boolean[] = [];
  const told: string[] = [];
  const prove = createProveGoneAnywhere({
    nodeid: 1,
    nameOf: (nodeid) => `node${nodeid}`,
    askLife: async (one) => {
      asked.push(one);
      return answers[Math.min(asked.length, answers.length) - 1] as LifeAnswer;
    },
    here: async () => ({ kind: "ended" }),
    fence: {
      ask: async (_, first) => {
        fences.push(first);
        return fenced[Math.min(fences.length, fenced.length) - 1] ?? null;
      },
    },
    isUnchanged: async () => nowMs < self.blockChangesAtMs,
    nowMs: () => nowMs,
    wait: async (ms) => {
      nowMs += ms;
    },
  });
  const self: Bench = {
    asked,
    fences,
    told,
    waitedMs: () => nowMs,
    blockChangesAtMs: Number.MAX_SAFE_INTEGER,
    prove: (one) => prove({ life: one, first: true, block: null }, (why) => told.push(why)),
  };
  return self;
}

it("asks until the process has ended and its device is free", async () => {
  const b = bench([seen({ process: "alive", device: "busy" }), seen({ device: "busy" }), seen({})]);
  expect(await b.prove(life)).toEqual({ kind: "ended" });
  expect(b.asked).toEqual(Array.from({ length: 3 }, () => ({ nodeid: 2, pid: 7, startTime: 8, device: "/dev/sdb" })));
});

it("is no proof if the owner gave the device back before it ended: the block is to be read again", async () => {
  const changed = { kind: "none", why: "its owner's block has changed", changed: true };
  const b = bench([seen({ process: "alive", device: "busy" }), seen({})]);
  b.blockChangesAtMs = PROVE_POLL_MS;
  expect([await b.prove(life), b.asked.length]).toEqual([changed, 2]);
  expect(await b.prove({ ...life, nodeid: 1 })).toEqual(changed);
});

it("gives up after PROVE_LIMIT_MS, with the last reason", async () => {
  const b = bench([seen({ process: "alive" }), seen({ device: "busy" })]);
  expect(await b.prove(life)).toEqual({ kind: "none", why: "process 7 of node2 has ended, but /dev/sdb is in use there still" });
  expect(b.waitedMs()).toBe(PROVE_LIMIT_MS);
  expect(b.asked).toHaveLength(1 + PROVE_LIMIT_MS / PROVE_POLL_MS);
});

it("does not ask again where time does not help, and looks here for a life of this node", async () => {
  const b = bench([{ missing: "it is not in the view" }]);
  expect(await b.prove(life)).toEqual({ kind: "none", why: "node2 says nothing of process 7: it is not in the view" });
  expect(b.waitedMs()).toBe(0);
  expect(await b.prove({ ...life, nodeid: 1 })).toEqual({ kind: "ended" });
  expect(b.asked).toHaveLength(1);
});

describe("a fence", () => {
  const silent: LifeAnswer = { missing: "node 2 is not in the view" };
  const runs = (why: string): FenceJudged => ({ proof: { kind: "none", why, underWay: true }, again: true });

  it("is asked for only where the node itself says nothing", async () => {
    const b = bench([seen({ process: "alive" })], [{ proof: { kind: "fenced" }, again: false }]);
    expect((await b.prove(life)).kind).toBe("none");
    expect((await bench([seen({})]).prove(life)).kind).toBe("ended");
    expect(b.fences).toEqual([]);
  });

  it("is a proof when it is done; until then what is under way is told, and asked again each FENCE_POLL_MS", async () => {
    const b = bench([silent], [runs("one"), runs("two"), { proof: { kind: "fenced" }, again: false }]);
    expect(await b.prove(life)).toEqual({ kind: "fenced" });
    expect([b.told, b.fences, b.waitedMs()]).toEqual([["one", "two"], [true, true, true], 2 * FENCE_POLL_MS]);
  });

  it("gives way to what the node says when it is there again", async () => {
    const b = bench([silent, seen({ bootId: "other" })], [runs("one")]);
    expect(await b.prove(life)).toEqual({ kind: "rebooted" });
  });

  it("that takes longer than FENCE_LIMIT_MS leaves the turn to another node, and says that it is under way", async () => {
    const b = bench([silent], [runs("still")]);
    expect(await b.prove(life)).toEqual({ kind: "none", why: "still", underWay: true });
    expect(b.waitedMs()).toBe(FENCE_LIMIT_MS);
  });

  it("is waited for no more when the block names that life no more: it is read again each FENCE_BLOCK_MS", async () => {
    const b = bench([silent], [runs("still")]);
    b.blockChangesAtMs = 3 * FENCE_BLOCK_MS - 1;
    expect(await b.prove(life)).toEqual({ kind: "none", why: "its owner's block has changed", changed: true });
    expect(b.waitedMs()).toBe(3 * FENCE_BLOCK_MS);
  });

  it("that failed is asked for again later", async () => {
    const b = bench([silent], [{ proof: { kind: "none", why: "no device" }, again: false }]);
    expect(await b.prove(life)).toEqual({ kind: "none", why: "no device" });
    expect(b.waitedMs()).toBe(0);
  });
});
