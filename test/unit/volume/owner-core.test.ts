/** Who mounts the lower: scenarios by name, then many seeds. The cluster throws as soon as two nodes could write. */
import { describe, expect, test } from "vitest";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { MAX_FIRST_QUESTIONS } from "../../../overlay/volume/owner-core.ts";
import type { OwnerEffect } from "../../../overlay/volume/owner-event.ts";
import { reachAgainMs } from "../../../overlay/volume/owner.ts";
import { type Client, OwnerCluster, seeded } from "./owner-cluster.ts";

function cluster(seed = 1, nodes = 4): OwnerCluster {
  return new OwnerCluster(nodes, seeded(seed));
}

const kinds = (client: Client): string[] => client.told.map((effect: OwnerEffect) => effect.kind);

/** Mounts there, and is the owner when all is quiet. */
function own(lab: OwnerCluster, nodeid: number): Client {
  const client = lab.start(nodeid);
  lab.settle();
  expect(lab.owner()).toBe(client);
  return client;
}

/** Quiet, and no owner died: one owner, and everybody else goes through it. */
function expectServed(lab: OwnerCluster): Client {
  const owner = lab.owner();
  if (owner === null) {
    const why = lab.liveClients().map((client) => `${client.nodeid}: ${client.core.why}`);
    throw new Error(`no owner: ${why.join("; ")}`);
  }
  for (const client of lab.liveClients()) {
    expect(client.core.role).toBe(client === owner ? "owner" : "remote");
    expect(client.core.owner).toEqual(owner.core.owner);
  }
  return owner;
}

