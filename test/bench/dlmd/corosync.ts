/**
 * corosync's CPG on the same machine, in namespaces of its own, through its C library (cpg-load.c). Left out where corosync or its
 * headers are not installed: the report says so.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "../../../overlay/lab/command.ts";
import { makeNamespaces, removeNamespaces } from "../../e2e/dlmd/cluster.ts";
import { projectRoot } from "../load.ts";
import { endProgram, runInside, startProgram } from "./programs.ts";

const POLL_MS = 100;
const FORM_TIMEOUT_MS = 30_000;
const MESSAGE_BYTES = 64;

export interface CpgFigures {
  readonly version: string;
  /** Own message, sent to delivered at the sender. */
  readonly medianUs: number;
  /** All nodes sending at once, together. */
  readonly perSecond: number;
}

function configuration(nodeid: number, nodes: number, dir: string): string {
  const members = Array.from({ length: nodes }, (_, at) => [
    " node {",
    `  ring0_addr: 10.77.0.${at + 1}`,
    `  nodeid: ${at + 1}`,
    `  name: n${at + 1}`,
    " }",
  ]);
  return [
    "totem {",
    " version: 2",
    " cluster_name: bench",
    " transport: knet",
    " crypto_cipher: none",
    " crypto_hash: none",
    "}",
    "quorum {",
    " provider: corosync_votequorum",
    "}",
    "system {",
    ` state_dir: ${dir}`,
    "}",
    "logging {",
    " to_stderr: no",
    " to_syslog: no",
    " to_logfile: yes",
    ` logfile: ${path.join(dir, "log")}`,
    "}",
    "nodelist {",
    ...members.flat(),
    "}",
    `# node ${nodeid}`,
    "",
  ].join("\n");
}

/** corosync wants to be alone on a machine: its pid file gets a /run of its own. */
function startDaemon(namespace: string, dir: string): ChildProcess {
  const script = 'mount -t tmpfs tmpfs /run && exec corosync -f -c "$1"';
  const words = ["netns", "exec", namespace, "unshare", "-m", "sh", "-c", script, "sh", path.join(dir, "corosync.conf")];
  return spawn("ip", words, { stdio: ["ignore", "ignore", "inherit"] });
}

async function formed(dir: string, nodes: number): Promise<void> {
  const wanted = `Members[${nodes}]`;
  for (const end = Date.now() + FORM_TIMEOUT_MS; ; await sleep(POLL_MS)) {
    if (readFileSync(path.join(dir, "log"), { encoding: "utf8", flag: "a+" }).includes(wanted)) return;
    if (Date.now() > end) throw new Error(`corosync: ${wanted} did not come within ${FORM_TIMEOUT_MS / 1000} s; see ${dir}/log`);
  }
}

/** null: not installed. */
export async function measureCorosync(scratch: string, nodes: number, count: number): Promise<CpgFigures | null> {
  const version = await run("corosync", ["-v"]).catch(() => null);
  const program = path.join(scratch, "cpg-load");
  const source = path.join(projectRoot, "test/bench/dlmd/cpg-load.c");
  const compiled = await run("cc", ["-O2", "-o", program, source, "-lcpg"]).catch(() => null);
  if (version === null || compiled === null || compiled.status !== 0) return null;
  const names = Array.from({ length: nodes }, (_, at) => `cvb-${process.pid}-c${at + 1}`);
  const hub = `cvb-${process.pid}-chub`;
  const children: ChildProcess[] = [];
  const dirs = names.map((_, at) => path.join(scratch, `corosync${at + 1}`));
  try {
    makeNamespaces(names, hub);
    names.forEach((name, at) => {
      const dir = dirs[at] as string;
      mkdirSync(dir);
      writeFileSync(path.join(dir, "corosync.conf"), configuration(at + 1, nodes, dir));
      children.push(startDaemon(name, dir));
    });
    await Promise.all(dirs.map((dir) => formed(dir, nodes)));
    const listeners: ChildProcess[] = [];
    for (const name of names.slice(1)) listeners.push((await startProgram(name, [program, "listen"])).child);
    children.push(...listeners);
    const latency = await runInside(names[0] as string, [program, "latency", String(Math.ceil(count / 50))]);
    for (const listener of listeners) await endProgram(listener);
    const each = String(Math.ceil(count / nodes));
    const floods = await Promise.all(names.map((name) => runInside(name, [program, "throughput", each, String(MESSAGE_BYTES)])));
    return {
      version: (version.stdout.match(/version '([^']+)'/)?.[1] ?? version.stdout.split("\n")[0]) as string,
      medianUs: (latency["medianNs"] ?? Number.NaN) / 1000,
      perSecond: (nodes * Number(each) * 1e9) / Math.max(...floods.map((flood) => flood["ns"] ?? Number.NaN)),
    };
  } finally {
    for (const child of children.toReversed()) await endProgram(child);
    removeNamespaces([...names, hub]);
  }
}
