/** `npm run chaos`: breaks a lab under load, by a seed, and checks what its programs saw. README.md has what holds. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { Streams } from "../sim/random.ts";
import { type LabOptions, startLab, type TestLab } from "../e2e/lab.ts";
import { type Census, Cycle, type CycleReport } from "./cycle.ts";
import { startVolatileDisk, type VolatileDisk } from "./disk-client.ts";
import { checkFileSystem, type FileSystem } from "./file-system.ts";
import { drawFaults, failsOwnersDisk, type FaultKind, faultKinds, faultRow, OWNER_DISK_PAUSE_MS } from "./fault.ts";

const DISK_BYTES = { ext4: 256 * 2 ** 20, xfs: 512 * 2 ** 20 } as const;

/** Violations of a cycle on the terminal; --json and --keep have all. */
const MAX_SHOWN = 8;

export interface ChaosOptions {
  readonly seed: number;
  /** The first cycle, and how many. */
  readonly from: number;
  readonly cycles: number;
  readonly lower: FileSystem;
  readonly nodes: number;
  readonly kinds: readonly FaultKind[];
  /** Histories and logs of a run that fails are copied there. */
  readonly keep: string | null;
  /** How long faults last, in percent of what is drawn. */
  readonly holdPercent: number;
  /** Each node of the lab has a fence device. */
  readonly fence: boolean;
}

export interface ChaosReport {
  readonly cycles: readonly CycleReport[];
  /** Of the run, beside those of its cycles. */
  readonly violations: readonly string[];
}

export function failed({ cycles, violations }: ChaosReport): boolean {
  return violations.length > 0 || cycles.some((cycle) => cycle.violations.length > 0);
}

/** Ends with the first cycle that has a violation. */
export async function runChaos(options: ChaosOptions, progress: (report: CycleReport) => void): Promise<ChaosReport> {
  const dir = realpathSync(mkdtempSync(path.join(os.tmpdir(), "coverlay-chaos-")));
  const disk = await startVolatileDisk(dir, DISK_BYTES[options.lower]);
  const cycles: CycleReport[] = [];
  const violations: string[] = [];
  try {
    const labOptions: LabOptions = { nodes: options.nodes, lower: options.lower, image: disk.image, fencing: options.fence };
    const lab = await startLab(labOptions);
    let whole = false;
    try {
      await runCycles(options, { lab, disk }, dir, cycles, progress);
      whole = cycles.every((cycle) => cycle.violations.length === 0);
    } finally {
      if (!whole) keep(options, lab, dir);
      await lab.end().catch((error: unknown) => violations.push(String(error)));
    }
    violations.push(...(await checkFileSystem(options.lower, disk.image)));
  } finally {
    await disk.end();
    rmSync(dir, { recursive: true, force: true });
  }
  return { cycles, violations };
}

async function runCycles(
  options: ChaosOptions,
  world: { readonly lab: TestLab; readonly disk: VolatileDisk },
  dir: string,
  reports: CycleReport[],
  progress: (report: CycleReport) => void,
): Promise<void> {
  const { seed, from, cycles, kinds, holdPercent } = options;
  let census: Census | null = null;
  let ownerDiskMs = Number.NEGATIVE_INFINITY;
  for (let cycle = from; cycle < from + cycles; cycle++) {
    const drawn = drawFaults(new Streams(seed).of(`faults ${cycle}`), kinds, cycle);
    const faults = drawn.map((fault) => ({ ...fault, holdMs: Math.round((fault.holdMs * holdPercent) / 100) }));
    if (faults.some(failsOwnersDisk)) await sleep(Math.max(0, ownerDiskMs + OWNER_DISK_PAUSE_MS - Date.now()));
    const done: { report: CycleReport; census: Census | null } = await new Cycle(world, {
      seed,
      cycle,
      faults,
      lower: options.lower,
      fences: options.fence,
      dir,
    }).run(census);
    if (faults.some(failsOwnersDisk)) ownerDiskMs = Date.now();
    reports.push(done.report);
    progress(done.report);
    census = done.census;
    if (done.report.violations.length > 0) return;
    rmSync(path.join(dir, `cycle-${cycle}`), { recursive: true });
  }
}

function keep({ keep: to }: ChaosOptions, lab: TestLab, dir: string): void {
  if (to === null) return;
  mkdirSync(to, { recursive: true });
  cpSync(dir, to, { recursive: true, filter: (file) => !file.startsWith(path.join(dir, "volatile")) && !file.endsWith("backing.img") });
  for (const { node } of lab.nodes) {
    // Not below the mount, which may hang.
    for (const from of [path.join(lab.dir, node), path.join(lab.dir, node, "run")]) {
      const logs = readdirSync(from).filter((file) => file.endsWith(".log"));
      for (const log of logs) cpSync(path.join(from, log), path.join(to, `${node}.${log}`));
    }
  }
}

