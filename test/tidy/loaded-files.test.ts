/**
 * How much a program loads before it does anything. A file takes some 2 ms of a processor; zod and yargs take as much as fifty files of ours each. A command
 * is a process of its own. So what is loaded is counted here, along the imports of the sources; no time is measured.
 */
import path from "node:path";
import { describe, expect, it } from "vitest";
import { read } from "./paths.ts";

interface Loaded {
  readonly files: number;
  /** Sorted; without those of Node.js. */
  readonly packages: readonly string[];
}

/** What is imported at the start, and not as types alone. */
function importsOf(file: string): string[] {
  const found = read(file).matchAll(/^\s*(?:import|export)\s+(type\s)?[^"';]*?from\s+"([^"]+)"|^\s*import\s+"([^"]+)"/gm);
  return [...found].filter((match) => match[1] === undefined).map((match) => match[2] ?? match[3] ?? "");
}

function loadedBy(...starts: readonly string[]): Loaded {
  const files = new Set<string>();
  const packages = new Set<string>();
  const open = [...starts];
  for (let file = open.pop(); file !== undefined; file = open.pop()) {
    if (files.has(file)) continue;
    files.add(file);
    for (const name of importsOf(file)) {
      if (name.startsWith(".")) open.push(path.join(path.dirname(file), name));
      else if (!name.startsWith("node:")) packages.add(name);
    }
  }
  return { files: files.size, packages: [...packages].toSorted() };
}

/** The most files of ours, and the packages beside yargs. A new package, or a dozen files more, needs a reason. */
const COMMANDS: Readonly<Record<string, readonly [number, ...string[]]>> = {
  collect: [150, "pino", "zod"],
  config: [60, "fast-xml-parser", "yaml", "zod"],
  doctor: [120, "yaml", "zod"],
  fence: [50, "zod"],
  handover: [100, "zod"],
  "install-mount-helper": [20],
  keygen: [30, "yaml", "zod"],
  lab: [125, "yaml", "zod"],
  locks: [75, "zod"],
  metrics: [80, "prom-client", "zod"],
  mount: [90],
  nodes: [45, "zod"],
  quorum: [45],
  restart: [101, "zod"],
  serve: [377, "chokidar", "pino", "zod"],
  setup: [120, "yaml", "zod"],
  status: [80, "zod"],
  ui: [90, "zod"],
  umount: [95],
  volume: [115, "zod"],
  why: [80, "zod"],
};

const ROOT = "overlay/cli/root.ts";
const found = new Map(
  [...read(ROOT).matchAll(/^ {2}"?([a-z-]+)"?: async \(cli\) => cli\.command\(\(await import\("([^"]+)"\)/gm)].map(([, name, file]) => [
    name ?? "",
    path.join(path.dirname(ROOT), file ?? ""),
  ]),
);

describe("what is loaded at the start", () => {
  it("has a row for each command", () => {
    expect([...found.keys()].toSorted()).toEqual(Object.keys(COMMANDS));
  });

  it.each(Object.entries(COMMANDS))("of coverlay %s", (name, [most, ...packages]) => {
    const { files, packages: loaded } = loadedBy("overlay/main.ts", found.get(name) ?? "");
    expect(loaded).toEqual([...packages, "yargs"].toSorted());
    expect(files).toBeLessThanOrEqual(most);
  });

  it("is next to nothing before the command is known", () => {
    const { files, packages } = loadedBy("overlay/main.ts");
    expect(packages).toEqual(["yargs"]);
    expect(files).toBeLessThanOrEqual(10);
  });

  it.each([
    ["dlmd/main.ts", 200, ["chokidar", "fast-xml-parser", "pino", "prom-client", "yaml", "yargs", "zod"]],
    ["dlmd/driver/heartbeat-thread.ts", 35, []],
    ["dlmd/fence-pacemaker/main.ts", 10, []],
    ["overlay/setup/disk-process.ts", 30, []],
    ["overlay/lab/fence-agent.ts", 35, ["zod"]],
  ] as const)("of %s", (program, most, packages) => {
    const { files, packages: loaded } = loadedBy(program);
    expect(loaded).toEqual(packages);
    expect(files).toBeLessThanOrEqual(most);
  });
});
