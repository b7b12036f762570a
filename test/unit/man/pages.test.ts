/** The man pages say what the programs do: each is compared with --help, with the schema of cluster.yaml, and with the sources. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EXIT, type ExitingProgram, exitMeanings } from "../../../dlmd/base/exit-status.ts";
import { decodeClusterConfig } from "../../../dlmd/config/cluster-config.ts";
import { flatten } from "../../../docs/man/command.ts";
import { configKeys } from "../../../docs/man/config-keys.ts";
import { describedIn, pageNames, renderPage } from "../../../docs/man/pages.ts";
import { commandNamed, genericMountOptions } from "../../../docs/man/parts.ts";
import { readPages, readSources } from "../../../docs/man/sources.ts";
import { filesBelow, read } from "../../tidy/paths.ts";
import { coverlayHelp, dlmdHelp, type Help } from "./help.ts";
import { optionsOf, type PageSection, sectionNamed, sectionsOf } from "./page-text.ts";

const sources = await readSources("2026-01-02");
const pages = new Map<string, string>(readPages().map((page) => [`${page.name}.${page.section}`, renderPage(page, sources)] as const));
const page = (name: string): string => pages.get(name) ?? "";

/** A command's own options, and those that it names as common. */
function optionsShown(sections: readonly PageSection[], common: PageSection): ReadonlyMap<string, string> {
  const shared = optionsOf(common);
  const also = sections.flatMap(({ text }) =>
    [...(/^Also: (.*)\.$/m.exec(text)?.[1] ?? "").matchAll(/--([\w-]+)/g)].map(([, name = ""]) => name),
  );
  return new Map([
    ...sections.flatMap((section) => [...optionsOf(section)]),
    ...also.map((name) => [name, shared.get(name) ?? "not there"] as const),
  ]);
}

const sorted = (rows: Iterable<readonly [string, string]>): (readonly [string, string])[] =>
  [...rows].toSorted(([a], [b]) => (a < b ? -1 : 1));
const rowsOf = (items: Help["options"]): (readonly [string, string])[] => items.map(({ name, words }) => [name, words] as const);

/** The pages that have the command: the lab has one of its own. */
function pageOf(words: readonly string[]): { readonly text: string; readonly common: PageSection } {
  const isLab = words[0] === "lab" && words.length > 1;
  const text = page(isLab ? "coverlay-lab.8" : "coverlay.8");
  return { text, common: sectionNamed(text, isLab ? "OPTIONS" : "COMMON OPTIONS") };
}

