/** Work of this process where it has no free descriptor (RLIMIT_NOFILE), as real as can be: they are all taken. */
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readdirSync } from "node:fs";

/** So many more than it has already. */
const ROOM = 64;

function nofile(...words: readonly string[]): string {
  return execFileSync("prlimit", ["--pid", String(process.pid), ...words], { encoding: "utf8" }).trim();
}

/** What `work` gives in its first turn; they are free again when this returns. `refusal`: what the next descriptor is refused with, to be looked at by the test. */
export function withoutDescriptors<T>(work: () => T): { readonly result: T; readonly refusal: string } {
  const before = nofile("--nofile", "--output=SOFT", "--noheadings");
  const taken: number[] = [];
  try {
    nofile(`--nofile=${Math.max(...readdirSync("/proc/self/fd").map(Number)) + ROOM}:`);
    const refusal = takeAll(taken);
    return { result: work(), refusal };
  } finally {
    for (const fd of taken) closeSync(fd);
    nofile(`--nofile=${before}:`);
  }
}

function takeAll(taken: number[]): string {
  try {
    for (;;) taken.push(openSync("/dev/null", "r"));
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}
