/** An owner without a quorum lets go of its disk by itself (hazard C4): when, and what the model of the owner's role says of it beside fences. */
import { afterEach, beforeEach, describe, expect, it, test, vi } from "vitest";
import { SELF_FENCE_AGAIN_MS, SELF_FENCE_MARGINS, SelfFence } from "../../../overlay/serve/self-fence.ts";
import { type Client, OwnerCluster, seeded } from "./owner-cluster.ts";
import { effectsOf } from "./owner-scene.ts";

interface Served {
  readonly lab: OwnerCluster;
  readonly owner: Client;
  readonly others: readonly Client[];
}

/** Node 2 owns the volume; 1 and 3 go through it. */
function served(seed = 1): Served {
  const lab = new OwnerCluster(3, seeded(seed));
  const owner = lab.start(2);
  lab.settle();
  const others = [lab.start(1), lab.start(3)];
  lab.settle();
  expect(lab.owner()).toBe(owner);
  return { lab, owner, others };
}

const SEEDS = Array.from({ length: 200 }, (_, seed) => seed);

describe("the time of a self-fence", () => {
  const MARGIN_MS = 600;
  let told: string[];
  let fence: SelfFence;
  beforeEach(() => {
    vi.useFakeTimers();
    told = [];
    fence = new SelfFence({ marginMs: MARGIN_MS, letGo: (why) => void told.push(why) });
  });
  afterEach(() => void vi.useRealTimers());

  it("is SELF_FENCE_MARGINS after the lease has ended, and then each SELF_FENCE_AGAIN_MS", () => {
    fence.lapsed();
    vi.advanceTimersByTime(MARGIN_MS);
    // The lease looks again and again while it is over.
    fence.lapsed();
    vi.advanceTimersByTime((SELF_FENCE_MARGINS - 1) * MARGIN_MS - 1);
    expect(told).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(told).toEqual(["without a quorum for more than 3.0 s after its lease had ended"]);
    vi.advanceTimersByTime(2 * SELF_FENCE_AGAIN_MS);
    expect(told).toHaveLength(3);
    fence.end();
    vi.advanceTimersByTime(100 * MARGIN_MS);
    expect(told).toHaveLength(3);
  });

  it("never comes if the lease holds again before, and is counted anew", () => {
    fence.lapsed();
    vi.advanceTimersByTime(SELF_FENCE_MARGINS * MARGIN_MS - 1);
    fence.end();
    vi.advanceTimersByTime(1);
    fence.lapsed();
    vi.advanceTimersByTime(SELF_FENCE_MARGINS * MARGIN_MS - 1);
    expect(told).toEqual([]);
  });

  it("of a mount that ends: the lease is asked until it has ended, because nobody says any more that it lapses", () => {
    let holds = true;
    fence.follow(() => holds);
    vi.advanceTimersByTime(100 * MARGIN_MS);
    holds = false;
    vi.advanceTimersByTime(SELF_FENCE_MARGINS * MARGIN_MS - 1);
    // It was back in time.
    holds = true;
    vi.advanceTimersByTime(100 * MARGIN_MS);
    expect(told).toEqual([]);
    holds = false;
    vi.advanceTimersByTime(SELF_FENCE_AGAIN_MS + SELF_FENCE_MARGINS * MARGIN_MS);
    expect(told).toHaveLength(1);
    fence.end();
    const now = told.length;
    vi.advanceTimersByTime(100 * MARGIN_MS);
    expect(told).toHaveLength(now);
  });
});

test("an owner that is being unmounted and hears that the cluster went on without it gives its disk back, and ends", () => {
  for (const seed of SEEDS) {
    const { lab, owner } = served(seed);
    lab.cut(owner);
    lab.leave(owner);
    lab.settle();
    expect([owner.left, owner.touching]).toEqual([null, true]);
    lab.exclude(owner);
    lab.heal(owner);
    // Once counts.
    lab.heal(owner);
    lab.settle();
    expect([owner.left?.error?.message, owner.touching]).toEqual(["the cluster went on without this node", false]);
  }
});

