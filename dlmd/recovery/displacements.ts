/**
 * What is not at its home when a view ends (lock/move.ts), as far as any member knows: every member says so before DONE 1, so all decide
 * alike what is named anew, whatever each of them had heard of a move.
 */
import type { LockTables } from "../lock/lock-tables.ts";
import { writeLvb } from "../lock/master.ts";
import { type DisplacedMessage, maxDisplaced } from "../wire/peer-move.ts";
import type { Member } from "../wire/view-id.ts";

export class Displacements {
  readonly #names: Map<string, Set<string>> = new Map();

  clear(): void {
    this.#names.clear();
  }

  add({ lockspace, resources }: DisplacedMessage): void {
    let names = this.#names.get(lockspace);
    if (names === undefined) {
      names = new Set();
      this.#names.set(lockspace, names);
    }
    for (const name of resources) names.add(name);
  }

  has(lockspace: string, name: string): boolean {
    return this.#names.get(lockspace)?.has(name) === true;
  }
}

/** What this node knows of. */
export function displacedMessages(tables: LockTables): DisplacedMessage[] {
  const byLockspace = new Map<string, string[]>();
  for (const { lockspace, name } of tables.displaced.keys()) {
    const names = byLockspace.get(lockspace.name);
    if (names === undefined) byLockspace.set(lockspace.name, [name]);
    else names.push(name);
  }
  const messages: DisplacedMessage[] = [];
  for (const [lockspace, names] of byLockspace) {
    for (let at = 0; at < names.length; at += maxDisplaced) {
      messages.push({ kind: "displaced", lockspace, resources: names.slice(at, at + maxDisplaced) });
    }
  }
  return messages;
}

/**
 * A conversion down or an unlock that waited here for a master has taken effect (hazard H2): where it wrote the block, nobody else
 * knows that. It is handed over like the block of an old master, by who may be writing it again.
 */
export function keepUnsentWrites({ displaced, nodeid: self }: LockTables, before: readonly Member[]): void {
  for (const [resource, { waiting }] of displaced) {
    for (const m of waiting) {
      if ((m.kind !== "down" && m.kind !== "unlock") || m.lvbWrite === "none") continue;
      if (resource.lvbKnown && resource.lvbSeq >= m.lvbSeq) continue;
      writeLvb(resource, m.lvbWrite, m.lvbSeq, m.lvb);
      resource.lvbKnown = true;
      resource.writer = before.find(({ nodeid }) => nodeid === self) ?? null;
    }
  }
}
