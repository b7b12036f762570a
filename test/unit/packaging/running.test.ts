/** What the package's scripts take for a program of ours that runs: removal and purge are refused then. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

const scripts = path.resolve(import.meta.dirname, "../../../packaging/debian/running.sh");

let dir = "";
const children: ChildProcess[] = [];
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-running-"));
  for (const program of ["dlmd", "overlay"]) {
    mkdirSync(path.join(dir, "prefix/dist", program), { recursive: true });
    writeFileSync(path.join(dir, "prefix/dist", program, "main.js"), 'console.log("runs"); setInterval(() => {}, 1e6);');
  }
  mkdirSync(path.join(dir, "bin"));
  symlinkSync("../prefix/dist/dlmd/main.js", path.join(dir, "bin/dlmd"));
  symlinkSync("../prefix/dist/overlay/main.js", path.join(dir, "bin/coverlay"));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});

const run = (tool: string, ...words: string[]): Promise<string> => runAs(0, tool, ...words);

async function runAs(uid: number, tool: string, ...words: string[]): Promise<string> {
  const child = spawn(tool, words, { uid, cwd: dir, stdio: ["pipe", "pipe", "inherit"] });
  children.push(child);
  await once(child.stdout, "data");
  return String(child.pid);
}

/** Of these processes those that the function names, in dash as dpkg runs it: others run on this machine, too. */
function named(call: string, pids: readonly string[]): string[] {
  const lines = execFileSync("sh", ["-ec", `. ${scripts}; ${call}`], { encoding: "utf8" }).split("\n");
  return pids.filter((pid) => lines.some((line) => line.startsWith(`${pid} `)));
}

test("a program is known wherever it is installed, and by its command of npm", async () => {
  const at = (file: string): string => path.join(dir, file);
  const node = process.execPath;
  const dlmds = [
    await run(node, at("prefix/dist/dlmd/main.js"), "--run-dir", "/elsewhere"),
    await run(node, at("prefix/dist/dlmd/main.js")),
    await run(node, at("bin/dlmd")),
  ];
  const serving = [await run(node, "--max-semi-space-size=4", at("prefix/dist/overlay/main.js"), "serve", "--device", "/dev/x")];
  const mounting = [
    await run(node, at("prefix/dist/overlay/main.js"), "mount", "/dev/x", "/mnt"),
    await run(node, at("bin/coverlay"), "mount", "/dev/x"),
  ];
  const others = [
    await run(node, at("prefix/dist/overlay/main.js"), "status"),
    await run(node, "-e", "console.log(1); setInterval(() => {}, 1e6)", "/x/dist/dlmd/main.js"),
    await run("sh", "-c", "echo 1; read -r line", "sh", at("prefix/dist/dlmd/main.js")),
  ];
  const all = [...dlmds, ...serving, ...mounting, ...others];
  expect(named("processes 'dlmd(/main\\.js)?'", all)).toEqual(dlmds);
  expect(named("serving", all)).toEqual(serving);
  expect(named("mounting", all)).toEqual(mounting);
  expect(execFileSync("sh", ["-ec", `. ${scripts}; any_dlmd`], { encoding: "utf8" })).toMatch(
    /^(process \d+|a process that listens on .*)$/,
  );
});

test("a program of another user, with our words, keeps nobody from a removal", async () => {
  chmodSync(dir, 0o755);
  const main = path.join(dir, "prefix/dist/overlay/main.js");
  const all = [
    await run(process.execPath, main, "serve", "--device", "/dev/x"),
    await runAs(65_534, process.execPath, main, "serve", "--x"),
  ];
  expect(named("serving", all)).toEqual(all.slice(0, 1));
});
