/** The build script: what it says when tools are missing, and that it is quiet and does nothing when all is built. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { useScratch } from "./scratch.ts";

const native = path.join(import.meta.dirname, "../../../native");

describe("the build of the addon", () => {
  const scratch = useScratch();

  it("says what to install where there is no compiler", () => {
    mkdirSync(path.join(scratch.dir, "src"));
    for (const name of ["build.mjs", "binding.gyp", "src/addon.cc"]) cpSync(path.join(native, name), path.join(scratch.dir, name));
    const result = spawnSync(process.execPath, [path.join(scratch.dir, "build.mjs")], { env: { PATH: scratch.dir }, encoding: "utf8" });
    expect([result.status, result.stdout]).toEqual([1, ""]);
    expect(result.stderr).toContain("a C++ compiler and make and python3 not found");
    expect(result.stderr).toContain("apt-get install g++ make python3");
  });

  it("does nothing, quietly, when the binary is newer than its sources", () => {
    // A copy: in this tree a checkout may have made the sources newer, and a build would take the addon from under other tests.
    for (const name of ["build.mjs", "binding.gyp", "src", "build/built-for.json"])
      cpSync(path.join(native, name), path.join(scratch.dir, name), { recursive: true, preserveTimestamps: true });
    const binary = path.join(scratch.dir, "build/Release/coverlay.node");
    mkdirSync(path.dirname(binary));
    writeFileSync(binary, "built");
    const before = statSync(binary).mtimeMs;
    const result = spawnSync(process.execPath, [path.join(scratch.dir, "build.mjs")], { encoding: "utf8" });
    expect([result.status, result.stdout, result.stderr]).toEqual([0, "", ""]);
    expect([readFileSync(binary, "utf8"), statSync(binary).mtimeMs]).toEqual(["built", before]);
  });
});
