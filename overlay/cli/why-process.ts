/**
 * `coverlay why PID`: what a process of this node waits for in a clustered mount, and which file locks it has. Its requests come from the overlays
 * of this node, whose they are from the lock managers.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import { type ClusterLocks, decodeClusterLocks, joinClusterLocks } from "../query/cluster-locks.ts";
import { askCluster, askClusterAll, nodeName } from "../query/dlmd-query.ts";
import { reportFiles } from "./file-locks.ts";
import { gatherLocks } from "../query/gather-locks.ts";
import type { LockChain } from "../query/lock-chain.ts";
import { askChain } from "./chain.ts";
import { inodeLock, lockNamesOf, parseKey, volumeName } from "../query/lock-names.ts";
import { mountsOf, openPath, programOf, sleepsInKernel, threadsOf } from "../query/open-paths.ts";
import { EXIT, print, printJson } from "./output.ts";
import { callsSeen } from "../query/node-facts.ts";
import type { OverlayRequest, OverlayRequests } from "../query/overlay-requests.ts";
import { describeChain, describeWhy, NOBODY, type PathOf, seconds } from "./why-words.ts";

/** So many calls are named of those that a lookup may sleep behind. */
const CALLS_BEFORE_MAX = 5;

interface Waiting extends OverlayRequest {
  readonly lockspace: string;
  readonly mountpoint: string;
}

/** A mount of this node that did not answer: the process may wait there. */
interface Unheard {
  readonly mountpoint: string;
  readonly why: string;
}

interface ProcessReport {
  readonly pid: number;
  readonly program: string;
  readonly info: ClusterInfo;
  readonly waiting: readonly Waiting[];
  /** The locks of the files that it waits for, or has file locks on. */
  readonly locks: ClusterLocks;
  readonly pathOf: PathOf;
  /** All that the mounts of this node have under way. */
  readonly calls: readonly Waiting[];
  readonly unheard: readonly Unheard[];
  /** From this process on, over all nodes. */
  readonly chain: LockChain | null;
}

/** A mount that hangs is no reason to say nothing of the others. Exported for tests. */
export async function requestsOf(
  runDir: string,
): Promise<{ readonly mounts: readonly OverlayRequests[]; readonly unheard: readonly Unheard[] }> {
  const seen = await callsSeen(runDir);
  return {
    mounts: seen.flatMap(({ found }) => (found instanceof OperatingError ? [] : [found])),
    unheard: seen.flatMap(({ mountpoint, found }) => (found instanceof OperatingError ? [{ mountpoint, why: found.message }] : [])),
  };
}

export async function explainProcess(runDir: string, pid: number): Promise<ProcessReport> {
  const threads = new Set([pid, ...threadsOf(pid)]);
  const { mounts, unheard } = await requestsOf(runDir);
  const calls = mounts.flatMap(({ requests, lockspace, mountpoint }) =>
    requests.map((request): Waiting => ({ ...request, lockspace, mountpoint })),
  );
  const waiting = calls.filter((request) => threads.has(request.pid));
  // Of all files on which programs of this node have or want locks those that are its own.
  const ask = (): ReturnType<typeof askCluster> =>
    askCluster(runDir, ({ nodeid }) => ({ lockspace: "", resource: "", nodeid, waitingMs: null }));
  let { info, answer } = await ask();
  if (await gatherLocks(runDir, decodeClusterLocks(answer))) ({ info, answer } = await ask());
  const all = decodeClusterLocks(answer);
  const own = all.files.filter(({ held, waiting: asked }) =>
    [...held, ...asked].some((row) => row.nodeid === info.nodeid && row.pid === pid),
  );
  const wanted = new Map(own.map(({ lockspace, file }) => [`${lockspace} ${file}`, { lockspace, resource: file }]));
  for (const { lockspace, key, lockKey, fileLock } of waiting) {
    const of = lockKey ?? key;
    const names = of === null ? [] : fileLock === null ? lockNamesOf(of) : [`f${of}`];
    for (const resource of names) wanted.set(`${lockspace} ${resource}`, { lockspace, resource });
  }
  const questions = [...wanted.values()].map((one) => ({ ...one, nodeid: 0, waitingMs: null }));
  const { answers } = await askClusterAll(runDir, questions);
  const locks = joinClusterLocks(answers.map((one) => decodeClusterLocks(one)));
  const pathOf: PathOf = (lockspace, resource) => {
    const lock = inodeLock(lockspace, resource);
    return lock === null ? null : openPath(pid, lock.ino, mountsOf(runDir, info, lockspace));
  };
  const chain = await askChain(runDir, { nodeid: info.nodeid, pid });
  return { pid, program: programOf(pid), info, waiting, locks, pathOf, calls, unheard, chain };
}

