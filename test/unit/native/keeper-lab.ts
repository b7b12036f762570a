/**
 * A keeper as the process of a mount has it: started here, with a line, a descriptor that stands for /dev/fuse or is one, and a journal. Programs that it
 * starts are scripts of sh, which opens nothing by itself; what they write to stderr comes between the keeper's lines.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { keeperProgram } from "../../../native/index.ts";
import { bytes, native, opened, type Scratch } from "./scratch.ts";

/** setpriv(1) of util-linux; prctl(2), PR_SET_PDEATHSIG, which an execve(2) keeps. */
const ENDS_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"];
const JOURNAL_BYTES = 4096;
const RESUMABLE_AT = 64;
const LINE_FD = 3;
const DLMD_FD = 6;
/** proc(5), stat: fields after the name of the program, the first of which is number 3. */
const SESSION_FIELD = 6 - 3;

export interface KeeperOptions {
  readonly limitMs?: number;
  readonly tries?: number;
  /** The words of the program, before --after-crash; of sh, if it is one word. */
  readonly program?: string | readonly string[];
  /** 1: another process can go on. */
  readonly resumable?: number;
  readonly fuse?: number;
  readonly journal?: number;
  /** The page of the lease. */
  readonly lease?: number;
  readonly more?: readonly number[];
  /** Words before its own, of a program that becomes it. */
  readonly through?: readonly string[];
}

export interface Keeper {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly line: Duplex;
  readonly journal: number;
  /** The other end of what stands for a connection to dlmd. */
  readonly dlmd: Duplex;
  /** What it has written to its log. */
  readonly logged: Record<string, unknown>[];
  /** What its programs have written to stderr. */
  readonly said: string[];
  /** Resolves at a line of either that has these words; also if it came before. */
  heard(words: string): Promise<string>;
  /** Exit status and signal, once all that could write to its stderr has ended. */
  readonly ended: Promise<[number | null, NodeJS.Signals | null]>;
}

export function setResumable(journal: number, value: number): void {
  const word = Buffer.alloc(4);
  word.writeUInt32LE(value);
  native.sync.write(journal, word, 0, 4, RESUMABLE_AT, 0);
}

/** Its name may have spaces. */
export function statFields(pid: number): string[] {
  return readFileSync(`/proc/${pid}/stat`, "latin1")
    .replace(/^.*\) /s, "")
    .split(" ");
}

/** How often it has slept. */
export function wakes(pid: number): number {
  return Number(/^voluntary_ctxt_switches:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

export async function startKeeper(scratch: Scratch, options: KeeperOptions = {}): Promise<Keeper> {
  const { limitMs = 60_000, tries = 5, program = "exit 0", resumable = 1, more = [], through = [] } = options;
  const journal = options.journal ?? opened(scratch, native.memfdCreate("journal", JOURNAL_BYTES));
  native.sync.write(journal, bytes("COVRJRNL"), 0, 8, 0, 0);
  setResumable(journal, resumable);
  const fuse = options.fuse ?? opened(scratch, native.memfdCreate("fuse", 1));
  const words = typeof program === "string" ? ["/bin/sh", "-c", program, "sh"] : program;
  // It has a session of its own, and may start its program for ever: killed with this process it ends all the same.
  const [first, ...rest] = [...ENDS_WITH_PARENT, ...through, keeperProgram(), String(limitMs), String(tries), "--", ...words];
  const child = spawn(first as string, rest, {
    stdio: ["ignore", "ignore", "pipe", "pipe", fuse, journal, "pipe", options.lease ?? "ignore", ...more],
  });
  scratch.later(() => child.kill("SIGKILL"));
  const [logged, said, all] = [[] as Record<string, unknown>[], [] as string[], [] as string[]];
  const waiting: { words: string; resolve: (line: string) => void; reject: (error: Error) => void }[] = [];
  createInterface({ input: child.stderr as NonNullable<typeof child.stderr> }).on("line", (line) => {
    all.push(line);
    if (line.startsWith("{")) logged.push(JSON.parse(line) as Record<string, unknown>);
    else said.push(line);
    for (const each of waiting) if (line.includes(each.words)) each.resolve(line);
  });
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.on("close", (status, signal) => {
      resolve([status, signal]);
      for (const { words: never, reject } of waiting) reject(new Error(`it has ended, and has not said "${never}":\n${all.join("\n")}`));
    });
  });
  const pid = child.pid ?? 0;
  const stdio: readonly unknown[] = child.stdio;
  // It makes a session of its own when all else is done.
  while (Number(statFields(pid)[SESSION_FIELD]) !== pid) await new Promise(setImmediate);
  return {
    child,
    pid,
    line: stdio[LINE_FD] as Duplex,
    journal,
    dlmd: stdio[DLMD_FD] as Duplex,
    logged,
    said,
    heard: (wanted) => {
      const before = all.find((line) => line.includes(wanted));
      if (before !== undefined) return Promise.resolve(before);
      return new Promise((resolve, reject) => waiting.push({ words: wanted, resolve, reject }));
    },
    ended,
  };
}
