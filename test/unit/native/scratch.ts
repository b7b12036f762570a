/**
 * A directory of its own for each test of the addon, and a list of what must be undone after it, last
 * first, failing or not.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach } from "vitest";
import { HANDLE_BUFFER_BYTES, nativeAddon, type Native, STAT } from "../../../native/index.ts";

export const native: Native = nativeAddon();
export const errno: typeof constants.errno = constants.errno;
export const isRoot: boolean = process.getuid?.() === 0;

/** <fcntl.h> and friends, on x86-64 and arm64 where Node's constants lack them. */
export const O_PATH = 0o10000000;
export const AT_REMOVEDIR = 0x200;
export const MNT_DETACH = 2;

export interface Scratch {
  /** Absolute path of the directory of the running test. */
  dir: string;
  /** The directory, open. */
  fd: number;
  /** Runs after the test. */
  later(undo: () => void): void;
}

/** Empty still: `begin` makes the directory, `end` undoes all. */
function makeScratch(): Scratch & { readonly begin: () => void; readonly end: () => void } {
  const undos: (() => void)[] = [];
  const scratch: Scratch = { dir: "", fd: -1, later: (undo) => undos.push(undo) };
  const begin = (): void => {
    scratch.dir = mkdtempSync(path.join(tmpdir(), "coverlay-native-"));
    const dir = scratch.dir;
    undos.push(() => rmSync(dir, { recursive: true, force: true }));
    scratch.fd = opened(scratch, native.open(dir, 0o200000, 0));
  };
  const end = (): void => {
    const failures: unknown[] = [];
    for (const undo of undos.splice(0).reverse()) {
      try {
        undo();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, "clean-up failed");
  };
  return Object.assign(scratch, { begin, end });
}

export function useScratch(): Scratch {
  const scratch = makeScratch();
  beforeEach(scratch.begin);
  afterEach(scratch.end);
  return scratch;
}

/** For tests that run at the same time: each has its own. */
export async function withScratch(run: (scratch: Scratch) => Promise<void>): Promise<void> {
  const scratch = makeScratch();
  scratch.begin();
  try {
    await run(scratch);
  } finally {
    scratch.end();
  }
}

/** A descriptor that a call returned, closed after the test. */
export function opened(scratch: Scratch, fd: number): number {
  if (fd < 0) throw new Error(`expected a descriptor, found errno ${-fd}`);
  scratch.later(() => native.sync.close(fd));
  return fd;
}

export function bytes(text: string): Buffer {
  return Buffer.from(text);
}

export function newStat(): Float64Array {
  return new Float64Array(STAT.FIELDS);
}

export function newHandle(): Buffer {
  return Buffer.alloc(HANDLE_BUFFER_BYTES);
}

/** One field of a stat that was filled. */
export function field(stat: Float64Array, index: number): number {
  const value = stat[index];
  if (value === undefined) throw new Error(`no field ${index}`);
  return value;
}
