/** The packages that tests need: one list, and those of .ci/run and of the README agree with it. */
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { missingPackages, packages } from "../programs.ts";

const root = path.resolve(import.meta.dirname, "../..");
const read = (file: string): string => readFileSync(path.join(root, file), "utf8");
const names = packages.map(({ name }) => name).sort();

/** On every Debian. */
const ESSENTIAL = [
  "bash",
  "cat",
  "chmod",
  "cp",
  "dd",
  "df",
  "dpkg",
  "dpkg-deb",
  "ln",
  "ls",
  "mkfifo",
  "mknod",
  "prlimit",
  "readlink",
  "rm",
  "sha256sum",
  "sh",
  "sleep",
  "stat",
  "sync",
  "tail",
  "tar",
  "true",
];
/** Not programs: the words of a command of ours, or what stands for one. */
const OURS = ["config", "node", "npm", "pass", "status", "volume"];

it("says in one line what is missing, and what to do", () => {
  expect(missingPackages(() => true)).toBeNull();
  const lacking = new Set(["bindfs", "xfs_db"]);
  expect(missingPackages((name) => !lacking.has(name))).toBe("missing packages: xfsprogs bindfs (apt-get install xfsprogs bindfs)");
});

it(".ci/run installs these packages", () => {
  const [, list = ""] = /^packages=\(([^)]*)\)$/m.exec(read(".ci/run")) ?? [];
  expect(list.split(" ").sort()).toEqual(names);
});

it("the README names these packages: those of a lab, and those of the tests alone", () => {
  const lists = [...read("README.md").matchAll(/the packages\s+`([^`]+)`/g)].map(([, list = ""]) => list.split(" "));
  expect(lists).toHaveLength(2);
  expect(lists.flat().sort()).toEqual(names);
});

it("every program that a test runs is in the list", () => {
  const files = ["unit", "e2e", "compliance", "vector", "sim", "scenario"].flatMap((folder) =>
    readdirSync(path.join(root, "test", folder), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts"))
      .map((file) => path.join("test", folder, file)),
  );
  const known = new Set([...packages.flatMap(({ programs }) => programs), ...ESSENTIAL, ...OURS]);
  const unknown = files.flatMap((file) =>
    [...read(file).matchAll(/\b(?:execFileSync|execFile|spawnSync|spawn|run|must|runMust)\(\s*"([a-z][a-z0-9.+_-]*)"/g)]
      .map(([, program = ""]) => program)
      .filter((program) => !known.has(program))
      .map((program) => `${file}: ${program}`),
  );
  expect(files.length).toBeGreaterThan(100);
  expect(unknown).toEqual([]);
});
