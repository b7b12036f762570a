/**
 * A node keeps the locks of a file to itself as long as no other node asks about it (overlay/file-lock/README.md, "Where the locks of a file are"), and dlmd then knows only which
 * node that is. Who wants to see them has an overlay of this node ask.
 */
import * as z from "zod";
import type { ClusterLocks } from "./cluster-locks.ts";
import { inodeLock } from "./lock-names.ts";
import { askOverlay, listOverlays } from "./overlay-query.ts";

/** In one question to an overlay; of more files than this in all, the locks of the rest are not brought together. */
const FILES_ASKED = 100;
export const MAX_GATHERED_FILES = 1000;

const gatheredShape = z.looseObject({ gathered: z.boolean() });

interface Question {
  readonly query: "gather";
  readonly lockspace: string;
  readonly files: readonly string[];
}

/** What to ask an overlay of this node: of files whose locks one node keeps to itself. */
export function gatherQuestions({ resources }: Pick<ClusterLocks, "resources">): Question[] {
  const apart = resources
    .filter(({ lockspace, resource }) => inodeLock(lockspace, resource)?.kind === "f")
    .filter(({ grantQueue }) => grantQueue.some(({ granted }) => granted === "EX"))
    .slice(0, MAX_GATHERED_FILES);
  return [...new Set(apart.map(({ lockspace }) => lockspace))].flatMap((lockspace) => {
    const files = apart.flatMap((row) => (row.lockspace === lockspace ? [row.resource] : []));
    const questions: Question[] = [];
    for (let at = 0; at < files.length; at += FILES_ASKED)
      questions.push({ query: "gather", lockspace, files: files.slice(at, at + FILES_ASKED) });
    return questions;
  });
}

/** True: it is worth asking dlmd once more. */
export async function gatherLocks(runDir: string, locks: Pick<ClusterLocks, "resources">): Promise<boolean> {
  const overlays = listOverlays(runDir).filter(({ alive }) => alive);
  let gathered = false;
  for (const question of gatherQuestions(locks)) {
    for (const { connection } of overlays) {
      // One that is ending, or hangs, shows less.
      const answer = await askOverlay(runDir, connection, question, gatheredShape).catch(() => null);
      gathered ||= answer?.gathered === true;
      if (answer?.gathered === true) break;
    }
  }
  return gathered;
}
