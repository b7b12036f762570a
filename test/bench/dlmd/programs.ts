/** Programs of the dlmd bench that run inside the nodes' network namespaces. */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { must } from "../../../overlay/lab/command.ts";
import { decodeLoadValues, loadValue } from "../load.ts";

/** The longest single one. */
const PROGRAM_TIMEOUT_MS = 120_000;

export const inside = (namespace: string, words: readonly string[]): string[] => ["netns", "exec", namespace, ...words];

/** A program that runs until it is ended; resolves with its first line. */
export async function startProgram(namespace: string, words: readonly string[]): Promise<{ child: ChildProcess; line: string }> {
  const child = spawn("ip", inside(namespace, words), { stdio: ["ignore", "pipe", "inherit"] });
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).once("line", resolve);
    child.once("error", reject);
    child.once("close", (status) => reject(new Error(`${words.join(" ")} ended with ${status} and said nothing`)));
  });
  return { child, line };
}

export async function endProgram(child: ChildProcess): Promise<void> {
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await closed;
}

/** What a program printed as "name value" lines. */
export async function runInside(namespace: string, words: readonly string[]): Promise<Readonly<Record<string, number>>> {
  return decodeLoadValues(await must("ip", inside(namespace, words), { timeoutMs: PROGRAM_TIMEOUT_MS }));
}

export interface TripEnd {
  readonly namespace: string;
  /** Before the words of its command. */
  readonly prefix: readonly string[];
}

/** The median round trip in us between two namespaces, with `program` (tcp-peer or udp-peer) as both ends. */
export async function roundTripUs(program: string, server: TripEnd, address: string, client: TripEnd, count: number): Promise<number> {
  const { child, line } = await startProgram(server.namespace, [...server.prefix, process.execPath, program, "serve", address]);
  try {
    const port = line.split(" ")[1] ?? "";
    const values = await runInside(client.namespace, [...client.prefix, process.execPath, program, "ping", address, port, String(count)]);
    return loadValue(values, "medianNs") / 1000;
  } finally {
    await endProgram(child);
  }
}
