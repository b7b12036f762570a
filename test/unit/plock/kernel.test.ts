/**
 * The same random calls to the file-lock service and to the kernel of this machine, by real processes: results, what is held
 * afterwards (/proc/locks), who waits, what GETLK finds, and deadlocks must be the same. Left out is where the service promises more: an order
 * among those who wait for the same bytes.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { maxOffset, type OwnerKind, overlaps, type PlockType, typesConflict } from "../../../dlmd/wire/plock-range.ts";
import { Random } from "../../sim/random.ts";
import { LoneService, type Who } from "./lone-service.ts";

const files = ["a", "b"] as const;
const offsets: readonly bigint[] = [
  ...Array.from({ length: 12 }, (_, i) => BigInt(i)),
  1n << 40n,
  (1n << 62n) + 1n,
  maxOffset - 1n,
  maxOffset,
];

let dir = "";
let program = "";
let deadlocks = 0;
beforeAll(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-plock-"));
  program = path.join(dir, "kernel-locks");
  execFileSync("cc", ["-O1", "-Wall", "-Wextra", "-Werror", "-o", program, path.join(import.meta.dirname, "kernel-locks.c")]);
});
afterAll(() => rmSync(dir, { recursive: true }));

/** A process that locks. */
class Locker {
  readonly child: ChildProcess;
  /** The client's number of the request that it is blocked in. */
  blockedIn: number | null = null;
  #answers: string[] = [];
  #wanted: ((line: string) => void) | null = null;

