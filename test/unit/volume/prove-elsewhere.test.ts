/** Whether a life of another node is over: what its lock manager must have seen, and for how long it is asked. */
import { describe, expect, it } from "vitest";
import { UNKNOWN_MACHINE } from "../../../dlmd/base/machine.ts";
import type { LifeAnswer, LifeSeen, ProcessLife } from "../../../dlmd/client/api.ts";
import type { Life, Proof } from "../../../overlay/volume/life.ts";
import { createProveGoneAnywhere, judgeAnswer, PROVE_LIMIT_MS, PROVE_POLL_MS } from "../../../overlay/volume/prove-elsewhere.ts";

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

/** Answers in turn, the last one for ever; time passes with `wait` alone. */
function bench(answers: readonly LifeAnswer[]): { asked: ProcessLife[]; waitedMs: () => number; prove: (life: Life) => Promise<Proof> } {
  let nowMs = 0;
  const asked: ProcessLife[] = [];
  const prove = createProveGoneAnywhere({
    nodeid: 1,
    nameOf: (nodeid) => `node${nodeid}`,
    askLife: async (one) => {
      asked.push(one);
      return answers[Math.min(asked.length, answers.length) - 1] as LifeAnswer;
    },
    here: async () => ({ kind: "fenced" }),
    nowMs: () => nowMs,
    wait: async (ms) => {
      nowMs += ms;
    },
  });
  return { asked, waitedMs: () => nowMs, prove };
}

it("asks until the process has ended and its device is free", async () => {
  const b = bench([seen({ process: "alive", device: "busy" }), seen({ device: "busy" }), seen({})]);
  expect(await b.prove(life)).toEqual({ kind: "ended" });
  expect(b.asked).toEqual(Array.from({ length: 3 }, () => ({ nodeid: 2, pid: 7, startTime: 8, device: "/dev/sdb" })));
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
  expect(await b.prove({ ...life, nodeid: 1 })).toEqual({ kind: "fenced" });
  expect(b.asked).toHaveLength(1);
});
