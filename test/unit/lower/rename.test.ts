/** rename(2) of the local lower: what it looks at before, and what of that it knows. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { directoryPlace, type Place } from "../../compliance/lower-fixture.ts";
import { caller, errnoOf, name, RDWR } from "./remote-lab.ts";

let place: Place;
const lowers: LocalLower[] = [];

beforeEach(() => {
  place = directoryPlace();
});
afterEach(async () => {
  for (const lower of lowers.splice(0)) await lower.shutdown();
  await place.release();
});

const at = (...parts: string[]): string => path.join(`/proc/self/fd/${place.rootFd}`, ...parts);

function owner(shared: boolean): LocalLower {
  const how = { rootFd: place.rootFd, metadataCalls: "inline", log: silentLog, shared } as const;
  const lower = createLocalLower({ native: nativeAddon(), ...how });
  lowers.push(lower);
  return lower;
}

interface Made {
  readonly dir: FileId;
  readonly file: FileId;
}

/** A directory with a file, both made by the lower: it knows all names there. */
async function made(lower: LocalLower): Promise<Made> {
  const dir = (await lower.mkdir(lower.root, name("dir"), 0o755, caller)).id;
  const { entry, handle } = await lower.create(dir, name("old"), RDWR, 0o644, caller);
  lower.close(handle);
  return { dir, file: entry.id };
}

it("to a name that is known not to be there is made at once, without the pool", async () => {
  const lower = owner(false);
  const { dir, file } = await made(lower);
  expect(lower.rename(dir, name("old"), dir, name("new"), 0, file, null)).toBeUndefined();
  expect((await lower.lookup(dir, name("new"))).id).toEqual(file);
  // And back: what the kernel has of that name is that it is not there.
  expect(lower.rename(dir, name("new"), dir, name("old"), 0, file, null)).toBeUndefined();
  expect(await errnoOf(async () => lower.lookup(dir, name("new")))).toBe(E.ENOENT);
});

it("to a name of which the caller knows a file that is not there is refused", async () => {
  const lower = owner(false);
  const { dir, file } = await made(lower);
  expect(await errnoOf(async () => lower.rename(dir, name("old"), dir, name("new"), 0, file, lower.root))).toBe(E.ESTALE);
  expect(readFileSync(at("dir", "old"), "utf8")).toBe("");
});

it("of another file than the caller knows is refused", async () => {
  const lower = owner(false);
  const { dir } = await made(lower);
  expect(await errnoOf(async () => lower.rename(dir, name("old"), dir, name("new"), 0, lower.root, null))).toBe(E.ESTALE);
});

it("replaces no file that others made past the lower where they may", async () => {
  const lower = owner(true);
  const { dir, file } = await made(lower);
  writeFileSync(at("dir", "new"), "of others");
  expect(await errnoOf(async () => lower.rename(dir, name("old"), dir, name("new"), 0, file, null))).toBe(E.ESTALE);
  expect(readFileSync(at("dir", "new"), "utf8")).toBe("of others");
});
