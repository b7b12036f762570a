/**
 * Builds the addon and the keeper (src/keeper/) beside this file with node-gyp, as `npm ci` does (script "install"). Quiet when all
 * is well; does nothing when both are newer than the sources and were made for this Node.
 *
 * The headers that stand beside the running node are used where they are, so that no download is
 * needed; else node-gyp finds them by itself.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const binary = path.join(here, "build", "Release", "coverlay.node");
const binaries = [binary, path.join(here, "build", "Release", "coverlay-keeper")];
const stamp = path.join(here, "build", "built-for.json");
const target = JSON.stringify({ node: process.versions.node.split(".")[0], napi: 8, platform: process.platform, arch: process.arch });

function fail(words) {
  console.error(`coverlay: ${words}`);
  process.exit(1);
}

function runs(command) {
  const result = spawnSync(command, ["--version"], { stdio: "ignore", shell: false });
  return result.error === undefined && result.status === 0;
}

function builtForThisNode() {
  return existsSync(binary) && existsSync(stamp) && readFileSync(stamp, "utf8") === target;
}

function areBuilt() {
  return binaries.every((file) => existsSync(file));
}

function upToDate() {
  if (!builtForThisNode() || !areBuilt()) return false;
  const built = Math.min(...binaries.map((file) => statSync(file).mtimeMs));
  const sources = readdirSync(path.join(here, "src"), { recursive: true }).map((name) => path.join(here, "src", name));
  return [...sources, path.join(here, "binding.gyp")]
    .map((file) => statSync(file))
    .every((found) => found.isDirectory() || found.mtimeMs <= built);
}

function checkTools() {
  const wanted = [
    { name: "a C++ compiler", commands: [process.env["CXX"]?.split(" ")[0], "g++", "clang++", "c++"] },
    { name: "make", commands: [process.env["MAKE"], "make", "gmake"] },
    { name: "python3", commands: [process.env["npm_config_python"], process.env["PYTHON"], "python3", "python"] },
  ];
  const missing = wanted.filter((tool) => !tool.commands.some((command) => command !== undefined && command !== "" && runs(command)));
  if (missing.length === 0) return;
  const names = missing.map((tool) => tool.name).join(" and ");
  fail(
    `the native addon cannot be built: expected a C++ compiler, make and python3; ${names} not found. ` +
      "Install them (Debian: apt-get install g++ make python3) and run npm ci again.",
  );
}

function nodeGyp() {
  try {
    return createRequire(import.meta.url).resolve("node-gyp/bin/node-gyp.js");
  } catch {
    return fail("the native addon cannot be built: node-gyp is not installed. Run npm ci, which installs it.");
  }
}

function build() {
  const headers = path.dirname(path.dirname(process.execPath));
  const hasHeaders = existsSync(path.join(headers, "include", "node", "node_api.h"));
  const jobs = "--jobs=max";
  // Where a binary of this Node is in use, it stays until make puts the new one in its place.
  const commands = builtForThisNode() ? ["configure", "build"] : ["rebuild"];
  const args = [nodeGyp(), ...commands, jobs, "--loglevel=error", ...(hasHeaders ? [`--nodedir=${headers}`] : [])];
  const result = spawnSync(process.execPath, args, { cwd: here, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (result.status === 0 && areBuilt()) return;
  console.error(`${result.stdout ?? ""}${result.stderr ?? ""}`);
  fail(
    `the native addon was not built (node-gyp: ${result.error?.message ?? `exit status ${result.status ?? result.signal}`}); what it said is above.`,
  );
}

if (process.platform !== "linux") fail(`expected Linux, found ${process.platform}: the addon makes system calls that only Linux has.`);
if (!upToDate()) {
  checkTools();
  build();
  mkdirSync(path.dirname(stamp), { recursive: true });
  writeFileSync(stamp, target);
  // make leaves a binary as it is where a change made no difference.
  for (const file of binaries) utimesSync(file, new Date(), new Date());
}
