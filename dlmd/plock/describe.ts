/** File locks at their master as plain data, for `coverlay why` and `locks` (query/inspect.ts). */
import type { FileAnswer, FileHeldAnswer, FileRangeAnswer, FileWaitAnswer, ProcessAnswer } from "../wire/inspect-answer.ts";
import type { InspectRequest } from "../wire/program.ts";
import type { PlockFile, PlockMaster } from "./master.ts";
import { ageOf } from "../wire/peer-field.ts";
import { maxOffset, type PlockOwner, type Range } from "../wire/plock-range.ts";
import type { Held } from "./owned.ts";
import { blockingOwner, type FileLockHolder, isWaiter, type PlockTable, type Waiter } from "./table.ts";

/** Processes that a node names in one answer; of the others the pid alone is known. */
export const maxProcesses = 500;

export function describeProcesses(pids: Iterable<number>, programOf: (pid: number) => string): ProcessAnswer[] {
  const named = new Map<number, string>();
  for (const pid of pids) {
    if (named.size >= maxProcesses) break;
    if (!named.has(pid)) named.set(pid, programOf(pid));
  }
  return [...named].map(([pid, program]) => ({ pid, program }));
}

export interface FilesSeen {
  readonly files: readonly FileAnswer[];
  readonly truncated: boolean;
}

function nameOf({ nodeid, clientId, kind, owner }: PlockOwner): Pick<FileRangeAnswer, "nodeid" | "clientId" | "kind" | "owner"> {
  return { nodeid, clientId, kind, owner: owner.toString() };
}

function describeRange({ owner }: FileLockHolder, { type, start, end, pid }: Range): FileRangeAnswer {
  return { ...nameOf(owner), pid, type, start: start.toString(), end: end === maxOffset ? null : end.toString() };
}

function describeHeld(holder: FileLockHolder, held: Held<FileLockHolder>, nowMs: number): FileHeldAnswer {
  return { ...describeRange(holder, held), heldMs: ageOf(held.sinceMs, nowMs) };
}

function describeWaiter(waiter: Waiter, nowMs: number): FileWaitAnswer {
  const { blocker } = waiter;
  const by = blocker === null ? null : { ...nameOf(blockingOwner(blocker).owner), behind: isWaiter(blocker) };
  return { ...describeRange(waiter.holder, waiter), waitingMs: Math.max(0, Math.round(nowMs - waiter.sinceMs)), blocker: by };
}

function isWanted(holders: readonly FileLockHolder[], { nodeid, waitingMs }: InspectRequest, nowMs: number): boolean {
  if (nodeid !== 0 && !holders.some(({ owner }) => owner.nodeid === nodeid)) return false;
  return waitingMs === null || holders.some(({ waiting }) => [...waiting].some(({ sinceMs }) => nowMs - sinceMs >= waitingMs));
}

/** `rows`: how many ranges may be shown. */
function describeFile(
  { lockspace, name, ranges, flock }: PlockFile,
  masterNodeid: number,
  rows: number,
  nowMs: number,
): FileAnswer & { rows: number; truncated: boolean } {
  const tables: readonly PlockTable[] = [ranges, flock];
  const holders = tables.flatMap((table) => [...table.holders.values()]);
  // Who waits says more than who holds.
  const waiters = holders.flatMap((holder) => [...holder.waiting]).sort((a, b) => a.sinceMs - b.sinceMs || a.rank - b.rank);
  const waiting = waiters.slice(0, rows).map((waiter) => describeWaiter(waiter, nowMs));
  const held: FileHeldAnswer[] = [];
  let truncated = waiting.length < waiters.length;
  for (const holder of holders) {
    const own = holder.ranges.overlapping(0n, maxOffset);
    const room = rows - held.length - waiting.length;
    truncated ||= own.length > room;
    held.push(...own.slice(0, room).map((range) => describeHeld(holder, range, nowMs)));
  }
  return { lockspace, file: name, masterNodeid, held, waiting, rows: held.length + waiting.length, truncated };
}

/** Files that this node masters; at most so many ranges in all, and so many files looked at. */
export function describeFiles(
  master: PlockMaster,
  nodeid: number,
  wanted: InspectRequest,
  limits: { readonly rows: number; readonly lookedAt: number },
  nowMs: number,
): FilesSeen {
  const files: FileAnswer[] = [];
  let left = limits.rows;
  let seen = 0;
  let truncated = false;
  for (const file of master.files.values()) {
    if (++seen > limits.lookedAt || left <= 0) return { files, truncated: true };
    if (wanted.lockspace !== "" && wanted.lockspace !== file.lockspace) continue;
    if (wanted.resource !== "" && wanted.resource !== file.name) continue;
    const holders = [...file.ranges.holders.values(), ...file.flock.holders.values()];
    if (!isWanted(holders, wanted, nowMs)) continue;
    const { rows, truncated: cut, ...answer } = describeFile(file, nodeid, left, nowMs);
    // A file costs something too.
    left -= rows + 1;
    truncated ||= cut;
    files.push(answer);
  }
  return { files, truncated };
}
