/**
 * `npm run bench`: native ext4, bindfs, coverlay on the owner and coverlay on another node, side by side in one run. Makes
 * all it needs, and takes all of it down again, also when it is interrupted.
 */
import { existsSync, mkdtempSync, mkdirSync, realpathSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { describeError } from "../../overlay/cli/output.ts";
import { run } from "../../overlay/lab/command.ts";
import { mountsUnder } from "../../overlay/lab/fuse-mounts.ts";
import { lowerRoot, NODES, startLabCluster } from "./lab-cluster.ts";
import { compileLoad, runLoad } from "./load.ts";
import { type BenchOptions, USAGE, parseOptions } from "./options.ts";
import { type Placement, placeNodes } from "./dlmd/placement.ts";
import { BINDFS_FLAGS, startPlainSystems } from "./plain-systems.ts";
import { type Report, renderReport, reportJson } from "./report.ts";
import { runBench } from "./run.ts";
import { type Cluster, FULL, QUICK, type Scale, type System, dropKernelCaches, untilProcessorsSleep } from "./system.ts";

const note = (line: string): void => void process.stderr.write(`${line}\n`);

/** Room beside the two images: archives, a repository, the page cache of what is written. */
const SPARE_BYTES = 2 ** 30;

/** Memory is quieter than a disk, and what is compared is software. */
function placeFor(scale: Scale): string {
  const memory = "/dev/shm";
  if (!existsSync(memory)) return os.tmpdir();
  const { bavail, bsize } = statfsSync(memory);
  const needed = 2 * scale.diskBytes + SPARE_BYTES;
  return bavail * bsize > needed && os.freemem() > needed + SPARE_BYTES ? memory : os.tmpdir();
}

async function version(command: string, args: readonly string[]): Promise<string> {
  const result = await run(command, args).catch(() => null);
  return result === null ? "not installed" : (result.stdout.trim().split("\n")[0] ?? "");
}

async function settingOf(options: BenchOptions, scale: Scale, dir: string): Promise<Report["setting"]> {
  const flags = (name: keyof typeof BINDFS_FLAGS): string => BINDFS_FLAGS[name].join(" ") || "(its defaults: the kernel caches for 1 s)";
  return {
    date: new Date().toISOString(),
    machine: `Linux ${os.release()}, ${os.cpus().length} CPUs, Node ${process.version}`,
    disks: `ext4 on a loop device each, images of ${scale.diskBytes / 2 ** 20} MiB in ${dir}`,
    rounds: scale.rounds,
    quick: options.quick,
    bindfs: `${await version("bindfs", ["--version"])} ${flags("bindfs")}`,
    "bindfs-uncached": flags("bindfs-uncached"),
  };
}

/** Everything stands only inside `use`'s time; whatever it does, all of it is taken down in reverse order. */
async function withSystems<T>(
  options: BenchOptions,
  scale: Scale,
  dir: string,
  program: string,
  placement: Placement,
  signal: AbortSignal,
  use: (systems: System[], cluster: Cluster | null) => Promise<T>,
): Promise<T> {
  const ends: (() => Promise<void>)[] = [];
  const systems: System[] = [];
  let cluster: Cluster | null = null;
  try {
    if (["native", "bindfs", "bindfs-uncached"].some((name) => options.systems.has(name as System["name"]))) {
      note("making a disk, mounting it plainly and through bindfs");
      const place = path.join(dir, "plain");
      mkdirSync(place);
      const plain = await startPlainSystems(place, scale.diskBytes, options.systems, placement, signal);
      ends.push(() => plain.end());
      systems.push(...plain.systems);
    }
    if (options.systems.has("owner") || options.systems.has("other")) {
      note("bringing up a lab of three nodes");
      const lab = await startLabCluster(path.join(dir, "lab"), scale.diskBytes, placement, signal);
      cluster = lab;
      ends.push(() => lab.end());
      for (const name of ["owner", "other"] as const) {
        if (!options.systems.has(name)) continue;
        const files = `${name}-files`;
        const place = path.join(lab[name].mount, files);
        await runLoad(program, ["mkdir", place], signal);
        systems.push({ name, dir: place, lowerDir: path.join(lowerRoot(lab.owner.pid), files) });
      }
    }
    return await use(systems, cluster);
  } finally {
    note("taking everything down");
    await endAll(ends);
  }
}

/** In reverse order, all of them even if one fails. */
async function endAll(ends: readonly (() => Promise<void>)[]): Promise<void> {
  const problems: unknown[] = [];
  for (const end of ends.toReversed()) await end().catch((error: unknown) => problems.push(error));
  if (problems.length > 0) throw new AggregateError(problems, `not everything could be taken down: ${problems.map(String).join("; ")}`);
}

async function bench(options: BenchOptions, signal: AbortSignal): Promise<Report> {
  const base = options.quick ? QUICK : FULL;
  const scale: Scale = options.rounds === null ? base : { ...base, rounds: options.rounds };
  const dir = realpathSync(mkdtempSync(path.join(options.dir ?? placeFor(scale), "coverlay-bench-")));
  try {
    const scratch = path.join(dir, "scratch");
    mkdirSync(scratch);
    const program = await compileLoad(scratch, signal);
    const placement = placeNodes(options.free ? 0 : NODES);
    const setting = { ...(await settingOf(options, scale, dir)), processors: placement.words };
    const nodePeer = path.join(import.meta.dirname, "tcp-peer.js");
    return await withSystems(options, scale, dir, program, placement, signal, (systems, cluster) =>
      runBench({
        placement,
        scale,
        scratch,
        program,
        systems,
        cluster,
        signal,
        dropCaches: dropKernelCaches,
        settle: untilProcessorsSleep,
        note,
        only: options.only,
        nodePeer,
        setting,
        stagesDir: cluster === null ? null : dir,
      }),
    );
  } finally {
    // Never through a mount that could not be taken away.
    if (mountsUnder(dir).length === 0) rmSync(dir, { recursive: true, force: true });
    else note(`left there, because something is still mounted in it: ${dir}`);
  }
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      note(controller.signal.aborted ? "still taking everything down; it leaves nothing if you let it" : `${name}: ending`);
      controller.abort();
    });
  }
  const report = await bench(options, controller.signal);
  (options.json === "-" ? process.stderr : process.stdout).write(`\n${renderReport(report)}\n`);
  if (options.json === "-") process.stdout.write(`${reportJson(report)}\n`);
  else if (options.json !== null) writeFileSync(options.json, `${reportJson(report)}\n`);
  return report.failures.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  const { text, exitStatus } = describeError(error, false);
  process.stderr.write(text);
  process.exitCode = exitStatus;
}
