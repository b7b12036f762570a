/** File locks that exclude each other are never held at the same time on living nodes. Pure. */
import { type Call, groupBy } from "./history.ts";

interface Hold {
  readonly client: string;
  readonly shared: boolean;
  /** When it was certainly held. */
  readonly begin: number;
  readonly end: number;
}

/** `outOf`: from when on a node counts as dead, for the programs that ran there before; it holds nothing from then on. */
export function checkLocks(calls: readonly Call[], outOf: ReadonlyMap<number, number>): string[] {
  const byClient = groupBy(calls, ({ client }) => client);
  const holds = [...byClient.values()].flatMap((own) => holdsOf(own, outOf)).toSorted((a, b) => a.begin - b.begin);
  return holds.flatMap((hold, at) =>
    holds
      .slice(at + 1)
      .filter((other) => other.begin < hold.end && !(hold.shared && other.shared))
      .map((other) => `${hold.client} and ${other.client} both held the lock at ${other.begin}`),
  );
}

function holdsOf(calls: readonly Call[], outOf: ReadonlyMap<number, number>): Hold[] {
  const inOrder = calls.toSorted((a, b) => a.index - b.index);
  return inOrder.flatMap((call, at) => {
    if (call.action.kind !== "lock" || call.error !== null || call.end === Number.POSITIVE_INFINITY) return [];
    const released = inOrder[at + 1];
    const dead = outOf.get(call.nodeid) ?? Number.POSITIVE_INFINITY;
    // A program that has recorded nothing more has ended, and its lock with it.
    const end = Math.min(released?.begin ?? call.end, dead);
    return end > call.end ? [{ client: call.client, shared: call.action.shared, begin: call.end, end }] : [];
  });
}
