/**
 * The processes of a lab. A process id alone is never trusted: it goes with the start time of proc(5). The processes of
 * a node are those in its network namespace and those that carry the lab's mark in their environment, so that also what
 * nobody had the time to record is found.
 */
import { readFileSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { statFields } from "../../dlmd/base/proc-stat.ts";
import { NETNS_DIR } from "./layout.ts";
import type { ProcessRef } from "./state.ts";

/** Linux has no file descriptor for the death of a process that Node could wait on. */
const POLL_MS = 20;
/** After SIGKILL. */
export const KILL_TIMEOUT_MS = 15_000;

/** The environment variable that every process started by a lab carries: "<id>:<node>", or "<id>:" for the lab's tools. */
export const MARK_VARIABLE = "COVERLAY_LAB";

/** The environment of a process of the lab. */
export function markedEnvironment(id: string, node: string): NodeJS.ProcessEnv {
  return { ...process.env, [MARK_VARIABLE]: `${id}:${node}` };
}

interface ProcessStat {
  readonly state: string;
  readonly parent: number;
  readonly startTicks: string;
}

export function decodeProcessStat(text: string): ProcessStat {
  const fields = statFields(text);
  return { state: fields[0] ?? "X", parent: Number(fields[1]), startTicks: fields[19] ?? "" };
}

function readStat(pid: number): ProcessStat | null {
  try {
    return decodeProcessStat(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return null;
    throw error;
  }
}

/** The process that has this id now; null where there is none, or only a zombie. */
export function processRef(pid: number): ProcessRef | null {
  const stat = readStat(pid);
  if (stat === null || stat.state === "Z" || stat.state === "X") return null;
  return { pid, startTicks: stat.startTicks };
}

export function isAlive(ref: ProcessRef): boolean {
  return processRef(ref.pid)?.startTicks === ref.startTicks;
}

/** SIGSTOP has stopped that very process. */
export function isStopped(ref: ProcessRef): boolean {
  return isAlive(ref) && readStat(ref.pid)?.state === "T";
}

/** Sends a signal to that very process. False: it is gone. */
export function signalProcess(ref: ProcessRef, signal: NodeJS.Signals): boolean {
  if (!isAlive(ref)) return false;
  try {
    process.kill(ref.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** Waits until none of them is alive; gives those that still are after `timeoutMs`. */
export async function waitGone(refs: readonly ProcessRef[], timeoutMs: number): Promise<ProcessRef[]> {
  const deadline = Date.now() + timeoutMs;
  let left = refs.filter(isAlive);
  while (left.length > 0 && Date.now() < deadline) {
    await sleep(POLL_MS);
    left = left.filter(isAlive);
  }
  return left;
}

export interface ProcessesOf {
  /** Inode numbers of network namespaces. */
  readonly netns: ReadonlySet<number>;
  /** Values of the mark, or their beginnings. */
  readonly marks: readonly string[];
}

/** Inode number of a named network namespace; null where there is none. */
export function netnsInode(name: string): number | null {
  return statSync(`${NETNS_DIR}/${name}`, { throwIfNoEntry: false })?.ino ?? null;
}

/** Every process of those namespaces or marks, without this one and its ancestors. */
export function findProcesses(of: ProcessesOf): ProcessRef[] {
  const own = ancestors(process.pid);
  const found: ProcessRef[] = [];
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || own.has(pid) || !belongs(pid, of)) continue;
    const ref = processRef(pid);
    if (ref !== null) found.push(ref);
  }
  return found;
}

function ancestors(pid: number): Set<number> {
  const line = new Set<number>();
  for (let at = pid; at > 1 && !line.has(at); at = readStat(at)?.parent ?? 0) line.add(at);
  return line;
}

function belongs(pid: number, { netns, marks }: ProcessesOf): boolean {
  try {
    const inode = Number(/^net:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1]);
    if (netns.has(inode)) return true;
    const environment = `\0${readFileSync(`/proc/${pid}/environ`, "latin1")}`;
    return marks.some((mark) => environment.includes(`\0${MARK_VARIABLE}=${mark}`));
  } catch (error) {
    // A process that ends while it is looked at, a kernel thread, a zombie.
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH" || code === "EACCES" || code === "EPERM") return false;
    throw error;
  }
}
