/**
 * How long this node may serve in its view (hazard C4): until 0.6 time-outs after it *sent* the last heartbeat that a quorum of
 * the view acknowledged. Others start service without it only when more than that has passed since they acked it last
 * (`waitMs` of an installation). It bounds the service; it is not a fence.
 */
import type { NodeConfig } from "../node-api.ts";

export const leaseShare = 0.6;
/** What the others wait, in time-outs: the lease, clock drift and a margin. */
export const leaseWaitShare = 0.8;

const remembered = 64;

export interface SendTimes {
  readonly seqs: Float64Array;
  readonly times: Float64Array;
}

export function newSendTimes(): SendTimes {
  return { seqs: new Float64Array(remembered), times: new Float64Array(remembered) };
}

export function noteSent(sent: SendTimes, seq: number, nowMs: number): void {
  sent.seqs[seq % remembered] = seq;
  sent.times[seq % remembered] = nowMs;
}

/** When that heartbeat was sent; null if it is too long ago to matter. */
export function sentAt(sent: SendTimes, seq: number): number | null {
  return seq > 0 && sent.seqs[seq % remembered] === seq ? (sent.times[seq % remembered] as number) : null;
}

/**
 * `acked`: per other member of the view, the send time of our last heartbeat that it acked in this view (-Infinity: none). Infinity: this
 * node is a quorum by itself.
 */
export function leaseEnd(
  nodes: readonly Pick<NodeConfig, "nodeid" | "votes">[],
  self: number,
  needed: number,
  acked: ReadonlyMap<number, number>,
  timeoutMs: number,
): number {
  let votes = nodes.find((node) => node.nodeid === self)?.votes ?? 0;
  if (votes >= needed) return Number.POSITIVE_INFINITY;
  const latestFirst = [...acked].sort((a, b) => b[1] - a[1]);
  for (const [nodeid, sentMs] of latestFirst) {
    votes += nodes.find((node) => node.nodeid === nodeid)?.votes ?? 0;
    if (votes >= needed) return sentMs + leaseShare * timeoutMs;
  }
  return Number.NEGATIVE_INFINITY;
}