/**
 * What that process may wait for: it looks for a path, and no overlay knows of that. The kernel makes one change of a directory at a time, and no look into it meanwhile, so it
 * sleeps behind another call of this node. The calls of the mount of that path, the longest first; null: it is no such case.
 */
export function callsBefore(
  { pid, waiting, calls }: Pick<ProcessReport, "pid" | "waiting" | "calls">,
  target: string,
  isAsleep: (pid: number) => boolean = sleepsInKernel,
): Waiting[] | null {
  if (waiting.length > 0 || !isAsleep(pid)) return null;
  const above = calls.map(({ mountpoint }) => mountpoint).filter((one) => one === "/" || `${target}/`.startsWith(`${one}/`));
  const mountpoint = above.toSorted((a, b) => b.length - a.length)[0];
  const there = calls.filter((call) => mountpoint === undefined || call.mountpoint === mountpoint);
  return there.toSorted((a, b) => b.sinceMs - a.sinceMs).slice(0, CALLS_BEFORE_MAX);
}

function requestWords({ op, key, sinceMs, fileLock, lockspace, mountpoint }: Waiting, info: ClusterInfo, pathOf: PathOf): string {
  const ino = parseKey(key ?? "")?.ino;
  const path = key === null ? null : pathOf(lockspace, `i${key}`);
  const file = ino === undefined ? mountpoint : (path ?? `inode ${ino} of volume ${volumeName(lockspace, info.volumes)} at ${mountpoint}`);
  const range = fileLock === null ? "" : ` (${fileLock.type} on bytes ${fileLock.start} to ${fileLock.end})`;
  return `  waits since ${seconds(sinceMs)}: ${fileLock === null ? op : "file lock"}${range} of ${file}`;
}

const programWords = (program: string): string => (program === "" ? "it has ended" : program);

function beforeWords(before: readonly Waiting[], info: ClusterInfo): string[] {
  const rows = before.map((call) => {
    return `  process ${call.pid} (${programWords(programOf(call.pid))})${requestWords(call, info, () => null).slice(1)}`;
  });
  const none = "  no call of a program is under way there";
  return [
    "  waits in this node's kernel, behind another call: the mount has not been asked",
    "calls of that mount, the longest first:",
    ...(rows.length === 0 ? [none] : rows),
  ];
}

/** `before`: callsBefore. */
export function printProcess(
  { pid, program, info, waiting, locks, pathOf, unheard, chain }: ProcessReport,
  json: boolean,
  before: readonly Waiting[] | null = null,
): void {
  const node = nodeName(info)(info.nodeid);
  if (json) {
    const files = reportFiles(locks, info, pathOf);
    return printJson({
      nodeid: info.nodeid,
      pid,
      program,
      requests: waiting,
      unheard,
      ...(before === null ? {} : { before }),
      ...locks,
      files,
      chain,
    });
  }
  const rows = waiting.map((request) => requestWords(request, info, pathOf));
  print(`process ${pid} (${programWords(program)}) on ${node}`);
  if (before !== null) print(beforeWords(before, info).join("\n"));
  else print(rows.length === 0 ? "  waits for nothing in a clustered mount of this node" : rows.join("\n"));
  for (const { mountpoint, why } of unheard) print(`  whether it waits in ${mountpoint} is not known: ${why}`);
  const words = describeWhy(locks, nodeName(info), pathOf);
  if (words !== NOBODY) print(words);
  for (const line of describeChain(chain)) print(line);
}

/** Exit status 0: it waits for something, or has file locks. */
export async function whyProcess(runDir: string, pid: number, json: boolean): Promise<number> {
  const report = await explainProcess(runDir, pid);
  printProcess(report, json);
  return report.waiting.length + report.locks.files.length > 0 ? EXIT.OK : EXIT.FAILURE;
}
