/** `npm run spec`: is what a mount does what the model says? test/model/README.md has the whole of it. */
import { readFileSync, statSync } from "node:fs";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { coverlayOver, type Kind, KINDS } from "../state.ts";
import { NOT_ATOMIC } from "../at-once/not-atomic.ts";
import { type AtOnceReport, runAtOnce } from "./at-once.ts";
import type { Burst } from "./draw-burst.ts";
import { burstOf } from "./paste.ts";
import { runSpec, type SpecReport } from "./spec.ts";

const BAD_USAGE = 2;
const TELL_EACH_MS = 5000;

const kinds: Readonly<Record<string, Kind>> = {
  ...KINDS,
  "coverlay-ext4": coverlayOver(KINDS.ext4),
  "coverlay-xfs": coverlayOver(KINDS.xfs),
};

function fail(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(BAD_USAGE);
}

const given = await yargs(hideBin(process.argv))
  .scriptName("npm run spec --")
  .usage(
    "$0 --mount DIR [--mount DIR2 ...]\n\nMakes random sequences of calls in a file system and in the model, and says where they differ.",
  )
  .option("mount", {
    type: "string",
    array: true,
    demandOption: true,
    describe: "a directory of it; of several, all mounts of one file system, taken in turn",
  })
  .option("at-once", { type: "boolean", default: false, describe: "programs make calls at once: is there an order of them?" })
  .option("programs", { type: "number", describe: "with --at-once: so many, which take the mounts in turn (3, or one for each mount)" })
  .option("ops", { type: "number", describe: "calls of a sequence (200); with --at-once, of each program in a burst (6)" })
  .option("runs", { type: "number", default: 50, describe: "sequences or bursts; each has the seed after that of the one before" })
  .option("seed", { type: "number", default: 1, describe: "of the first sequence" })
  .option("seconds", { type: "number", describe: "begin no sequence after that" })
  .option("kind", { choices: Object.keys(kinds), describe: "what it is, where statfs(2) does not tell" })
  .option("burst", {
    type: "boolean",
    default: false,
    describe: "--at-once, with the burst that a report has printed, from standard input",
  })
  .option("json", { type: "boolean", default: false, describe: "print one object" })
  .example("$0 --mount /mnt/disk", "50 sequences of 200 calls")
  .example("$0 --mount /n1 --mount /n2 --kind coverlay-xfs", "two mounts of a cluster in turn")
  .example("$0 --mount /n1 --mount /n2 --at-once --programs 4", "bursts of calls on both at once")
  .example("$0 --mount /mnt --seed 17 --runs 1", "the sequence of seed 17 again")
  .epilogue("Exit status: 0 no difference, 1 a difference, 2 bad usage. Needs root, as it makes calls of several users.")
  .strict()
  .exitProcess(false)
  .fail((message, error) => fail(message ?? String(error)))
  .parse();

if (given["help"] === true || given["version"] === true) process.exit(0);
if (process.getuid?.() !== 0) fail("it needs root: calls are made as several users");
for (const mount of given.mount) {
  if (!(statSync(mount, { throwIfNoEntry: false })?.isDirectory() ?? false)) fail(`${mount}: no directory`);
}
const atOnce = given["at-once"] || given.burst;
if (!atOnce && given.programs !== undefined) fail("--programs is of --at-once");
const ops = given.ops ?? (atOnce ? 6 : 200);
const programs = given.programs ?? Math.max(3, given.mount.length);
for (const [name, number] of Object.entries({ ops, runs: given.runs, seed: given.seed, programs })) {
  if (!Number.isSafeInteger(number) || number < 1) fail(`--${name} should be a whole number from 1 on`);
}
if (programs < given.mount.length) fail(`--programs: ${given.mount.length} mounts need a program each`);

let stoppedBy: NodeJS.Signals | null = null;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    stoppedBy = signal;
  });
}
let toldMs = Date.now();
const common = {
  mounts: given.mount,
  ops,
  runs: given.runs,
  seed: given.seed,
  seconds: given.seconds ?? null,
  kind: given.kind === undefined ? null : (kinds[given.kind] ?? null),
  stopped: () => stoppedBy !== null,
  progress(made: number, calls: number) {
    if (Date.now() - toldMs < TELL_EACH_MS) return;
    toldMs = Date.now();
    process.stderr.write(`${made} ${atOnce ? "bursts" : "sequences"}, ${calls} calls\n`);
  },
};
const report = atOnce ? await runAtOnce({ ...common, programs, burst: given.burst ? readBurst() : null }) : await runSpec(common);
for (const dir of report.leftBehind) process.stderr.write(`${dir}: of a run that was killed, or of one on another machine; not removed\n`);
if (report.notRemoved !== null) process.stderr.write(`${report.notRemoved}: not removed, as the mount refuses it\n`);
if (given.json) process.stdout.write(`${JSON.stringify(report)}\n`);
else process.stdout.write("bursts" in report ? burstsInWords(report) : inWords(report));
process.exitCode = ("bursts" in report ? report.violation : report.difference) === null ? 0 : 1;

function readBurst(): Burst {
  try {
    return burstOf(readFileSync(0, "utf8"));
  } catch (error) {
    fail(`no burst on standard input: ${String(error)}`);
  }
}

function counts(of: Readonly<Record<string, number>>): string[] {
  return Object.entries(of).map(([id, times]) => `  ${String(times).padStart(8)}  ${id}`);
}

function stop(): string {
  return stoppedBy === null ? "" : `, stopped by ${stoppedBy}`;
}

function burstsInWords({
  kind,
  programs: each,
  bursts,
  calls,
  callsBesideOthers,
  operations,
  needed,
  undecided,
  violation,
}: AtOnceReport): string {
  const lines = ["calls by operation:", ...counts(operations)];
  const words = new Map(NOT_ATOMIC.map((one) => [one.id as string, one.words]));
  const neededInWords = Object.fromEntries(Object.entries(needed).map(([id, times]) => [words.get(id) ?? id, times]));
  if (Object.keys(needed).length > 0) lines.push("bursts that have an order only because:", ...counts(neededInWords));
  lines.push(`${calls} calls of ${each} programs in ${bursts} bursts as ${kind}, ${callsBesideOthers} of them beside another one${stop()}`);
  if (undecided > 0) lines.push(`${undecided} bursts are undecided: too many orders`);
  if (violation === null) lines.push("each burst has an order that the model allows");
  else {
    lines.push(`a burst without an order, seed ${violation.seed}: ${violation.why}`, violation.found);
    lines.push(violation.again === null ? "it did not come again" : `the shortest that came again: ${violation.again}`);
    lines.push(violation.commands);
  }
  return `${lines.join("\n")}\n`;
}

function inWords({ kind, sequences, calls, operations, rules, rulesNeverReached, notTried, difference }: SpecReport): string {
  const lines = ["calls by operation:", ...counts(operations), "rules that decided, how often:", ...counts(rules)];
  if (rulesNeverReached.length > 0) lines.push("rules that were never reached:", ...rulesNeverReached.map((id) => `            ${id}`));
  if (Object.keys(notTried).length > 0) lines.push("not tried, as a stated exception:", ...counts(notTried));
  lines.push(`${calls} calls in ${sequences} sequences as ${kind}${stop()}`);
  if (difference === null) lines.push("no difference");
  else lines.push(`a difference, seed ${difference.seed}, ${difference.calls} calls: ${difference.why}`, difference.commands);
  return `${lines.join("\n")}\n`;
}
