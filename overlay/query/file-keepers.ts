/**
 * Why a request for a file lock is not granted: who holds what excludes it, and whose earlier request is ahead of it in line. The second may be
 * alone: what it wants is free, or would be, but another one waits for it, too (dlmd/plock/README.md, "The order of requests").
 */
import type { FileAnswer, FileHeldAnswer, FileRangeAnswer, FileWaitAnswer } from "../../dlmd/wire/inspect-answer.ts";
import { maxOffset, overlaps, spaceOf, typesConflict } from "../../dlmd/wire/plock-range.ts";

interface Keepers {
  /** The request that it stands behind; null: behind none. */
  readonly ahead: FileWaitAnswer | null;
  /** One row of each owner. An answer that is cut may lack some. */
  readonly holders: readonly FileHeldAnswer[];
}

type Owner = Pick<FileRangeAnswer, "nodeid" | "clientId" | "kind" | "owner">;

const nameOf = ({ nodeid, clientId, kind, owner }: Owner): string => [nodeid, clientId, kind, owner].join();

function bytesOf({ start, end }: FileRangeAnswer): { readonly start: bigint; readonly end: bigint } {
  return { start: BigInt(start), end: end === null ? maxOffset : BigInt(end) };
}

/** Two owners cannot have both. */
function excludes(a: FileRangeAnswer, b: FileRangeAnswer): boolean {
  return (
    nameOf(a) !== nameOf(b) && spaceOf(a.kind) === spaceOf(b.kind) && typesConflict(a.type, b.type) && overlaps(bytesOf(a), bytesOf(b))
  );
}

export function keepersOf(row: FileWaitAnswer, { held, waiting }: Pick<FileAnswer, "held" | "waiting">): Keepers {
  const { blocker } = row;
  const holders = new Map(held.filter((one) => excludes(one, row)).map((one) => [nameOf(one), one]));
  if (blocker === null || !blocker.behind) return { ahead: null, holders: [...holders.values()] };
  const ahead = waiting.find((one) => nameOf(one) === nameOf(blocker) && excludes(one, row));
  return { ahead: ahead ?? null, holders: [...holders.values()] };
}
