/** Hazard R20: a copy of a directory is not its volume, and two volumes have no files in common. */
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, renameSync, rmSync, symlinkSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { Bit } from "../../../overlay/volume/bit.ts";
import { disableDirectory, enableDirectory, requireOwnPlace } from "../../../overlay/volume/bit-writer.ts";
import { requireNotMounted, requireNotNested, requirePlace } from "../../../overlay/volume/directory-place.ts";

const bit: Bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
let base: string;
let dir: string;

beforeEach(() => {
  base = mkdtempSync(path.join(os.tmpdir(), "coverlay-place-"));
  dir = path.join(base, "volume");
  mkdirSync(path.join(dir, "below/deep"), { recursive: true });
});

afterEach(() => rmSync(base, { recursive: true }));

function codeOf(work: () => void): string {
  try {
    work();
  } catch (error) {
    if (error instanceof OperatingError) return error.code;
    throw error;
  }
  return "none";
}

it("is the directory that was enabled, also after it was moved, and on that machine", () => {
  enableDirectory(dir, bit);
  expect(codeOf(() => requireOwnPlace(dir))).toBe("none");
  expect(codeOf(() => enableDirectory(dir, bit))).toBe("none");
  const moved = path.join(base, "moved");
  renameSync(dir, moved);
  expect(codeOf(() => requireOwnPlace(moved))).toBe("none");
  const fd = openSync(moved, "r");
  expect(codeOf(() => requirePlace(fd, moved))).toBe("none");
  expect(codeOf(() => requirePlace(fd, moved, "another machine"))).toBe("copied-directory");
  closeSync(fd);
});

it("refuses a copy with all its attributes, and takes it when it was enabled as itself", () => {
  enableDirectory(dir, bit);
  const copy = path.join(base, "copy");
  execFileSync("cp", ["-a", dir, copy]);
  expect(codeOf(() => requireOwnPlace(copy))).toBe("copied-directory");
  expect(codeOf(() => enableDirectory(copy, bit))).toBe("copied-directory");
  expect(disableDirectory(copy)).toBe(true);
  expect(codeOf(() => requireOwnPlace(copy))).toBe("no-place");
  enableDirectory(copy, bit);
  expect(codeOf(() => requireOwnPlace(copy))).toBe("none");
});

it("knows that it is mounted, by whatever name", () => {
  const link = path.join(base, "link");
  symlinkSync(dir, link);
  expect(codeOf(() => requireNotMounted(dir, [path.join(base, "gone"), link]))).toBe("mounted");
  expect(codeOf(() => requireNotMounted(dir, [base, path.join(dir, "below")]))).toBe("none");
  expect(codeOf(() => requireNotMounted(dir))).toBe("none");
});

it("refuses a volume in a volume, whichever was first", () => {
  const below = path.join(dir, "below/deep");
  enableDirectory(below, { ...bit, uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d12" });
  expect(codeOf(() => requireNotNested(dir, [below]))).toBe("nested-volume");
  expect(codeOf(() => requireNotNested(dir, [`${dir}-beside`]))).toBe("none");
  enableDirectory(dir, bit);
  expect(codeOf(() => requireOwnPlace(below))).toBe("nested-volume");
  expect(codeOf(() => enableDirectory(below, bit))).toBe("nested-volume");
});

it("finds a mounted volume below it by a link, and not by one that leads nowhere", () => {
  const link = path.join(base, "link");
  symlinkSync(path.join(dir, "below/deep"), link);
  expect(codeOf(() => requireNotNested(dir, [path.join(base, "gone"), link]))).toBe("nested-volume");
  rmSync(link);
  symlinkSync(dir, link);
  expect(codeOf(() => requireNotNested(dir, [path.join(base, "gone"), link, dir, base]))).toBe("none");
  symlinkSync(path.join(base, "gone"), path.join(base, "dangling"));
  expect(codeOf(() => requireNotNested(dir, [path.join(base, "dangling"), path.join(link, "gone")]))).toBe("none");
});

it("finds a volume above it, and a mounted one below it, where a part of it is mounted by itself", () => {
  const part = path.join(base, "part");
  mkdirSync(part);
  execFileSync("mount", ["--bind", path.join(dir, "below/deep"), part]);
  try {
    expect(codeOf(() => requireNotNested(dir, [part]))).toBe("nested-volume");
    expect(codeOf(() => requireNotNested(path.join(dir, "below"), [part]))).toBe("nested-volume");
    expect(codeOf(() => requireNotNested(part, [dir, path.join(dir, "below"), part]))).toBe("none");
    enableDirectory(dir, bit);
    expect(codeOf(() => requireNotNested(part, []))).toBe("nested-volume");
  } finally {
    execFileSync("umount", [part]);
  }
});

it("finds a mounted volume below it where its file system is mounted a second time", () => {
  const second = path.join(base, "second");
  mkdirSync(second);
  execFileSync("mount", ["--bind", dir, second]);
  try {
    expect(codeOf(() => requireNotNested(dir, [path.join(second, "below/deep")]))).toBe("nested-volume");
    expect(codeOf(() => requireNotNested(second, [path.join(dir, "below/deep")]))).toBe("nested-volume");
    expect(codeOf(() => requireNotNested(dir, [second]))).toBe("none");
  } finally {
    execFileSync("umount", [second]);
  }
});
