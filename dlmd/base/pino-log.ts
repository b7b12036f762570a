/**
 * The log of a program: a line for people on stderr, and JSON lines in a file where one is named.
 */
import { openSync, writeSync } from "node:fs";
import { pino } from "pino";
import type { Log } from "./log.ts";

export const logLevels = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof logLevels)[number];

function value(text: unknown): string {
  return typeof text === "string" && /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}

/** One JSON line of pino as a line to read: time, level, message, fields. */
export function readableLine(json: string): string {
  const { time, level, msg, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const words = Object.entries(fields).map(([name, field]) => ` ${name}=${value(field)}`);
  return `${String(time).slice(11, 23)} ${String(level).padEnd(5)} ${String(msg)}${words.join("")}\n`;
}

/** Lines that go to the file at once; those that a full disk does not take are left out, and told on stderr. */
function lineFile(file: string): { write(line: string): void } {
  const fd = openSync(file, "a", 0o600);
  let leftOut = 0;
  return {
    write(line) {
      try {
        // The line before may have been cut off.
        writeSync(fd, leftOut === 0 ? line : `\n${line}`);
        leftOut = 0;
      } catch (error) {
        leftOut += 1;
        if (leftOut === 1) process.stderr.write(`the log ${file} cannot be written: ${(error as Error).message}\n`);
      }
    },
  };
}

/** `jsonFile` null: none. Throws if that file cannot be opened. */
export function createPinoLog(level: LogLevel, jsonFile: string | null): Log {
  const readable = { write: (line: string): void => void process.stderr.write(readableLine(line)) };
  const streams: pino.StreamEntry[] = [{ level, stream: readable }];
  // Synchronous: the last lines before an exit are those that matter.
  if (jsonFile !== null) streams.push({ level, stream: lineFile(jsonFile) });
  // A log on a full disk, or one that nobody reads any more, ends no program.
  if (process.stderr.listenerCount("error") === 0) process.stderr.on("error", () => undefined);
  const options: pino.LoggerOptions = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  return pino(options, pino.multistream(streams));
}