test("a partitioned owner lets go, and the others go on without a fence: the block says released", () => {
  for (const seed of SEEDS) {
    const { lab, owner, others } = served(seed);
    lab.cut(owner);
    lab.exclude(owner);
    lab.settle();
    expect([lab.owner(), others.map(({ core }) => core.role)]).toEqual([owner, ["waiting", "waiting"]]);
    const effects = effectsOf(owner);
    lab.selfFence(owner);
    // As often as it is told, it lets go once.
    lab.selfFence(owner);
    lab.settle();
    expect(effects.filter(({ kind }) => kind === "release-lower")).toHaveLength(1);
    expect([owner.touching, owner.core.role]).toEqual([false, "waiting"]);
    expect(owner.core.why).toBe(
      "without a quorum for more than 3 s: this node has let go of the disk. Calls wait until it is back in the cluster",
    );
    lab.askAgain();
    lab.settle();
    expect(others).toContain(lab.owner());
    expect(lab.claims.at(-1)).toMatchObject({ proof: null, block: { state: "released" } });
    // It is back, and the cluster went on without it.
    lab.heal(owner);
    expect(owner.left?.error?.message).toBe("the cluster went on without this node");
  }
});

test("the others were gone, not the owner: when there is a quorum again it goes on, and is the owner or goes through another one", () => {
  const roles = new Set<string>();
  for (const seed of SEEDS) {
    const { lab, owner } = served(seed);
    lab.cut(owner);
    lab.selfFence(owner);
    lab.settle();
    expect(owner.touching).toBe(false);
    lab.heal(owner);
    lab.settle();
    expect([lab.owner()?.core.owner?.epoch, owner.left]).toEqual([2, null]);
    roles.add(owner.core.role);
    expect(owner.core.why).toBe(owner.core.role === "owner" ? "this node has the volume mounted" : "through node1");
  }
  expect(roles).toContain("remote");
});

test("in whatever step the lock manager is lost: a lower that is mounted is let go of, and all go on when it is back", () => {
  const whys = new Set<string>();
  for (const seed of Array.from({ length: 2000 }, (_, at) => at)) {
    const random = seeded(seed);
    const lab = new OwnerCluster(3, random);
    const owner = lab.start(2);
    for (let steps = random(40); steps > 0 && lab.stepOnce(); steps--) lab.owner();
    if (random(3) === 0) lab.withdraw(owner);
    if (random(3) === 0) lab.leave(owner);
    for (let steps = random(12); steps > 0 && lab.stepOnce(); steps--) lab.owner();
    if (!owner.live) continue;
    lab.cut(owner);
    for (let steps = random(6); steps > 0 && lab.stepOnce(); steps--) lab.owner();
    lab.selfFence(owner);
    lab.settle();
    // Its mount was under way.
    lab.selfFence(owner);
    lab.settle();
    expect([seed, owner.touching]).toEqual([seed, false]);
    whys.add(owner.core.why.replace(/^.*: /, ""));
    lab.heal(owner);
    lab.settle();
    lab.start(1);
    lab.settle();
    lab.askAgain();
    lab.reachAgain();
    lab.settle();
    expect([seed, lab.owner() !== null]).toEqual([seed, true]);
  }
  expect([...whys].join()).toContain("this node has let go of the disk");
});

test("an owner that cannot prove its unmount waits to be fenced, and says so; the fence lets the others go on", () => {
  for (const seed of SEEDS) {
    const { lab, owner, others } = served(seed);
    owner.releaseFails = true;
    lab.cut(owner);
    lab.exclude(owner);
    lab.selfFence(owner);
    lab.settle();
    expect(owner.core.why).toMatch(
      /^withdrawn: without a quorum for more than 3 s; the disk could not be proved released: EIO\. Calls wait/,
    );
    lab.askAgain();
    lab.settle();
    expect(lab.owner()).toBeNull();
    lab.fence(2);
    lab.askAgain();
    lab.settle();
    expect(others).toContain(lab.owner());
    expect(lab.claims.at(-1)?.proof).toEqual({ kind: "fenced" });
  }
});

test("an owner that is unmounted without a quorum waits for no lock once it has let go, and the others go on", () => {
  for (const seed of SEEDS) {
    const { lab, owner, others } = served(seed);
    lab.cut(owner);
    // Before or after.
    if (seed % 2 === 0) lab.leave(owner);
    lab.settle();
    expect(owner.left).toBeNull();
    lab.selfFence(owner);
    lab.settle();
    if (seed % 2 === 1) lab.leave(owner);
    lab.settle();
    expect([owner.left, owner.touching]).toEqual([{ error: null }, false]);
    lab.heal(owner);
    lab.settle();
    lab.askAgain();
    lab.settle();
    expect(others).toContain(lab.owner());
  }
});

