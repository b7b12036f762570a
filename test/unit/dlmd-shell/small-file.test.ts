import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { NoSmallFileError, readSmallFile, readSmallText, SMALL_FILE_BYTES_MAX } from "../../../dlmd/base/small-file.ts";

describe("a small file", () => {
  let dir: string;
  let file: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-small-"));
    file = path.join(dir, "file");
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it("is read up to SMALL_FILE_BYTES_MAX, in several pieces", () => {
    const text = `${"é".repeat(100_000)}end`;
    writeFileSync(file, text);
    expect([readSmallFile(file), readSmallText(file)]).toEqual([text, text]);
    writeFileSync(file, "");
    truncateSync(file, SMALL_FILE_BYTES_MAX);
    expect(readSmallFile(file)).toHaveLength(SMALL_FILE_BYTES_MAX);
    truncateSync(file, SMALL_FILE_BYTES_MAX + 1);
    for (const read of [readSmallFile, readSmallText]) expect(() => read(file)).toThrow("at most 1048576 bytes expected, found more");
  });

  it("is no pipe, whose writer would be waited for, no directory and no device", () => {
    spawnSync("mkfifo", [file]);
    for (const [place, kind] of [
      [file, "a pipe"],
      [dir, "a directory"],
      ["/dev/zero", "a character device"],
    ] as const) {
      expect(() => readSmallFile(place)).toThrow(new NoSmallFileError("a regular file", kind));
    }
    expect(() => readSmallFile(path.join(dir, "none"))).toThrow("ENOENT");
  });
});
