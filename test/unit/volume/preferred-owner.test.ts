/** When a node that prefers to be the owner asks for the volume; and that it gets it, in the model of the owner role, whatever else happens. */
import { describe, expect, test } from "vitest";
import {
  PREFERRED_AFTER_MS,
  PREFERRED_AGAIN_MAX_MS,
  PREFERRED_AGAIN_MIN_MS,
  PreferredOwner,
  type PreferredSituation,
} from "../../../overlay/volume/preferred-owner.ts";
import { type Client, OwnerCluster, seeded } from "./owner-cluster.ts";

const well: PreferredSituation = { owner: { nodeid: 3, epoch: 4 }, viewId: "v1", isWell: true };

/** Has been well for just long enough, but for a millisecond. */
function almost(one: PreferredOwner, fromMs = 0): void {
  expect(one.look(well, fromMs)).toBe(false);
  expect(one.look(well, fromMs + PREFERRED_AFTER_MS - 1)).toBe(false);
}

describe("a node that prefers to be the owner", () => {
  test("asks once it was well for so long, in one view and under one owner", () => {
    const one = new PreferredOwner(1, [1]);
    almost(one);
    expect(one.look(well, PREFERRED_AFTER_MS)).toBe(true);
  });

  test.each<[string, Partial<PreferredSituation>]>([
    ["another view", { viewId: "v2" }],
    ["another owner", { owner: { nodeid: 3, epoch: 5 } }],
    ["no owner", { owner: null }],
    ["a mount that waits for something", { isWell: false }],
  ])("begins anew with %s", (_, change) => {
    const one = new PreferredOwner(1, [1]);
    almost(one);
    expect(one.look({ ...well, ...change }, PREFERRED_AFTER_MS)).toBe(false);
    almost(one, PREFERRED_AFTER_MS + 1);
    expect(one.look(well, 2 * PREFERRED_AFTER_MS + 1)).toBe(true);
  });

  test("never asks another one that prefers it; nor does a node ask that does not", () => {
    for (const preferred of [[1, 3], [3], []]) {
      const one = new PreferredOwner(1, preferred);
      almost(one);
      expect(one.look(well, PREFERRED_AFTER_MS)).toBe(false);
    }
  });

  test("does not ask for what it had in this mount: a person or a failure took it away", () => {
    const one = new PreferredOwner(1, [1]);
    expect(one.look({ ...well, owner: { nodeid: 1, epoch: 3 } }, 0)).toBe(false);
    almost(one, 1);
    expect(one.look(well, 10 * PREFERRED_AFTER_MS)).toBe(false);
  });

  test("does not ask again if its disk failed while it became the owner, so that no look ever saw it as one", () => {
    const one = new PreferredOwner(1, [1]);
    almost(one);
    one.becameOwner();
    expect(one.look(well, PREFERRED_AFTER_MS)).toBe(false);
    almost(one, PREFERRED_AFTER_MS + 1);
    expect(one.look(well, 10 * PREFERRED_AFTER_MS)).toBe(false);
  });

  test("leaves it to the lowest that prefers it, if that one mounts the volume and reaches its device", () => {
    const one = new PreferredOwner(4, [1, 2, 4]);
    expect(one.leavesItTo([2, 1, 3])).toBe(1);
    expect(one.leavesItTo([3, 2])).toBe(2);
    expect(one.leavesItTo([3])).toBeNull();
    expect(new PreferredOwner(1, [1, 2]).leavesItTo([2, 3])).toBeNull();
  });

  test("asks more and more seldom what came to nothing", () => {
    const one = new PreferredOwner(1, [1]);
    let nowMs = 0;
    const waits: number[] = [];
    almost(one, nowMs);
    nowMs += PREFERRED_AFTER_MS;
    for (let attempts = 0; attempts < 9; attempts++) {
      expect(one.look(well, nowMs)).toBe(true);
      one.cameToNothing(nowMs);
      const beganMs = nowMs;
      while (!one.look(well, nowMs)) nowMs += 1000;
      waits.push(nowMs - beganMs);
    }
    expect(waits.slice(0, 3)).toEqual([PREFERRED_AGAIN_MIN_MS, 2 * PREFERRED_AGAIN_MIN_MS, 4 * PREFERRED_AGAIN_MIN_MS]);
    expect(waits.at(-1)).toBe(PREFERRED_AGAIN_MAX_MS);
  });
});

/** The mounts of a cluster, of which some prefer to be the owner, and a clock that only goes when nothing else happens. */
class PreferringCluster {
  readonly lab: OwnerCluster;
  readonly preferred: readonly number[];
  readonly deciding = new Map<Client, PreferredOwner>();
  nowMs = 0;
  moves: { readonly from: number; readonly to: number }[] = [];

  constructor(seed: number, preferred: readonly number[]) {
    this.lab = new OwnerCluster(4, seeded(seed));
    this.preferred = preferred;
  }

