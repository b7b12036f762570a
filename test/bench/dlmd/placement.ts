/**
 * Each node of the bench has processors of its own, as it has on a machine of its own. Left to itself the scheduler has the two ends of an
 * echo on one processor in one run and on two in the next; where the other one sleeps, in a virtual machine, that makes 26 or 88 us of it.
 * Nodes beyond the number of processors share with the first ones: node 3 not with node 2, whose messages are measured.
 */
import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { readFileSync } from "node:fs";

export interface Placement {
  /** For people. */
  readonly words: string;
  /** Those of a node, as taskset(1) takes them; null: all. */
  processors(nodeid: number): string | null;
  /** Before the words of a command of that node. */
  prefix(nodeid: number): string[];
  /** A process that runs, with all its threads. */
  place(pid: number, nodeid: number): void;
  /** That process, or this one, may be anywhere again. */
  release(pid?: number): void;
}

/** Where the bench of file systems has what it measures, the volume's owner among them, and where the programs that use it. */
export const SERVER_PLACE = 1;
export const PROGRAM_PLACE = 2;

/** As the kernel writes it: "0-3,6". */
function allowedCpus(): number[] {
  const list = readFileSync("/proc/self/status", "latin1").match(/^Cpus_allowed_list:\s*(\S+)$/m)?.[1] ?? "";
  return list.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, at) => first + at);
  });
}

function canPlace(): boolean {
  try {
    execFileSync("taskset", ["--version"], { stdio: "ignore" });
    return availableParallelism() > 1;
  } catch {
    return false;
  }
}

const nowhere: Placement = {
  words: "nodes are not bound to processors",
  processors: () => null,
  prefix: () => [],
  place: () => {},
  release: () => {},
};

/** `nodes`: 0 to leave all to the scheduler. */
export function placeNodes(nodes: number): Placement {
  const cpus = allowedCpus();
  if (nodes === 0 || !canPlace()) return nowhere;
  const each = Math.max(1, Math.floor(cpus.length / nodes));
  const listOf = (nodeid: number): string => {
    const first = ((nodeid - 1) % Math.floor(cpus.length / each)) * each;
    return cpus.slice(first, first + each).join(",");
  };
  const bind = (pid: number, list: string): void => void execFileSync("taskset", ["-apc", list, String(pid)], { stdio: "pipe" });
  const words = Array.from({ length: nodes }, (_, at) => `node ${at + 1} on ${listOf(at + 1)}`).join(", ");
  return {
    words: `processors: ${words}`,
    processors: listOf,
    prefix: (nodeid) => ["taskset", "-c", listOf(nodeid)],
    place: (pid, nodeid) => bind(pid, listOf(nodeid)),
    release: (pid = process.pid) => bind(pid, cpus.join(",")),
  };
}
