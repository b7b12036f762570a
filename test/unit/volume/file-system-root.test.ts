/** Hazard R19: which lower directories are the roots of their file systems, and what only looks like one. */
import { closeSync, mkdtempSync, openSync, rmdirSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { isFileSystemRoot } from "../../../overlay/volume/file-system-root.ts";
import { mountTable } from "../../../dlmd/base/mount-table.ts";

function withOpen(directory: string, use: (fd: number) => void): void {
  const fd = openSync(directory, "r");
  try {
    use(fd);
  } finally {
    closeSync(fd);
  }
}

it("knows the root of a file system", () => {
  withOpen("/proc", (fd) => expect(isFileSystemRoot(fd, "/proc")).toBe(true));
});

it("tells a directory inside of one from it", () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), "coverlay-root-"));
  try {
    withOpen(directory, (fd) => expect(isFileSystemRoot(fd, directory)).toBe(false));
  } finally {
    rmdirSync(directory);
  }
});

it("refuses a mount of a part of one, and one that is not to be seen here", () => {
  withOpen("/proc", (fd) => {
    const part = mountTable().map((entry) => ({ ...entry, root: "/sys" }));
    expect(() => isFileSystemRoot(fd, "/proc", part)).toThrow(/of a larger file system/);
    expect(() => isFileSystemRoot(fd, "/proc", [])).toThrow(/not in this mount namespace/);
  });
});