describe("the owner of a volume", () => {
  test("the first mounter becomes the owner, later ones go through it", () => {
    const lab = cluster();
    const third = lab.start(3);
    lab.settle();
    expect(kinds(third)).toEqual(["become-owner"]);
    const first = lab.start(1);
    lab.settle();
    expect(expectServed(lab)).toBe(third);
    expect(kinds(first)).toEqual(["owner-found"]);
    expect(first.core.owner).toMatchObject({ state: "ready", nodeid: 3, address: "10.0.0.3", port: 7000, epoch: 1 });
    expect(first.core.why).toBe("through node3");
  });

  test("of several that start at once exactly one mounts", () => {
    for (let seed = 0; seed < 300; seed++) {
      const lab = cluster(seed);
      for (const nodeid of [3, 1, 4, 2]) lab.start(nodeid);
      lab.settle();
      expect(expectServed(lab).core.owner?.epoch).toBe(1);
    }
  });

  test("a clean hand-over goes to the lowest nodeid that reaches the device", () => {
    for (let seed = 0; seed < 300; seed++) {
      const lab = cluster(seed);
      const owner = lab.start(3);
      lab.settle();
      const others = [lab.start(4), lab.start(2), lab.start(1, false)];
      lab.settle();
      lab.leave(owner);
      lab.settle();
      expect(owner.left).toEqual({ error: null });
      expect(expectServed(lab).nodeid).toBe(2);
      expect(lab.owner()?.core.owner?.epoch).toBe(2);
      expect(kinds(others[0] as Client)).toEqual(["owner-found", "owner-lost", "owner-found"]);
    }
  });

  test("a volume that is handed over goes to the heir, whoever is before it in the line, and the owner before goes through it", () => {
    for (let seed = 0; seed < 300; seed++) {
      const lab = cluster(seed);
      for (const nodeid of [2, 1, 3, 4]) {
        lab.start(nodeid);
        if (seed % 2 === 0) lab.settle();
      }
      lab.settle();
      for (const heir of [4, 1, 3, 2]) {
        const owner = expectServed(lab);
        if (owner.nodeid === heir) continue;
        lab.handOver(owner, heir);
        lab.settle();
        expect(expectServed(lab).nodeid).toBe(heir);
        expect(owner.core.why).toBe(`through node${heir}`);
      }
    }
  });

  test("an heir that does not mount the volume any more is not waited for, also if it goes at any moment before it does", () => {
    const next = new Set<number>();
    for (let seed = 0; seed < 300; seed++) {
      const lab = cluster(seed);
      const owner = lab.start(2);
      lab.settle();
      lab.start(1);
      lab.start(4);
      const heir = lab.start(3);
      lab.settle();
      lab.handOver(owner, 3);
      for (let steps = 0; steps < seed % 25 && !heir.touching; steps++) lab.stepOnce();
      if (heir.touching) continue;
      lab.kill(heir);
      lab.settle();
      // It had announced itself, and a proof of its end is asked for.
      lab.fence(3);
      lab.askAgain();
      lab.settle();
      next.add(expectServed(lab).nodeid);
    }
    expect([...next]).toContain(1);
  });

  test("an heir that cannot mount gives the volume back to any of the others", () => {
    for (let seed = 0; seed < 300; seed++) {
      const lab = cluster(seed);
      const owner = lab.start(1);
      lab.settle();
      const heir = lab.start(2);
      lab.settle();
      heir.mountFails = true;
      lab.handOver(owner, 2);
      lab.settle();
      expect(expectServed(lab)).toBe(owner);
      expect(heir.core.why).toMatch(/^through node1; this node does not reach the device/);
    }
  });

  test("a dead owner is waited for, and goes on with a higher epoch when it is back", () => {
    for (let seed = 0; seed < 300; seed++) {
      const lab = cluster(seed);
      const owner = lab.start(1);
      lab.settle();
      const others = [lab.start(2), lab.start(3)];
      lab.settle();
      lab.kill(owner);
      lab.settle();
      const late = lab.start(4);
      lab.settle();
      expect(lab.owner()).toBeNull();
      for (const client of [...others, late]) {
        expect(client.core.role).toBe("waiting");
        expect(client.core.why).toContain("owner node1 is gone");
      }
      lab.start(1);
      lab.settle();
      expect(expectServed(lab).nodeid).toBe(1);
      expect(lab.owner()?.core.owner?.epoch).toBe(2);
    }
  });

  test("an owner that dies before it is ready is waited for as well", () => {
    let waited = 0;
    for (let seed = 0; seed < 500; seed++) {
      const lab = cluster(seed);
      const first = lab.start(2);
      const other = lab.start(3);
      while (!first.touching && !other.touching) lab.stepOnce();
      const victim = first.touching ? first : other;
      lab.kill(victim);
      lab.settle();
      // Either the survivor had no lock yet and is the first mounter now, or it waits; the cluster throws if it takes over.
      const roles = lab.liveClients().map((client) => client.core.role);
      expect(roles).toEqual(lab.owner() === null ? ["waiting"] : ["owner"]);
      waited += lab.owner() === null ? 1 : 0;
      lab.start(victim.nodeid);
      lab.settle();
      expectServed(lab);
    }
    expect(waited).toBeGreaterThan(50);
  });

  test("a first mounter whose mount fails leaves with the reason, and the next one tries", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const broken = lab.start(1);
      broken.mountFails = true;
      const other = lab.start(2);
      lab.settle();
      expect(expectServed(lab)).toBe(other);
      // It may never have been its turn.
      expect(broken.left === null ? "no such device" : broken.left.error?.message).toBe("no such device");
    }
  });

  test("a mounter that cannot take over goes on through the one that can", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = lab.start(4);
      lab.settle();
      const broken = lab.start(1);
      broken.mountFails = true;
      lab.start(2);
      lab.settle();
      lab.leave(owner);
      lab.settle();
      expect(expectServed(lab).nodeid).toBe(2);
      expect(broken.core.role).toBe("remote");
    }
  });

  test("C3: an owner that could not prove its unmount hands nothing over", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = lab.start(1);
      lab.settle();
      lab.start(2);
      lab.settle();
      owner.releaseFails = true;
      lab.leave(owner);
      lab.settle();
      expect(owner.left?.error?.message).toBe("EIO");
      expect(lab.owner()).toBeNull();
      expect(lab.liveClients()[0]?.core.why).toContain("owner node1 is gone");
    }
  });

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
    const asked: boolean[] = [];
    const watch = (client: ReturnType<typeof lab.start>): void => {
      const step = client.core.step.bind(client.core);
      client.core.step = (event) => {
        const effects = step(event);
        for (const effect of effects) if (effect.kind === "prove-gone") asked.push(effect.first);
        return effects;
      };
    };
    const owner = own(lab, 1);
    const served = lab.start(2);
    watch(served);
    lab.settle();
    lab.kill(owner);
    lab.settle();
    expect(asked).toEqual([false]);
    lab.leave(served);
    lab.settle();
    const first = lab.start(3);
    watch(first);
    lab.settle();
    // The record went with the last mounter.
    expect(asked).toEqual([false, true]);
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

  test("a block that is older than the record of a ready owner names the wrong life: no proof of it counts", () => {
    const lab = cluster();
    const owner = own(lab, 1);
    const other = lab.start(2);
    lab.settle();
    lab.leave(owner);
    lab.settle();
    const third = lab.start(3);
    lab.settle();
    lab.block = {
      ...lab.block,
      state: "owned",
      epoch: 1,
      life: { ...(lab.block.life as NonNullable<typeof lab.block.life>), nodeid: 4, epoch: 1 },
    };
    lab.kill(other);
    lab.fence(4);
    lab.settle();
    expect([third.core.role, third.proofs]).toEqual(["waiting", []]);
    expect(third.core.why).toContain("its owner's block names an owner before node 2 (epoch 1, 2 expected)");
  });

  test("a block that cannot be read for a while: the node is out of the election, says so, and takes part again", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 3);
      const other = lab.start(1);
      lab.settle();
      lab.blockFails = true;
      lab.leave(owner);
      lab.settle();
      expect(other.core.why).toContain("; this node does not reach the device, and looks again: damaged");
      // Still not: it looks again later.
      lab.reachAgain();
      lab.settle();
      expect([other.reachesLater, other.core.role]).toEqual([true, "waiting"]);
      lab.blockFails = false;
      lab.reachAgain();
      lab.settle();
      expect(expectServed(lab)).toBe(other);
      expect(other.core.why).toBe("this node has the volume mounted");
    }
  });

  test("a node whose mount failed goes through another one, says so, and is an owner again when the device is well", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 3);
      const first = lab.start(1);
      const second = lab.start(2);
      lab.settle();
      first.mountFails = true;
      lab.leave(owner);
      lab.settle();
      expect(expectServed(lab)).toBe(second);
      expect(first.core.why).toBe("through node2; this node does not reach the device, and looks again: no such device");
      first.mountFails = false;
      lab.reachAgain();
      // At any moment: the lock that says that it reaches the device may still be on its way.
      for (let steps = seed % 5; steps > 0; steps--) lab.stepOnce();
      lab.settle();
      expect(first.core.why).toBe("through node2");
      lab.leave(second);
      lab.settle();
      expect(expectServed(lab)).toBe(first);
    }
  });

  test("the device is reached again before the lock that said so has been given up: it is asked for after that", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 3);
      const other = lab.start(1);
      lab.settle();
      lab.blockFails = true;
      lab.leave(owner);
      while (!other.reachesLater) expect(lab.stepOnce()).toBe(true);
      lab.blockFails = false;
      lab.reachAgain();
      lab.settle();
      expect(expectServed(lab)).toBe(other);
    }
  });

  test("failures are counted until the device is mounted: the time until it is looked at again grows with them", () => {
    const lab = cluster();
    const owner = own(lab, 3);
    const other = lab.start(1);
    lab.settle();
    const counts: number[] = [];
    const step = other.core.step.bind(other.core);
    other.core.step = (event) => {
      const effects = step(event);
      for (const effect of effects) if (effect.kind === "reach-later") counts.push(effect.failures);
      return effects;
    };
    const fail = (): void => {
      other.mountFails = true;
      lab.reachAgain();
      lab.settle();
    };
    other.mountFails = true;
    lab.leave(owner);
    lab.settle();
    fail();
    fail();
    expect(counts).toEqual([1, 2, 3]);
    other.mountFails = false;
    lab.reachAgain();
    lab.settle();
    expect(expectServed(lab)).toBe(other);
    expect([1, 2, 3, 7, 1000].map(reachAgainMs)).toEqual([1000, 2000, 4000, 60_000, 60_000]);
  });

  test("a block that cannot be read: a first mount fails, a mount that was served leaves the volume to others", () => {
    const lab = cluster();
    const owner = own(lab, 3);
    const other = lab.start(1);
    lab.settle();
    lab.blockFails = true;
    lab.leave(owner);
    lab.settle();
    expect(other.core.role).toBe("waiting");
    expect(other.core.why).toBe(
      "no node that mounts the volume reaches its device; this node does not reach the device, and looks again: damaged",
    );
    const first = lab.start(2);
    lab.settle();
    expect(first.left?.error?.message).toBe("damaged");
    lab.blockFails = false;
    const third = lab.start(3);
    lab.settle();
    expect(expectServed(lab)).toBe(third);
    expect(other.core.role).toBe("remote");
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

  test("losing the lock manager releases the lower and ends the mount", () => {
    const lab = cluster();
    const owner = lab.start(1);
    lab.settle();
    const effects = owner.core.step({ kind: "broken", error: new Error("dlmd is gone") });
    expect(effects).toEqual([{ kind: "release-lower" }]);
    expect(owner.core.step({ kind: "released" })).toEqual([{ kind: "left", error: new Error("dlmd is gone") }]);
  });

  test("a volume that nobody reaches is waited for, and the reason says so", () => {
    const lab = cluster();
    const client = lab.start(2, false);
    lab.settle();
    expect(client.core.role).toBe("waiting");
    expect(client.core.why).toBe("no node that mounts the volume reaches its device");
    lab.start(3);
    lab.settle();
    expect(expectServed(lab).nodeid).toBe(3);
  });

  test("starts, leaves, deaths, planned moves and returns in any order: never two that may write, and always served in the end", () => {
    let handovers = 0;
    let moves = 0;
    for (let seed = 0; seed < 2000; seed++) {
      const random = seeded(seed);
      const lab = cluster(seed + 77_777);
      for (let turn = 0; turn < 12; turn++) {
        const nodeid = 1 + random(4);
        const running = lab.liveClients().find((client) => client.nodeid === nodeid);
        const fate = random(4);
        if (random(4) === 0) for (const zombie of lab.zombies) lab.fence(zombie);
        if (random(4) === 0) lab.askAgain();
        if (random(4) === 0) lab.reachAgain();
        lab.blockFails = random(6) === 0;
        if (running !== undefined) running.mountFails = random(6) === 0;
        if (running === undefined) lab.start(nodeid, random(5) > 0);
        else if (fate < 2) lab.leave(running);
        else if (fate === 2) lab.kill(running);
        const owner = lab.owner();
        const heir = 1 + random(4);
        if (owner !== null && owner.nodeid !== heir && random(3) === 0) {
          lab.handOver(owner, heir);
          moves++;
        }
        for (let count = random(40); count > 0 && lab.stepOnce(); count--) lab.owner();
      }
      lab.settle();
      lab.blockFails = false;
      for (const client of lab.clients) client.mountFails = false;
      lab.reachAgain();
      lab.settle();
      // Whoever died as the owner comes back, and everybody reaches the device.
      for (const client of lab.liveClients()) if (!client.reachesLower) lab.leave(client);
      lab.settle();
      for (let nodeid = 1; nodeid <= 4; nodeid++) {
        if (!lab.liveClients().some((client) => client.nodeid === nodeid)) lab.start(nodeid);
      }
      lab.settle();
      for (const zombie of lab.zombies) lab.fence(zombie);
      lab.askAgain();
      lab.settle();
      // A first mount may have been refused meanwhile.
      const failures = lab.clients.flatMap(({ left }) => (left?.error == null ? [] : [(left.error as OperatingError).code]));
      expect(failures.filter((code) => code !== "still-owned" && code !== undefined)).toEqual([]);
      handovers += (expectServed(lab).core.owner?.epoch ?? 0) - 1;
    }
    expect(handovers).toBeGreaterThan(1000);
    expect(moves).toBeGreaterThan(500);
  });
});
