/** Who waits for whom, over several nodes, to the one that keeps all others. */
import { expect, it } from "vitest";
import { describeChain } from "../../../overlay/cli/why-words.ts";
import { CHAIN_LINKS_MAX, lockChain } from "../../../overlay/query/lock-chain.ts";
import { withPaths } from "../../../overlay/query/lock-waits.ts";
import type { Party, Wait } from "../../../overlay/status/facts.ts";

const party = (nodeid: number, pid: number): Party => ({ node: `node${nodeid}`, pid, program: "p" });
const wait = (waiter: Party, holders: readonly Party[], more: Partial<Wait> = {}): Wait => ({
  kind: "file",
  volume: "data",
  lockspace: "vol-u",
  resource: `f${waiter.pid}.0`,
  what: `write on bytes 0 to 9 (file locks of inode ${waiter.pid})`,
  waiter,
  holders,
  ahead: null,
  waitingMs: 1500,
  ...more,
});
const [a, b, c] = [party(1, 11), party(2, 22), party(3, 33)];

it("goes from node to node, and names who keeps all", () => {
  const chain = lockChain([wait(b, [c]), wait(a, [b])], a);
  expect(chain).toMatchObject({ links: [{ waiter: a }, { waiter: b }], end: "runs", last: c });
  expect(describeChain(chain)).toEqual([
    "the chain:",
    "  p (process 11) on node1 has waited 1.5 s for write on bytes 0 to 9 (file locks of inode 11) of volume data, which p (process 22) on node2 has",
    "  p (process 22) on node2 has waited 1.5 s for write on bytes 0 to 9 (file locks of inode 22) of volume data, which p (process 33) on node3 has",
    "  p (process 33) on node3 waits for no lock: it keeps all of these",
  ]);
});

it("of several holders follows the one that waits", () => {
  expect(lockChain([wait(a, [party(9, 9), b]), wait(b, [c])], a)).toMatchObject({ links: [{ waiter: a }, { waiter: b }], last: c });
});

it("tells a circle, also of one that it does not begin in", () => {
  const chain = lockChain([wait(a, [b]), wait(b, [c]), wait(c, [b])], a);
  expect(chain).toMatchObject({ end: "circle" });
  expect(chain?.links).toHaveLength(3);
  expect(describeChain(chain).at(-1)).toBe("  they wait for each other: a deadlock");
});

it("stops at CHAIN_LINKS_MAX", () => {
  const of = (length: number): Wait[] => Array.from({ length }, (_, at) => wait(party(1, at + 1), [party(1, at + 2)]));
  expect(lockChain(of(CHAIN_LINKS_MAX), party(1, 1))).toMatchObject({ end: "runs" });
  const longer = lockChain(of(CHAIN_LINKS_MAX + 1), party(1, 1));
  expect([longer?.end, longer?.links.length]).toEqual(["longer", CHAIN_LINKS_MAX]);
  expect(describeChain(longer).at(-1)).toContain("longer");
});

it("does not go through a mount, and of one link or none nothing is said", () => {
  expect(lockChain([wait(a, [b], { kind: "inode" })], a)).toBeNull();
  expect(describeChain(null)).toEqual([]);
  expect(describeChain(lockChain([wait(a, [b])], a))).toEqual([]);
  expect(lockChain([wait(a, [])], a)).toMatchObject({ end: "runs", last: null });
});

it("a wait has the path of its file, where a process of this node has it open", () => {
  const inode = wait(a, [b], { resource: "i12.0" });
  const paths = (wanted: number) => (pid: number, ino: string) => (pid === wanted && ino === "12" ? "/shared/file" : null);
  const named = (self: string, pid: number, callers: readonly number[] = []): unknown =>
    withPaths([inode], self, () => callers, paths(pid))[0]?.path;
  expect([named("node1", 11), named("node2", 22), named("node3", 11), named("node3", 44, [44])]).toEqual([
    "/shared/file",
    "/shared/file",
    null,
    "/shared/file",
  ]);
});
