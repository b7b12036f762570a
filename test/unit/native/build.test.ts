/** The build script: what it says when tools are missing, that it is quiet and does nothing when all is built, and else builds. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
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

  /** In a copy: in this tree a checkout may have made the sources newer, and a build would take the addon from under other tests. */
  function built(): string[] {
    for (const name of ["build.mjs", "binding.gyp", "src", "build/built-for.json"])
      cpSync(path.join(native, name), path.join(scratch.dir, name), { recursive: true, preserveTimestamps: true });
    mkdirSync(path.join(scratch.dir, "build/Release"));
    const binaries = ["coverlay.node", "coverlay-keeper"].map((name) => path.join(scratch.dir, "build/Release", name));
    for (const binary of binaries) writeFileSync(binary, "built");
    return binaries;
  }

  it("does nothing, quietly, when the binaries are newer than their sources", () => {
    const binaries = built();
    const before = binaries.map((binary) => statSync(binary).mtimeMs);
    const result = spawnSync(process.execPath, [path.join(scratch.dir, "build.mjs")], { encoding: "utf8" });
    expect([result.status, result.stdout, result.stderr]).toEqual([0, "", ""]);
    expect(binaries.map((binary) => [readFileSync(binary, "utf8"), statSync(binary).mtimeMs])).toEqual(
      before.map((time) => ["built", time]),
    );
  });

  it("builds when a source in a folder of its own is newer, and when one of the binaries is not there", () => {
    const outdated = (change: (binaries: readonly string[]) => void): string => {
      change(built());
      // It gets as far as the tools, of which none is there.
      return spawnSync(process.execPath, [path.join(scratch.dir, "build.mjs")], { env: { PATH: "" }, encoding: "utf8" }).stderr;
    };
    const later = new Date(Date.now() + 60_000);
    expect(outdated(() => utimesSync(path.join(scratch.dir, "src/keeper/main.cc"), later, later))).toContain("not found");
    rmSync(path.join(scratch.dir, "build"), { recursive: true });
    expect(outdated(([, keeper = ""]) => rmSync(keeper))).toContain("not found");
  });
});
