/** The keeper of a mount, as its process sees it (README.md; the program: native/src/keeper/). */
import { type ChildProcess, spawn } from "node:child_process";
import { writeSync } from "node:fs";
import { Socket } from "node:net";
import type { Log } from "../../dlmd/base/log.ts";
import { keeperProgram } from "../../native/index.ts";
import { coverlayProgram, NODE_FLAGS, ownWords } from "../volume/start-overlay.ts";

/** Of a process that goes on after a crash: the line to the keeper, /dev/fuse, the journal. */
export const LINE_FD = 3;
export const CRASH_FUSE_FD = 4;
export const JOURNAL_FD = 5;

/** A new process has to serve within this time after a crash; else the mount ends. */
export const CRASH_LIMIT_MS = 25_000;
/** New processes that are started for one crash, at most. */
export const CRASH_TRIES = 5;
/** dlmd keeps what the crashed process had for this time at most, if the keeper hangs: longer than all its limits (CRASH_LIMIT_MS, and twice 10 s to drop what the kernel has). */
export const CRASH_KEPT_MS = 60_000;

const FAREWELL = Buffer.from("b");
const SERVES = Buffer.from("s");
const CANNOT_GO_ON = Buffer.from("f");

export class Keeper {
  readonly #fd: number;
  readonly #child: ChildProcess | null;
  /** It was told that this process ends. */
  #over = false;

  constructor(fd: number, child: ChildProcess | null) {
    this.#fd = fd;
    this.#child = child;
  }

  #watch(log: Log, line: Socket, gone: () => void): this {
    line.unref();
    line.on("error", () => undefined);
    // It says nothing: what can be read is the end.
    line.resume();
    line.once("close", () => {
      if (this.#over) return;
      this.#over = true;
      log.warn({ keeper: this.pid }, "the keeper of this mount has ended: a crash of this process ends the mount");
      gone();
    });
    return this;
  }

  /** This one watches the mount from now on. `held`: /dev/fuse, the journal, a connection to dlmd that is there as long as the keeper is, and dlmd's lease page. `gone`: it has ended by itself. */
  static start(log: Log, held: readonly [number, number, number, number], gone: () => void): Keeper {
    const program = [process.execPath, ...NODE_FLAGS, coverlayProgram(), ...ownWords()];
    const child = spawn(keeperProgram(), [String(CRASH_LIMIT_MS), String(CRASH_TRIES), "--", ...program], {
      detached: true,
      cwd: "/",
      stdio: ["ignore", "inherit", "inherit", "pipe", ...held],
    });
    child.unref();
    // Its line ends.
    child.on("error", (error) => log.warn({ error: error.message }, "no keeper for this mount"));
    const line = child.stdio[LINE_FD] as Socket & { readonly _handle: { readonly fd: number } };
    return new Keeper(line._handle.fd, child).#watch(log, line, gone);
  }

  /** That which has started this process after a crash. */
  static inherited(log: Log, gone: () => void): Keeper {
    return new Keeper(LINE_FD, null).#watch(log, new Socket({ fd: LINE_FD, readable: true, writable: true }), gone);
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  /** Once the keeper has ended, the number of its line may be that of another file. */
  serves(): void {
    if (!this.#over) write(this.#fd, SERVES);
  }

  /** No other process could go on either. */
  cannotGoOn(): void {
    if (!this.#over) write(this.#fd, CANNOT_GO_ON);
  }

  /** This process ends in good order, and nobody is to go on. */
  farewell(): void {
    if (this.#over) return;
    this.#over = true;
    write(this.#fd, FAREWELL);
  }
}

/** To the keeper that has started this process: no other process could go on either. */
export function cannotGoOn(): void {
  write(LINE_FD, CANNOT_GO_ON);
}

function write(fd: number, word: Buffer): void {
  try {
    writeSync(fd, word);
  } catch {
    // It is gone: there is nobody to be told.
  }
}
