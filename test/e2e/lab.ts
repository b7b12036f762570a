/**
 * A lab for end-to-end tests: brought up as outside programs do, through `coverlay lab up --detach --json`, and taken down
 * whatever happens: the test passes, fails, or its process is killed (then by a watchdog, which lives in a process of
 * its own and sees the end of its input). After it is down, what it left behind is an error.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { type RunOptions, type RunResult, run } from "../../overlay/lab/command.ts";
import { loopsOver } from "../../overlay/lab/disk.ts";
import { mountsUnder } from "../../overlay/lab/fuse-mounts.ts";
import { type LabEngine, type LowerKind, homeName, hubName, labFiles, nodeLayout } from "../../overlay/lab/layout.ts";
import { type NodeLine, type NodeReport, nodeLine, observe, ownerOf } from "../../overlay/lab/observe.ts";
import { findProcesses } from "../../overlay/lab/processes.ts";
import { existingLab, labNodes, readLab } from "../../overlay/lab/state.ts";
import { RECORD_DIR } from "../../overlay/volume/mount-record.ts";
import { dist } from "../built.ts";
import { until } from "./actor.ts";
import { startWatchdog } from "./watchdog.ts";

const UP_TIMEOUT_MS = 180_000;
const COMMAND_TIMEOUT_MS = 120_000;

/** Of labs for which a test names none: the whole suite runs over either. */
export const testEngine: LabEngine = process.env["COVERLAY_TEST_ENGINE"] === "corosync" ? "corosync" : "builtin";

/** Why a test that changes cluster.yaml is skipped; null: it is not. */
export const noConfigChange: string | null =
  testEngine === "corosync" ? "over corosync cluster.yaml does not change while the cluster runs" : null;

/** What is said of one node of three that is alone. Over corosync it is votequorum that counts. */
export const whyNotQuorate = (nodeid: number): string =>
  testEngine === "corosync" ? `votequorum of node ${nodeid} says that its ring is not quorate` : "1 of 3 votes, not quorate because 1 < 2";

/** The compiled program, as a user runs it. */
export const coverlayProgram: string = path.join(dist, "overlay/main.js");

/** Runs the compiled coverlay to its end. */
export function coverlay(words: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(process.execPath, [coverlayProgram, ...words], { timeoutMs: COMMAND_TIMEOUT_MS, ...options });
}

export interface LabOptions {
  readonly nodes?: number;
  readonly lower?: LowerKind;
  readonly engine?: LabEngine;
  readonly size?: string;
  /** No node has a fence device: a dead owner is waited for. */
  readonly fencing?: boolean;
  /** Each of its two nodes is a quorum alone. */
  readonly twoNode?: boolean;
  /** A file for its disk, instead of one of `size`. */
  readonly image?: string;
  /** More of the environment of its programs, those that are started later, too. */
  readonly env?: Readonly<Record<string, string>>;
  /** Where its directory is made; in memory, if the tests have enough of it (vitest.config.ts). */
  readonly parent?: string;
}

/** Of a node, what stays as `up` printed it. Its processes do not: a node that is started again has others. */
export type NodePlace = Omit<NodeLine, "dlmdPid" | "overlayPid">;

