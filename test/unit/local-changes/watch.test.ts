/** The watch itself, over a real directory; the locks are played. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { FSWatcher } from "chokidar";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type Log, silentLog } from "../../../dlmd/base/log.ts";
import type { LockHandlers, Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { nativeAddon } from "../../../native/index.ts";
import { liesInside, WATCH_BEGIN_MS, watchLocalChanges } from "../../../overlay/local-changes/watch.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import { directoryPlace, type Place } from "../../compliance/lower-fixture.ts";
import { idOf } from "../lower/id-of.ts";

const listed: string[] = [];
vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof import("node:fs/promises")>();
  const readdir = (directory: string): Promise<string[]> => {
    listed.push(directory);
    return real.readdir(directory);
  };
  return { ...real, readdir };
});

let place: Place;
let lower: LocalLower | null = null;
let asked: string[] = [];
let told: (string | null)[] = [];
/** Names that the owner was told to forget; null: all of a directory. */
let lastLocal: { readonly forgotten: (string | null)[] } | null = null;
const tell = (unwatched: string | null): void => void told.push(unwatched);

/** Grants at once. */
const lockspace = {
  name: "played",
  createLock: (resource: string, { ast }: LockHandlers) => {
    const lock = {
      request: (mode: Mode) => {
        asked.push(`${mode === Mode.EX ? "EX" : "PR"} ${resource}`);
        ast(lock as never, "granted");
      },
      unlock: () => undefined,
    };
    return lock as never;
  },
  batch: (make) => make(),
  whenOver: () => () => undefined,
} satisfies Lockspace as Lockspace;

const file = (name: string): string => path.join(place.path, name);
const resource = (name: string): string => {
  const { ino, generation } = idOf(file(name), "tmpfs");
  return `i${ino}.${generation}`;
};

async function watched(log: Log = silentLog): Promise<LocalLower> {
  const local = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
  await local.openOrphans(false);
  const forgetNames = local.forgetNames.bind(local);
  const forgotten: (string | null)[] = [];
  local.forgetNames = (id, name): void => {
    forgetNames(id, name);
    forgotten.push(name === null ? null : String(name));
  };
  lastLocal = { forgotten };
  lower = await watchLocalChanges({ native: nativeAddon(), local, rootFd: place.rootFd, directory: place.path, lockspace, tell, log });
  return lower;
}

beforeEach(() => {
  place = directoryPlace("/dev/shm");
  asked = [];
  told = [];
});
afterEach(async () => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  await lower?.shutdown();
  lower = null;
  await place.release();
});

it("tells of a file of another program, and not of its own, nor of what belongs to coverlay", async () => {
  mkdirSync(file("d"));
  writeFileSync(file("d/f"), "before");
  const served = await watched();
  const { entry, handle } = await served.create(served.root, Buffer.from("own"), 2, 0o644, { uid: 0, gid: 0, umask: 0 });
  await served.write(handle, Buffer.from("x"), 0, false);
  served.close(handle);
  writeFileSync(file(".coverlay.orphans/x"), "hidden");
  writeFileSync(file("d/f"), "afterwards");
  await vi.waitFor(() => expect(asked).toContain(`EX ${resource("d/f")}`), { timeout: 20_000, interval: 2 });
  expect(asked).not.toContain(`EX i${entry.id.ino}.${entry.id.generation}`);
  expect(asked).not.toContain(`EX ${resource(".coverlay.orphans/x")}`);
});

it("all that is watched is looked at when too much has changed, whatever its name begins with", () => {
  expect(["", "..data", "..data/below", "a/..b", "..", "../beside"].map(liesInside)).toEqual([true, true, true, true, false, false]);
});

it("a directory that is made later is watched as well", async () => {
  await watched();
  mkdirSync(file("new/below"), { recursive: true });
  await vi.waitFor(() => expect(asked).toContain(`EX ${resource("new/below")}`), { timeout: 20_000, interval: 2 });
  writeFileSync(file("new/below/f"), "x");
  await vi.waitFor(() => expect(asked).toContain(`EX ${resource("new/below/f")}`), { timeout: 20_000, interval: 2 });
});

