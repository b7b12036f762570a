/**
 * A sequence as a command that a person can paste: replay.py makes the calls again, and says where the answers differ from what is expected. With other
 * mounts in its first line it tries another file system.
 */
import path from "node:path";
import type { TreeExpected } from "./compare.ts";
import { treeOf } from "./compare.ts";
import { emptyState, type Kind, USERS } from "../state.ts";
import type { Foreseen } from "./sequence.ts";

interface TreeLine {
  readonly mount: number;
  readonly later: boolean;
  readonly tree: readonly TreeExpected[];
}

const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

/** `inEnd`: what is there in the end differs, and not the answer to the last call. */
export function pasted(calls: readonly Foreseen[], mounts: readonly string[], { timesMayBeLater }: Kind, inEnd: boolean): string {
  const program = path.join(import.meta.dirname.replace("/dist/test/", "/test/"), "replay.py");
  const later = timesMayBeLater;
  const lines = calls.map(({ made: { user, mount, call }, outcome }) =>
    JSON.stringify({ mount, later, call: [USERS[user]?.uid, call.op, call.args], expected: outcome }),
  );
  const tree = treeOf(calls.at(-1)?.after ?? emptyState());
  const trees = inEnd ? mounts.map((_, mount): TreeLine => ({ mount, later, tree })) : [];
  const command = ["python3", program, ...mounts].map(quoted).join(" ");
  return [`${command} <<'END'`, ...lines, ...trees.map((one) => JSON.stringify(one)), "END"].join("\n");
}