export interface TestLab {
  readonly dir: string;
  readonly nodes: readonly NodePlace[];
  node(nodeid: number): NodePlace;
  /** The process that serves the node's mount now; null: none. */
  overlayPid(nodeid: number): number | null;
  /** The process of its dlmd now; null: none. */
  dlmdPid(nodeid: number): number | null;
  /** `coverlay lab WORDS... --dir DIR`; throws unless it ends with 0. Gives its stdout. */
  lab(...words: string[]): Promise<string>;
  /** `coverlay lab exec`: any exit status. */
  exec(nodeid: number, command: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** The same, but throws unless the command ends with 0. Gives its stdout. */
  mustExec(nodeid: number, command: readonly string[], options?: RunOptions): Promise<string>;
  /** "overlay": the process of the mount and its keeper, so that the mount ends wherever a crash of that process alone would be a pause. */
  kill(nodeid: number, what?: "node" | "dlmd" | "overlay"): Promise<void>;
  start(...nodeids: number[]): Promise<void>;
  stop(nodeid: number): Promise<void>;
  /** Its lock manager stays, and its vote. */
  unmount(nodeid: number): Promise<void>;
  /** One after the other. Over corosync, where nodes that left count for the quorum, all of them unmount before the first one ends. */
  stopAll(...nodeids: number[]): Promise<void>;
  /** The owner's nodeid, when there is one: between two there is none. As `coverlay lab owner` and `status` find it, without a program for each question: a start of one takes 0.4 s of a processor. */
  owner(): Promise<number>;
  status(): Promise<NodeReport[]>;
  /** Takes it down and throws if anything is left. May be called again. */
  end(): Promise<void>;
}

function mustSucceed(what: string, result: RunResult): string {
  if (result.status === 0) return result.stdout;
  throw new Error(`${what}: ${result.timedOut ? "took too long" : `exit status ${result.status}`}\n${result.stdout}${result.stderr}`);
}

/** What of a lab is still there; empty: nothing. `id`: null where `up` never got as far as having one. */
export function leftovers(dir: string, id: string | null): string[] {
  const found: string[] = mountsUnder(dir).map(({ mountPoint }) => `mount ${mountPoint}`);
  found.push(...loopsOver(labFiles(dir).image).map((device) => `loop device ${device}`));
  const records = existsSync(RECORD_DIR) ? readdirSync(RECORD_DIR) : [];
  found.push(...records.filter((name) => textIfThere(path.join(RECORD_DIR, name)).includes(`"${dir}/`)).map((name) => `record ${name}`));
  if (existsSync(dir)) found.push(...readdirSync(dir).map((file) => `file ${dir}/${file}`));
  if (id === null) return found;
  const names = new Set([hubName(id), homeName(id), ...Array.from({ length: 16 }, (_, at) => nodeLayout(dir, id, at + 1).netns)]);
  const netns = existsSync("/run/netns") ? readdirSync("/run/netns") : [];
  found.push(...netns.filter((name) => names.has(name)).map((name) => `network namespace ${name}`));
  found.push(...findProcesses({ netns: new Set(), marks: [`${id}:`] }).map(({ pid }) => `process ${pid}: ${commandLine(pid)}`));
  return found;
}

/** Other labs come and go meanwhile: "" of what is gone. */
function textIfThere(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return "";
  }
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "(gone meanwhile)";
  }
}

export interface WatchedDirectory {
  readonly dir: string;
  /** Takes down the lab in it and removes it; throws if the lab left anything but the files of those names. */
  readonly end: (keeping?: readonly string[]) => Promise<void>;
}

/** Makes a directory for a lab and watches over it. */
export function watchedDirectory(parent: string = os.tmpdir()): WatchedDirectory {
  const dir = realpathSync(mkdtempSync(path.join(parent, "coverlay-test-")));
  const watchdog = startWatchdog('"$1" "$2" lab down --dir "$3" && rm -rf --one-file-system "$3"', [
    process.execPath,
    coverlayProgram,
    dir,
  ]);
  let ended = false;
  const end = async (keeping: readonly string[] = []): Promise<void> => {
    if (ended) return;
    const id = readLab(dir)?.id ?? null;
    mustSucceed("lab down", await coverlay(["lab", "down", "--dir", dir]));
    const left = leftovers(dir, id).filter((what) => !keeping.some((name) => what === `file ${dir}/${name}`));
    ended = true;
    await watchdog.callOff();
    if (left.length > 0) throw new Error(`the lab in ${dir} left behind:\n${left.join("\n")}`);
    rmSync(dir, { recursive: true });
  };
  return { dir, end };
}

/** What the log of a node's overlay says. */
export function logOf(lab: TestLab, nodeid: number): string {
  const { runDir } = lab.node(nodeid);
  const logs = readdirSync(runDir).filter((file) => file.endsWith(".log"));
  return logs.map((file) => readFileSync(path.join(runDir, file), "utf8")).join("");
}