it("does not watch what is mounted below", async () => {
  mkdirSync(file("other"));
  execFileSync("mount", ["-t", "tmpfs", "none", file("other")]);
  try {
    mkdirSync(file("other/inside"));
    const added = vi.fn<(file: string) => void>();
    const chokidar = await import("chokidar");
    const emit = vi.spyOn(chokidar.FSWatcher.prototype, "emitWithAll");
    await watched();
    for (const [event, [path]] of emit.mock.calls) if (event === "addDir") added(path);
    expect(added).toHaveBeenCalledWith(place.path);
    expect(added).not.toHaveBeenCalledWith(file("other/inside"));
  } finally {
    execFileSync("umount", [file("other")]);
  }
});

it("after WATCH_BEGIN_MS the volume is served without its watch, and the log says so", async () => {
  expect(WATCH_BEGIN_MS).toBe(60_000);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  // Its first look at the directory does not come back.
  const chokidar = await import("chokidar");
  const add = vi.spyOn(chokidar.FSWatcher.prototype, "add").mockReturnThis();
  const warned: string[] = [];
  const begun = watched({ ...silentLog, warn: (_, words) => void warned.push(words) });
  await vi.waitFor(() => expect(vi.getTimerCount()).toBeGreaterThan(0), { interval: 1 });
  await vi.advanceTimersByTimeAsync(WATCH_BEGIN_MS);
  await begun;
  expect(warned).toEqual([expect.stringContaining("is not watched yet")]);
  expect(told).toEqual([null, `${place.path} is still being read, and not watched yet`]);
  vi.useRealTimers();
  (add.mock.contexts[0] as FSWatcher).emit("ready");
  await vi.waitFor(() => expect(told.at(-1)).toBeNull(), { interval: 1 });
  expect(told).toHaveLength(3);
});

it("says what is not watched, once for each error, and how it is mended", async () => {
  const { FSWatcher: Watcher } = await import("chokidar");
  const add = vi.spyOn(Watcher.prototype, "add");
  const failed: string[] = [];
  await watched({ ...silentLog, error: (_, words) => void failed.push(words) });
  const watcher = add.mock.contexts[0] as FSWatcher;
  const noSpace = Object.assign(new Error("ENOSPC: no space left on device, watch"), { code: "ENOSPC" });
  watcher.emit("error", noSpace);
  watcher.emit("error", noSpace);
  expect([failed.length, told.length]).toEqual([1, 2]);
  expect(told.at(-1)).toMatch(/^a part of .* is not watched: ENOSPC.*max_user_watches, and mount again\.$/);
  await lower?.shutdown();
  lower = null;
  expect(told.at(-1)).toBeNull();
});

it("a name that is not UTF-8, made past the mount, is there for it", async () => {
  const served = await watched();
  const name = Buffer.from([0x63, 0x61, 0x66, 0xe9]);
  const { id } = await served.mkdir(served.root, Buffer.from("d"), 0o755, { uid: 0, gid: 0, umask: 0 });
  // It has appeared, and is listed once more for that: what is forgotten of it later is not for that.
  await vi.waitFor(() => expect(listed.filter((directory) => directory === file("d"))).toHaveLength(2), { timeout: 20_000, interval: 2 });
  const { forgotten } = lastLocal as { forgotten: (string | null)[] };
  const look = async (): Promise<unknown> => served.lookup(id, name);
  forgotten.length = 0;
  await expect(look()).rejects.toMatchObject({ code: "ENOENT" });
  const isSeen = (): void => {
    writeFileSync(Buffer.concat([Buffer.from(file("d/")), name]), "x");
    expect(forgotten.length).toBeGreaterThan(0);
  };
  await vi.waitFor(isSeen, { timeout: 20_000, interval: 20 });
  expect(await look()).toMatchObject({ id: { ino: expect.anything() as number } });
});

it("says that what other programs change below a name that is not UTF-8 is not noticed", async () => {
  mkdirSync(Buffer.concat([Buffer.from(file("caf")), Buffer.from([0xe9])]));
  await watched();
  await vi.waitFor(() => expect(told.at(-1)).toMatch(/is not watched: the name caf\uFFFD is not UTF-8/));
});
