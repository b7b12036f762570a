/**
 * Which locks wait in a circle at a moment, as somebody sees it who looks at all nodes at once: the oracle for lock/deadlock.ts. Who
 * waits for whom is written out here once more.
 */
import type { Lkb, Resource } from "../../dlmd/lock/lkb.ts";
import { type Mode, modesCompatible } from "../../dlmd/wire/mode.ts";
import type { SimLock } from "./client.ts";
import type { SimNode } from "./cluster-node.ts";

interface Waiting {
  /** Names the lock and its client, in that life of its node. */
  readonly name: string;
  /** Transactions that must give something up first. */
  readonly holders: ReadonlySet<string>;
  readonly transaction: string;
}

export class Circles {
  readonly #seen: Set<string> = new Set();

  seen(lock: SimLock): boolean {
    return this.#seen.has(`${lock.client.name}/${lock.id}`);
  }

  /** Remembers every lock that is part of a circle now. */
  look(nodes: readonly SimNode[]): void {
    const homes = new Map(nodes.filter((node) => node.alive).map((node) => [node.nodeid, node]));
    const waiting: Waiting[] = [];
    for (const node of homes.values()) {
      for (const lockspace of node.core.locks.tables.lockspaces.values()) {
        for (const resource of lockspace.resources.values()) if (resource.masterNodeid === node.nodeid) collect(homes, resource, waiting);
      }
    }
    for (const one of waiting) if (reaches(waiting, one)) this.#seen.add(one.name);
  }
}

function collect(homes: ReadonlyMap<number, SimNode>, resource: Resource, waiting: Waiting[]): void {
  const queued = [...resource.convertQueue, ...resource.waitQueue];
  const transactionOf = (lkb: Lkb): string => `${lkb.nodeid}/${lkb.clientId}`;
  queued.forEach((lkb, at) => {
    if (lkb.transaction === 0) return;
    const home = homes.get(lkb.nodeid);
    const lockId = home === undefined ? undefined : lockIdOf(home, lkb);
    if (home === undefined || lockId === undefined) return;
    // All that is before it in the queue goes first, so what is in its way is in the way of this one.
    const first = queued.slice(0, at + 1);
    const holding = [...resource.grantQueue, ...resource.convertQueue].filter((other) =>
      first.some((one) => one !== other && !modesCompatible(other.granted as Mode, one.requested as Mode)),
    );
    const before = first.filter((other, i) =>
      first.slice(i + 1).some((one) => !modesCompatible(other.requested as Mode, one.requested as Mode)),
    );
    const holders = new Set([...holding, ...before].filter((other) => other.transaction !== 0).map(transactionOf));
    waiting.push({ name: `${home.key}/${lkb.clientId}/${lockId}`, holders, transaction: transactionOf(lkb) });
  });
}

function lockIdOf(home: SimNode, lkb: Lkb): number | undefined {
  for (const client of home.core.clients.all.values()) {
    for (const own of client.locks.values()) if (own.id === lkb.id && !client.gone) return own.lockId;
  }
  return undefined;
}

function reaches(waiting: readonly Waiting[], start: Waiting): boolean {
  const visited = new Set<Waiting>();
  const next = [start];
  for (let one = next.pop(); one !== undefined; one = next.pop()) {
    for (const other of waiting) {
      if (!one.holders.has(other.transaction)) continue;
      if (other === start) return true;
      if (visited.has(other)) continue;
      visited.add(other);
      next.push(other);
    }
  }
  return false;
}
