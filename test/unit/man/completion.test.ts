/** The completions, in the shells that they are for: a function that is called, and a key that is pressed on a terminal. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { flatten } from "../../../docs/man/command.ts";
import { completionFiles } from "../../../docs/man/completion.ts";
import { recordPrograms } from "../../../docs/man/programs.ts";

const programs = await recordPrograms();
const files = completionFiles(programs);
let dir = "";

beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-completion-"));
  for (const [name, text] of files) {
    mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
    writeFileSync(path.join(dir, name), text);
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** What bash offers for the last word; "PATHS" among them: paths, too. */
function bashOffers(...words: readonly string[]): readonly string[] {
  const script = `source "$1/bash/$2"; shift
compopt() { echo PATHS; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"_$1"
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, status } = spawnSync("bash", ["--norc", "--noprofile", "-uc", script, "bash", dir, ...words], {
    encoding: "utf8",
  });
  expect([stderr, status]).toEqual(["", 0]);
  return stdout.split("\n").filter((line) => line !== "");
}

describe("bash", () => {
  it.each<[readonly string[], readonly string[]]>([
    [["coverlay", "st"], ["status"]],
    [["coverlay", "fence", "s"], ["show"]],
    [["coverlay", "fence", "--w"], ["--wait"]],
    [["coverlay", "volume", "show", ""], ["PATHS"]],
    [["coverlay", "volume", "enable", "--c"], ["--cluster"]],
    [
      ["coverlay", "lab", "up", "--lower", ""],
      ["ext4", "xfs", "directory"],
    ],
    [["coverlay", "lab", "up", "--lower", "=", "x"], ["xfs"]],
    [
      ["coverlay", "lab", "up", "--lower", "="],
      ["ext4", "xfs", "directory"],
    ],
    [["coverlay", "lab", "--dir", "up", "exe"], ["exec"]],
    [["coverlay", "lab", "--json", "stat"], ["status"]],
    [["coverlay", "lab", "up", "--di"], ["--dir"]],
    [["coverlay", "lab", "exec", "node1", "--", "ls", "--"], []],
    [["coverlay", "mount", "-o", ""], []],
    [["coverlay", "status", "--run-dir", ""], ["PATHS"]],
    [
      ["dlmd", "--log-level", ""],
      ["debug", "info", "warn", "error"],
    ],
    [["dlmd", "--st"], ["--state-dir"]],
  ])("%j: %j", (words, expected) => {
    expect(bashOffers(...words)).toEqual(expected);
  });

  it("offers each command and each option of the definitions, where it may stand", () => {
    const all = [...flatten(programs.coverlay), programs.dlmd];
    const missing = all.flatMap(({ words, options, commands }) => {
      const offered = new Set([...bashOffers(...words, ""), ...bashOffers(...words, "-")]);
      const wanted = [...options.map(({ name }) => `--${name}`), ...commands.map((command) => command.words.at(-1) ?? "")];
      return wanted.filter((word) => !offered.has(word) && word !== words.at(-1)).map((word) => `${words.join(" ")} ${word}`);
    });
    expect(missing).toEqual([]);
  });
});

const shells: readonly (readonly [shell: string, args: readonly string[], setup: string])[] = [
  ["bash", ["--norc", "--noprofile", "-i"], "bind 'set show-all-if-ambiguous on'; source DIR/bash/coverlay; source DIR/bash/dlmd"],
  ["zsh", ["-f", "-i"], "fpath=(DIR/zsh $fpath); autoload -U compinit; compinit -u -D"],
];

describe.each(shells)("Tab in %s", (shell, args, setup) => {
  it.for([
    ["coverlay lab up --lower ", "ext4,xfs,directory"],
    ["coverlay fence ", "show,history,ack"],
    ["coverlay lab st", "start,status,stop,stall"],
    ["dlmd --log-level ", "debug,info,warn,error"],
  ])("%s", ([typed = "", expected = ""], context) => {
    context.skip(spawnSync(shell, ["-c", "true"]).error !== undefined, `the package ${shell} is not installed`);
    const words = [path.join(import.meta.dirname, "press-tab.py"), setup.replaceAll("DIR", dir), typed, expected, "--", shell, ...args];
    const { stdout, stderr, status } = spawnSync("python3", words, { encoding: "utf8" });
    expect([stderr, status, status === 0 ? "" : stdout]).toEqual(["", 0, ""]);
  });
});

it("no path of this machine is in them, and no program of ours is run", () => {
  for (const [name, text] of files) {
    expect([name, text.includes(process.cwd()), /(^|[;(])\s*(coverlay|dlmd|node) /m.test(text)]).toEqual([name, false, false]);
  }
});
