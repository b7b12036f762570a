/**
 * How every command speaks: results on stdout, errors on stderr, one exit status. An error is one line that says what
 * was expected and found, and one that says what to do; with --json it is one JSON object. Only a defect of coverlay
 * itself shows a stack.
 */
import { OperatingError } from "../../dlmd/base/error.ts";

/** Exit statuses of every command; EXIT.MOUNT is that of mount(8) for a mount that was refused. */
export const EXIT = { OK: 0, FAILURE: 1, MOUNT: 32 } as const;

export interface ErrorText {
  /** What goes to stderr, newline included. */
  readonly text: string;
  readonly exitStatus: number;
}

/** A command line that cannot be understood. */
export function usageError(message: string, hint: string): OperatingError {
  return new OperatingError(message, { code: "usage", hint, exitStatus: EXIT.FAILURE });
}

/** The words and the status of any thrown value. `json`: one object {"error","code","hint"} instead of lines. */
export function describeError(error: unknown, json: boolean): ErrorText {
  if (error instanceof OperatingError) {
    const { message, code, hint, exitStatus } = error;
    if (json) return { text: `${JSON.stringify({ error: message, code, hint })}\n`, exitStatus };
    return { text: `coverlay: ${message}\n  ${hint}\n`, exitStatus };
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const message = error instanceof Error ? error.message : String(error);
  const hint = "This is a defect of coverlay: please report it with these lines.";
  if (json) return { text: `${JSON.stringify({ error: message, code: "internal", hint, stack })}\n`, exitStatus: EXIT.FAILURE };
  return { text: `coverlay: internal error: ${stack}\n  ${hint}\n`, exitStatus: EXIT.FAILURE };
}

/**
 * Runs a command to its end: the number it returns is the exit status (nothing: 0); what it throws is printed. The
 * process ends by itself when nothing is left to wait for.
 */
export async function runCommand(json: boolean, command: () => Promise<number | undefined | void>): Promise<void> {
  try {
    process.exitCode = (await command()) ?? EXIT.OK;
  } catch (error) {
    const { text, exitStatus } = describeError(error, json);
    process.stderr.write(text);
    process.exitCode = exitStatus;
  }
}

/** Names that other nodes and programs chose must not command the terminal. `keep`: line ends of our own. */
function visible(text: string, keep: "" | "\n"): string {
  // oxlint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (sign) =>
    sign === keep ? sign : `\\x${sign.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

export function print(line: string): void {
  process.stdout.write(`${visible(line, "\n")}\n`);
}

/** What is done meanwhile: on standard error, so that the answer stays alone. */
export function printProgress(line: string): void {
  process.stderr.write(`${visible(line, "\n")}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value));
}

/** Left-aligned columns, two spaces apart; the last one is not padded. */
export function table(cells: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  const rows = cells.map((row) => row.map((cell) => visible(cell, "")));
  for (const row of rows) row.forEach((cell, at) => (widths[at] = Math.max(widths[at] ?? 0, cell.length)));
  return rows.map((row) => row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0))).join("  ")).join("\n");
}
