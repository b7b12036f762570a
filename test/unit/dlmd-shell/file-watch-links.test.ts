/** Symbolic links on the way to a file that is watched (driver/file-watch.ts): a link that is put in the place of another, as a person or a program does it. */
import { mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Log } from "../../../dlmd/base/log.ts";
import { type FileWatch, watchFile } from "../../../dlmd/driver/file-watch.ts";

let dir: string;
let watch: FileWatch;
let errors: string[];
const log: Log = { debug() {}, info() {}, warn() {}, error: (_, message) => void errors.push(message) };
const at = (...names: string[]): string => path.join(dir, ...names);
beforeEach(() => {
  errors = [];
  dir = realpathSync(mkdtempSync(path.join(tmpdir(), "coverlay-watch-")));
  for (const folder of ["a", "b", "c"]) mkdirSync(at(folder));
  for (const name of ["key", "key2"]) writeFileSync(at("a", name), "first");
});
afterEach(async () => {
  await watch.close();
  rmSync(dir, { recursive: true });
});

/** Watches it; what it gives makes each change when the one before was told, and resolves with how many there were. */
async function watched(file: string): Promise<(...changes: (() => void)[]) => Promise<number>> {
  let told = (): void => {};
  watch = await watchFile(file, () => told(), log);
  return async (...changes) => {
    for (const change of changes) {
      const next = new Promise<void>((resolve) => (told = resolve));
      change();
      await next;
    }
    return changes.length;
  };
}
/** A new file in the place of that one. */
function replace(file: string): void {
  writeFileSync(`${file}.new`, "next");
  renameSync(`${file}.new`, file);
}
function linkAnew(target: string, link: string): void {
  symlinkSync(target, `${link}.new`);
  renameSync(`${link}.new`, link);
}

test("another link in the place of the first is told, and so is each later change of the file to which it leads", async () => {
  symlinkSync(at("a/key"), at("b/key"));
  const told = await watched(at("b/key"));
  expect(
    await told(
      () => replace(at("a/key")),
      () => linkAnew(at("a/key2"), at("b/key")),
      () => replace(at("a/key2")),
      () => writeFileSync(at("a/key2"), "in its place"),
      () => linkAnew("../a/key", at("b/key")),
      () => replace(at("a/key")),
    ),
  ).toBe(6);
  expect(errors).toEqual([]);
});

test("a link to a link, and one that stands for a folder on the way, are followed as well", async () => {
  symlinkSync("../a/key", at("b/key"));
  symlinkSync("b", at("now"));
  symlinkSync("../now/key", at("c/key"));
  const told = await watched(at("c/key"));
  expect(
    await told(
      () => replace(at("a/key")),
      () => linkAnew("../a/key2", at("b/key")),
      () => replace(at("a/key2")),
    ),
  ).toBe(3);
  mkdirSync(at("d"));
  symlinkSync("../a/key", at("d/key"));
  expect(
    await told(
      () => linkAnew("d", at("now")),
      () => replace(at("a/key")),
    ),
  ).toBe(2);
});

test("a link that is removed, and made again to a file that was not there, is told when all is there", async () => {
  symlinkSync("../a/key", at("b/key"));
  const told = await watched(at("b/key"));
  expect(
    await told(
      () => unlinkSync(at("b/key")),
      () => symlinkSync("../a/new", at("b/key")),
      () => writeFileSync(at("a/new"), "there now"),
    ),
  ).toBe(3);
});

test("a file takes the place of a link, and a link that of a file", async () => {
  symlinkSync("../a/key", at("b/key"));
  const told = await watched(at("b/key"));
  expect(
    await told(
      () => replace(at("b/key")),
      () => replace(at("b/key")),
      () => linkAnew("../a/key2", at("b/key")),
      () => replace(at("a/key2")),
      () => linkAnew("../c/key", at("a/key2")),
      () => writeFileSync(at("c/key"), "there now"),
    ),
  ).toBe(6);
});

test("links that lead in a circle are followed 40 times, and the watch is on all the same", async () => {
  symlinkSync("circle", at("b/key"));
  symlinkSync("key", at("b/circle"));
  const told = await watched(at("b/key"));
  expect(
    await told(
      () => linkAnew("../a/key", at("b/circle")),
      () => replace(at("a/key")),
    ),
  ).toBe(2);
  expect(new Set(errors)).toEqual(new Set(["file is not watched"]));
});
