/**
 * How every command speaks: results on stdout, errors on stderr, one exit status. An error is one line that says what
 * was expected and found, and one that says what to do; with --json it is one JSON object. Only a defect of coverlay
 * itself shows a stack.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { visible, visibleInJson } from "../status/visible.ts";

export { EXIT };

export interface ErrorText {
  /** What goes to stderr, newline included. */
  readonly text: string;
  readonly exitStatus: number;
}

/** A command line that cannot be understood. */
export function usageError(message: string, hint: string): OperatingError {
  return new OperatingError(message, { code: "usage", hint, exitStatus: EXIT.FAILURE });
}

/** What a system call says of the machine or of a disk, by code: no defect of coverlay, whatever it was about to do. */
const machineHints: ReadonlyMap<unknown, string> = new Map([
  ["EMFILE", "The limit of open files of this process is too low: raise it (ulimit -n; LimitNOFILE= of a unit)."],
  ["ENFILE", "This machine has too many files open: end programs, or raise fs.file-max (sysctl)."],
  ["ENOMEM", "This machine has no memory left: end programs."],
  ["ENOSPC", "Make room there: df shows how much there is, df -i for how many files."],
  ["EDQUOT", "The quota there is used up: make room."],
  ["EROFS", "The file system there is mounted read-only, or has turned so: dmesg says why."],
  ["EIO", "The disk there fails: dmesg says how."],
]);

/** null: a defect of coverlay. */
function operatingError(error: unknown): OperatingError | null {
  if (error instanceof OperatingError) return error;
  const hint = error instanceof Error && "syscall" in error && "code" in error ? machineHints.get(error.code) : undefined;
  if (hint !== undefined) return new OperatingError((error as Error).message, { code: "machine", hint });
  // NotBuilt of native/index.ts, which is not loaded for this.
  if (!(error instanceof Error) || !("code" in error) || error.code !== "not-built" || !("hint" in error)) return null;
  return new OperatingError(error.message, { code: "not-built", hint: String(error.hint) });
}

/** The words and the status of any thrown value. `json`: one object {"error","code","hint"} instead of lines. */
export function describeError(error: unknown, json: boolean): ErrorText {
  const operating = operatingError(error);
  if (operating !== null) {
    const { message, code, hint, exitStatus } = operating;
    if (json) return { text: `${jsonText({ error: message, code, hint })}\n`, exitStatus };
    return { text: `coverlay: ${visible(message, "\n")}\n  ${visible(hint, "\n")}\n`, exitStatus };
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const message = error instanceof Error ? error.message : String(error);
  const hint = "This is a defect of coverlay: please report it with these lines.";
  if (json) return { text: `${jsonText({ error: message, code: "internal", hint, stack })}\n`, exitStatus: EXIT.FAILURE };
  return { text: `coverlay: internal error: ${visible(stack, "\n")}\n  ${hint}\n`, exitStatus: EXIT.FAILURE };
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

/**
 * An output that takes no more words ends no command: what it does is not done with its words, and would be left half done. A reader that has seen
 * enough (`| head`) is no error, and the status says how the command went. An answer that a full disk did not take is a failure, which is said once.
 * What does nothing but show ends in both cases (watch.ts).
 */
export function outliveReaders(
  streams: readonly NodeJS.EventEmitter[] = [process.stdout, process.stderr],
  failed: (error: NodeJS.ErrnoException) => void = answerNotTaken,
): void {
  for (const stream of streams) {
    let isToldOf = false;
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE" && stream !== process.stderr && !isToldOf) {
        isToldOf = true;
        failed(error);
      }
      for (const hear of readerGone) hear();
    });
  }
}

function answerNotTaken({ message }: Error): void {
  const hint = "The command goes on all the same. Make room where its answer goes, and look how it went.";
  const lost = new OperatingError(`the answer could not be written: ${message}`, { code: "output-failed", hint });
  process.stderr.write(describeError(lost, process.argv.includes("--json")).text);
  // The command sets its own status when it ends, which is later.
  process.once("exit", (status) => {
    if (status === EXIT.OK) process.exitCode = EXIT.FAILURE;
  });
}

/** They hear it when a reader is gone. */
export const readerGone: Set<() => void> = new Set();

/** The same in JSON, where a reader gets each sign back. */
export function jsonText(value: unknown): string {
  return visibleInJson(JSON.stringify(value));
}

/** The lines of a text of our own, in which others may have chosen names. */
export function visibleLines(text: string): string[] {
  return visible(text, "\n").split("\n");
}

export function print(line: string): void {
  process.stdout.write(`${visible(line, "\n")}\n`);
}

/** What is done meanwhile: on standard error, so that the answer stays alone. */
export function printProgress(line: string): void {
  process.stderr.write(`${visible(line, "\n")}\n`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${jsonText(value)}\n`);
}

/** Left-aligned columns, two spaces apart; the last one is not padded. */
export function table(cells: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  const rows = cells.map((row) => row.map((cell) => visible(cell, "")));
  for (const row of rows) row.forEach((cell, at) => (widths[at] = Math.max(widths[at] ?? 0, cell.length)));
  return rows.map((row) => row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0))).join("  ")).join("\n");
}
