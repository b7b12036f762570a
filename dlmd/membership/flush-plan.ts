/** How far the ordered messages of a view go that ended, and from whom to fetch what: the longest row of which every piece is held by somebody. */
import { maxRanges, orderWindow, type OrderState, type Range } from "../wire/order-datagram.ts";

export interface PacketHolder {
  readonly nodeid: number;
  readonly order: OrderState;
}

export interface FlushPlan {
  /** The last sequence number that is delivered everywhere. */
  readonly cut: number;
  readonly sources: readonly (Range & { readonly nodeid: number })[];
}

function holds({ received, held }: OrderState, seq: number): boolean {
  if (seq <= received) return true;
  const bit = seq - received - 1;
  return ((held[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
}

/** Members of one view are no further from each other than its window: what one cannot have, said by fewer than half, is left out. */
function together(all: readonly PacketHolder[]): readonly PacketHolder[] {
  const sorted = all.map(({ order }) => order.received).sort((a, b) => a - b);
  const middle = sorted[(sorted.length - 1) >> 1] ?? 0;
  return all.filter(({ order }) => Math.abs(order.received - middle) <= orderWindow);
}

export function planFlush(all: readonly PacketHolder[]): FlushPlan {
  const holders = together(all);
  const first = holders[0];
  if (first === undefined) return { cut: 0, sources: [] };
  const most = holders.reduce((a, b) => (b.order.received > a.order.received ? b : a));
  const least = Math.min(...holders.map(({ order }) => order.received));
  let cut = most.order.received;
  const sources: { nodeid: number; from: number; to: number }[] = [];
  if (least < cut) sources.push({ nodeid: most.nodeid, from: least + 1, to: cut });
  // Beyond what one has without a gap, pieces of several may fit together. More pieces than a message names are not taken: nobody delivered them.
  for (let tried = 0; tried < orderWindow; tried++) {
    const seq = cut + 1;
    const last = sources.at(-1);
    const same = last === undefined ? undefined : holders.find((holder) => holder.nodeid === last.nodeid && holds(holder.order, seq));
    const holder = same ?? holders.find(({ order }) => holds(order, seq));
    if (holder === undefined || (same === undefined && sources.length === maxRanges)) break;
    if (last !== undefined && same !== undefined) last.to = seq;
    else sources.push({ nodeid: holder.nodeid, from: seq, to: seq });
    cut = seq;
  }
  return { cut, sources };
}
