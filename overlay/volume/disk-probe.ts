/**
 * Whether the path to a disk is well: its first block is read past every cache. By a process of its own, because a disk that hangs holds
 * whoever asks it, and no thread of an overlay may wait for that.
 */
import { spawn } from "node:child_process";
import { PROBE_LIMIT_MS } from "../lower/server/disk-fault.ts";

const BLOCK_BYTES = 4096;

/** Never rejects; false after `limitMs` as well. `command`: a seam for tests. */
export function pathIsWell(device: string, limitMs: number = PROBE_LIMIT_MS, command = "dd"): Promise<boolean> {
  return new Promise((resolve) => {
    const words = [`if=${device}`, `bs=${BLOCK_BYTES}`, "count=1", "iflag=direct", "status=none"];
    const child = spawn(command, words, { stdio: ["ignore", "pipe", "ignore"] });
    let bytes = 0;
    const end = (well: boolean): void => {
      clearTimeout(timer);
      resolve(well);
    };
    // One that waits for a hung disk ends when the disk answers, or fails.
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      child.stdout.destroy();
      child.unref();
      end(false);
    }, limitMs);
    child.stdout.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    child.on("error", () => end(false));
    child.on("close", (status) => end(status === 0 && bytes === BLOCK_BYTES));
  });
}