test("in whatever step it is told to leave without a quorum, it ends once the disk is let go of, and the others go on", () => {
  const whys = new Set<string>();
  for (const seed of Array.from({ length: 2000 }, (_, at) => at)) {
    const random = seeded(seed);
    const lab = new OwnerCluster(3, random);
    const owner = lab.start(2);
    for (let steps = random(40); steps > 0 && lab.stepOnce(); steps--) lab.owner();
    const fate = random(4);
    if (fate === 0) lab.withdraw(owner);
    else if (fate === 1) lab.handOver(owner, 1);
    for (let steps = random(12); steps > 0 && lab.stepOnce(); steps--) lab.owner();
    lab.cut(owner);
    const leavesLast = random(2) === 0;
    if (!leavesLast) lab.leave(owner);
    for (let again = 0; again < 2; again++) {
      lab.settle();
      lab.selfFence(owner);
    }
    lab.settle();
    if (leavesLast) {
      whys.add(owner.core.why.replace(/^.*: /, ""));
      lab.leave(owner);
      lab.settle();
      // As often as it is told.
      lab.selfFence(owner);
    }
    expect([seed, owner.left, owner.touching]).toEqual([seed, { error: null }, false]);
    lab.heal(owner);
    lab.settle();
    lab.start(1);
    lab.settle();
    lab.askAgain();
    lab.settle();
    expect([seed, lab.owner()?.nodeid]).toEqual([seed, 1]);
  }
  expect([...whys].join("\n")).toContain("this node has let go of the disk");
  expect([...whys].join("\n")).toContain("the disk is released");
  expect([...whys].join("\n")).toContain("handing the volume over to node1");
});

test("a disk that hangs while it is let go of: the words say that it waits to be fenced", () => {
  const { lab, owner } = served();
  lab.cut(owner);
  expect(owner.core.step({ kind: "self-fence", why: "without a quorum" })).toEqual([
    { kind: "owner-lost", reason: "without a quorum" },
    { kind: "release-lower" },
  ]);
  expect(owner.core.why).toBe(
    "without a quorum: this node lets go of the disk, so that another one may mount it; calls wait. If that takes long it waits to be fenced",
  );
});

test("partitions, fences that lie, self-fences and returns in any order: never two that may write, nothing written after the proof", () => {
  const counts = { excluded: 0, fencedProofs: 0, released: 0, lied: 0, handovers: 0 };
  for (let seed = 0; seed < 3000; seed++) {
    const random = seeded(seed);
    const lab = new OwnerCluster(4, random);
    lab.changesMeanwhile = true;
    for (let turn = 0; turn < 14; turn++) {
      const nodeid = 1 + random(4);
      const client = lab.liveClients().find((one) => one.nodeid === nodeid);
      if (client === undefined) {
        lab.liars.delete(nodeid);
        lab.start(nodeid);
      } else if (client.cut) {
        const fate = random(5);
        if (fate === 0) {
          lab.exclude(client);
          counts.excluded += 1;
        } else if (fate === 1) lab.selfFence(client);
        else if (fate === 2) lab.heal(client);
        else if (fate === 3 && client.excluded) {
          if (random(3) === 0) lab.liars.add(nodeid);
          lab.fence(nodeid);
        }
      } else {
        const fate = random(10);
        if (fate < 5) lab.cut(client);
        else if (fate === 5) lab.kill(client);
        else if (fate === 6) lab.leave(client);
      }
      if (random(2) === 0) lab.askAgain();
      if (random(3) === 0) lab.reachAgain();
      for (let count = random(50); count > 0 && lab.stepOnce(); count--);
    }
    counts.fencedProofs += lab.claims.filter(({ proof }) => proof?.kind === "fenced").length;
    counts.released += lab.claims.filter(({ block, proof }) => block?.state === "released" && proof === null).length;
    counts.lied += lab.clients.filter((one) => one.core.why.includes("lied")).length;
    // All is well again: whoever is left serves, or the cluster went on without it, and its node mounts anew.
    for (const client of lab.clients) if (client.cut) lab.heal(client);
    lab.settle();
    lab.liars.clear();
    for (const nodeid of [1, 2, 3, 4]) {
      if (lab.liveClients().some((one) => one.nodeid === nodeid)) continue;
      lab.start(nodeid);
      lab.settle();
    }
    for (const zombie of lab.zombies) lab.fence(zombie);
    for (let again = 0; again < 3; again++) {
      lab.askAgain();
      lab.reachAgain();
      lab.settle();
    }
    expect([seed, lab.owner() !== null]).toEqual([seed, true]);
    counts.handovers += lab.claims.length - 1;
  }
  // Each of these happened.
  for (const [what, count] of Object.entries(counts)) expect([what, count > 5]).toEqual([what, true]);
});
