/** umount --all: what one dlmd serves goes, side by side; what stays is named, and keeps no other. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { MountEntry } from "../../../dlmd/base/mount-table.ts";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { type MountRecord, type RecordFile, mountRecordFiles } from "../../../overlay/volume/mount-record.ts";
import type { Waiter } from "../../../overlay/volume/mount-waiter.ts";
import { type UnmountAllPort, unmountAll } from "../../../overlay/volume/unmount-all.ts";

let dir = "";
let runDir = "";
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-all-"));
  mkdirSync(path.join(dir, "run"));
  symlinkSync(path.join(dir, "run"), path.join(dir, "var-run"));
  runDir = path.join(dir, "run");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Served by this process, which runs. */
const record = (mountPoint: string, more: Partial<MountRecord> = {}): MountRecord => ({
  pid: process.pid,
  startTime: startTimeOf(process.pid) ?? "",
  source: "/dev/x",
  mountPoint,
  runDir,
  ...more,
});
const recordFile = (name: string, of: MountRecord | null): RecordFile<MountRecord> => ({ file: `/records/${name}.json`, name, record: of });
const waiterFile = (mountPoint: string): RecordFile<Waiter> => ({
  file: "/records/w",
  name: "w",
  record: { ...record(mountPoint), logFile: "/log" },
});
const entry = (device: string, mountPoint: string, type = "fuse.clustered"): MountEntry => ({
  mountId: 1,
  device,
  root: "/",
  mountPoint,
  options: [],
  type,
  source: "/dev/x",
  superOptions: [],
});

interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

function deferred(): Deferred {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}

interface Played extends Omit<UnmountAllPort, "tell" | "table" | "records"> {
  mounts: MountEntry[];
  files: RecordFile<MountRecord>[];
  steps: string[];
}

/** An unmount takes the mount, and its overlay, away. */
function machine(mounts: MountEntry[], files: RecordFile<MountRecord>[]): Played {
  const played: Played = {
    mounts,
    files,
    steps: [],
    waiters: () => [],
    endWaiter: () => Promise.resolve(null),
    unmount(place) {
      played.steps.push(`unmount ${place}`);
      const gone = new Set(played.mounts.filter(({ mountPoint }) => mountPoint === place).map(({ device }) => device));
      played.mounts = played.mounts.filter(({ mountPoint }) => mountPoint !== place);
      played.files = played.files.filter(({ name }) => !gone.has(name));
      return Promise.resolve(true);
    },
    waitForRelease({ mountPoint, device }) {
      played.steps.push(`released ${mountPoint} ${device}`);
      return Promise.resolve();
    },
  };
  return played;
}

async function all(played: Played, more: Partial<UnmountAllPort> = {}, of: string = runDir): Promise<string[]> {
  const tell = (line: string): void => void played.steps.push(line.split("\n")[0] ?? "");
  return unmountAll(of, { ...played, table: () => played.mounts, records: () => played.files, tell, ...more });
}

test("what that dlmd serves is unmounted, by whatever path its run directory is named; nothing else is", async () => {
  const elsewhere = record("/other", { runDir: path.join(dir, "elsewhere") });
  const played = machine(
    [entry("0:1", "/a"), entry("0:2", "/b"), entry("0:3", "/other"), entry("0:4", "/plain", "ext4"), entry("0:5", "/dead")],
    [
      recordFile("0:1", record("/a", { runDir: `${runDir}/` })),
      recordFile("0:2", record("/b", { runDir: path.join(dir, "var-run") })),
      recordFile("0:3", elsewhere),
      recordFile("0:5", record("/dead", { startTime: "1" })),
    ],
  );
  expect([await all(played, {}, `${dir}/var-run/`), played.steps]).toEqual([[], ["unmount /a", "unmount /b"]]);
});

test("a mount that is paused stays, and is told; its dlmd may stop", async () => {
  const played = machine(
    [entry("0:1", "/a"), entry("0:2", "/b")],
    [recordFile("0:1", record("/a", { paused: true })), recordFile("0:2", record("/b"))],
  );
  expect(await all(played)).toEqual([]);
  expect(played.steps).toEqual([`/a stays: its process ${process.pid} waits for dlmd to be restarted`, "unmount /b"]);
  expect(played.mounts.map(({ mountPoint }) => mountPoint)).toEqual(["/a"]);
});

test("an overlay that is mounted here no more is waited for; one that stays is left", async () => {
  const played = machine([], [recordFile("0:1", record("/lazy")), recordFile("0:2", record("/held"))]);
  const still = new OperatingError("/held: held by process 7", { code: "still-releasing", hint: "End it." });
  const { waitForRelease } = played;
  const left = await all(played, {
    waitForRelease: (mount, of) => (mount.device === "0:2" ? Promise.reject(still) : (waitForRelease?.(mount, of) ?? Promise.resolve())),
  });
  expect(left).toEqual(["/held"]);
  expect(played.steps).toEqual([
    expect.stringMatching(/^\/lazy is not mounted here, but its overlay \(process \d+\) has not released \/dev\/x yet/),
    "released /lazy 0:1",
    expect.stringMatching(/^\/held is not mounted here/),
    "/held: held by process 7",
  ]);
  const lazy = machine([], [recordFile("0:1", record("/lazy"))]);
  expect([await all(lazy, { waitForRelease: null }), lazy.steps]).toEqual([[], []]);
});

