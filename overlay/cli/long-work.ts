/**
 * What a command does, or waits for, while it works: on standard error, so that the answer stays alone. On a terminal it is one line, which the next
 * words replace and the end takes away; elsewhere each change is a line. With --json nothing is said. Ctrl-C: interrupt.ts.
 */
import type { OperatingError } from "../../dlmd/base/error.ts";
import { visible } from "../status/visible.ts";
import { interruptibly } from "./interrupt.ts";

/** On a terminal: how often it is said how long the same takes by now. */
const TICK_MS = 1000;

/** Of process.stderr. */
export interface ProgressStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

export interface Progress {
  /** What is done now. Words that are said twice are one change; "" takes the line away, for a question. */
  readonly say: (words: string) => void;
  /** A line that stays, such as a warning. */
  readonly note: (words: string) => void;
  readonly end: () => void;
}

/** ECMA-48: EL. The line is written over, not cleared first, so nothing flickers. */
const CLEAR_LINE = "\u001b[K";
const DEFAULT_COLUMNS = 80;

export function openProgress(json: boolean, stream: ProgressStream = process.stderr): Progress {
  if (json) return { say: () => undefined, note: () => undefined, end: () => undefined };
  return stream.isTTY === true ? onTerminal(stream) : asLines(stream);
}

function asLines(stream: ProgressStream): Progress {
  let said = "";
  const note = (words: string): void => void stream.write(`coverlay: ${visible(words, "\n")}\n`);
  const say = (words: string): void => {
    if (words !== said && words !== "") note(words);
    said = words;
  };
  return { say, note, end: () => undefined };
}

function onTerminal(stream: ProgressStream): Progress {
  let [said, fromMs] = ["", 0];
  let timer: NodeJS.Timeout | undefined;
  const draw = (): void => {
    const seconds = Math.floor((performance.now() - fromMs) / TICK_MS);
    const line = `coverlay: ${visible(said, "")}${seconds === 0 ? "" : ` (${seconds} s)`}`;
    // One that wraps could not be replaced.
    stream.write(said === "" ? `\r${CLEAR_LINE}` : `\r${line.slice(0, (stream.columns ?? DEFAULT_COLUMNS) - 1)}${CLEAR_LINE}`);
  };
  const say = (words: string): void => {
    if (words === said) return;
    [said, fromMs] = [words, performance.now()];
    clearInterval(timer);
    if (words !== "") timer = setInterval(draw, TICK_MS).unref();
    draw();
  };
  const note = (words: string): void => {
    stream.write(`${said === "" ? "" : `\r${CLEAR_LINE}`}coverlay: ${visible(words, "\n")}\n`);
    if (said !== "") draw();
  };
  return { say, note, end: () => say("") };
}

export interface LongWork extends Omit<Progress, "end"> {
  /** Aborted at SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

/** `interrupted`: what the work ends with at Ctrl-C, as far as it looks at its signal. */
export async function longWork<T>(
  json: boolean,
  interrupted: () => OperatingError,
  work: (work: LongWork) => Promise<T>,
  stream?: ProgressStream,
): Promise<T> {
  const { say, note, end } = openProgress(json, stream);
  try {
    return await interruptibly(interrupted, (signal) => work({ say, note, signal }));
  } finally {
    end();
  }
}
