/** What a mount leaves to others while it is away is named in parts: one frame takes so many of each kind. */
import type { RequestOf } from "./call-types.ts";

/** The first one goes also where nothing is named: what is open stays so. `max`: of each kind. */
export function partsOf({ tokens, locked, sharedLocks, shared, ...head }: RequestOf<"deposit">, max: number): RequestOf<"deposit">[] {
  const most = Math.max(tokens.length, locked.length, sharedLocks.length, shared.length);
  const count = Math.max(1, Math.ceil(most / max));
  const ofPart = <T>(all: readonly T[], part: number): readonly T[] => all.slice(part * max, (part + 1) * max);
  return Array.from({ length: count }, (_, part) => ({
    ...head,
    isLast: part === count - 1,
    tokens: ofPart(tokens, part),
    locked: ofPart(locked, part),
    sharedLocks: ofPart(sharedLocks, part),
    shared: ofPart(shared, part),
  }));
}