  constructor(paths: readonly string[]) {
    this.child = spawn(program, paths, { stdio: ["pipe", "pipe", "inherit"] });
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      const wanted = this.#wanted;
      this.#wanted = null;
      if (wanted === null) this.#answers.push(line);
      else wanted(line);
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  say(line: string): void {
    this.child.stdin?.write(`${line}\n`);
  }

  answer(): Promise<string> {
    const answer = this.#answers.shift();
    return answer === undefined ? new Promise((resolve) => (this.#wanted = resolve)) : Promise.resolve(answer);
  }

  peek(): string | null {
    return this.#answers[0] ?? null;
  }
}

/**
 * Twice the same: it is read in pieces, the last one empty, and where somebody else's lock comes between two of them a line is seen twice or
 * not at all.
 */
function procLocks(): string {
  let before = readFileSync("/proc/locks", "utf8");
  for (;;) {
    const now = readFileSync("/proc/locks", "utf8");
    if (now === before) return now;
    before = now;
  }
}

/** /proc/locks of one inode: "1: POSIX  ADVISORY  WRITE 123 00:2f:77 0 EOF", with "->" before the kind of one that waits. */
function kernelLocks(inode: number): { held: string[]; waiting: number[] } {
  const held: string[] = [];
  const waiting: number[] = [];
  for (const line of procLocks().trimEnd().split("\n")) {
    const words = line.split(/\s+/).slice(1);
    const waits = words[0] === "->";
    const [kind, , type, pid, where, start, end] = waits ? words.slice(1) : words;
    if (where?.endsWith(`:${inode}`) !== true) continue;
    if (waits) waiting.push(Number(pid));
    else held.push(`${kind} ${type?.toLowerCase()} ${kind === "OFDLCK" ? -1 : pid} ${start}-${end === "EOF" ? maxOffset : end}`);
  }
  return { held: held.sort(), waiting };
}

/** Looks at /proc/locks, of which one at least is whole: other programs' locks come and go between its pieces. */
const TORN_LOOKS = 100;

const ascending = (a: number, b: number): number => a - b;
const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

class Comparison {
  readonly lone: LoneService = new LoneService();
  readonly random: Random;
  readonly lockers: Locker[];
  readonly inodes: number[];
  done = 0;
  waited = 0;
  /** Few bytes and few interrupts: many deadlocks. */
  readonly deadly: boolean;

  constructor(seed: number) {
    this.random = new Random(seed);
    this.deadly = seed % 2 === 0;
    const paths = files.map((name) => path.join(dir, `${seed}-${name}`));
    for (const each of paths) writeFileSync(each, "");
    this.inodes = paths.map((each) => statSync(each).ino);
    this.lockers = Array.from({ length: 4 }, () => new Locker(paths));
  }

  close(): void {
    for (const { child } of this.lockers) child.kill("SIGKILL");
  }

  who(at: number, kind: OwnerKind, fd: number): Who {
    return { kind, owner: kind === "posix" ? BigInt(at) : BigInt(at * 16 + fd) };
  }

  async step(): Promise<void> {
    const { random } = this;
    const at = random.int(this.lockers.length);
    const locker = this.lockers[at] as Locker;
    if (locker.blockedIn !== null) {
      if (random.chance(this.deadly ? 0.02 : 0.3)) await this.interrupt(locker, locker.blockedIn);
      return;
    }
    const kind = random.pick(this.deadly ? (["posix"] as const) : (["posix", "posix", "ofd", "flock"] as const));
    const fd = random.int(files.length * 2);
    const file = files[fd >> 1] as string;
    const op = random.pick(kind === "flock" ? (["set", "wait"] as const) : (["get", "set", "wait", "wait"] as const));
    const type = op === "get" ? random.pick(["read", "write"] as const) : random.pick(["read", "write", "write", "unlock"] as const);
    const places = this.deadly ? 3 : offsets.length;
    const [one, other] = [random.int(places), random.int(places)];
    const [start, end] =
      kind === "flock" ? [0n, maxOffset] : [offsets[Math.min(one, other)] as bigint, offsets[Math.max(one, other)] as bigint];
    const who = this.who(at, kind, fd);
    if (op !== "get" && type !== "unlock" && !this.comparable(file, who, type, start, end, op === "wait")) return;
    this.done++;
    const shared = { file, ownerKind: kind, owner: who.owner, pid: kind === "ofd" ? 0xffffffff : locker.pid, start, end };
    const lockType = type === "unlock" ? "read" : type;
    const what = op === "get" ? "test" : type === "unlock" ? "unlock" : "lock";
    const id = this.lone.ask({ ...shared, op: what, type: lockType, wait: op === "wait" });
    locker.say(`${kind} ${op} ${type} ${fd} ${start} ${end}`);
    if (this.lone.errno(id) === null) {
      this.waited++;
      locker.blockedIn = id;
      const inode = this.inodes[fd >> 1] as number;
      // The kernel shows who waits; should it answer instead, `settle` will find that.
      const expected = this.waiters(file).length;
      while (kernelLocks(inode).waiting.length < expected && locker.peek() === null) await soon();
      return;
    }
    await this.compare(locker, id, file);
  }

  /** Nobody else waits for the same, and what blocks it is one owner: then the kernel has no choice either. */
  comparable(file: string, who: Who, type: PlockType, start: bigint, end: bigint, waits: boolean): boolean {
    const table = this.lone.table(file, who.kind === "flock" ? "flock" : "ranges");
    if (table === undefined) return true;
    const blockers = new Set<unknown>();
    for (const holder of table.holders.values()) {
      const same = holder.owner.kind === who.kind && holder.owner.owner === who.owner;
      for (const waiter of holder.waiting) {
        // A conversion of flock gives the old lock up, which lets those go who wait for it.
        if (who.kind === "flock" || (!same && overlaps(waiter, { start, end }) && typesConflict(waiter.type, type))) return false;
      }
      if (!same && holder.ranges.overlapping(start, end).some((held) => typesConflict(held.type, type))) blockers.add(holder);
    }
    return !waits || blockers.size <= 1;
  }

  async compare(locker: Locker, id: number, file: string): Promise<void> {
    const [errno, type, start, end, pid] = (await locker.answer()).split(" ");
    const mine = this.lone.results.get(id);
    assert.equal(mine?.errno, Number(errno));
    assert.equal(mine?.conflict != null, type !== "none", "a conflict found");
    if (Number(errno) === E.EDEADLK) deadlocks++;
    // Of several the kernel may name another one than the service does.
    if (mine?.conflict != null) assert.ok(this.held(file).includes(`${pid === "-1" ? "OFDLCK" : "POSIX"} ${type} ${pid} ${start}-${end}`));
  }

  async interrupt(locker: Locker, id: number): Promise<void> {
    locker.blockedIn = null;
    this.lone.cancel(id);
    assert.equal(this.lone.errno(id), E.EINTR);
    process.kill(locker.pid, "SIGUSR1");
    assert.equal(await locker.answer(), `${E.EINTR} none 0 0 0`);
  }

  /** Those whom the service let go are let go by the kernel; then both hold the same. */
  async settle(): Promise<void> {
    for (const locker of this.lockers) {
      if (locker.blockedIn === null || this.lone.errno(locker.blockedIn) === null) continue;
      const id = locker.blockedIn;
      locker.blockedIn = null;
      await this.compare(locker, id, "");
    }
    for (const [i, file] of files.entries()) {
      const inode = this.inodes[i] as number;
      // Whoever waits for a lock that changes is woken and looks again.
      while (kernelLocks(inode).waiting.length < this.waiters(file).length && !this.answered()) await soon();
      const wanted = { held: this.held(file), waiting: this.waiters(file).sort(ascending) };
      for (let looks = 1; ; looks++) {
        const { held, waiting } = kernelLocks(inode);
        const found = { held, waiting: waiting.sort(ascending) };
        if (isDeepStrictEqual(found, wanted)) break;
        // One lock was seen three times, twice the same. A difference that is there stays: nobody changes these files now.
        if (looks >= TORN_LOOKS) assert.deepEqual(found, wanted);
        await soon();
      }
    }
    assert.ok(!this.answered());
  }

  /** The kernel let somebody go who should wait. */
  answered(): boolean {
    return this.lockers.some((locker) => locker.blockedIn !== null && locker.peek() !== null);
  }

  /** Pids as the kernel shows them: -1 for an open file. */
  waiters(file: string): number[] {
    const holders = [this.lone.table(file), this.lone.table(file, "flock")].flatMap((table) => [...(table?.holders.values() ?? [])]);
    return holders.flatMap(({ owner, waiting }) => [...waiting].map(({ pid }) => (owner.kind === "ofd" ? -1 : pid)));
  }

  held(file: string): string[] {
    const rows: string[] = [];
    for (const table of [this.lone.table(file), this.lone.table(file, "flock")]) {
      for (const { owner, ranges } of table?.holders.values() ?? []) {
        for (const held of ranges.overlapping(0n, maxOffset)) {
          const kind = { posix: "POSIX", ofd: "OFDLCK", flock: "FLOCK" }[owner.kind];
          rows.push(`${kind} ${held.type} ${owner.kind === "ofd" ? -1 : held.pid} ${held.start}-${held.end}`);
        }
      }
    }
    return rows.sort();
  }
}

it.each([1, 2, 3, 4, 5, 6, 7, 8])("the kernel does the same, seed %i", async (seed) => {
  const comparison = new Comparison(seed);
  try {
    for (let step = 0; step < 1000; step++) {
      await comparison.step();
      await comparison.settle();
    }
  } finally {
    comparison.close();
  }
  expect(comparison.done).toBeGreaterThan(100);
  expect(comparison.waited).toBeGreaterThan(10);
});

it("both found deadlocks", () => expect(deadlocks).toBeGreaterThan(5));
