/** The arithmetic of the bench. Pure. */

/** The middle one, or the mean of the two in the middle. NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export type Unit = "us" | "s" | "MiB/s";

/** How many times as fast `value` is as `base`: 2 is twice as fast, whatever the unit. */
export function speedRatio(unit: Unit, value: number, base: number): number {
  return unit === "MiB/s" ? value / base : base / value;
}

/** The faster of those that are there; null of none. */
export function fastest(unit: Unit, values: readonly (number | undefined)[]): number | null {
  const there = values.filter((value) => value !== undefined);
  if (there.length === 0) return null;
  return unit === "MiB/s" ? Math.max(...there) : Math.min(...there);
}

/** Round robin: each round begins with another one, so that nobody always follows the same neighbour. */
export function rotated<T>(items: readonly T[], round: number): T[] {
  if (items.length === 0) return [];
  const at = round % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}

/** Four significant digits are more than a noisy machine has. */
export function formatValue(value: number): string {
  if (!Number.isFinite(value)) return "n/a";
  if (value >= 1000) return value.toFixed(0);
  if (value >= 100) return value.toFixed(1);
  return value.toFixed(value >= 10 || value === 0 ? 1 : value >= 1 ? 2 : 3);
}
