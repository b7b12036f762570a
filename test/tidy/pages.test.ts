/** The pages for administrators quote what programs say and take: messages, fields, metrics, commands and options are those of the sources. */
import { readdirSync } from "node:fs";
import { beforeAll, expect, it } from "vitest";
import type { Command } from "../../docs/man/command.ts";
import { recordPrograms } from "../../docs/man/programs.ts";
import { knownOptions } from "../../overlay/volume/mount-options.ts";
import { filesBelow, read } from "./paths.ts";

const pages = readdirSync(new URL("../../docs", import.meta.url))
  .filter((file) => file.endsWith(".md"))
  .map((file) => `docs/${file}`);

const sources = ["overlay", "dlmd"]
  .flatMap(filesBelow)
  .filter((file) => file.endsWith(".ts"))
  .map(read)
  .join("\n");

/** Words of the kernel and of other programs. */
const FOREIGN = new Set(["already mounted or mount point busy", "Transport endpoint is not connected", "disk I/O error"]);

/** What stands for a value in a message, in the sources and on the page. */
function fixedParts(message: string): string[] {
  return message
    .split(/\/run\/\S+,?|\b(?:lab|elsewhere)\b/)
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

it("faq.md has ten messages, and each is one of the sources or of another program", () => {
  const messages = [...read("docs/faq.md").matchAll(/^## \d+\. "([^"]+)"/gm)].map(([, message = ""]) => message);
  expect(messages).toHaveLength(10);
  const lost = messages
    .filter((message) => !FOREIGN.has(message))
    .flatMap((message) => fixedParts(message).filter((part) => !sources.includes(part)));
  expect(lost).toEqual([]);
});

it("monitoring.md names fields and metrics that are there", () => {
  const page = read("docs/monitoring.md");
  const fields = [...page.matchAll(/^\| `\.([\w.[\]]+)` \|/gm)].map(([, field = ""]) => field.split(/[.[\]]+/).at(-1) ?? "");
  expect(fields.length).toBeGreaterThan(15);
  expect(fields.filter((field) => !new RegExp(`\\b${field}\\b`).test(`${sources} rss of process.memoryUsage()`))).toEqual([]);
  const metrics = [...page.matchAll(/`dlmd_(\w+)`/g)].map(([, name = ""]) => name);
  expect(metrics.length).toBeGreaterThan(5);
  expect(metrics.filter((name) => !sources.includes(`gauge("${name}"`) && !sources.includes(`name: "dlmd_${name}"`))).toEqual([]);
});

it("monitoring.md has each alert of the example, the exit statuses of --check, and figures that are there", () => {
  const page = read("docs/monitoring.md");
  const alerts = [...page.matchAll(/^\| `(Coverlay\w+)` \|/gm)].map(([, name]) => name);
  expect(alerts).toEqual([...read("examples/prometheus/coverlay.rules.yml").matchAll(/- alert: (\w+)/g)].map(([, name]) => name));
  const [, table = ""] = /^(\| exit status \|[\s\S]*?)\n\n/m.exec(page) ?? [];
  const statuses = [...table.matchAll(/^\| (\d) \| `(\w+)` \|/gm)].map(([, exit, level]) => `${level}: ${exit}`);
  expect(read("overlay/cli/status.ts")).toContain(`checkStatuses: Readonly<Record<Level, number>> = { ${statuses.join(", ")} };`);
  const figures = [...page.matchAll(/\bcoverlay_(\w+)/g)].map(([, name = ""]) => name);
  expect(figures.length).toBeGreaterThan(3);
  expect(figures.filter((name) => !read("overlay/status/metric-rows.ts").includes(`"${name}"`))).toEqual([]);
});

it("ports.md has the ports that a configuration gets by default", () => {
  const page = read("docs/ports.md");
  const config = read("dlmd/config/cluster-config.ts");
  const defaults = [...config.matchAll(/port\(\)\.default\((\d+)\)/g)].map(([, port = ""]) => port);
  expect(defaults).toHaveLength(2);
  expect(defaults.filter((port) => !page.includes(port))).toEqual([]);
  expect(read("overlay/serve/owned-lower.ts")).toContain("server.listen(parts.address, 0)");
});

it("the README leads to each page", () => {
  const readme = read("README.md");
  expect(pages.length).toBeGreaterThan(5);
  expect(pages.filter((page) => !readme.includes(`\`${page}\``))).toEqual([]);
});

let programs: readonly Command[] = [];
beforeAll(async () => {
  const { coverlay, dlmd } = await recordPrograms();
  programs = [coverlay, dlmd];
});

interface Quoted {
  readonly line: string;
  /** A line to be typed, not the name of a command in a sentence. */
  readonly isWhole: boolean;
}

/** Lines of ours in blocks and in code quotes, each without what follows it in a shell. */
function commandsOf(page: string): Quoted[] {
  const text = read(page);
  const blocks = text.split("\n").filter((line) => line.startsWith("    "));
  const quoted = [...text.replaceAll(/^ {4}.*$/gm, "").matchAll(/`([^`]+)`/g)].map(([, code = ""]) => code.replaceAll(/\s+/g, " "));
  const ofBlock = (line: string): string[] =>
    [
      ...line
        .trim()
        .replace(/ +[#>] .*$/, "")
        .matchAll(/(?:^|; |\$\()((?:coverlay|dlmd) [^|;()"]*)/g),
    ].map(([, part = ""]) => part);
  return [
    ...blocks.flatMap(ofBlock).map((line) => ({ line, isWhole: true })),
    ...quoted.filter((line) => /^(coverlay|dlmd) /.test(line)).map((line) => ({ line: line.replace(/ [|>;].*$/, ""), isWhole: false })),
  ];
}

/** Why it cannot be typed so; null: it can. */
function problemOf({ line, isWhole }: Quoted): string | null {
  const [program = "", ...words] = line.trim().split(/\s+/);
  let command = programs.find((one) => one.words[0] === program);
  if (command === undefined) return `${line}: no such program`;
  const options = [...command.options];
  let rest = words;
  for (let [word] = rest; word !== undefined; [word] = rest) {
    const next: Command | undefined = command.commands.find((one) => !one.isDefault && one.words.at(-1) === word);
    if (next === undefined) break;
    command = next;
    options.push(...next.options);
    rest = rest.slice(1);
  }
  const places = [command, ...command.commands.filter((one) => one.isDefault)];
  options.push(...places.flatMap((one) => one.options));
  const positionals = places.flatMap((one) => one.positionals);
  const values: string[] = [];
  const given = new Set<string>();
  for (let at = 0; at < rest.length; at++) {
    const word = rest[at] ?? "";
    if (!word.startsWith("-") || word === "--help") {
      if (word !== "--help") values.push(word);
      continue;
    }
    const option = options.find(({ name, letters }) => word === `--${name}` || letters.some((letter) => word === `-${letter}`));
    if (option === undefined) return `${line}: ${word} is no option of ${command.words.join(" ")}`;
    given.add(option.name);
    if (option.value !== "") at += 1;
  }
  if (values.length > positionals.length && !positionals.some(({ isMany }) => isMany)) return `${line}: ${values.join(" ")} is too much`;
  if (!isWhole || rest.includes("--help")) return null;
  const lacking = [
    ...positionals.filter(({ isRequired }) => isRequired).slice(values.length),
    ...options.filter(({ name, isRequired }) => isRequired && !given.has(name)),
  ].map(({ name }) => name);
  return lacking.length === 0 ? null : `${line}: without ${lacking.join(", ")}`;
}

it("a command of ours on a page can be typed so: words, options, places", () => {
  const commands = pages.flatMap(commandsOf);
  expect(commands.length).toBeGreaterThan(30);
  expect(commands.filter(({ isWhole }) => isWhole).length).toBeGreaterThan(5);
  expect(commands.map(problemOf).filter((problem) => problem !== null)).toEqual([]);
});

it("mount options on a page are those of a mount", () => {
  const page = read("docs/tuning.md");
  const [, table = ""] = /^## Mount options\n\n([\s\S]*?)\n\n/m.exec(page) ?? [];
  const options = [...table.matchAll(/^\| `(\w+)` \|/gm)].map(([, option = ""]) => option);
  expect(options).toHaveLength(3);
  expect(options.filter((option) => !knownOptions.includes(option))).toEqual([]);
});
