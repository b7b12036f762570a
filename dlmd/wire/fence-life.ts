/** The question of a program "can that life of a node write no more?", which begins a fence, and its answer (fencing/README.md). */
import { type Field, text } from "./field.ts";

/** A boot id is a UUID. */
export const MAX_BOOT_ID_BYTES = 64;
/** Of reasons, names and what a device said, in messages and in the history. */
export const MAX_FENCE_WORDS_BYTES = 256;

/** One life of a node: of its dlmd (incarnation), in one boot of its machine. `bootId` "": not known. */
export interface FencedLife {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly bootId: string;
}

export interface FenceQuestion extends FencedLife {
  /** For people, such as "owner of volume data". */
  readonly why: string;
}

/** Times are those of CLOCK_REALTIME, in milliseconds. */
export type FenceAnswer =
  /** That life can write no more, by a device or by a person's word. */
  | { readonly kind: "fenced"; readonly by: string; readonly atMs: number }
  /** `step`: in words, such as "node2 runs fence_ipmilan ipmi1, try 2". */
  | { readonly kind: "running"; readonly sinceMs: number; readonly step: string }
  /** Every level failed; it is tried again then. */
  | { readonly kind: "failed"; readonly why: string; readonly againAtMs: number }
  /** Nothing is done for that life: it is a member of the view, there is no quorum, or its node has no fence device. */
  | { readonly kind: "refused"; readonly why: string };

/** At most so many bytes of UTF-8, for a message: what is longer ends with "...". */
export function shortened(words: string, mostBytes: number = MAX_FENCE_WORDS_BYTES): string {
  const bytes = new TextEncoder().encode(words);
  if (bytes.byteLength <= mostBytes) return words;
  const cut = new TextDecoder().decode(bytes.subarray(0, mostBytes - 6));
  return `${cut.replace(/\uFFFD+$/u, "")}...`;
}

export const fenceWords: Field<string> = text(MAX_FENCE_WORDS_BYTES);
export const bootIdField: Field<string> = text(MAX_BOOT_ID_BYTES);
