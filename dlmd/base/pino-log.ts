/**
 * The log of a program: a line for people on stderr, and JSON lines in a file where one is named.
 */
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

/** `jsonFile` null: none. Throws if that file cannot be opened. */
export function createPinoLog(level: LogLevel, jsonFile: string | null): Log {
  const readable = { write: (line: string): void => void process.stderr.write(readableLine(line)) };
  const streams: pino.StreamEntry[] = [{ level, stream: readable }];
  // Synchronous: the last lines before an exit are those that matter.
  if (jsonFile !== null) streams.push({ level, stream: pino.destination({ dest: jsonFile, sync: true }) });
  const options: pino.LoggerOptions = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  return pino(options, pino.multistream(streams));
}
