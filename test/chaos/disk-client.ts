/** The other side of volatile-disk.ts: starts it, commands it, ends it. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync, rmdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { dist } from "../built.ts";
import type { DiskAnswer, DiskCommand } from "./volatile-disk.ts";

export interface VolatileDisk {
  /** For `coverlay lab up --image`. */
  readonly image: string;
  /** Rejects with the reason if the command cannot be done, or when the disk has ended. */
  command(command: DiskCommand): Promise<DiskAnswer>;
  /** Unmounts it; its loop devices are gone by then. */
  end(): Promise<void>;
}

interface Waiting {
  readonly resolve: (line: string) => void;
  readonly reject: (error: Error) => void;
}

/** `dir` exists; the disk's contents are kept there in a sparse file. */
export async function startVolatileDisk(dir: string, bytes: number): Promise<VolatileDisk> {
  const mountpoint = path.join(dir, "volatile");
  const backing = path.join(dir, "backing.img");
  mkdirSync(mountpoint);
  const fd = openSync(backing, "wx", 0o600);
  ftruncateSync(fd, bytes);
  closeSync(fd);
  // Of no node of the lab, and in a session of its own: it goes when its input ends, and not before.
  const program = path.join(dist, "test/chaos/volatile-disk.js");
  const child = spawn(process.execPath, [program, mountpoint, backing, String(bytes)], { detached: true, stdio: ["pipe", "pipe", "pipe"] });
  const ask = conversation(child);
  await ask(null); // "ready"
  return {
    image: path.join(mountpoint, "disk"),
    command: async (command) => {
      const answer = JSON.parse(await ask(JSON.stringify(command))) as DiskAnswer;
      if (answer.error !== undefined) throw new Error(`volatile disk: ${JSON.stringify(command)}: ${answer.error}`);
      return answer;
    },
    end: async () => {
      const ended = new Promise<void>((resolve) => (child.exitCode === null ? child.once("exit", () => resolve()) : resolve()));
      child.stdin?.end();
      await ended;
      rmdirSync(mountpoint);
      rmSync(backing);
    },
  };
}

/** Sends a line (null: none) and waits for one. */
function conversation(child: ChildProcess): (line: string | null) => Promise<string> {
  const waiting: Waiting[] = [];
  let stderr = "";
  let ended: Error | null = null;
  child.stderr?.on("data", (chunk: Buffer) => (stderr += chunk.toString("utf8")));
  child.stdin?.on("error", () => undefined); // It ended, which is told below.
  if (child.stdout !== null) createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()?.resolve(line));
  child.on("close", (status, signal) => {
    ended = new Error(`the volatile disk has ended with ${status ?? signal}: ${stderr}`);
    for (const { reject } of waiting.splice(0)) reject(ended);
  });
  return (line) =>
    new Promise((resolve, reject) => {
      if (ended !== null) return reject(ended);
      waiting.push({ resolve, reject });
      if (line !== null) child.stdin?.write(`${line}\n`);
    });
}
