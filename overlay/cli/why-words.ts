/** Who has a lock, who waits for it, since when, and what for, in words: what `coverlay why` and `coverlay locks --files` say. */
import { type Mode, modeNames, modesCompatible } from "../../dlmd/wire/mode.ts";
import type {
  FileAnswer,
  FileHeldAnswer,
  FileRangeAnswer,
  FileWaitAnswer,
  LockAnswer,
  ResourceAnswer,
} from "../../dlmd/wire/inspect-answer.ts";
import { type ClusterLocks, fileRangeWords } from "../query/cluster-locks.ts";
import { keepersOf } from "../query/file-keepers.ts";
import { electionWords, type LockWords } from "../query/election-words.ts";
import type { LockChain } from "../query/lock-chain.ts";
import { fileStateWords, inodeLock, lockTitle } from "../query/lock-names.ts";
import { partyWords, waitWords } from "../status/judge-mounts.ts";
import { shortTime } from "../status/problem.ts";

/** A program that has not answered a blocking AST for so long hangs (hazard H13). */
const HANGS_MS = 60_000;
/** Of those that wait for or have a lock, so many are told in words; --json has all. */
const TOLD = 50;

/** The path of a file of a volume, by lockspace and name of its lock; null: not known here. */
export type PathOf = (lockspace: string, lock: string) => string | null;

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
/** " since 3.2 s": for how long a file lock has been held. */
export function heldWords({ heldMs }: FileHeldAnswer): string {
  return heldMs === null ? ", since when is not known" : ` since ${shortTime(heldMs)}`;
}
const modeOf = (name: string): Mode => modeNames.indexOf(name as (typeof modeNames)[number]) as Mode;
const clashes = (a: string, b: string): boolean => !modesCompatible(modeOf(a), modeOf(b));

/** What is wanted of a lock that is held: "" if nothing. */
function asked({ asked: mode, askedMs, mayKeep }: LockAnswer): string {
  if (mode === null) return "";
  const ago = askedMs === null ? "" : ` ${seconds(askedMs)} ago`;
  // A write token of the overlay, or a lock of the owner's election.
  if (mayKeep) return `; ${mode} was asked for${ago}, and it may keep what it has: it gives it up when it is done`;
  const hangs = askedMs !== null && askedMs >= HANGS_MS ? `: longer than ${HANGS_MS / 1000} s, so the program hangs, or ignores it` : "";
  return `; a blocking AST (${mode} is wanted) was sent${ago} and is not answered${hangs}`;
}

class Words {
  readonly #name: (nodeid: number) => string;
  readonly #pathOf: PathOf;
  readonly #processes: ReadonlyMap<string, string>;
  readonly #programs: ReadonlyMap<string, { readonly pid: number; readonly program: string }>;

  constructor(locks: ClusterLocks, name: (nodeid: number) => string, pathOf: PathOf) {
    this.#name = name;
    this.#pathOf = pathOf;
    this.#processes = new Map(locks.processes.map(({ nodeid, pid, program }) => [`${nodeid}/${pid}`, program]));
    this.#programs = new Map(locks.programs.map(({ nodeid, clientId, ...program }) => [`${nodeid}/${clientId}`, program]));
  }

  who({ nodeid, clientId, orphan }: LockAnswer): string {
    const known = this.#programs.get(`${nodeid}/${clientId}`);
    const program = known === undefined || known.program === "" ? "" : `, ${known.program.split("/").at(-1) ?? ""}`;
    const pid = known === undefined || known.pid === 0 ? "" : ` (pid ${known.pid}${program})`;
    return `${this.#name(nodeid)}/client ${clientId}${pid}${orphan ? " (an orphan: its program is gone)" : ""}`;
  }

  has(row: LockAnswer, election: LockWords | null = null): string {
    if (election !== null) return `${this.who(row)} ${election.has(row)}`;
    return `${this.who(row)} has ${row.granted}${asked(row)}`;
  }

  waits(row: LockAnswer, resource: ResourceAnswer & { readonly fromMaster: boolean }, election: LockWords | null): string {
    if (election !== null) {
      const since = row.waitingMs === null ? "" : `, since ${seconds(row.waitingMs)}`;
      return `${this.who(row)} ${election.waits(row, resource)}${since}`;
    }
    const what = row.granted === null ? row.requested : `${row.requested} (it has ${row.granted})`;
    const since = row.waitingMs === null ? "" : ` since ${seconds(row.waitingMs)}`;
    return `${this.who(row)} waits for ${what}${since}, ${this.#because(row, resource)}`;
  }

