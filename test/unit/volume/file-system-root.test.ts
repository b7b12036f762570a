/** Which directories may be a lower: the roots of their file systems, and nothing that only looks like one. */
import { closeSync, mkdtempSync, openSync, rmdirSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { requireFileSystemRoot } from "../../../overlay/volume/file-system-root.ts";
import { mountTable } from "../../../dlmd/base/mount-table.ts";

function withOpen(directory: string, use: (fd: number) => void): void {
  const fd = openSync(directory, "r");
  try {
    use(fd);
  } finally {
    closeSync(fd);
  }
}

it("takes the root of a file system", () => {
  withOpen("/proc", (fd) => expect(() => requireFileSystemRoot(fd, "/proc")).not.toThrow());
});

it("refuses a directory inside one", () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), "coverlay-root-"));
  try {
    withOpen(directory, (fd) => expect(() => requireFileSystemRoot(fd, directory)).toThrow(/lies inside the file system/));
  } finally {
    rmdirSync(directory);
  }
});

it("refuses a mount of a part of one, and one that is not to be seen here", () => {
  withOpen("/proc", (fd) => {
    const part = mountTable().map((entry) => ({ ...entry, root: "/sys" }));
    expect(() => requireFileSystemRoot(fd, "/proc", part)).toThrow(/of a larger file system/);
    expect(() => requireFileSystemRoot(fd, "/proc", [])).toThrow(/not in this mount namespace/);
  });
});
