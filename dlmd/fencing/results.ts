/** Proofs and rows of the history, as members put theirs together (fence-table.ts): which are doubles, and which go at the limit. */
import type { FencedLife } from "../wire/fence-life.ts";
import { MAX_RESULTS, type Proof } from "../wire/fencing-group.ts";

type Result = FencedLife & { readonly atMs: number; readonly by: string; readonly outcome?: string };

/** Two lists in one, of which none is cut. `a` itself if `b` has nothing new. */
export function merged<T extends Result>(a: readonly T[], b: readonly T[]): readonly T[] {
  const key = ({ nodeid, incarnation, bootId, atMs, by, outcome }: T): string =>
    JSON.stringify([nodeid, incarnation, bootId, atMs, by, outcome]);
  const known = new Set(a.map(key));
  const added = b.filter((row) => !known.has(key(row)));
  return added.length === 0 ? a : [...a, ...added];
}

/** Of two members: which list was first says nothing of time. */
export function byTime<T extends Result>(rows: readonly T[]): readonly T[] {
  return rows.toSorted((a, b) => a.atMs - b.atMs || a.nodeid - b.nodeid || a.incarnation.localeCompare(b.incarnation));
}

/** The oldest of the node with the most goes first: one that is fenced again and again takes no other node's last proof. */
export function withinLimit(proofs: readonly Proof[]): readonly Proof[] {
  const kept = [...proofs];
  while (kept.length > MAX_RESULTS) {
    const counts = new Map<number, number>();
    for (const { nodeid } of kept) counts.set(nodeid, (counts.get(nodeid) ?? 0) + 1);
    const most = Math.max(...counts.values());
    kept.splice(
      kept.findIndex(({ nodeid }) => counts.get(nodeid) === most),
      1,
    );
  }
  return kept;
}

/** What one member knows of a boot, all do: the row of a life without one goes. */
export function withoutDoubles(proofs: readonly Proof[]): readonly Proof[] {
  const isKnown = ({ nodeid, incarnation }: Proof): boolean =>
    proofs.some((one) => one.nodeid === nodeid && one.incarnation === incarnation && one.bootId !== "");
  return proofs.filter((proof) => proof.bootId !== "" || !isKnown(proof));
}
