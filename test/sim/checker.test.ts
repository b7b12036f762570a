/** The checker itself: of what a program is told without a lease it says nothing, of the rest all. */
import { expect, test } from "vitest";
import { Mode } from "../../dlmd/wire/mode.ts";
import { Checker } from "./checker.ts";
import type { SimClient, SimLock } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import type { SimNode } from "./cluster-node.ts";

const LEASE_MS = 100;

/** Three nodes in one view, with a lease until then. Each has one program. */
function bench(): {
  checker: Checker;
  nodes: SimNode[];
  locks: SimLock[];
  at: (nowMs: number) => void;
  leaveOut: (nodeid: number) => void;
} {
  const agenda = { nowMs: 0 };
  const nodes: SimNode[] = [];
  const checker = new Checker({ agenda, nodes, twoNode: false } as unknown as Cluster);
  const members = [1, 2, 3].map((nodeid) => ({ nodeid, incarnation: "a" }));
  const locks = members.map(({ nodeid, incarnation }) => {
    const membership = { view: { members } };
    const recovery = { serving: false };
    const core = { engine: { membership }, recovery, servesAt: () => false, locks: { tables: { lockspaces: new Map() } } };
    const node = {
      nodeid,
      incarnation,
      alive: true,
      core,
      clients: new Map(),
      localMs: Number,
      leaseEndMs: LEASE_MS,
    } as unknown as SimNode;
    nodes.push(node);
    const client = { node, incarnation, name: `p${nodeid}`, key: `${nodeid}.a`, space: "sim", alive: true, locks: new Map() };
    return { id: 1, client: client as unknown as SimClient, resource: "r", mode: null, asked: null, worth: null } as SimLock;
  });
  const leaveOut = (left: number): void => {
    for (const { nodeid, core } of nodes) {
      if (nodeid !== left) Object.assign(core.engine.membership, { view: { members: members.filter((member) => member.nodeid !== left) } });
    }
  };
  return { checker, nodes, locks, at: (nowMs) => Object.assign(agenda, { nowMs }), leaveOut };
}

/** Node 1 had PR, and is left out. Node 2 has EX. */
function overtaken(grantedAtMs: number): ReturnType<typeof bench> {
  const made = bench();
  const { checker, locks, at, leaveOut } = made;
  checker.granted(locks[0] as SimLock, Mode.PR);
  leaveOut(1);
  at(grantedAtMs);
  checker.granted(locks[1] as SimLock, Mode.EX);
  return made;
}

test("a lock is not granted to another program while the first one may act on it", () => {
  expect(() => overtaken(LEASE_MS - 1)).toThrow("p1 may act on its lock on r for 1 ms more");
  expect(() => overtaken(LEASE_MS)).not.toThrow();
});

test("a program without a lease may be told that it keeps what others have", () => {
  const { checker, locks, nodes } = overtaken(LEASE_MS);
  expect(() => checker.keeps(locks[0] as SimLock)).not.toThrow();
  expect(() => checker.afterStep(nodes[0] as SimNode)).not.toThrow();
});

test("it must not have a lease again with that lock", () => {
  const { checker, locks, nodes } = overtaken(LEASE_MS);
  const [node] = nodes as [SimNode];
  Object.assign(node, { leaseEndMs: 2 * LEASE_MS });
  expect(() => checker.afterStep(node)).toThrow("p1 may act on its lock on r for 100 ms more");
  expect(() => checker.keeps(locks[0] as SimLock)).toThrow("p1 was told that it keeps PR on r while p2 has EX");
  checker.lowered(locks[0] as SimLock, null);
  expect(() => checker.afterStep(node)).not.toThrow();
});

test("a program that ended acts on nothing", () => {
  const { checker, locks, nodes } = overtaken(LEASE_MS);
  const [node] = nodes as [SimNode];
  Object.assign(locks[0]?.client as SimClient, { alive: false });
  Object.assign(node, { leaseEndMs: 2 * LEASE_MS });
  expect(() => checker.afterStep(node)).not.toThrow();
});

/** As when a master has traded it away and died (hazard H16). */
function traded(nowMs: number): ReturnType<typeof bench> {
  const made = bench();
  const { checker, locks, at } = made;
  const [first, second] = locks as [SimLock, SimLock];
  checker.granted(first, Mode.PR);
  first.worth = Mode.CR;
  checker.granted(second, Mode.CW);
  first.worth = null;
  at(nowMs);
  return made;
}

test("a program with a lease is not told that it keeps what another one of its view has", () => {
  const { checker, locks } = traded(LEASE_MS - 1);
  expect(() => checker.keeps(locks[0] as SimLock)).toThrow("p1 was told that it keeps PR on r while p2 has CW");
});

test("the same without a lease, which comes back", () => {
  const { checker, locks, nodes } = traded(LEASE_MS);
  const [node] = nodes as [SimNode];
  checker.keeps(locks[0] as SimLock);
  checker.afterStep(node);
  Object.assign(node, { leaseEndMs: 2 * LEASE_MS });
  expect(() => checker.afterStep(node)).toThrow("p1 may act on its lock on r for 100 ms more");
});
