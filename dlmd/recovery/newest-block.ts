/** A value block comes from two sides when a view ends: from the node that was the master, and from one that has written it since. The newest counts. */
import type { Resource } from "../lock/lkb.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import type { OfferMessage } from "../wire/peer-message.ts";

export function takeNewest(resource: Resource, block: Pick<OfferMessage, "lvbSeq" | "lvbValid" | "lvb" | "writer">): void {
  if (resource.lvbKnown && resource.lvbSeq >= block.lvbSeq) return;
  resource.lvbKnown = true;
  resource.lvbSeq = block.lvbSeq;
  resource.lvbValid = block.lvbValid;
  resource.writer = block.writer;
  // As at a master: who marks it not valid writes nothing in it.
  if (block.lvbValid || block.lvb !== null) resource.lvb = block.lvb;
}

/** Also for an offer of a view that was given up before it ran: its sender keeps the block no more. */
export function receiveOffer(manager: LockManager, m: OfferMessage): Resource {
  const resource = manager.tables.resource(manager.tables.lockspace(m.lockspace), m.resource);
  takeNewest(resource, m);
  return resource;
}