/** Brings a lab up; whoever calls it calls `end` in a hook. Prefer withLab where one test is all. */
export async function startLab(options: LabOptions = {}): Promise<TestLab> {
  const { dir, end } = watchedDirectory(options.parent);
  const { nodes = 3, lower = "ext4", engine = testEngine, size = "512M", fencing = true, twoNode = false, image, env = {} } = options;
  const disk = image === undefined ? ["--size", size] : ["--image", image];
  const words = ["lab", "up", "--detach", "--json", "--dir", dir, "--nodes", String(nodes), "--lower", lower, ...disk];
  if (!fencing) words.push("--no-fencing");
  if (twoNode) words.push("--two-node");
  words.push("--engine", engine);
  const programs = { ...process.env, ...env };
  try {
    const stdout = mustSucceed("lab up", await coverlay(words, { timeoutMs: UP_TIMEOUT_MS, env: programs }));
    const lines = stdout.trim().split("\n");
    if (lines.pop() !== "ready") throw new Error(`lab up should end with the line ready, found:\n${stdout}`);
    return testLab(
      dir,
      lines.map((line) => {
        const { dlmdPid: _dlmd, overlayPid: _overlay, ...place } = JSON.parse(line) as NodeLine;
        return place;
      }),
      engine,
      programs,
      end,
    );
  } catch (error) {
    await end();
    throw error;
  }
}

function testLab(dir: string, nodes: readonly NodePlace[], engine: LabEngine, env: NodeJS.ProcessEnv, end: () => Promise<void>): TestLab {
  const name = (nodeid: number): string => `node${nodeid}`;
  const node = (nodeid: number): NodePlace => {
    const found = nodes.find((one) => one.nodeid === nodeid);
    if (found === undefined) throw new Error(`the lab has no node ${nodeid}`);
    return found;
  };
  const processes = (nodeid: number): NodeLine => {
    const state = existingLab(dir);
    const found = labNodes(state).find((one) => one.nodeid === nodeid);
    if (found === undefined) throw new Error(`the lab has no node ${nodeid}`);
    return nodeLine(state, found);
  };
  const lab = async (...words: string[]): Promise<string> =>
    mustSucceed(`lab ${words.join(" ")}`, await coverlay(["lab", ...words, "--dir", dir], { env }));
  const exec = (nodeid: number, command: readonly string[], options: RunOptions = {}): Promise<RunResult> =>
    coverlay(["lab", "exec", name(nodeid), "--dir", dir, "--", ...command], options);
  const unmount = async (nodeid: number): Promise<void> => {
    const { netns, mount } = node(nodeid);
    const words = [`--net=/run/netns/${netns}`, process.execPath, coverlayProgram, "umount", mount];
    mustSucceed(`umount ${mount}`, await run("nsenter", words, { timeoutMs: COMMAND_TIMEOUT_MS }));
  };
  return {
    dir,
    nodes,
    node,
    overlayPid: (nodeid) => processes(nodeid).overlayPid,
    dlmdPid: (nodeid) => processes(nodeid).dlmdPid,
    lab,
    exec,
    mustExec: async (nodeid, command, options) => mustSucceed(command.join(" "), await exec(nodeid, command, options)),
    kill: async (nodeid, what = "node") => {
      const keepers = what === "overlay" ? keepersOf(nodes.find((one) => one.nodeid === nodeid)?.mount ?? "") : [];
      for (const pid of keepers) process.kill(pid, "SIGKILL");
      await lab("kill", name(nodeid), "--what", what);
    },
    start: async (...nodeids) => void (await lab("start", nodeids.map(name).join(","))),
    stop: async (nodeid) => void (await lab("stop", name(nodeid))),
    unmount,
    async stopAll(...nodeids) {
      for (const nodeid of engine === "corosync" ? nodeids : []) await unmount(nodeid);
      for (const nodeid of nodeids) await lab("stop", name(nodeid));
    },
    async owner() {
      let owner: string | null = null;
      await until("there is an owner", () => (owner = ownerOf(existingLab(dir))) !== null);
      return Number(String(owner).replace(/^node/, ""));
    },
    status: () => observe(existingLab(dir), true),
    end,
  };
}

/** Keepers of that mount (native/src/keeper/). */
export function keepersOf(mount: string): number[] {
  return readdirSync("/proc").flatMap((pid) => {
    try {
      const [program, ...words] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return program?.endsWith("coverlay-keeper") === true && words.includes(mount) ? [Number(pid)] : [];
    } catch {
      // No process, or none any more.
      return [];
    }
  });
}

/** A lab for the length of `use`. */
export async function withLab<T>(options: LabOptions, use: (lab: TestLab) => Promise<T>): Promise<T> {
  const lab = await startLab(options);
  let result: T;
  try {
    result = await use(lab);
  } catch (error) {
    // What the test says comes first; what taking down says is added to it.
    await lab.end().catch((more: unknown) => {
      throw new Error(`${String(more)}\nafter the test had failed`, { cause: error });
    });
    throw error;
  }
  await lab.end();
  return result;
}
