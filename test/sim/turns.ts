/**
 * Fairness, as the master's queues show it: in a view that serves, nobody is granted before somebody who waited for the same resource
 * already, unless a flag of his request says so (dlmd/lock/README.md, "What happens to a lock").
 */
import { type Lkb, isUnordered, type Resource } from "../../dlmd/lock/lkb.ts";
import { HEADQUE } from "../../dlmd/wire/flag.ts";
import { viewName } from "../../dlmd/wire/view-id.ts";
import type { SimNode } from "./cluster-node.ts";

interface Before {
  readonly waiting: readonly Lkb[];
  /** On any queue. */
  readonly all: ReadonlySet<Lkb>;
}

interface Seen {
  readonly view: string;
  readonly resources: ReadonlyMap<Resource, Before>;
}

export class Turns {
  readonly #seen: Map<SimNode, Seen> = new Map();

  /** After a step of that node: who was overtaken, in words; null: nobody. */
  look(node: SimNode): string | null {
    const before = this.#seen.get(node);
    const { core } = node;
    const id = core.engine.membership.view?.id;
    if (!node.alive || id === undefined || !core.recovery.serving) {
      this.#seen.delete(node);
      return null;
    }
    const view = `${node.incarnation} ${viewName(id)}`;
    const resources = new Map<Resource, Before>();
    let wrong: string | null = null;
    for (const lockspace of core.locks.tables.lockspaces.values()) {
      for (const resource of lockspace.resources.values()) {
        if (resource.masterNodeid !== node.nodeid) continue;
        const seen = before?.view === view ? before.resources.get(resource) : undefined;
        if (seen !== undefined) wrong ??= overtaken(resource, seen);
        const { grantQueue, convertQueue, waitQueue } = resource;
        if (waitQueue.length === 0) continue;
        resources.set(resource, { waiting: waitQueue.slice(), all: new Set([...grantQueue, ...convertQueue, ...waitQueue]) });
      }
    }
    this.#seen.set(node, { view, resources });
    return wrong;
  }
}

function overtaken(resource: Resource, { waiting, all }: Before): string | null {
  const still = new Set(resource.waitQueue);
  const first = waiting.findIndex((lkb) => still.has(lkb));
  const patient = waiting[first];
  if (patient === undefined) return null;
  const later = new Set(waiting.slice(first));
  // Of those that were granted before, and convert, none is new to the queues.
  const hasty = resource.grantQueue.find((lkb) => (later.has(lkb) || !all.has(lkb)) && !isUnordered(lkb) && (lkb.flags & HEADQUE) === 0);
  if (hasty === undefined) return null;
  return `${resource.name}: lock ${hasty.nodeid}/${hasty.id} was granted before ${patient.nodeid}/${patient.id}, which had waited longer`;
}
