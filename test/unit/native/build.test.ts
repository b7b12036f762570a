/** The build script: what it says when tools are missing, and that it is quiet and does nothing when all is built. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, statSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { useScratch } from "./scratch.ts";

const native = path.join(import.meta.dirname, "../../../overlay/native");

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
    const binary = path.join(native, "build/Release/coverlay.node");
    const before = statSync(binary).mtimeMs;
    const result = spawnSync(process.execPath, [path.join(native, "build.mjs")], { encoding: "utf8" });
    expect([result.status, result.stdout, result.stderr]).toEqual([0, "", ""]);
    expect(statSync(binary).mtimeMs).toBe(before);
  });
});
