/** Checks the history of a cycle, object by object: linearizability is a property of each of them alone (Herlihy and Wing). Pure. */
import { checkAppends, TORN } from "./append-check.ts";
import { type Call, groupBy, type Interval, isUnknown, type NameAction, objectKind, type RegisterAction } from "./history.ts";
import { linearize, type Timed, type Verdict } from "./linearize.ts";
import { checkLocks } from "./lock-check.ts";
import { type NameOperation, namesModel, newDirectory } from "./names-model.ts";
import { type RegisterOperation, registerModel } from "./register-model.ts";

export interface CycleHistory {
  readonly calls: readonly Call[];
  /** When an owner died with what was not synced; null: nothing may be lost. */
  readonly loss: Interval | null;
  /** How many owners may have died so in that time. */
  readonly losses: number;
  /** Nodes whose programs may have lost their locks, from when on. */
  readonly outOf: ReadonlyMap<number, number>;
  /** Whether a call of that node may end with such an error. */
  readonly mayFail: (nodeid: number, call: Call) => boolean;
}

export interface CheckResult {
  readonly violations: readonly string[];
  /** Objects for which the search was given up. */
  readonly undecided: readonly string[];
}

/** Of an object that a violation is of, before it. */
const CALLS_SHOWN = 60;

/** Errors that are results: the model says when. */
const RESULTS = new Set(["EEXIST", "ENOENT", "EISDIR", "ENOTDIR", "EPERM"]);

export function checkCycle(history: CycleHistory): CheckResult {
  const violations = unexpectedErrors(history);
  const undecided: string[] = [];
  for (const [object, calls] of groupBy(history.calls, (call) => call.object)) {
    const kind = objectKind(object);
    if (kind === "append") violations.push(...checkAppends(calls, history.loss));
    else if (kind === "lock") violations.push(...checkLocks(calls, history.outOf).map((what) => `${object}: ${what}`));
    else {
      const verdict = kind === "register" ? checkRegister(calls, history) : checkNames(calls, history);
      if (typeof verdict === "string") violations.push(`${object}: ${verdict}`);
      else if (verdict.kind === "undecided") undecided.push(`${object}: ${verdict.why}`);
      else if (verdict.kind === "violation") violations.push(`${object}: ${violationWords(verdict)}${callsBefore(calls, verdict)}`);
    }
  }
  return { violations, undecided };
}

/** The call as one line. */
export function callWords({ client, index, object, action, error, value, begin, end }: Call): string {
  const { kind, ...rest } = action;
  const result = end === Number.POSITIVE_INFINITY ? "no answer" : (error ?? (value === null ? "ok" : JSON.stringify(value)));
  return `${client}#${index} ${object} ${kind} ${JSON.stringify(rest)} -> ${result} [${begin}..${end}]`;
}

function violationWords(verdict: Verdict<unknown> & { kind: "violation" }): string {
  const { operation, begin, end } = verdict.operation;
  return `no order explains ${JSON.stringify(operation)} [${begin}..${end}]; possible before: ${verdict.states.join("; ")}`;
}

/** What there is to look at: the last calls of that object that had begun, and those that were not over. */
function callsBefore(calls: readonly Call[], { operation }: Verdict<unknown> & { kind: "violation" }): string {
  const begun = calls.filter(({ begin }) => begin <= operation.end).toSorted((a, b) => a.begin - b.begin);
  const shown = begun.filter((call, at) => at >= begun.length - CALLS_SHOWN || timed(call, null).end > operation.begin);
  return shown.map((call) => `\n    ${callWords(call)}`).join("");
}

function unexpectedErrors({ calls, mayFail }: CycleHistory): string[] {
  return calls
    .filter((call) => call.error !== null || call.end === Number.POSITIVE_INFINITY)
    .filter((call) => call.error === null || !(RESULTS.has(call.error) && objectKind(call.object) === "names"))
    .filter((call) => !(isUnknown(call) && mayFail(call.nodeid, call)))
    .map((call) => `an error that nothing explains: ${callWords(call)}`);
}

function losses<T>({ loss, losses: count }: CycleHistory, operation: T): Timed<T>[] {
  return loss === null ? [] : Array.from({ length: count }, () => ({ operation, begin: loss.begin, end: loss.end }));
}

function timed<T>(call: Call, operation: T): Timed<T> {
  return { operation, begin: call.begin, end: isUnknown(call) ? Number.POSITIVE_INFINITY : call.end };
}

function checkRegister(calls: readonly Call[], history: CycleHistory): Verdict<RegisterOperation> | string {
  const torn = calls.find(({ value }) => value === TORN);
  if (torn !== undefined) return `a record is torn: ${callWords(torn)}`;
  const operations = calls.flatMap((call): Timed<RegisterOperation>[] => {
    const action = call.action as RegisterAction;
    if (action.kind === "write") return [timed(call, action)];
    // Without an answer it tells nothing and changes nothing.
    if (isUnknown(call)) return [];
    return [timed(call, action.kind === "read" ? { kind: "read", value: call.value as number } : action)];
  });
  const lost = losses<RegisterOperation>(history, { kind: "lose" });
  return linearize(registerModel, { value: 0, unstable: [], lossesLeft: lost.length }, [...operations, ...lost]);
}

const changes: ReadonlySet<NameAction["kind"]> = new Set(["create", "mkdir", "rename", "link", "unlink", "rmdir"]);

/**
 * link(2) finds the file by its name first, and gives it the other name then (do_linkat, vfs_link). If the first name was moved, taken or removed
 * meanwhile, the two do not see one state on any file system: ENOENT although there was a file of that name all the time, or EEXIST because
 * that very file has the other name by now. So a refusal tells nothing then. It changed nothing either. One that succeeds gives the other name to a
 * file that had the first one a moment before.
 */
function isOvertakenLink({ action, begin, end }: Call, calls: readonly Call[]): boolean {
  if (action.kind !== "link") return false;
  const moves = (other: Call["action"]): boolean =>
    (other.kind === "rename" && (other.name === action.name || other.to === action.name)) ||
    ((other.kind === "unlink" || other.kind === "rmdir") && other.name === action.name);
  return calls.some((other) => moves(other.action) && other.begin < end && timed(other, null).end > begin);
}

function checkNames(calls: readonly Call[], history: CycleHistory): Verdict<NameOperation> {
  const operations = calls.flatMap((call, no): Timed<NameOperation>[] => {
    const action = call.action as NameAction;
    const unknown = isUnknown(call);
    if (unknown && !changes.has(action.kind)) return [];
    if (action.kind === "link" && isOvertakenLink(call, calls)) {
      if (call.error !== null && !unknown) return [];
      const finds: NameOperation = { kind: "link-finds", no, name: action.name };
      return [timed(call, finds), timed<NameOperation>(call, { kind: "link-gives", no, to: action.to })];
    }
    return [timed<NameOperation>(call, { kind: "call", action, error: unknown ? "unknown" : call.error, value: call.value })];
  });
  const lost = losses<NameOperation>(history, { kind: "lose" });
  return linearize(namesModel, newDirectory(lost.length), [...operations, ...lost]);
}
