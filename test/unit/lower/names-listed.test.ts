/** The names of a directory that was there before its owner: listed once, and known from then on (hazard F32). */
import { mkdirSync, unlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon, type Native, STAT } from "../../../native/index.ts";
import { MAX_NAMES_TOLD } from "../../../overlay/lower/limits.ts";
import { createLocalLower, type LocalLower, type LocalLowerOptions } from "../../../overlay/lower/local/local.ts";
import { DIRECTORY_BYTES_MAX, LIST_AGAIN_MS, LISTED_MAX } from "../../../overlay/lower/local/names-listed.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { directoryPlace, type Place } from "../../compliance/lower-fixture.ts";
import { caller, name, RDWR } from "./remote-lab.ts";

let place: Place;
let nowMs = 1000;
/** Calls in the pool: a listing has one, but for some microtasks. */
let running = 0;
/** Of each directory, as it says. */
let directoryBytes: number | null = null;
const lowers: LocalLower[] = [];

beforeEach(() => {
  directoryBytes = null;
  place = directoryPlace();
});
afterEach(async () => {
  for (const lower of lowers.splice(0)) await lower.shutdown();
  await place.release();
});

function owner(options: Partial<LocalLowerOptions> = {}): LocalLower {
  const native = nativeAddon();
  const metadata = Object.fromEntries(
    Object.entries(native.pool.metadata).map(([called, call]: [string, (...given: unknown[]) => unknown]) => [
      called,
      async (...given: unknown[]): Promise<unknown> => {
        running += 1;
        try {
          return await call(...given);
        } finally {
          running -= 1;
        }
      },
    ]),
  ) as unknown as Native["pool"]["metadata"];
  const stat: Native["sync"]["stat"] = (fd, fields) => {
    const result = native.sync.stat(fd, fields);
    if (directoryBytes !== null) fields[STAT.SIZE] = directoryBytes;
    return result;
  };
  const watched = { ...native, sync: { ...native.sync, stat }, pool: { ...native.pool, metadata } };
  const how = { rootFd: place.rootFd, metadataCalls: "inline", log: silentLog, nowMs: () => nowMs } as const;
  const lower = createLocalLower({ native: watched, ...how, ...options });
  lowers.push(lower);
  return lower;
}

const at = (...parts: string[]): string => path.join(`/proc/self/fd/${place.rootFd}`, ...parts);

function make(dir: string, files: number): void {
  mkdirSync(at(dir), { recursive: true });
  for (let no = 0; no < files; no += 1) writeFileSync(at(dir, `f${no}`), "");
}

const idOf = async (lower: LocalLower, dir: string): Promise<FileId> => (await lower.lookup(lower.root, name(dir))).id;

/** Asks for its names, and again when a listing that began by that is over: whether they are known then. */
async function known(lower: LocalLower, id: FileId): Promise<boolean> {
  lower.namesSince(id, 0);
  for (let idle = 0; idle < 20; idle = running > 0 ? 0 : idle + 1) await new Promise(setImmediate);
  return lower.namesSince(id, 0) !== null;
}

it("are told from the second question on, without those of coverlay", async () => {
  make("dir", 3);
  writeFileSync(at(".coverlay.owner"), "");
  writeFileSync(at("file"), "");
  const lower = owner();
  for (const [id, names] of [
    [await idOf(lower, "dir"), ["f0", "f1", "f2"]],
    [lower.root, ["dir", "file"]],
  ] as const) {
    expect(lower.namesSince(id, 0)).toBeNull();
    while (lower.namesSince(id, 0) === null) await new Promise(setImmediate);
    const told = lower.namesSince(id, 0);
    expect(told?.names.map(String).sort()).toEqual(names);
    expect(told).toMatchObject({ all: true, gone: [] });
    expect(lower.isAbsent(id, name("none"))).toBe(true);
  }
});

it("are those with what is made and removed while they are listed", async () => {
  make("dir", 3);
  const lower = owner();
  const dir = await idOf(lower, "dir");
  const gone = await lower.lookup(dir, name("f1"));
  lower.namesSince(dir, 0);
  expect(running).toBe(1);
  const [made] = await Promise.all([lower.create(dir, name("made"), RDWR, 0o644, caller), lower.unlink(dir, name("f1"), gone.id)]);
  lower.close(made.handle);
  while (lower.namesSince(dir, 0) === null) await new Promise(setImmediate);
  expect(lower.namesSince(dir, 0)?.names.map(String).sort()).toEqual(["f0", "f2", "made"]);
});

it(`of ${MAX_NAMES_TOLD}: with one more they are not listed again before LIST_AGAIN_MS`, async () => {
  make("dir", MAX_NAMES_TOLD + 1);
  const lower = owner();
  const dir = await idOf(lower, "dir");
  expect(await known(lower, dir)).toBe(false);
  unlinkSync(at("dir", "f0"));
  nowMs += LIST_AGAIN_MS - 1;
  expect(await known(lower, dir)).toBe(false);
  nowMs += 1;
  expect(await known(lower, dir)).toBe(true);
  expect(lower.namesSince(dir, 0)?.names).toHaveLength(MAX_NAMES_TOLD);
});

it.each([
  [DIRECTORY_BYTES_MAX, true],
  [DIRECTORY_BYTES_MAX + 1, false],
])("of a directory of %i bytes are known: %s", async (bytes, areKnown) => {
  make("dir", 3);
  const lower = owner();
  const dir = await idOf(lower, "dir");
  directoryBytes = bytes;
  expect(await known(lower, dir)).toBe(areKnown);
});

it(`of ${LISTED_MAX} directories it is remembered that they were listed`, async () => {
  make("large", MAX_NAMES_TOLD + 1);
  for (let no = 0; no < LISTED_MAX; no += 1) make(`d${no}`, 0);
  const lower = owner();
  const large = await idOf(lower, "large");
  expect(await known(lower, large)).toBe(false);
  unlinkSync(at("large", "f0"));
  for (let no = 1; no < LISTED_MAX; no += 1) expect(await known(lower, await idOf(lower, `d${no}`))).toBe(true);
  expect(await known(lower, large)).toBe(false);
  expect(await known(lower, await idOf(lower, "d0"))).toBe(true);
  expect(await known(lower, large)).toBe(true);
});

it("are never listed where others change the directory past this process", async () => {
  make("dir", 1);
  const lower = owner({ shared: true });
  expect(await known(lower, await idOf(lower, "dir"))).toBe(false);
});

it("are not listed by an owner that has ended", async () => {
  make("dir", 1);
  const failed: unknown[] = [];
  const lower = owner({ log: { ...silentLog, debug: (fields) => void failed.push(fields) } });
  const dir = await idOf(lower, "dir");
  await lower.shutdown();
  expect(await known(lower, dir)).toBe(false);
  expect(failed).toEqual([]);
});

it("of a directory that is gone: nothing is known, and the owner ends in order", async () => {
  make("dir", 0);
  const lower = owner();
  const dir = await idOf(lower, "dir");
  await lower.rmdir(lower.root, name("dir"), dir);
  expect(await known(lower, dir)).toBe(false);
  await lower.shutdown();
});
