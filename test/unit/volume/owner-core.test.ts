/** Who mounts the lower: scenarios by name, then many seeds. The cluster throws as soon as two nodes could write. */
import { describe, expect, test } from "vitest";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { OwnerCore } from "../../../overlay/volume/owner-core.ts";
import type { OwnerEvent, OwnerLock } from "../../../overlay/volume/owner-event.ts";
import { type Client, seeded } from "./owner-cluster.ts";
import { cluster, expectServed, kinds, own } from "./owner-scene.ts";

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

  test("an owner that once handed the volume over leaves it to any of the others later", () => {
    for (let seed = 0; seed < 100; seed++) {
      const lab = cluster(seed);
      const first = own(lab, 1);
      lab.start(2);
      const heir = lab.start(3);
      lab.settle();
      lab.handOver(first, 3);
      lab.settle();
      lab.handOver(heir, 1);
      lab.settle();
      expect(expectServed(lab)).toBe(first);
      lab.leave(first);
      lab.settle();
      expect(expectServed(lab).nodeid).toBe(2);
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

  test("losing the lock manager releases the lower and ends the mount", () => {
    const lab = cluster();
    const owner = lab.start(1);
    lab.settle();
    const effects = owner.core.step({ kind: "broken", error: new Error("dlmd is gone") });
    expect(effects).toEqual([{ kind: "release-lower" }]);
    expect(owner.core.step({ kind: "released" })).toEqual([{ kind: "left", error: new Error("dlmd is gone") }]);
  });

  const lone = (): { core: OwnerCore; step: (event: OwnerEvent) => readonly string[]; granted: (lock: OwnerLock) => readonly string[] } => {
    const life = { bootId: "b", machineId: "m", pid: 1, startTime: 1, device: "/dev/x" };
    const self = { nodeid: 1, incarnation: "i", clientId: 1, nodes: [{ nodeid: 1, name: "n1" }], reachesLower: true, process: life };
    const core = new OwnerCore(self);
    const step = (event: OwnerEvent): readonly string[] => core.step(event).map(({ kind }) => kind);
    const granted = (lock: OwnerLock): readonly string[] => step({ kind: "granted", lock, lvb: null, lvbValid: true });
    step({ kind: "start" });
    for (const lock of ["mounter", "owner", "next"] as const) granted(lock);
    step({ kind: "owner-block", block: null });
    for (const _ of [1, 2]) granted("owner");
    return { core, step, granted };
  };

  test("an unmount that cannot release the lower ends, also where the lock manager dies meanwhile", () => {
    for (const dies of [false, true]) {
      const { core, step, granted } = lone();
      step({ kind: "mounted", epoch: 1, address: "a", port: 1 });
      for (const _ of [1, 2]) granted("owner");
      expect(core.role).toBe("owner");
      step({ kind: "leave" });
      expect(granted("owner")).toEqual(["release-lower"]);
      if (dies) step({ kind: "broken", error: new Error("dlmd is gone") });
      // Of one that is gone no answer comes.
      expect(step({ kind: "release-failed", error: new Error("busy"), letGo: true })).toEqual(dies ? ["left"] : ["unlock"]);
    }
  });

  test("a first mount that fails ends, also if its way out takes longer than the next look at the device", () => {
    const { step, granted } = lone();
    step({ kind: "mount-failed", error: new Error("bad file system") });
    step({ kind: "reached", error: null });
    granted("owner");
    for (const lock of ["next", "mounter"] as const) step({ kind: "unlocked", lock });
    expect(step({ kind: "unlocked", lock: "owner" })).toEqual(["left"]);
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
