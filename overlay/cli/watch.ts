/**
 * `coverlay status --watch`: one turn after the other until a signal, or until nobody reads it. On a terminal each one takes the place of the last; elsewhere each is a
 * block of its own, or a line of JSON. Every turn asks anew, so a dlmd that ends and starts is only seen to do so.
 */
import { print, readerGone, visibleLines } from "./output.ts";

export interface WatchedTurn {
  readonly text: string;
  readonly status: number;
}

export interface WatchOptions {
  /** Never rejects for what a dlmd or a mount does. */
  readonly turn: () => Promise<WatchedTurn>;
  readonly seconds: number;
  /** "screen": draw over the last turn; "blocks": with the time before each, and an empty line between two; "lines": the texts alone. */
  readonly as: "screen" | "blocks" | "lines";
}

/** ECMA-48: CUP, EL, ED. No line is cleared before it is drawn, so nothing flickers. */
const HOME = "\u001b[H";
const CLEAR_LINE = "\u001b[K";
const CLEAR_BELOW = "\u001b[J";

/** The exit status of the last turn; 0 if a signal came before the first one. */
export async function watchNode({ turn, seconds, as }: WatchOptions): Promise<number> {
  const ended = new AbortController();
  const end = (): void => ended.abort();
  process.on("SIGINT", end);
  process.on("SIGTERM", end);
  readerGone.add(end);
  const over = new Promise<null>((resolve) => ended.signal.addEventListener("abort", () => resolve(null), { once: true }));
  let status = 0;
  try {
    while (!ended.signal.aborted) {
      const taken = await Promise.race([turn(), over]);
      if (taken === null) break;
      status = taken.status;
      show(taken.text, as, seconds);
      await pause(seconds * 1000, over);
    }
  } finally {
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
    readerGone.delete(end);
  }
  return status;
}

async function pause(ms: number, over: Promise<null>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([over, new Promise((resolve) => (timer = setTimeout(resolve, ms)))]);
  clearTimeout(timer);
}

function show(text: string, as: WatchOptions["as"], seconds: number): void {
  const now = new Date().toISOString();
  if (as === "lines") return print(text);
  if (as === "blocks") return print(`${now}\n${text}\n`);
  const { rows, columns } = process.stdout;
  process.stdout.write(drawn(`${now}, again each ${seconds} s; Ctrl-C ends it\n${text}`, rows, columns));
}

/** What draws the text over what is on the screen, as much as the screen has lines: the first ones say what matters. */
export function drawn(text: string, rows: number, columns: number): string {
  const lines = visibleLines(text).map((line) => (line.length > columns ? `${line.slice(0, columns - 1)}…` : line));
  const shown = Math.max(1, rows - 2);
  const fits = lines.length < rows ? lines : [...lines.slice(0, shown), `(and ${lines.length - shown} more lines)`];
  return `${HOME}${fits.map((line) => `${line}${CLEAR_LINE}\n`).join("")}${CLEAR_BELOW}`;
}
