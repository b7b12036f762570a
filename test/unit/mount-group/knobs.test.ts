/** The knobs of a mount as files: whole, and an operator's write to `block` is heard once, whoever wrote last. */
import fs, {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { KNOB_SETTLE_MS, Knobs, knobsDirectory, type KnobValues } from "../../../overlay/mount-group/knobs.ts";

const values: KnobValues = { block: false, mounted: false, jid: null, recover: null };
let runDir: string;
let dir: string;
let started: Knobs[] = [];
/** Resolves the next waiter. */
let heard: ((what: string) => void)[] = [];
const tell = (what: string): void => heard.shift()?.(what);
const next = (): Promise<string> => new Promise((resolve) => heard.push(resolve));

beforeEach(() => {
  runDir = mkdtempSync(path.join(os.tmpdir(), "coverlay-knobs-"));
  dir = knobsDirectory(runDir, "data/1");
  heard = [];
});
afterEach(() => {
  for (const one of started) one.end();
  started = [];
  rmSync(runDir, { recursive: true });
});

function start(name = ""): Knobs {
  const log = { ...silentLog, error: (_: object, message: string) => tell(message) };
  const knobs = new Knobs({
    dir,
    log,
    blockOrdered: (blocked) => tell(`${name}${blocked ? "block" : "go on"}`),
    lost: () => tell(`${name}lost`),
  });
  started.push(knobs);
  knobs.start(values);
  return knobs;
}

const read = (knob: string): string => readFileSync(path.join(dir, knob), "utf8");
const all = (): string[] => ["block", "mounted", "jid", "recover"].map(read);

it("shows what is so, in files of its own directory, and takes them away at the end", () => {
  const shown = start();
  expect([path.basename(dir), all()]).toEqual(["volume-data%2F1", ["0\n", "0\n", "-1\n", "-1\n"]]);
  shown.show({ block: true, mounted: true, jid: 3, recover: 1 });
  expect(all()).toEqual(["1\n", "1\n", "3\n", "1\n"]);
  shown.show({ ...values, recover: "all" });
  expect([read("recover"), readdirSync(dir).length, statSync(path.join(dir, "block")).mode & 0o777]).toEqual(["all\n", 4, 0o600]);
  shown.end();
  expect(readdirSync(runDir)).toEqual([]);
});

it("an operator's 1 and 0 are heard, written in place or as a file that takes its place", async () => {
  start();
  const first = next();
  writeFileSync(path.join(dir, "block"), "1\n");
  expect(await first).toBe("block");
  const second = next();
  writeFileSync(path.join(dir, "new"), "0\n");
  renameSync(path.join(dir, "new"), path.join(dir, "block"));
  expect(await second).toBe("go on");
});

it("is heard as often as it is written, though the mount replaces the file each time", async () => {
  start();
  for (let count = 0; count < 20; count++) {
    const order = next();
    writeFileSync(path.join(dir, "block"), count % 2 === 0 ? "1\n" : "0\n");
    expect(await order).toBe(count % 2 === 0 ? "block" : "go on");
  }
});

it("what says the same as the mount is an order too: only who wrote it counts", async () => {
  const shown = start();
  shown.show({ ...values, block: true });
  const order = next();
  writeFileSync(path.join(dir, "block"), "1\n");
  expect(await order).toBe("block");
});

it("an order that was not read yet is not written over by the mount", async () => {
  const shown = start();
  const order = next();
  writeFileSync(path.join(dir, "block"), "1\n");
  shown.show({ ...values, block: true });
  expect(await order).toBe("block");
});

/** Once, when a file of the mount has taken its place and the mount has not looked at it yet. */
function afterNextRename(then: () => void): void {
  const rename = fs.renameSync;
  fs.renameSync = (from, to) => {
    fs.renameSync = rename;
    syncBuiltinESMExports();
    rename(from, to);
    then();
  };
  syncBuiltinESMExports();
}

it.each([
  { adds: "1\n", says: "what was written to the knob block is no order: it is set back" },
  { writes: "0\n", says: "go on" },
])("is heard in the moment in which the mount replaces the file: $says", async ({ adds, writes, says }) => {
  const shown = start();
  const file = path.join(dir, "block");
  const said = next();
  afterNextRename(() => (adds === undefined ? writeFileSync(file, writes) : appendFileSync(file, adds)));
  shown.show({ ...values, block: true });
  expect(await said).toBe(says);
  expect(read("block")).toBe("1\n");
});

it.each(["", "2\n", "yes\n", "0\n1\n"])("%j is no order: said in the log, and set back when the file was left alone", async (text) => {
  start();
  const said = next();
  writeFileSync(path.join(dir, "block"), text);
  expect(await said).toBe("what was written to the knob block is no order: it is set back");
  expect(read("block")).toBe("0\n");
});

it(`a file that is written in steps is read ${KNOB_SETTLE_MS} ms after the last one`, async () => {
  const shown = start();
  const order = next();
  // As a shell does: truncated, and written a moment later.
  writeFileSync(path.join(dir, "block"), "");
  shown.show({ ...values, jid: 1 });
  writeFileSync(path.join(dir, "block"), "1\n");
  expect(await order).toBe("block");
});

it("a later mount of the volume has its own: the earlier one is told that its are lost, orders nothing, and takes nothing away", async () => {
  const earlier = start("earlier: ");
  const lost = next();
  const later = start("later: ");
  later.show({ ...values, block: true, jid: 4 });
  expect(await lost).toBe("earlier: lost");
  earlier.show({ ...values, mounted: true, jid: 3 });
  expect(all()).toEqual(["1\n", "0\n", "4\n", "-1\n"]);
  const order = next();
  writeFileSync(path.join(dir, "block"), "0\n");
  expect(await order).toBe("later: go on");
  earlier.end();
  expect(all()).toEqual(["1\n", "0\n", "4\n", "-1\n"]);
});

it("the earlier one takes and writes nothing there either when it has not seen yet that there is a later one", () => {
  const shows = start("shows: ");
  const ends = start("ends: ");
  start("later: ");
  shows.show({ ...values, mounted: true, jid: 3 });
  ends.end();
  expect(all()).toEqual(["0\n", "0\n", "-1\n", "-1\n"]);
});

it("what an earlier mount left there is no order", async () => {
  mkdirSync(dir);
  writeFileSync(path.join(dir, "block"), "1\n");
  const order = next();
  start();
  expect(read("block")).toBe("0\n");
  writeFileSync(path.join(dir, "block"), "0\n");
  expect(await order).toBe("go on");
});