function sectionsOfCommand(text: string, words: readonly string[]): readonly PageSection[] {
  const name = ["coverlay", ...words].join(" ");
  return sectionsOf(text).filter(
    ({ title }) => title === name || /^[A-Z[]/.test(title.startsWith(`${name} `) ? title.slice(name.length + 1) : ""),
  );
}

const commandWords = flatten(sources.programs.coverlay)
  .map(({ words }) => words.slice(1))
  .filter((words, at, all) => words.length > 0 && all.findIndex((other) => other.join(" ") === words.join(" ")) === at);

describe.each(commandWords)("coverlay %s %s", (...words) => {
  const given = words.filter((word): word is string => typeof word === "string");

  it("has in its page the options, places and examples of --help, in the same words", async () => {
    const help = await coverlayHelp(given);
    const { text, common } = pageOf(given);
    const sections = sectionsOfCommand(text, given);
    expect(sections.length).toBeGreaterThan(0);
    const isGroup = help.commands.some((command) => command !== `coverlay ${given.join(" ")}`);
    expect(sorted(optionsShown(sections, common))).toEqual(sorted(rowsOf(help.options)));
    const places = sections.flatMap(({ items }) => [...items]).filter(([tag]) => /^[A-Z]+$/.test(tag));
    expect(sorted(places.map(([tag, described]) => [tag.toLowerCase(), described] as const))).toEqual(
      sorted(help.positionals.map(({ name, words: said }) => [name, said.replace(/ Required\.$/, "")] as const)),
    );
    const tags = sections.flatMap(({ items }) => [...items.keys()]);
    // Those of a group are those of its commands.
    const examples = isGroup ? [] : help.examples;
    expect(examples.filter((line) => !tags.some((tag) => line.startsWith(tag)))).toEqual([]);
  });
});

describe("the pages", () => {
  it("are of all commands that --help names", async () => {
    const open: string[][] = [[]];
    const named: string[] = [];
    for (let words = open.pop(); words !== undefined; words = open.pop()) {
      const below = (await coverlayHelp(words)).commands.map((command) => command.split(" ").slice(1));
      for (const each of below.filter((command) => command.length > (words ?? []).length)) {
        named.push(each.join(" "));
        open.push(each);
      }
    }
    expect(named.toSorted()).toEqual(commandWords.map((words) => words.join(" ")).toSorted());
  });

  it("dlmd(8) has the options of --help, in the same words", async () => {
    const help = await dlmdHelp();
    const options = new Map(optionsOf(sectionNamed(page("dlmd.8"), "OPTIONS")));
    options.delete("help");
    expect(sorted(options)).toEqual(sorted(rowsOf(help.options)));
    const tags = [...sectionNamed(page("dlmd.8"), "EXAMPLES").items.keys()];
    expect(help.examples.filter((line) => !tags.some((tag) => line.startsWith(tag)))).toEqual([]);
  });

  it("say what each option and each place is for", () => {
    const { coverlay, dlmd } = sources.programs;
    const silent = [...flatten(coverlay), dlmd].flatMap(({ words, options, positionals }) =>
      [...options, ...positionals].filter(({ describe: said }) => said === "").map(({ name }) => `${words.join(" ")}: ${name}`),
    );
    expect(silent).toEqual([]);
  });

  it("mount.clustered(8) explains our own mount options; those that mount(8) explains are known", () => {
    const mount = commandNamed(sources.programs.coverlay, "mount");
    const known = new Set(
      "ro rw nosuid suid nodev dev noexec exec sync async dirsync noatime atime nodiratime diratime relatime norelatime strictatime nostrictatime defaults user users owner group clustered _netdev nofail auto noauto nouser nousers noowner nogroup comment uhelper helper remount".split(
        " ",
      ),
    );
    // Another one needs its line in the words of `coverlay mount --help`: two blanks, its form, two blanks, what it does.
    expect(genericMountOptions(mount).filter((option) => !known.has(option))).toEqual([]);
    const options = sectionNamed(page("mount.clustered.8"), "MOUNT OPTIONS");
    expect([...options.items.keys()]).toEqual(expect.arrayContaining(["localflocks", "wait", "runDir=PATH"]));
  });

  it("name each other in SEE ALSO by names that are there", () => {
    const lost = [...pages].flatMap(([name, text]) => {
      const seen = [...sectionNamed(text, "SEE ALSO").text.matchAll(/([\w.-]+)\((\d)\)/g)].map(
        ([, other = "", number = ""]) => `${other}.${number}`,
      );
      const ours = seen.filter((other) => /^(coverlay|dlmd|cluster|mount\.clustered)/.test(other));
      return ours.length === 0
        ? [`${name} names none`]
        : ours.filter((other) => !pageNames.includes(other)).map((other) => `${name}: ${other}`);
    });
    expect(lost).toEqual([]);
  });
});

describe("cluster.yaml(5)", () => {
  const items = (): ReadonlyMap<string, string> => sectionNamed(page("cluster.yaml.5"), "KEYS").items;

  it("has each key of the schema, and no other; each is explained", () => {
    const paths = configKeys().map(({ path: key }) => key);
    expect(paths.length).toBeGreaterThan(30);
    expect([...describedIn(sources.keysText).keys()].toSorted()).toEqual(paths.toSorted());
    expect([...items().keys()].toSorted()).toEqual(paths.toSorted());
    expect([...items().values()].filter((words) => words.startsWith("Expected"))).toEqual([]);
  });

  it("names the defaults that a file without them gets", () => {
    const decoded = decodeClusterConfig(
      `cluster: pages
version: 1
nodes: [{ nodeid: 1, name: one, address: 10.0.0.1, fence: [[pdu]] }]
fenceDevices: [{ name: pdu, agent: fence_apc }]
volumes: [{ name: data, uuid: 6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11, lower: device }]`,
      "a test",
    );
    const valueAt = (key: string): unknown => {
      let at: unknown = decoded;
      for (const step of key.replaceAll("[][]", ".0.0").replaceAll("[]", ".0").split("."))
        at = (at as Record<string, unknown> | undefined)?.[step];
      return at;
    };
    const said = [...items()].flatMap(([key, words]) => {
      const given = /Default: (.+?)\.( Required\.)?$/.exec(words)?.[1];
      return given === undefined || key === "fenceDevices" || key === "volumes" ? [] : [[key, given] as const];
    });
    expect(said.length).toBeGreaterThan(15);
    const asText = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
    expect(said.map(([key]) => [key, asText(valueAt(key))])).toEqual(said.map(([key, given]) => [key, given]));
  });

  it("has examples that can be used", () => {
    const example =
      read("docs/man/cluster.yaml.5.md")
        .split("\n\n")
        .find((part) => part.startsWith("    cluster:")) ?? "";
    const yaml = example.replaceAll(/^ {4}/gm, "");
    expect(decodeClusterConfig(yaml, "the page").nodes).toHaveLength(3);
  });
});

describe("exit statuses", () => {
  const table = new Set<number>(Object.values(EXIT));
  const sourcesBelow = (folder: string): string[] => filesBelow(folder).filter((file) => file.endsWith(".ts"));

  it("each that the sources name is in the table", () => {
    const uses = /(?:\bexitStatus: |exitStatus === |process\.exit\(|process\.exitCode = |\bEXIT_[A-Z]+ = |MOUNT_REFUSED = )(\d+)\b/g;
    const found = ["overlay", "dlmd"]
      .flatMap(sourcesBelow)
      .flatMap((file) => [...read(file).matchAll(uses)].map(([, status]) => [file, Number(status)] as const));
    expect(found.length).toBeGreaterThan(30);
    const others = found.filter(
      ([file, status]) => !table.has(status) && file !== "overlay/lab/exec.ts" && file !== "overlay/volume/mount-record.ts",
    );
    expect(others).toEqual([]);
  });

  const where: readonly (readonly [ExitingProgram, string])[] = [
    ["coverlay", "coverlay.8"],
    ["coverlay", "coverlay-lab.8"],
    ["serve", "coverlay.8"],
    ["mount", "mount.clustered.8"],
    ["dlmd", "dlmd.8"],
  ];
  it.each(where)("those of %s are in %s", (program, name) => {
    const { items, text } = sectionNamed(page(name), "EXIT STATUS");
    const expected = exitMeanings.filter(({ meaning }) => meaning[program] !== undefined).map(({ status }) => String(status));
    expect(expected.length).toBeGreaterThan(1);
    expect(expected.filter((status) => !items.has(status))).toEqual([]);
    for (const { meaning } of exitMeanings)
      expect(text.toLowerCase()).toContain((meaning[program] ?? "").replaceAll("`", "").toLowerCase());
  });

  it.each<[string, readonly ExitingProgram[]]>([
    ["dlmd", ["dlmd"]],
    ["overlay", ["coverlay", "mount", "serve"]],
  ])("those that %s/ uses are explained for its programs", (folder, programs) => {
    const files = sourcesBelow(folder).filter((file) => file !== "dlmd/base/exit-status.ts");
    const names = files.flatMap((file) => [...read(file).matchAll(/\bEXIT\.([A-Z]+)\b/g)].map(([, name = ""]) => name));
    const unexplained = [...new Set(names)].filter((name) => {
      const status = EXIT[name as keyof typeof EXIT];
      return !exitMeanings.some((row) => row.status === status && programs.some((program) => row.meaning[program] !== undefined));
    });
    expect([names.length > 3, unexplained]).toEqual([true, []]);
  });

  it("each status of the table is explained for a program", () => {
    expect(exitMeanings.map(({ status }): number => status).toSorted((a, b) => a - b)).toEqual([...table].toSorted((a, b) => a - b));
  });

  it("dlmd --help and coverlay --help name theirs", async () => {
    const said = async (text: Promise<Help>): Promise<string> => (await text).text.replaceAll(/\s+/g, " ");
    const dlmd = await said(dlmdHelp());
    const coverlay = await said(coverlayHelp([]));
    const unsaid = exitMeanings.flatMap(({ status, meaning }) => [
      ...(meaning.dlmd === undefined || new RegExp(`Exit status.*\\b${status}\\b`).test(dlmd) ? [] : [`dlmd: ${status}`]),
      ...(meaning.coverlay === undefined || new RegExp(`Exit status.*\\b${status}\\b`).test(coverlay) ? [] : [`coverlay: ${status}`]),
    ]);
    expect(unsaid).toEqual([]);
  });
});

describe("the language of the pages", () => {
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-man-"));
    for (const [name, text] of pages) writeFileSync(path.join(dir, name), text);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  const judges: readonly (readonly [name: string, program: string, args: readonly string[], package_: string])[] = [
    ["groff", "groff", ["-ww", "-man", "-Tutf8", "-z"], "groff-base"],
    ["mandoc", "mandoc", ["-Tlint", "-W", "warning"], "mandoc"],
  ];
  it.for(judges)("%s has no warning", ([, program, args, package_], context) => {
    const judge = (file: string): ReturnType<typeof spawnSync> => spawnSync(program, [...args, file], { encoding: "utf8" });
    context.skip(judge(path.join(dir, "dlmd.8")).error !== undefined, `the package ${package_} is not installed`);
    for (const name of pageNames) {
      const { stdout, stderr, status } = judge(path.join(dir, name));
      expect([name, `${String(stdout)}${String(stderr)}`, status]).toEqual([name, "", 0]);
    }
  });

  it("has nothing but ASCII, and no part that was left out", () => {
    for (const [name, text] of pages) {
      // oxlint-disable-next-line no-control-regex
      expect([name, /[^\n\u0020-\u007e]/.exec(text)?.[0] ?? ""]).toEqual([name, ""]);
      expect([name, text.includes("{{")]).toEqual([name, false]);
    }
  });
});
