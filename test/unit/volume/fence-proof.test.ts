/** The proof by a fence: when it is asked for, and the disk that must be quiet after it. */
import { describe, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { FenceAnswer } from "../../../dlmd/client/api.ts";
import { FenceProof, type FencesKnown, RETURN_LIMIT_MS, START_LIMIT_MS } from "../../../overlay/volume/fence-proof.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import { QUIET_MS, QuietDisk } from "../../../overlay/volume/quiet-disk.ts";

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

describe("a quiet disk", () => {
  it("needs two equal looks, QUIET_MS apart", () => {
    const disk = new QuietDisk();
    expect(disk.look("a", 1000, true, 0)).toEqual({ kind: "wait", forMs: QUIET_MS });
    expect(disk.look("a", 1000, true, QUIET_MS - 1)).toEqual({ kind: "wait", forMs: 1 });
    expect(disk.look("a", 1000, true, QUIET_MS)).toEqual({ kind: "quiet" });
  });

  it("needs them further apart where a mounted file system writes less often", () => {
    const disk = new QuietDisk();
    expect(disk.look("a", 5000, true, 0)).toEqual({ kind: "wait", forMs: 7500 });
    expect(disk.look("a", 5000, true, 7499)).toEqual({ kind: "wait", forMs: 1 });
    expect(disk.look("a", 5000, true, 7500)).toEqual({ kind: "quiet" });
  });

  it("counts looks from before the end of the fence, but is never quiet before it", () => {
    const disk = new QuietDisk();
    for (const ms of [0, QUIET_MS, 2 * QUIET_MS]) expect(disk.look("a", 1000, false, ms).kind).toBe("wait");
    expect(disk.look("a", 1000, true, 2 * QUIET_MS + 1)).toEqual({ kind: "quiet" });
  });

  it("may change until the fence has ended, and between that and the first look after it", () => {
    const disk = new QuietDisk();
    disk.look("a", 1000, false, 0);
    disk.look("b", 1000, false, 1000);
    expect(disk.look("c", 1000, true, 2000)).toEqual({ kind: "wait", forMs: QUIET_MS });
    expect(disk.look("c", 1000, true, 2000 + QUIET_MS)).toEqual({ kind: "quiet" });
  });

  it("that changes after it shows that the fence lied, for ever", () => {
    const disk = new QuietDisk();
    disk.look("a", 1000, true, 0);
    expect(disk.look("b", 1000, true, 100)).toEqual({ kind: "lied" });
    for (const ms of [100, QUIET_MS, 10 * QUIET_MS]) expect(disk.look("b", 1000, true, 100 + ms)).toEqual({ kind: "lied" });
  });
});

class Bench {
  nowMs = 0;
  mark = "a";
  answer: FenceAnswer = { kind: "fenced", by: "ipmi1", atMs: 0 };
  member = false;
  heard: { incarnation: string; now: boolean } | null = { incarnation: "aa", now: false };
  fences: FencesKnown = { quorumForMs: 0, history: [] };
  broken = false;
  readonly asked: unknown[] = [];
  readonly logged: string[] = [];
  readonly proof = new FenceProof({
    fenceLife: async (question) => {
      this.asked.push(question);
      return this.answer;
    },
    isMember: () => this.member,
    heard: async () => this.heard,
    fences: async () => this.fences,
    activity: async () => {
      if (this.broken) throw new Error("the disk does not answer");
      return { mark: this.mark, everyMs: 1000 };
    },
    volume: "data",
    nameOf: (nodeid) => `node${nodeid}`,
    log: { ...silentLog, error: (_, message) => void this.logged.push(message) },
    nowMs: () => this.nowMs,
    wallMs: () => 1000 + this.nowMs,
  });

  async ask(first = false, one: Life = life): Promise<string> {
    const judged = await this.proof.ask(one, first);
    if (judged === null) return "null";
    return `${judged.proof.kind === "none" ? judged.proof.why : judged.proof.kind}${judged.again ? " (again)" : ""}`;
  }
}

describe("the proof by a fence", () => {
  it("is asked for exactly the life in the block", async () => {
    const b = new Bench();
    await b.ask();
    expect(b.asked).toEqual([{ nodeid: 2, incarnation: "aa", bootId: "boot", why: "owner of volume data" }]);
  });

  it("C11: is never asked of a member of the view", async () => {
    const b = new Bench();
    b.member = true;
    expect([await b.ask(), b.asked]).toEqual(["null", []]);
  });

  it("is not asked by a first mount of a node that nobody has heard, before the quorum was there for START_LIMIT_MS; by one that was heard it is", async () => {
    const b = new Bench();
    b.heard = null;
    expect(await b.ask(true)).toBe(
      "node2 was not heard since the lock manager of this node was started, and may be starting: a first mount fences it in 120.0 s, if it is not there by then and has a fence device. coverlay fence node2 fences it now",
    );
    const row = { nodeid: 2, incarnation: "aa", outcome: "fenced" };
    const others = [
      { ...row, outcome: "failed" },
      { ...row, incarnation: "00" },
      { ...row, nodeid: 3 },
    ];
    for (const fences of [
      { quorumForMs: null, history: [] },
      { quorumForMs: START_LIMIT_MS - 1, history: others },
    ]) {
      b.fences = fences;
      expect(await b.ask(true)).toContain("may be starting");
    }
    expect(b.asked).toEqual([]);
    for (const fences of [
      { quorumForMs: START_LIMIT_MS, history: [] },
      // A person has ordered it.
      { quorumForMs: 0, history: [row] },
    ]) {
      b.fences = fences;
      expect(await b.ask(true)).toContain("node2 is fenced (ipmi1)");
    }
    b.asked.length = 0;
    await b.ask(false);
    expect(b.asked).toHaveLength(1);
    b.heard = { incarnation: "aa", now: false };
    await b.ask(true);
    expect(b.asked).toHaveLength(2);
  });

  it("is not asked by a first mount in that time of a node that starts, either: another node may not have heard it yet, and would fence it", async () => {
    const b = new Bench();
    b.fences = { quorumForMs: 1000, history: [] };
    b.heard = { incarnation: "bb", now: true };
    expect(await b.ask(true)).toContain(
      "is heard in another life, and is not in the view yet: it is asked when it is, and fenced if it is not within 119.0 s",
    );
    b.nowMs = RETURN_LIMIT_MS;
    expect(await b.ask(true)).toContain("within 119.0 s");
    b.heard = { incarnation: "bb", now: false };
    expect(await b.ask(true)).toContain("node2 was heard in another life, and is not heard now, and may be starting");
    expect(b.asked).toEqual([]);
    b.fences = { quorumForMs: START_LIMIT_MS, history: [] };
    expect(await b.ask(true)).toContain("node2 is fenced (ipmi1)");
  });

  it("does not count of a node that is heard in another life: it is about to join, and can be asked then; the lock managers hold it, too", async () => {
    const b = new Bench();
    b.heard = { incarnation: "bb", now: true };
    const why =
      "node2 is heard in another life, and is not in the view yet: it is asked when it is, and fenced if it is not within 30.0 s. coverlay fence node2 fences it now (again)";
    b.fences = { quorumForMs: START_LIMIT_MS, history: [] };
    for (const first of [true, false]) expect(await b.ask(first)).toBe(why);
    expect(b.asked).toHaveLength(2);
    for (const heard of [
      { incarnation: "bb", now: false },
      { incarnation: "aa", now: true },
    ]) {
      b.heard = heard;
      expect(await b.ask()).toContain("node2 is fenced (ipmi1)");
    }
  });

  it.each([false, true])(
    "counts of one that is heard in another life and has not joined for RETURN_LIMIT_MS (first: %s)",
    async (first) => {
      const b = new Bench();
      b.fences = { quorumForMs: START_LIMIT_MS, history: [] };
      b.heard = { incarnation: "bb", now: true };
      await b.ask(first);
      b.nowMs = RETURN_LIMIT_MS - 1;
      expect(await b.ask(first)).toContain("is heard in another life");
      b.nowMs = RETURN_LIMIT_MS;
      expect(await b.ask(first)).toContain("node2 is fenced (ipmi1)");
      b.nowMs += QUIET_MS;
      expect(await b.ask(first)).toBe("fenced");
    },
  );

  it("counts that time once for all lives in which it is heard, and anew once it was a member", async () => {
    const b = new Bench();
    b.heard = { incarnation: "bb", now: true };
    expect(await b.ask()).toContain("within 30.0 s");
    b.nowMs += RETURN_LIMIT_MS - 1;
    b.heard = { incarnation: "bb", now: false };
    expect(await b.ask()).toContain("node2 is fenced (ipmi1)");
    b.heard = { incarnation: "cc", now: true };
    expect(await b.ask()).toContain("within 0.0 s");
    b.nowMs += 1;
    expect(await b.ask()).not.toContain("is heard in another life");
    b.member = true;
    await b.ask();
    b.member = false;
    expect(await b.ask()).toContain("within 30.0 s");
  });

  it("R5: two lives of one node that a claim asks for in turn: the time of each goes on while the other is asked for", async () => {
    const b = new Bench();
    const second: Life = { ...life, clientId: 9, epoch: 5 };
    b.heard = { incarnation: "bb", now: true };
    // As long as a round lasts, prove-elsewhere.ts.
    for (const end = 3 * RETURN_LIMIT_MS; b.nowMs < end; b.nowMs += 10_000) {
      await b.ask(false, life);
      if ((await b.ask(false, second)) === "fenced") break;
    }
    expect(b.nowMs).toBeLessThanOrEqual(RETURN_LIMIT_MS + 10_000);
  });

  it("counts when the disk was quiet for long enough, and says so until then", async () => {
    const b = new Bench();
    expect(await b.ask()).toBe("node2 is fenced (ipmi1); the disk has to be quiet for 1.5 s more (again)");
    b.nowMs = QUIET_MS;
    expect(await b.ask()).toBe("fenced");
  });

  it("counts at once when the disk was quiet for so long while the fence ran", async () => {
    const b = new Bench();
    b.answer = { kind: "running", sinceMs: 0, step: "node3 runs fence_ipmilan ipmi1, try 2" };
    expect(await b.ask()).toBe("node2 is being fenced, for 1.0 s: node3 runs fence_ipmilan ipmi1, try 2 (again)");
    b.answer = { kind: "fenced", by: "ipmi1", atMs: 0 };
    b.nowMs = QUIET_MS;
    expect(await b.ask()).toBe("fenced");
  });

  it("is none when the disk is written after it: stopped, named, said once in the log", async () => {
    const b = new Bench();
    await b.ask();
    b.mark = "b";
    for (const ms of [100, 100 + QUIET_MS, 100_000]) {
      b.nowMs = ms;
      expect(await b.ask()).toMatch(
        /^the fence of node2 \(ipmi1\) lied: \/dev\/sdb of two was written after it, so nothing is mounted\..*coverlay volume release DEVICE --owner node2 --yes$/,
      );
    }
    expect(b.logged).toEqual(["the disk is not quiet after a fence"]);
  });

  it("R5: that lied stays so, also when another life of the same claim is asked for in between", async () => {
    const b = new Bench();
    const other: Life = { ...life, nodeid: 3, epoch: 5 };
    const rounds = async (): Promise<string[]> => {
      const said: string[] = [];
      for (const one of [life, other]) {
        await b.ask(false, one);
        b.nowMs += QUIET_MS;
        said.push(await b.ask(false, one));
      }
      return said;
    };
    await b.ask(false, life);
    b.nowMs += QUIET_MS;
    expect(await b.ask(false, life)).toBe("fenced");
    // Another life is looked at anew.
    expect(await b.ask(false, other)).toContain("the disk has to be quiet");
    b.mark = "b";
    expect(await b.ask(false, other)).toContain("the fence of node3 (ipmi1) lied");
    for (let round = 0; round < 3; round++) expect((await rounds())[1]).toContain("the fence of node3 (ipmi1) lied");
  });

  it("that lied of a life that only the record names: its words do not lead to a command that has nothing to release", async () => {
    const b = new Bench();
    const recorded: Life = { ...life, hostName: "" };
    await b.ask(false, recorded);
    b.mark = "b";
    expect(await b.ask(false, recorded)).toBe(
      "the fence of node2 (ipmi1) lied: /dev/sdb of node2 was written after it, so nothing is mounted. Switch that machine off, and see to its fence device; then: unmount the volume everywhere, so that its record is forgotten, and mount it again",
    );
  });

  it("of a disk that does not answer while the fence runs goes on; after it, that is no proof", async () => {
    const b = new Bench();
    b.broken = true;
    b.answer = { kind: "running", sinceMs: 0, step: "s" };
    expect(await b.ask()).toContain("is being fenced");
    b.answer = { kind: "fenced", by: "ipmi1", atMs: 0 };
    await expect(b.ask()).rejects.toThrow("the disk does not answer");
  });

  it("that failed or is refused says why, and what a person can do", async () => {
    const b = new Bench();
    b.answer = { kind: "failed", why: "ipmi1: exit status 1", againAtMs: 9000 };
    expect(await b.ask()).toBe(
      "the fence of node2 failed: ipmi1: exit status 1; it is tried again in 8.0 s. When that machine is off for sure: coverlay fence ack node2 --yes",
    );
    b.answer = { kind: "refused", why: "it has no fence device" };
    expect(await b.ask()).toBe("node2 is not in the view, and is not fenced: it has no fence device");
  });
});