  #whose({ nodeid, clientId, pid }: Pick<FileRangeAnswer, "nodeid" | "clientId" | "pid">): string {
    const program = this.#processes.get(`${nodeid}/${pid}`) ?? "";
    return `${this.#name(nodeid)}/client ${clientId} (pid ${pid}${program === "" ? "" : `, ${program}`})`;
  }

  /** "inode lock of inode 12 (/shared/file)", "" for a program's own lock. */
  title(lockspace: string, resource: string): string {
    const title = lockTitle(lockspace, resource);
    if (title === null) return "";
    const path = inodeLock(lockspace, resource) === null ? null : this.#pathOf(lockspace, resource);
    return path === null ? title : `${title} (${path})`;
  }

  /** Of a file: who has what, who waits for what and for whom. */
  file(file: FileAnswer): string[] {
    const { lockspace, masterNodeid, held, waiting } = file;
    return [
      `${lockspace} ${file.file}  ${this.title(lockspace, file.file) || "file locks"}, master ${this.#name(masterNodeid)}`,
      ...held.map((row) => `  ${this.#whose(row)} has ${fileRangeWords(row)}${heldWords(row)}`),
      ...waiting.map(
        (row) =>
          `  ${this.#whose(row)} waits for ${fileRangeWords(row)} since ${seconds(row.waitingMs)}, because ${this.#keptBy(row, file)}`,
      ),
    ];
  }

  /** Why a file lock is not granted. `ahead` may be all: then nobody has anything in its way yet. */
  #keptBy(row: FileWaitAnswer, file: FileAnswer): string {
    const { ahead, holders } = keepersOf(row, file);
    const more = holders.length > 1 ? ` (and ${holders.length - 1} more)` : "";
    const has = holders[0] === undefined ? null : `${this.#whose(holders[0])}${more} has what excludes it`;
    if (ahead === null) return has ?? "somebody has what excludes it";
    const first = `the request of ${this.#whose(ahead)} for ${fileRangeWords(ahead)} is ahead of it in line`;
    return has === null ? first : `${first}, and ${has}`;
  }

  #because(row: LockAnswer, resource: ResourceAnswer & { readonly fromMaster: boolean }): string {
    const { grantQueue, convertQueue, waitQueue, masterNodeid } = resource;
    if (!resource.fromMaster) return `and ${this.#name(masterNodeid)}, its master, does not say why`;
    const wanted = row.requested ?? "NL";
    const inTheWay = [...grantQueue, ...convertQueue].filter((other) => other !== row && clashes(other.granted ?? "NL", wanted));
    if (inTheWay.length > 0) {
      const more = inTheWay.length > 3 ? ` (and ${inTheWay.length - 3} more have modes in its way)` : "";
      return `because ${inTheWay
        .slice(0, 3)
        .map((other) => this.has(other))
        .join("; and ")}${more}`;
    }
    const converts = convertQueue.includes(row);
    const before = converts
      ? convertQueue.slice(0, convertQueue.indexOf(row))
      : [...convertQueue, ...waitQueue.slice(0, waitQueue.indexOf(row))];
    const [first] = before;
    if (first === undefined) return "and nobody is in its way: it is granted as soon as lock service in this lockspace runs";
    const more = before.length > 1 ? ` (${before.length} are ahead of it)` : "";
    return `because the request of ${this.who(first)} for ${first.requested} is ahead of it in line${more}`;
  }
}

/** Why lock service does not run, a line for each reason; empty: it runs everywhere. */
export function describeService({ notServing, waiting, missing }: ClusterLocks, name: (nodeid: number) => string): string[] {
  return [
    ...waiting.map(({ nodeid, state }) => `lock service on ${name(nodeid)}: ${state}`),
    ...notServing.map(({ nodeid, state }) => `lock service does not run on ${name(nodeid)}: ${state}`),
    ...missing.map(({ nodeid, reason }) => `${name(nodeid)} was not heard: ${reason}`),
  ];
}

/** The chain from a process that waits to the one that keeps all others; of one link nothing, which is told above. */
export function describeChain(chain: LockChain | null): string[] {
  if (chain === null || (chain.links.length < 2 && chain.end === "runs")) return [];
  const ends: Readonly<Record<LockChain["end"], string>> = {
    runs:
      chain.last === null
        ? "whom the last one waits for is not known"
        : `${partyWords(chain.last)} waits for no lock: it keeps all of these`,
    circle: "they wait for each other: a deadlock",
    longer: "and so on: the chain is longer",
  };
  return ["the chain:", ...chain.links.map((link) => `  ${waitWords(link)}`), `  ${ends[chain.end]}`];
}

export const NOBODY = "nobody has it or waits for it";

/** For people. */
export function describeWhy(locks: ClusterLocks, name: (nodeid: number) => string, pathOf: PathOf = () => null): string {
  const words = new Words(locks, name, pathOf);
  const some = (lines: readonly string[]): string[] =>
    lines.length <= TOLD ? [...lines] : [...lines.slice(0, TOLD), `  (and ${lines.length - TOLD} more: --json shows them)`];
  // Where the locks of a file are is of interest only as long as they are not seen themselves.
  const isSeen = ({ lockspace, resource, waitQueue }: ResourceAnswer): boolean =>
    waitQueue.length === 0 && locks.files.some((row) => row.lockspace === lockspace && row.file === resource);
  const shown = locks.resources.filter((row) => fileStateWords(row.lockspace, row.resource) === null || !isSeen(row));
  const lines = shown.flatMap((resource) => {
    const { grantQueue, convertQueue, waitQueue } = resource;
    const { lockspace, resource: lock } = resource;
    const election = electionWords(lockspace, lock) ?? fileStateWords(lockspace, lock);
    const named = election?.title ?? words.title(lockspace, lock);
    const title = named === "" ? "" : `  ${named},`;
    // A lock at NL only keeps the owner's record from being forgotten.
    const holders = election === null ? grantQueue : grantQueue.filter(({ granted }) => granted !== "NL");
    return [
      `${resource.lockspace} ${resource.resource}${title}${title === "" ? " " : ""} master ${name(resource.masterNodeid)}${resource.fromMaster ? "" : ", which says nothing of it: below is what its holders know"}`,
      ...some(holders.map((row) => `  ${words.has(row, election)}`)),
      ...some([...convertQueue, ...waitQueue].map((row) => `  ${words.waits(row, resource, election)}`)),
    ];
  });
  lines.push(...locks.files.flatMap((file) => some(words.file(file))));
  if (lines.length === 0) lines.push(NOBODY);
  if (locks.truncated) lines.push("(and more: the answer is as long as it may be)");
  const members = locks.lockspaces.map(({ lockspace, nodeids }) => `${lockspace} is open on ${nodeids.map(name).join(", ")}`);
  return [...lines, ...members, ...describeService(locks, name)].join("\n");
}