test("a slow place takes no time from the others, and is waited for by what it lies in", async () => {
  const places = ["/a", "/a/b", "/a/b/c", "/ab", "/d"];
  const played = machine(
    places.map((place, at) => entry(`0:${at}`, place)),
    places.map((place, at) => recordFile(`0:${at}`, record(place))),
  );
  const { unmount } = played;
  const { promise: slow, resolve: goOn } = deferred();
  const { promise: others, resolve: otherDone } = deferred();
  const ended = all(played, {
    unmount: async (place) => {
      if (place === "/a/b/c") await slow;
      const done = await unmount(place);
      if (played.steps.length === 2) otherDone();
      return done;
    },
  });
  await others;
  expect(played.steps).toEqual(["unmount /ab", "unmount /d"]);
  goOn();
  expect([await ended, played.steps.slice(2)]).toEqual([[], ["unmount /a/b/c", "unmount /a/b", "unmount /a"]]);
});

test("one that is in use is left, and not waited for; so is one on which another mount lies", async () => {
  const played = machine(
    [entry("0:1", "/busy"), entry("0:2", "/under"), entry("0:3", "/free")],
    [1, 2, 3].map((at) => recordFile(`0:${at}`, record(`/${at}`))),
  );
  const { unmount } = played;
  const left = await all(played, {
    unmount: (place) => (place === "/busy" ? Promise.resolve(false) : place === "/under" ? Promise.resolve(true) : unmount(place)),
  });
  expect([left, played.steps]).toEqual([
    ["/busy", "/under"],
    ["unmount /free", `/under is still mounted, served by process ${process.pid}`],
  ]);
});

test("one whose unmount has failed while it was released is not waited for again", async () => {
  const played = machine([entry("0:1", "/a")], [recordFile("0:1", record("/a"))]);
  const unmount = (): Promise<boolean> => ((played.mounts = []), Promise.resolve(false));
  expect([await all(played, { unmount }), played.steps]).toEqual([["/a"], []]);
});

test("waiters are ended at once, and what one has mounted at the last moment is unmounted", async () => {
  const played = machine([], []);
  const { promise: both, resolve: bothBegun } = deferred();
  let begun = 0;
  const left = await all(played, {
    waiters: () => [waiterFile("/late"), waiterFile("/stays")],
    endWaiter: async (waiter) => {
      begun += 1;
      if (begun === 2) bothBegun();
      await both;
      if (waiter.mountPoint === "/stays") throw new OperatingError("it does not end", { code: "still-waiting", hint: "Kill it." });
      played.mounts.push(entry("0:1", "/late"));
      played.files.push(recordFile("0:1", record("/late")));
      return waiter;
    },
  });
  expect(left).toEqual(["/stays"]);
  expect(new Set(played.steps)).toEqual(
    new Set([`process ${process.pid} waited in the background to mount /dev/x at /late: it has ended`, "it does not end", "unmount /late"]),
  );
});

test("what is damaged, or fails without words, keeps no other", async () => {
  const played = machine(
    [entry("0:1", "/a"), entry("0:2", "/b")],
    [recordFile("0:1", record("/a")), recordFile("0:2", record("/b")), recordFile("0:9", null)],
  );
  const { unmount } = played;
  const left = await all(played, {
    waiters: () => [{ file: "/records/w.waiter", name: "w", record: null }],
    unmount: (place) => (place === "/a" ? Promise.reject(new TypeError("broken")) : unmount(place)),
  });
  expect(new Set(left)).toEqual(new Set(["/records/w.waiter", "/records/0:9.json", "/a"]));
  expect(played.steps).toContain("unmount /b");
  expect(played.steps).toContain("/a: TypeError: broken");
});

test("records are read one by one: a damaged one is known as such", () => {
  const texts = {
    "0:1.json": JSON.stringify(record("/a")),
    "0:2.json": '{"pid":',
    "0:3.json": "null",
    "0:4.json": '{"pid":"1","startTime":"1","source":"s","mountPoint":"/m","runDir":"/r"}',
    "x.waiter": "{}",
  };
  for (const [name, text] of Object.entries(texts)) writeFileSync(path.join(dir, name), text);
  mkdirSync(path.join(dir, "0:5.json"));
  const seen = mountRecordFiles(dir).map(({ name, record: of }) => [name, of?.mountPoint ?? null]);
  expect(new Map(seen as [string, string | null][])).toEqual(
    new Map([
      ["0:1", "/a"],
      ["0:2", null],
      ["0:3", null],
      ["0:4", null],
      ["0:5", null],
    ]),
  );
  expect(mountRecordFiles(path.join(dir, "nowhere"))).toEqual([]);
});