function line(report: CycleReport): string {
  const { cycle, faults, calls, errors, lostWrites, pausesMs, phasesMs, seconds, violations, undecided } = report;
  const figures = `${calls} calls, ${errors} errors, ${lostWrites} writes lost so far, pauses ${pausesMs.join("/")} ms, ${seconds} s (${phasesMs.join("+")})`;
  const shown = violations.slice(0, MAX_SHOWN).map((what) => `\n    VIOLATION ${what}`);
  const bad = shown.join("") + (violations.length > MAX_SHOWN ? `\n    and ${violations.length - MAX_SHOWN} more` : "");
  return `cycle ${cycle}: ${faults.join(" + ")}: ${figures}${undecided.map((what) => `\n    undecided: ${what}`).join("")}${bad}`;
}

async function main(): Promise<number> {
  const args = await yargs(hideBin(process.argv))
    .usage("npm run chaos -- --seed N --cycles M")
    .option("seed", { type: "number", default: 1, describe: "faults and operations follow from it" })
    .option("cycles", { type: "number", default: 10, describe: "cycles, each with one or two faults" })
    .option("from", { type: "number", default: 1, describe: "number of the first cycle" })
    .option("lower", { choices: ["ext4", "xfs"] as const, default: "ext4" as const })
    .option("nodes", { type: "number", default: 3 })
    .option("faults", { type: "string", describe: `only these, with commas between: ${faultKinds.join(",")}` })
    .option("again", { type: "number", default: 3, describe: "how often a cycle that fails is run again" })
    .option("hold", { type: "number", default: 100, describe: "how long faults last, in percent of what is drawn" })
    .option("fence", {
      type: "boolean",
      default: true,
      describe: "nodes have fence devices; --no-fence: a dead owner is waited for",
    })
    .option("keep", { type: "string", describe: "a directory for histories and logs of what fails" })
    .option("json", { type: "boolean", default: false, describe: "a report as JSON, one line" })
    .epilogue(faultKinds.map((kind) => `${kind}: ${faultRow(kind).describe}`).join("\n"))
    .strict()
    .parse();
  const kinds = args.faults === undefined ? faultKinds : args.faults.split(",").map(faultKind);
  const keepDir = args.keep === undefined ? null : path.resolve(args.keep);
  const { seed, from, cycles, lower, nodes, fence, hold: holdPercent } = args;
  const options: ChaosOptions = { seed, from, cycles, lower, nodes, kinds, holdPercent, fence, keep: keepDir };
  const say = (text: string): void => void (args.json ? process.stderr : process.stdout).write(`${text}\n`);
  const report = await runChaos(options, (cycle) => say(line(cycle)));
  for (const what of report.violations) say(`VIOLATION ${what}`);
  const bad = report.cycles.find(({ violations }) => violations.length > 0);
  const again = bad === undefined ? null : await runAgain({ ...options, from: bad.cycle, cycles: 1 }, args.again, say);
  if (bad !== undefined) say(`cycle ${bad.cycle} failed, and ${again} of ${args.again} times again: ${commandLine(options, bad.cycle)}`);
  if (args.json) process.stdout.write(`${JSON.stringify({ seed, ...report, failedAgain: again })}\n`);
  return failed(report) ? 1 : 0;
}

/** Runs that cycle. */
function commandLine({ seed, lower, nodes, fence, kinds, holdPercent }: ChaosOptions, cycle: number): string {
  const faults = kinds.length === faultKinds.length ? "" : ` --faults ${kinds.join(",")}`;
  return `npm run chaos -- --seed ${seed} --from ${cycle} --cycles 1 --lower ${lower} --nodes ${nodes}${fence ? "" : " --no-fence"}${faults}${holdPercent === 100 ? "" : ` --hold ${holdPercent}`}`;
}

function faultKind(name: string): FaultKind {
  const kind = faultKinds.find((one) => one === name);
  if (kind === undefined) throw new Error(`--faults takes ${faultKinds.join(",")}; found ${name}`);
  return kind;
}

async function runAgain(options: ChaosOptions, times: number, say: (text: string) => void): Promise<number> {
  let count = 0;
  for (let time = 1; time <= times; time++) {
    const to = options.keep === null ? null : path.join(options.keep, `again-${time}`);
    const report = await runChaos({ ...options, keep: to }, (cycle) => say(`again, ${line(cycle)}`));
    if (failed(report)) count += 1;
  }
  return count;
}

if (process.argv[1] === import.meta.filename) process.exitCode = await main();
