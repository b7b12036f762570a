/** An owner whose disk fails (hazard R6), over the model of the lock manager: it gives the volume up, or everybody waits and knows why. */
import { expect, test } from "vitest";
import type { Client } from "./owner-cluster.ts";
import { OwnerCluster, seeded } from "./owner-cluster.ts";

interface Served {
  readonly lab: OwnerCluster;
  readonly owner: Client;
  readonly others: readonly Client[];
}

/** Node 2 owns the volume; 1 and 3 go through it. */
function served(seed: number): Served {
  const lab = new OwnerCluster(3, seeded(seed));
  const owner = lab.start(2);
  lab.settle();
  const others = [lab.start(1), lab.start(3)];
  lab.settle();
  expect(lab.owner()).toBe(owner);
  return { lab, owner, others };
}

const seeds = Array.from({ length: 200 }, (_, seed) => seed);
const kinds = (client: Client): string[] => client.told.map(({ kind }) => kind);

test("a disk that could be proved released is mounted by another node, and the withdrawn one goes through it", () => {
  for (const seed of seeds) {
    const { lab, owner, others } = served(seed);
    lab.withdraw(owner);
    lab.settle();
    const next = lab.owner();
    expect(next?.nodeid).toBe(1);
    expect(owner.left).toBeNull();
    expect(owner.core.role).toBe("remote");
    expect(owner.core.owner).toEqual(next?.core.owner);
    expect(kinds(owner)).toEqual(["become-owner", "withdrawal-seen", "owner-lost", "owner-found"]);
    expect(others.map((other) => other.core.owner?.epoch)).toEqual([2, 2]);
  }
});

test("a disk that is free and not clean is mounted by another node, on the word of the record: nobody has to end the withdrawn one", () => {
  for (const seed of seeds) {
    const { lab, owner } = served(seed);
    owner.letsGo = true;
    lab.withdraw(owner);
    lab.settle();
    const next = lab.owner();
    expect(next?.nodeid).toBe(1);
    expect(lab.claims.at(-1)).toMatchObject({ proof: { kind: "let-go" }, block: { state: "owned", life: { nodeid: 2, epoch: 1 } } });
    expect([owner.left, owner.core.role, owner.core.owner?.epoch]).toEqual([null, "remote", 2]);
    // Nobody had to be asked for a proof.
    expect(lab.clients.flatMap(({ proofs }) => proofs)).toEqual([]);
  }
});

test("a let-go disk that only its own node reaches is mounted there again, and the node leaves with what it knows", () => {
  for (const seed of seeds) {
    const lab = new OwnerCluster(3, seeded(seed));
    const owner = lab.start(2);
    lab.settle();
    owner.letsGo = true;
    lab.withdraw(owner);
    lab.settle();
    expect(lab.owner()).toBeNull();
    lab.reachAgain();
    lab.settle();
    expect([lab.owner(), owner.core.owner?.epoch]).toEqual([owner, 2]);
    lab.withdraw(owner);
    lab.leave(owner);
    lab.settle();
    expect(owner.left).toMatchObject({ error: { message: "not clean" } });
  }
});

test("a disk that could not be proved released is nobody's: all wait, and say why and what to do", () => {
  for (const seed of seeds) {
    const { lab, owner, others } = served(seed);
    owner.releaseFails = true;
    lab.withdraw(owner);
    lab.settle();
    expect(lab.owner()).toBeNull();
    expect(owner.left).toBeNull();
    expect(owner.core.why).toMatch(/^withdrawn: EIO of a change; the disk could not be proved released: EIO.*end the overlay of this node/);
    for (const other of others) {
      expect(other.core.role).toBe("waiting");
      expect(other.core.why).toMatch(/^owner node2 has withdrawn: its disk has failed.*end the overlay of node2/);
      expect(kinds(other)).toContain("withdrawal-seen");
    }
    // A newcomer is told the same.
    const late = lab.start(3);
    lab.settle();
    expect(late.core.why).toContain("owner node2 has withdrawn");
  }
});

test("when the withdrawn overlay has ended and that was proved, another node goes on", () => {
  for (const seed of seeds) {
    const { lab, owner } = served(seed);
    owner.releaseFails = true;
    lab.withdraw(owner);
    lab.settle();
    lab.leave(owner);
    lab.settle();
    expect(owner.left).toMatchObject({ error: { message: "EIO" } });
    expect(lab.owner()).toBeNull();
    lab.fence(2);
    lab.askAgain();
    lab.settle();
    expect(lab.owner()?.core.owner?.epoch).toBe(2);
  }
});

test("a disk that fails before its owner is one is given up as soon as it is: never an owner that answers nobody", () => {
  let early = 0;
  for (const seed of seeds) {
    const random = seeded(seed);
    const lab = new OwnerCluster(2, random);
    const owner = lab.start(2);
    while (!owner.touching) expect(lab.stepOnce()).toBe(true);
    for (let step = random(6); step > 0; step--) lab.stepOnce();
    if (owner.core.role !== "owner") early += 1;
    lab.withdraw(owner);
    lab.settle();
    expect(owner.core.role).toBe("waiting");
    const next = lab.start(1);
    lab.settle();
    expect([lab.owner(), owner.core.role]).toEqual([next, "remote"]);
  }
  expect(early).toBeGreaterThan(0);
});

test("without another node that reaches the disk the released volume waits for one", () => {
  for (const seed of seeds) {
    const lab = new OwnerCluster(3, seeded(seed));
    const owner = lab.start(2);
    const other = lab.start(1, false);
    lab.settle();
    lab.withdraw(owner);
    lab.settle();
    expect(lab.owner()).toBeNull();
    expect(other.core.why).toBe("no node that mounts the volume reaches its device");
    expect(owner.core.why).toMatch(/^no node .*; this node does not reach the device, and looks again: it was given up: EIO of a change$/);
    lab.start(3);
    lab.settle();
    expect(lab.owner()?.nodeid).toBe(3);
  }
});

test("a withdrawn node whose disk is well again is the owner once more; one that could not release it is not", () => {
  for (const seed of seeds) {
    const lab = new OwnerCluster(3, seeded(seed));
    const owner = lab.start(2);
    lab.settle();
    lab.withdraw(owner);
    lab.settle();
    expect(lab.owner()).toBeNull();
    lab.reachAgain();
    lab.settle();
    expect([lab.owner(), owner.core.owner?.epoch, owner.core.why]).toEqual([owner, 2, "this node has the volume mounted"]);
    owner.releaseFails = true;
    lab.withdraw(owner);
    lab.settle();
    lab.reachAgain();
    lab.settle();
    expect([lab.owner(), owner.reachesLater]).toEqual([null, true]);
  }
});

test("a withdrawal at any moment of an owner's life, its death or its leaving included, gives no second writer", () => {
  for (const seed of seeds) {
    const random = seeded(seed + 1000);
    const { lab, owner } = served(seed);
    owner.releaseFails = random(2) === 0;
    owner.letsGo = random(2) === 0;
    if (random(3) === 0) lab.leave(owner);
    for (let step = random(6); step > 0; step--) lab.stepOnce();
    lab.withdraw(owner);
    for (let step = random(12); step > 0; step--) lab.stepOnce();
    if (random(2) === 0) lab.leave(owner);
    else lab.kill(owner);
    lab.settle();
    lab.fence(2);
    lab.askAgain();
    lab.settle();
    expect(lab.owner()?.nodeid, `seed ${seed}`).toBeGreaterThan(0);
  }
});
