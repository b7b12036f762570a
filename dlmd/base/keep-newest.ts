/** Tables with a limit: what came first is forgotten first. */

/** Forgets entries of a Map or Set, the oldest first, until no more than `max` are left. */
export function keepNewest(kept: Map<unknown, unknown> | Set<unknown>, max: number): void {
  for (const oldest of kept.keys()) {
    if (kept.size <= max) return;
    kept.delete(oldest);
  }
}
