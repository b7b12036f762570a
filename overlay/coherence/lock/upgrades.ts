/**
 * Whether PR to EX is worth a try. Of a file that other nodes have PR of, too, it is refused, and the lock is given up and asked for anew. A program that removes
 * what another node has made is refused for each file: then the try is left out for a moment. A file whose PR only this node has loses its pages by that; one
 * that was born here mostly is such a file, and is always tried. Pure.
 */
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type Cover, tokenHeld } from "../cover.ts";
import type { CoherenceState } from "../effect.ts";

/** So many refusals in a row ... */
export const REFUSED_MIN = 2;
/** ... are remembered so long after the last one. */
export const REFUSED_MS = 100;

/** EX was asked for NOQUEUE from PR. */
export function noteTried({ refused }: CoherenceState, cover: Cover, granted: boolean, now: number): void {
  if (cover.kind === "directory") return;
  refused.inRow = granted ? 0 : refused.inRow + 1;
  refused.at = Math.ceil(now);
}

export function isVain({ refused }: CoherenceState, cover: Cover, now: number): boolean {
  if (cover.mode !== Mode.PR || cover.kind === "directory" || cover.born > 0 || tokenHeld(cover)) return false;
  return refused.inRow >= REFUSED_MIN && now < refused.at + REFUSED_MS;
}
