/**
 * Counters by name, as plain data: what happened since the process started. `status` shows them.
 */
export interface Metrics {
  /** Adds to a counter, which begins at 0. */
  count(name: string, by?: number): void;
  /** All counters, by name. */
  snapshot(): Readonly<Record<string, number>>;
}

export function createMetrics(): Metrics {
  const counters = new Map<string, number>();
  return {
    count(name, by = 1) {
      counters.set(name, (counters.get(name) ?? 0) + by);
    },
    snapshot() {
      return Object.fromEntries([...counters].sort(([a], [b]) => (a < b ? -1 : 1)));
    },
  };
}