  /** All of them look, after so long. */
  look(afterMs: number): void {
    this.nowMs += afterMs;
    const owner = this.lab.owner();
    const live = this.lab.liveClients();
    const viewId = live.map(({ nodeid, clientId }) => `${nodeid}.${clientId}`).join(" ");
    for (const client of live) {
      const one = this.deciding.get(client) ?? new PreferredOwner(client.nodeid, this.preferred);
      this.deciding.set(client, one);
      const { owner: known, role, reachesDevice } = client.core;
      const asks = one.look({ owner: known, viewId, isWell: role === "remote" && reachesDevice }, this.nowMs);
      if (!asks || owner === null) continue;
      const mounters = live.filter((other) => other !== client && other.core.reachesDevice).map(({ nodeid }) => nodeid);
      if (one.leavesItTo(mounters) !== null || known?.epoch !== owner.core.owner?.epoch) {
        one.cameToNothing(this.nowMs);
        continue;
      }
      this.moves.push({ from: owner.nodeid, to: client.nodeid });
      this.lab.handOver(owner, client.nodeid);
      return;
    }
  }

  /** Until nobody asks any more. */
  rest(): void {
    for (let turn = 0; turn < 20; turn++) {
      this.lab.settle();
      this.look(PREFERRED_AFTER_MS);
    }
    this.lab.settle();
  }
}

describe("the volume of a cluster in which nodes prefer to be the owner", () => {
  test("goes back to the node that was away, once, and stays there", () => {
    for (let seed = 0; seed < 200; seed++) {
      const all = new PreferringCluster(seed, [3]);
      for (const nodeid of [3, 1, 2]) {
        all.lab.start(nodeid);
        all.rest();
      }
      const before = all.lab.owner() as Client;
      expect([before.nodeid, all.moves]).toEqual([3, []]);
      all.lab.leave(before);
      all.rest();
      expect([all.lab.owner()?.nodeid, all.moves]).toEqual([1, []]);
      all.lab.start(3);
      all.rest();
      expect([all.lab.owner()?.nodeid, all.moves]).toEqual([3, [{ from: 1, to: 3 }]]);
    }
  });

  test("never moves between nodes that prefer it; the lowest of them that is there gets it", () => {
    for (let seed = 0; seed < 200; seed++) {
      const all = new PreferringCluster(seed, [2, 4]);
      for (const nodeid of [1, 4]) {
        all.lab.start(nodeid);
        all.lab.settle();
      }
      all.rest();
      expect([all.lab.owner()?.nodeid, all.moves]).toEqual([4, [{ from: 1, to: 4 }]]);
      all.lab.start(2);
      all.rest();
      expect([all.lab.owner()?.nodeid, all.moves.length]).toEqual([4, 1]);
      // Both are there, and neither is the owner: 2 goes first.
      const again = new PreferringCluster(seed, [2, 4]);
      again.lab.start(1);
      again.lab.settle();
      for (const nodeid of [4, 2]) again.lab.start(nodeid);
      again.rest();
      expect([again.lab.owner()?.nodeid, again.moves]).toEqual([2, [{ from: 1, to: 2 }]]);
    }
  });

  test("stays where a person has moved it", () => {
    for (let seed = 0; seed < 100; seed++) {
      const all = new PreferringCluster(seed, [2]);
      for (const nodeid of [2, 1, 3]) {
        all.lab.start(nodeid);
        all.rest();
      }
      all.lab.handOver(all.lab.owner() as Client, 3);
      all.rest();
      expect([all.lab.owner()?.nodeid, all.moves]).toEqual([3, []]);
    }
  });

  test("goes to a node that can mount it, whatever fails and comes back meanwhile; each mount gets it once at most", () => {
    let moves = 0;
    for (let seed = 0; seed < 500; seed++) {
      const random = seeded(seed + 4711);
      const all = new PreferringCluster(seed, [2, 4]);
      const { lab } = all;
      for (let turn = 0; turn < 12; turn++) {
        const nodeid = 1 + random(4);
        const running = lab.liveClients().find((client) => client.nodeid === nodeid);
        const fate = random(4);
        if (running === undefined) lab.start(nodeid);
        else if (fate === 0) lab.kill(running);
        else if (fate === 1) lab.leave(running);
        for (const zombie of lab.zombies) lab.fence(zombie);
        for (const client of lab.liveClients()) client.mountFails = random(8) === 0;
        lab.askAgain();
        lab.reachAgain();
        if (random(2) === 0) all.rest();
        else for (let count = random(40); count > 0 && lab.stepOnce(); count--) all.look(random(PREFERRED_AFTER_MS));
      }
      lab.settle();
      for (const client of lab.clients) client.mountFails = false;
      for (const zombie of lab.zombies) lab.fence(zombie);
      for (let nodeid = 1; nodeid <= 4; nodeid++) if (!lab.liveClients().some((client) => client.nodeid === nodeid)) lab.start(nodeid);
      lab.settle();
      lab.reachAgain();
      lab.askAgain();
      all.rest();
      for (const { from, to } of all.moves) expect([all.preferred.includes(from), all.preferred.includes(to)]).toEqual([false, true]);
      expect(lab.owner()).not.toBeNull();
      moves += all.moves.length;
    }
    expect(moves).toBeGreaterThan(200);
  });
});
