/** A node that does not reach the device, and one that reaches it again. */
import { describe, expect, test } from "vitest";
import { reachAgainMs } from "../../../overlay/volume/owner.ts";
import { cluster, effectsOf, expectServed, own } from "./owner-scene.ts";

describe("an owner's device", () => {
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

  test("the device is looked at while the failed mount still waits for its lock: it is looked at again after that", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 3);
      const other = lab.start(1);
      lab.settle();
      other.mountFails = true;
      lab.leave(owner);
      while (!other.reachesLater) expect(lab.stepOnce()).toBe(true);
      other.mountFails = false;
      lab.reachAgain();
      expect(other.reachesLater).toBe(true);
      lab.settle();
      lab.reachAgain();
      lab.settle();
      expect(expectServed(lab)).toBe(other);
    }
  });

  test("the device is looked at while a withdrawal is being told: it is looked at again after the time of a withdrawal", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 3);
      const effects = effectsOf(owner);
      lab.withdraw(owner);
      while (owner.touching) expect(lab.stepOnce()).toBe(true);
      lab.reachAgain();
      expect(effects.flatMap((effect) => (effect.kind === "reach-later" ? [effect.after] : []))).toEqual(["withdrawal", "withdrawal"]);
      lab.settle();
      lab.reachAgain();
      lab.settle();
      expect(expectServed(lab)).toBe(owner);
    }
  });

  test("failures are counted until the device is mounted: the time until it is looked at again grows with them", () => {
    const lab = cluster();
    const owner = own(lab, 3);
    const other = lab.start(1);
    lab.settle();
    const effects = effectsOf(other);
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
    expect(effects.flatMap((effect) => (effect.kind === "reach-later" ? [effect.failures] : []))).toEqual([1, 2, 3]);
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

  test("the next owner after a death is a node that reaches the device, whatever its nodeid, and says nothing of the others", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 4);
      const unreached = lab.start(1, false);
      const next = lab.start(3);
      lab.settle();
      lab.kill(owner);
      lab.fence(4);
      lab.settle();
      lab.askAgain();
      lab.settle();
      expect(expectServed(lab)).toBe(next);
      expect([unreached.core.why, unreached.core.reachesDevice, unreached.proofs]).toEqual(["through node3", false, []]);
    }
  });

  test("a node whose device is lost before the owner dies is passed over at its first look, and goes through the next one", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 4);
      const cut = lab.start(1);
      const next = lab.start(3);
      lab.settle();
      cut.mountFails = true;
      lab.kill(owner);
      lab.fence(4);
      for (let turn = 0; turn < 3; turn++) {
        lab.settle();
        lab.askAgain();
      }
      lab.settle();
      expect(expectServed(lab)).toBe(next);
      // Unless the other one was first, it tried, and was out of the election then.
      expect(cut.core.why).toMatch(/^through node3(; this node does not reach the device, and looks again: no such device)?$/);
    }
  });

  test("if no node reaches it, all wait, say so, and go on with the first that does", () => {
    for (let seed = 0; seed < 200; seed++) {
      const lab = cluster(seed);
      const owner = own(lab, 4);
      const others = [lab.start(1, false), lab.start(2, false)];
      lab.settle();
      lab.kill(owner);
      lab.fence(4);
      lab.settle();
      expect(others.map(({ core }) => core.role)).toEqual(["waiting", "waiting"]);
      expect(lab.start(3)).toBeDefined();
      lab.settle();
      expect(expectServed(lab).nodeid).toBe(3);
    }
  });
});
