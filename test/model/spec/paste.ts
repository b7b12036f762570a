/**
 * A sequence as a command that a person can paste: replay.py makes the calls again, and says where the answers differ from what is expected. With other
 * mounts in its first line it tries another file system.
 */
import path from "node:path";
import type { TreeExpected } from "./compare.ts";
import { treeOf } from "./compare.ts";
import { emptyState, type Kind, USERS } from "../state.ts";
import type { Burst } from "./draw-burst.ts";
import type { Made } from "./executor.ts";
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

/** A race does not come again at once. */
const BURST_RUNS = 400;

/** A line of a burst. `atOnce`: not before all others. */
interface BurstLine {
  readonly atOnce: boolean;
  readonly made: Made;
}

/** A burst as a command: `npm run spec` makes it again and again, until no order of its calls explains the answers (run.ts). */
export function pastedBurst({ first, calls }: Burst, mounts: readonly string[], programs: number, { name }: Kind): string {
  // The compiled one, from the sources too.
  const program = path.join(import.meta.dirname.replace(/(?<!\/dist)\/test\/model\//, "/dist/test/model/"), "run.js");
  const kind = name.replace("coverlay over ", "coverlay-");
  const ofMounts = mounts.flatMap((mount) => ["--mount", mount]);
  const command = ["node", program, ...ofMounts, "--kind", kind, "--programs", String(programs), "--runs", String(BURST_RUNS), "--burst"]
    .map(quoted)
    .join(" ");
  const line = (atOnce: boolean, made: Made): string => JSON.stringify({ atOnce, made } satisfies BurstLine);
  return [`${command} <<'END'`, ...first.map((made) => line(false, made)), ...calls.map((made) => line(true, made)), "END"].join("\n");
}

export function burstOf(lines: string): Burst {
  const read = lines
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as BurstLine);
  const made = (wanted: boolean): Made[] => read.filter(({ atOnce }) => atOnce === wanted).map((one) => one.made);
  return { first: made(false), calls: made(true) };
}
