/**
 * What is not at its home when a view ends (lock/move.ts), as far as any member knows: every member says so before DONE 1, so all decide
 * alike what is named anew, whatever each of them had heard of a move.
 */
import type { LockTables } from "../lock/lock-tables.ts";
import type { DownMessage, HolderMessage, UnlockMessage } from "../wire/peer-message.ts";
import { type DisplacedMessage, type DisplacedResource, maxDisplaced } from "../wire/peer-move.ts";
import type { Member } from "../wire/view-id.ts";
import { takeNewest } from "./newest-block.ts";

export class Displacements {
  /** By lockspace and name, the sequence of the block that was written and that no master has heard of; 0: none was. */
  readonly #names: Map<string, Map<string, number>> = new Map();

  clear(): void {
    this.#names.clear();
  }

  #add(lockspace: string, { name, unsentSeq }: DisplacedResource): void {
    let names = this.#names.get(lockspace);
    if (names === undefined) {
      names = new Map();
      this.#names.set(lockspace, names);
    }
    names.set(name, Math.max(unsentSeq, names.get(name) ?? 0));
  }

  add({ lockspace, resources }: DisplacedMessage): void {
    for (const resource of resources) this.#add(lockspace, resource);
  }

  /** What this node knows of. */
  addOwn({ displaced }: LockTables): void {
    for (const [{ lockspace, name }, { waiting }] of displaced) {
      this.#add(lockspace.name, { name, unsentSeq: waiting.reduce((seq, m) => (wrote(m) ? Math.max(seq, m.lvbSeq) : seq), 0) });
    }
  }

  messages(): DisplacedMessage[] {
    const messages: DisplacedMessage[] = [];
    for (const [lockspace, names] of this.#names) {
      const resources = [...names].map(([name, unsentSeq]) => ({ name, unsentSeq }));
      for (let at = 0; at < resources.length; at += maxDisplaced) {
        messages.push({ kind: "displaced", lockspace, resources: resources.slice(at, at + maxDisplaced) });
      }
    }
    return messages;
  }

  has(lockspace: string, name: string): boolean {
    return this.#names.get(lockspace)?.has(name) === true;
  }

  /** Any block of a lower sequence is old. */
  unsentSeq(lockspace: string, name: string): number {
    return this.#names.get(lockspace)?.get(name) ?? 0;
  }
}

function wrote(m: HolderMessage): m is DownMessage | UnlockMessage {
  return (m.kind === "down" || m.kind === "unlock") && m.lvbWrite !== "none";
}

/**
 * A conversion down or an unlock that waited here for a master has taken effect (hazard H2): where it wrote the block, nobody else
 * knows that. It is handed over like the block of an old master, by who may be writing it again.
 */
export function keepUnsentWrites({ displaced, nodeid: self }: LockTables, before: readonly Member[]): void {
  const writer = before.find(({ nodeid }) => nodeid === self) ?? null;
  for (const [resource, { waiting }] of displaced) {
    for (const m of waiting) if (wrote(m)) takeNewest(resource, { ...m, lvbValid: m.lvbWrite === "write", writer });
  }
}
