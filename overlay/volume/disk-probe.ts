/**
 * Whether the path to a disk is well: its first block is read past every cache. By a process of its own, because a disk that hangs holds
 * whoever asks it, and no thread of an overlay may wait for that.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { PROBE_LIMIT_MS } from "../lower/server/disk-fault.ts";

const BLOCK_BYTES = 4096;

/** Never rejects; false after `limitMs` as well, and where no process can be had. `command`: a seam for tests. */
export function pathIsWell(device: string, limitMs: number = PROBE_LIMIT_MS, command = "dd"): Promise<boolean> {
  return new Promise((resolve) => {
    const child = start(command, [`if=${device}`, `bs=${BLOCK_BYTES}`, "count=1", "iflag=direct", "status=none"]);
    if (child === null) return resolve(false);
    let bytes = 0;
    const end = (well: boolean): void => {
      clearTimeout(timer);
      resolve(well);
    };
    child.on("error", () => end(false));
    // One that waits for a hung disk ends when the disk answers, or fails.
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      child.stdout?.destroy();
      child.unref();
      end(false);
    }, limitMs);
    child.stdout?.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    child.on("close", (status) => end(status === 0 && bytes === BLOCK_BYTES));
  });
}

/** Where descriptors are all in use it has no pipe, and says "error". null: such as ENOMEM, for which Node.js throws. */
function start(command: string, words: readonly string[]): ChildProcess | null {
  try {
    return spawn(command, words, { stdio: ["ignore", "pipe", "ignore"] });
  } catch {
    return null;
  }
}
