/** What the next owner must know of the one before: the owner's block, and the proof that the life in it is over. */
import { describe, expect, test } from "vitest";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { MAX_FIRST_QUESTIONS } from "../../../overlay/volume/owner-election.ts";
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";
import { OwnerCore } from "../../../overlay/volume/owner-core.ts";
import type { OwnerEffect, OwnerLock } from "../../../overlay/volume/owner-event.ts";
import { encodeOwnerRecord } from "../../../overlay/volume/owner-record.ts";
import { cluster, effectsOf, expectServed, own } from "./owner-scene.ts";

describe("the owner before", () => {
  test("R5: the only mounter is cut off and lives: a first mount of another node is refused, with words", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      lab.kill(own(lab, 1));
      lab.settle(); // Its locks are purged, and the record is forgotten.
      const next = lab.start(2);
      for (let asked = 1; asked < MAX_FIRST_QUESTIONS; asked++) {
        lab.settle();
        expect([next.core.role, next.proofs.length, next.asksLater]).toEqual(["waiting", asked, true]);
        expect(next.core.why).toBe("node1 may have the volume mounted still: node 1 does not answer");
        lab.askAgain();
      }
      lab.settle();
      const error = next.left?.error as OperatingError;
      expect([error.code, error.exitStatus]).toEqual(["still-owned", 32]);
      expect(error.message).toMatch(/^node1 has the volume mounted as \/dev\/d since 1970-01-01T00:00:00.000Z .*node 1 does not answer$/);
      expect(error.hint).toContain("coverlay volume release DEVICE --owner node1 --yes");
      // Its own node needs nobody's word.
      expect(own(lab, 1).proofs).toEqual(["ended"]);
      expect(expectServed(lab).core.owner?.epoch).toBe(2);
    }
  });

  test("a proof lets another node take over from a dead owner; without one it asks again when something changes", () => {
    for (let seed = 0; seed < 300; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 1);
      const others = [lab.start(3), lab.start(2)];
      lab.settle();
      lab.kill(owner);
      lab.settle();
      for (const other of others) {
        expect(other.core.why).toBe(
          "owner node1 is gone: operations go on when node1 mounts the volume again; no other node may: node 1 does not answer",
        );
      }
      lab.fence(1);
      lab.settle();
      expect(lab.owner()).toBeNull();
      lab.askAgain();
      lab.settle();
      const { nodeid } = expectServed(lab);
      expect(lab.owner()?.core.owner?.epoch).toBe(2);
      expect(lab.block).toMatchObject({ state: "owned", epoch: 2, life: { nodeid } });
    }
  });

  test("a fence that is under way: what is said of it is shown, it counts for no refusal, and its end is a proof", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 1);
      lab.fencing = "node1 is being fenced, for 2.0 s: node2 runs ipmi1";
      lab.kill(owner);
      lab.settle();
      const next = lab.start(2);
      for (let asked = 1; asked < 3 * MAX_FIRST_QUESTIONS; asked++) {
        lab.settle();
        expect([next.core.role, next.proofs.length, next.left]).toEqual(["waiting", asked, null]);
        expect(next.core.why).toBe(`node1 may have the volume mounted still: ${lab.fencing}`);
        lab.askAgain();
      }
      lab.fencing = null;
      lab.fence(1);
      lab.askAgain();
      lab.settle();
      expect(expectServed(lab)).toBe(next);
      expect(lab.claims.at(-1)?.proof).toEqual({ kind: "fenced" });
    }
  });

  test("an owner that lets go while its fence is waited for: the next one reads the block again at once, and keeps its place in the line", () => {
    const lab = cluster();
    const owner = own(lab, 1);
    const other = lab.start(2);
    lab.settle();
    const effects = effectsOf(other);
    lab.kill(owner);
    while (effects.at(-1)?.kind !== "prove-gone") expect(lab.stepOnce()).toBe(true);
    const changed = { kind: "none", why: "its owner's block has changed", changed: true } as const;
    expect(other.core.step({ kind: "proved", proof: changed })).toEqual([{ kind: "read-owner-block" }]);
    expect(other.core.step({ kind: "owner-block", block: { ...lab.block, state: "released" } })).toMatchObject([
      { kind: "request", lock: "owner" },
    ]);
  });

  test("what a proof waits for is shown while it is waited for", () => {
    const lab = cluster();
    const owner = own(lab, 1);
    const other = lab.start(2);
    lab.settle();
    lab.kill(owner);
    lab.settle();
    // The answer is on its way.
    lab.askAgain();
    while (other.proofs.length < 2) {
      other.core.step({ kind: "proof-waits", why: "node1 is being fenced" });
      if (other.core.why.endsWith("no other node may: node1 is being fenced")) break;
      expect(lab.stepOnce()).toBe(true);
    }
    expect(other.core.why).toContain("owner node1 is gone: ");
    expect(other.core.why).toContain("node1 is being fenced");
    lab.settle();
    // Nothing is waited for any more.
    other.core.step({ kind: "proof-waits", why: "too late" });
    expect(other.core.why).not.toContain("too late");
  });

  test("whether it is a first mount that asks for a proof is said: such a one does not fence whom nobody has heard", () => {
    const lab = cluster();
    const asked = (effects: readonly OwnerEffect[]): boolean[] =>
      effects.flatMap((effect) => (effect.kind === "prove-gone" ? [effect.first] : []));
    const owner = own(lab, 1);
    const served = lab.start(2);
    const ofServed = effectsOf(served);
    lab.settle();
    lab.kill(owner);
    lab.settle();
    expect(asked(ofServed)).toEqual([false]);
    lab.leave(served);
    lab.settle();
    const first = lab.start(3);
    const ofFirst = effectsOf(first);
    lab.settle();
    // The record went with the last mounter.
    expect(asked(ofFirst)).toEqual([true]);
  });

  test("an owner that died after its device was released needs no proof", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 1);
      const other = lab.start(2);
      lab.settle();
      lab.leave(owner);
      while (owner.touching) lab.stepOnce();
      if (owner.live) lab.kill(owner);
      lab.settle();
      expect(expectServed(lab)).toBe(other);
      expect(other.proofs).toEqual([]);
    }
  });

  test("the record says released, the block names a life: a mount that was served waits, and says for what", () => {
    const lab = cluster();
    const owner = own(lab, 3);
    const other = lab.start(2);
    lab.settle();
    expect(other.core.role).toBe("remote");
    const life = { ...(lab.block.life as NonNullable<typeof lab.block.life>), nodeid: 4, epoch: 5 };
    lab.leave(owner);
    while (lab.block.state !== "released") lab.stepOnce();
    lab.block = { ...lab.block, state: "owned", epoch: 5, life };
    for (let asked = 1; asked < 2 * MAX_FIRST_QUESTIONS; asked++) {
      lab.settle();
      expect([other.core.role, other.proofs.length]).toEqual(["waiting", asked]);
      expect(other.core.why).toBe("node4 may have the volume mounted still: node 4 does not answer");
      lab.askAgain();
    }
    lab.fence(4);
    lab.askAgain();
    lab.settle();
    expect(expectServed(lab)).toBe(other);
    // Above that of the life in the block, of which no record told.
    expect(other.core.owner?.epoch).toBe(6);
  });

  /** Node 2 owns the volume, node 3 mounts it too; a late write names node 4, which has never mounted it. */
  function covered(): { lab: ReturnType<typeof cluster>; other: ReturnType<typeof own>; third: ReturnType<typeof own> } {
    const lab = cluster();
    const owner = own(lab, 1);
    const other = lab.start(2);
    lab.settle();
    lab.leave(owner);
    lab.settle();
    const third = lab.start(3);
    lab.settle();
    const { life } = lab.block;
    if (life === null) throw new Error("the block names nobody");
    lab.block = { ...lab.block, state: "owned", epoch: 1, life: { ...life, nodeid: 4, clientId: 99, epoch: 1 } };
    return { lab, other, third };
  }

  test("R5: a late write of the block hides no owner: the life in the record is to be proved over, too", () => {
    const { lab, other, third } = covered();
    lab.kill(other);
    lab.fence(4);
    lab.settle();
    expect([third.core.role, third.proofs]).toEqual(["waiting", ["fenced", "none"]]);
    expect(third.core.why).toContain("node 2 does not answer");
    lab.fence(2);
    lab.askAgain();
    lab.settle();
    expect([third.core.role, third.proofs.slice(2)]).toEqual(["owner", ["fenced", "fenced"]]);
  });

  test("R5: a claimer that died before it wrote its block is to be proved over", () => {
    const lab = cluster();
    const owner = own(lab, 1);
    const other = lab.start(2);
    lab.settle();
    // As if its own write of the block had not come to the disk.
    lab.block = { ...lab.block, state: "released", life: null };
    lab.kill(owner);
    lab.settle();
    expect([other.core.role, other.proofs]).toEqual(["waiting", ["none"]]);
    lab.fence(1);
    lab.askAgain();
    lab.settle();
    expect(other.core.role).toBe("owner");
  });

  /** Node 3 alone: what the lock manager and the disk say is said by the test. */
  function alone() {
    const nodes = [1, 2, 3, 4].map((nodeid) => ({ nodeid, name: `node${nodeid}` }));
    const process = { bootId: "b", machineId: "m", pid: 1, startTime: 1, device: "/dev/d" };
    const core = new OwnerCore({ nodeid: 3, incarnation: "i3", clientId: 3, nodes, process, reachesLower: true });
    const record = (nodeid: number, at: number, clientId = nodeid): Uint8Array => {
      const client = { nodeid, incarnation: `i${nodeid}`, clientId, address: "", port: 0, heir: 0 };
      return encodeOwnerRecord({ ...client, state: "ready", epoch: at, process, claimEpoch: at });
    };
    const block: OwnerBlock = { volumeUuid: "u", sequence: 0, epoch: 0, atMs: 0, state: "released", life: null };
    const grant = (lock: OwnerLock, lvb: Uint8Array | null = null): readonly OwnerEffect[] =>
      core.step({ kind: "granted", lock, lvb, lvbValid: false });
    const asked = (effects: readonly OwnerEffect[]): (string | number)[] =>
      effects.map((effect) =>
        effect.kind === "prove-gone" ? effect.life.nodeid : "lock" in effect ? `${effect.kind} ${effect.lock}` : effect.kind,
      );
    return { core, record, block, grant, asked };
  }

  test.each([
    ["a later one", 5],
    ["one of the same epoch", 4],
  ])("R5: a record that comes with the claim and was not judged, %s: the block is read again, and its life asked for", (_, epoch) => {
    const { core, record, block, grant, asked } = alone();
    core.step({ kind: "start" });
    grant("mounter");
    grant("owner", record(1, 4));
    expect(asked(grant("next"))).toEqual(["read-owner-block"]);
    expect(asked(core.step({ kind: "owner-block", block }))).toEqual([1]);
    expect(asked(core.step({ kind: "proved", proof: { kind: "fenced" } }))).toEqual(["request owner"]);
    expect(asked(grant("owner", record(2, epoch)))).toEqual(["unlock owner"]);
    expect(asked(core.step({ kind: "unlocked", lock: "owner" }))).toEqual(["request owner"]);
    expect(asked(grant("owner", record(2, epoch)))).toEqual(["read-owner-block"]);
    expect(asked(core.step({ kind: "owner-block", block }))).toEqual([2]);
    expect(asked(core.step({ kind: "proved", proof: { kind: "fenced" } }))).toEqual(["request owner"]);
    expect(asked(grant("owner", record(2, epoch)))).toEqual(["request owner"]);
    expect(core.why).toBe("mounting the volume");
  });

  test("a life that only the record names and that has no proof: that node is named, and no command that has nothing to release", () => {
    const { core, record, block, grant, asked } = alone();
    const life = { nodeid: 4, incarnation: "i4", clientId: 9, epoch: 1, hostName: "four", startTime: 1n };
    const covering = { ...life, bootId: "b", machineId: "m", pid: 1, device: "/dev/d" };
    const late: OwnerBlock = { ...block, state: "owned", epoch: 1, life: covering };
    core.step({ kind: "start" });
    grant("mounter");
    grant("owner", record(3, 4, 99));
    grant("next");
    let effects: readonly OwnerEffect[] = [];
    for (let round = 1; round <= MAX_FIRST_QUESTIONS; round++) {
      expect(asked(core.step({ kind: "owner-block", block: late }))).toEqual([4]);
      expect(asked(core.step({ kind: "proved", proof: { kind: "fenced" } }))).toEqual([3]);
      effects = core.step({ kind: "proved", proof: { kind: "none", why: "process 1 of node3 runs still" } });
      if (round === MAX_FIRST_QUESTIONS) break;
      expect(core.why).toBe("node3 may have the volume mounted still: process 1 of node3 runs still");
      core.step({ kind: "unlocked", lock: "next" });
      core.step({ kind: "ask-again" });
      grant("next");
    }
    const left = effects.find((effect) => effect.kind === "left");
    const error = left?.error as OperatingError;
    expect(error.message).toContain("node3 has the volume mounted as /dev/d, or is about to (process 1 on node3)");
    expect(error.hint).toContain("coverlay fence node3");
    expect(error.hint).not.toContain("volume release");
  });

  test("a record of another version ends the mount with words, before it asks for the volume", () => {
    const lab = cluster();
    own(lab, 1);
    const third = Buffer.from("774f03010200581b0900000000000000070000000500040061316232080031302e302e302e328064248f", "hex");
    const process = { bootId: "b", machineId: "m", pid: 1, startTime: 1, device: "/dev/d" };
    const core = new OwnerCore({ nodeid: 3, incarnation: "i3", clientId: 3, nodes: lab.nodes, process, reachesLower: true });
    core.step({ kind: "start" });
    const effects = core.step({ kind: "granted", lock: "owner", lvb: third, lvbValid: true });
    expect(effects).toMatchObject([{ kind: "left", error: { code: "record-version", exitStatus: 32 } }]);
  });

  test("a directory has no block: after a death the record alone counts, as one node has it", () => {
    const lab = cluster();
    lab.noBlock = true;
    const owner = own(lab, 1);
    const other = lab.start(2);
    lab.settle();
    lab.kill(owner);
    lab.settle();
    lab.askAgain();
    lab.settle();
    expect(other.core.why).toContain("only that node has the directory");
    own(lab, 1);
    expect(expectServed(lab).nodeid).toBe(1);
  });
});
