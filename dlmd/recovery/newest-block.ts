/**
 * A value block comes from several sides when a view ends: from who was the master, from whom it was on its way to, from who has written it
 * since. The newest counts.
 */
import type { Resource } from "../lock/lkb.ts";
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
