/**
 * A look at a device whose disk hangs outlives what has started it (look-disk.ts): SIGKILL waits for the disk, too. As long as there is one, no
 * further one is started, or each question of another node would leave one more.
 */
import { readFileSync, readdirSync } from "node:fs";
import { statFields } from "../../dlmd/base/proc-stat.ts";

/** Its process id; null: there is none. `words`: its command line before the limit and the process that has started it. */
export function findLeftLook(words: readonly string[]): number | null {
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const found = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      if (words.some((word, at) => found[at] !== word)) continue;
      if (!isOwn(pid)) continue;
      const starter = found[words.length + 1];
      const parent = statFields(readFileSync(`/proc/${pid}/stat`, "latin1"))[1];
      if (parent !== starter) return Number(pid);
    } catch (error) {
      // It has ended meanwhile.
      const { code = "" } = error as NodeJS.ErrnoException;
      if (!["ENOENT", "ESRCH"].includes(code)) throw error;
    }
  }
  return null;
}

/**
 * Root's, or of the user who looks now: anybody may run a program with these words. By its real user: who runs a program that is root's by its mode
 * chooses the words, too, and /proc/PID is root's for each program that cannot be dumped.
 */
function isOwn(pid: string): boolean {
  const uid = Number(/^Uid:\t(\d+)\t/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]);
  return uid === 0 || uid === process.getuid?.();
}
