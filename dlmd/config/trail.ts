/**
 * The versions that led to the configuration in force, and the nodes that had each of them in force: by these a node that missed several can
 * tell that the newest follows from its own (hazard C8). Pure.
 */
import { isMajority, type Voter } from "./votes.ts";

/** A version that was in force in a quorate view. */
export interface AgreedVersion {
  readonly version: number;
  /** Its votes. */
  readonly nodes: readonly Voter[];
  /** Nodes that had it in force in a quorate view, ascending: at least one. */
  readonly agreedBy: readonly number[];
}

/** Versions before the one in force that a node remembers; the oldest is forgotten first. A node that missed more may need a person. */
export const MAX_TRAIL = 64;

/** Two files of one version, of which the cluster agreed on one at most, stay apart. */
const keyOf = ({ version, nodes }: AgreedVersion): string =>
  `${version} ${nodes.map(({ nodeid, votes }) => `${nodeid}:${votes}`).join(" ")}`;

/** All that either knows of versions before `version`, ascending, at most MAX_TRAIL of them. */
export function mergeTrails(version: number, ...trails: readonly (readonly AgreedVersion[])[]): readonly AgreedVersion[] {
  const merged = new Map<string, AgreedVersion>();
  for (const step of trails.flat()) {
    if (step.version >= version || step.agreedBy.length === 0) continue;
    const known = merged.get(keyOf(step));
    const agreedBy = [...new Set([...(known?.agreedBy ?? []), ...step.agreedBy])].sort((a, b) => a - b);
    merged.set(keyOf(step), { version: step.version, nodes: step.nodes, agreedBy });
  }
  return [...merged.values()].sort((a, b) => a.version - b.version).slice(-MAX_TRAIL);
}

/** True if `trail` has all that `other` knows, as mergeTrails would have it. */
export function hasAll(trail: readonly AgreedVersion[], other: readonly AgreedVersion[]): boolean {
  const known = new Map(trail.map((step) => [keyOf(step), step.agreedBy]));
  return other.every((step) => step.agreedBy.every((nodeid) => known.get(keyOf(step))?.includes(nodeid)));
}

/**
 * Whether `last` follows from the votes of `from`: a majority of these had it in force, or had a version in force from which it follows.
 * Versions may be missing in between.
 */
export function follows(
  from: { readonly version: number; readonly nodes: readonly Voter[] },
  trail: readonly AgreedVersion[],
  last: AgreedVersion,
): boolean {
  const reached = [from.nodes];
  const isReached = ({ agreedBy }: AgreedVersion): boolean => reached.some((voters) => isMajority([voters], agreedBy));
  for (const step of trail) {
    if (step.version > from.version && step.version < last.version && isReached(step)) reached.push(step.nodes);
  }
  return isReached(last);
}
