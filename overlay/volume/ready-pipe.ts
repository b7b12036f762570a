/**
 * How a new overlay process tells the command that started it how it went: JSON objects, one on a line, on a descriptor that it
 * inherits. After `ready` or `error` it closes the descriptor; an end without one of them means that it died.
 *
 *     {"waiting":"owner node1 is gone: ..."}
 *     {"ready":true,"pid":123}
 *     {"error":{"code":"no-quorum","message":"...","hint":"...","exitStatus":32}}
 */
import { writeSync, closeSync } from "node:fs";
import type { Readable } from "node:stream";
import { OperatingError } from "../../dlmd/base/error.ts";

/** The descriptor's number in the overlay process. */
export const READY_FD = 3;
/** A longer line is not ours. */
const READY_LINE_BYTES = 64 * 1024;

/** What a mount waits for is told when it has waited for so long, and then no more often. */
export const WAITING_EVERY_MS = 1000;

/** The overlay's side: made once, told once. Without such a descriptor (started by hand) it says nothing. */
export class ReadyPipe {
  #fd: number | null;
  #waitingFor = "";
  #told = "";
  #timer: NodeJS.Timeout | null = null;

  constructor(fd: number | null) {
    this.#fd = fd;
  }

  /** What the mount waits for before it can answer, for the person who waits too. Any number of times, before the last word. */
  waiting(why: string): void {
    this.#waitingFor = why;
    if (this.#fd === null || this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#fd === null || this.#waitingFor === this.#told) return;
      this.#told = this.#waitingFor;
      this.#write(this.#fd, { waiting: this.#told });
    }, WAITING_EVERY_MS).unref();
  }

  /** The mount answers. */
  ready(): void {
    this.#tell({ ready: true, pid: process.pid });
  }

  /** It will not come to be; the process ends soon. */
  fail(error: unknown): void {
    const known = error instanceof OperatingError;
    this.#tell({
      error: {
        code: known ? error.code : "internal",
        message: error instanceof Error ? error.message : String(error),
        ...(known ? { hint: error.hint } : {}),
        exitStatus: 32,
      },
    });
  }

  #tell(message: object): void {
    if (this.#fd === null) return;
    const fd = this.#fd;
    this.#fd = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    try {
      this.#write(fd, message);
    } finally {
      closeSync(fd);
    }
  }

  #write(fd: number, message: object): void {
    try {
      writeSync(fd, `${JSON.stringify(message)}\n`);
    } catch (error) {
      // The command was interrupted: nobody reads any more, and the mount lives on without it.
      if ((error as NodeJS.ErrnoException).code !== "EPIPE") throw error;
    }
  }
}

/** The command's side: resolves with the overlay's pid; rejects with its error, or "overlay-died" when the pipe ends before. */
export async function readReady(pipe: Readable, logFile: string, tellWaiting: (why: string) => void = () => {}): Promise<number> {
  let text = "";
  for await (const chunk of pipe) {
    text += String(chunk);
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const said = interpret(text.slice(0, end), logFile);
      if (typeof said === "number") return said;
      tellWaiting(said.waiting);
      text = text.slice(end + 1);
    }
    if (text.length > READY_LINE_BYTES) break;
  }
  throw died(`it ended without a word${text === "" ? "" : `, after ${text.length} bytes`}`, logFile);
}

function interpret(line: string, logFile: string): number | { readonly waiting: string } {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch {
    throw died(`it said ${JSON.stringify(line.slice(0, 200))}`, logFile);
  }
  if (isRecord(message) && message["ready"] === true && typeof message["pid"] === "number") return message["pid"];
  if (isRecord(message) && typeof message["waiting"] === "string") return { waiting: message["waiting"] };
  const error = isRecord(message) ? message["error"] : undefined;
  if (!isRecord(error)) throw died(`it said ${JSON.stringify(line.slice(0, 200))}`, logFile);
  throw new OperatingError(String(error["message"]), {
    code: String(error["code"]),
    hint: typeof error["hint"] === "string" ? error["hint"] : `Its log is ${logFile}`,
    exitStatus: typeof error["exitStatus"] === "number" ? error["exitStatus"] : 32,
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function died(how: string, logFile: string): OperatingError {
  return new OperatingError(`the overlay did not start: ${how}`, { code: "overlay-died", hint: `Its log is ${logFile}`, exitStatus: 32 });
}
