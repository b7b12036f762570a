/** Programs that work in the mount run as children with a time limit: this process serves it, and must never wait for it itself. */
import { spawn } from "node:child_process";

export interface ChildResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
}

/** Both outputs together. A child that exceeds the limit is killed, and its signal says so. */
export function runChild(command: string, args: readonly string[], cwd: string, timeoutMs = 60_000, input = ""): Promise<ChildResult> {
  return new Promise((resolve, reject) => {
    // Not with spawn's own `cwd`: this process is blocked until the child has changed its directory, which asks this process.
    const enter = ["-c", 'cd "$0" && exec "$@"', cwd, command, ...args];
    const child = spawn("/bin/sh", enter, { cwd: "/", timeout: timeoutMs, killSignal: "SIGKILL" });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString("utf8")));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString("utf8")));
    child.on("error", reject);
    child.on("close", (status, signal) => resolve({ status, signal, output }));
    child.stdin.end(input);
  });
}

/** A Python program; its assertions are the test's. Gives what it printed. */
export async function python(source: string, cwd: string, timeoutMs?: number): Promise<string> {
  const preamble = "import errno,fcntl,mmap,os,signal,stat,struct,subprocess,sys,time\n";
  const { status, signal, output } = await runChild("python3", ["-c", preamble + source], cwd, timeoutMs);
  if (status !== 0) throw new Error(`python3 ended with ${status ?? signal}:\n${output}`);
  return output.trim();
}

export async function shell(source: string, cwd: string, timeoutMs?: number): Promise<string> {
  const { status, signal, output } = await runChild("bash", ["--norc", "-euc", source], cwd, timeoutMs);
  if (status !== 0) throw new Error(`bash ended with ${status ?? signal}:\n${output}`);
  return output.trim();
}
