/**
 * The man pages: each is a text beside this file, NAME.SECTION.md, in which lines of the form {{part}} stand for what is made of code. A text
 * begins with "# name - what it is", and has sections ("## TITLE") and subsections ("### title").
 */
import {
  commandNamed,
  commandsPart,
  commonPart,
  examplesPart,
  exitPart,
  keysPart,
  mountOptionsPart,
  optionsPart,
  pageCommands,
} from "./parts.ts";
import type { PageCommand } from "./parts.ts";
import type { Programs } from "./programs.ts";
import { escape, markup, section, subsection } from "./roff.ts";

export interface PageText {
  /** "coverlay" */
  readonly name: string;
  /** "8" */
  readonly section: string;
  readonly text: string;
}

export const pageNames: readonly string[] = ["coverlay.8", "dlmd.8", "mount.clustered.8", "coverlay-lab.8", "cluster.yaml.5"];

/** Where what each key is for stands: a table of keys. */
export const KEYS_FILE = "cluster-keys.md";

export interface PageSources {
  readonly programs: Programs;
  readonly version: string;
  /** ISO, a day. */
  readonly date: string;
  readonly keysText: string;
}

/** What a table of markdown says of each name in its first column. */
export function describedIn(table: string): ReadonlyMap<string, string> {
  return new Map([...table.matchAll(/^\| `([^`]+)` \| (.+) \|$/gm)].map(([, name = "", words = ""]) => [name, words] as const));
}

/** The commands of coverlay(8): those of the lab have a page of their own. */
export function coverlayCommands({ coverlay }: Programs): readonly PageCommand[] {
  return pageCommands(coverlay)
    .slice(1)
    .filter(({ command: { words } }) => words[1] !== "lab" || words.length === 2);
}

export function labCommands({ coverlay }: Programs): readonly PageCommand[] {
  const [, ...below] = pageCommands(commandNamed(coverlay, "lab"));
  return below;
}

type Part = (sources: PageSources) => string[];

const parts: Readonly<Record<string, Part>> = {
  commands: ({ programs }) => commandsPart(coverlayCommands(programs)),
  "common-options": ({ programs }) => commonPart(coverlayCommands(programs)),
  "lab-commands": ({ programs }) => commandsPart(labCommands(programs)),
  "lab-options": ({ programs }) => commonPart(labCommands(programs)),
  "dlmd-options": ({ programs }) => optionsPart(programs.dlmd),
  "dlmd-examples": ({ programs }) => examplesPart(programs.dlmd),
  "mount-arguments": ({ programs }) => optionsPart(commandNamed(programs.coverlay, "mount")),
  "mount-options": ({ programs }) => mountOptionsPart(commandNamed(programs.coverlay, "mount")),
  keys: ({ keysText }) => keysPart(describedIn(keysText)),
  "exit-coverlay": () => exitPart("coverlay"),
  "exit-mount": () => exitPart("mount"),
  "exit-serve": () => exitPart("serve"),
  "exit-dlmd": () => exitPart("dlmd"),
};

function part(name: string, sources: PageSources): string[] {
  const make = parts[name];
  if (make === undefined) throw new Error(`{{${name}}}: one of ${Object.keys(parts).join(", ")} expected`);
  return make(sources);
}

/** Text between headings. */
function bodyLines(text: string, sources: PageSources): string[] {
  return text.split(/^\{\{([a-z-]+)\}\}$/m).flatMap((piece, at) => (at % 2 === 1 ? part(piece, sources) : markup(piece)));
}

/** A macro that follows a heading at once would be one too many. */
function withoutIdleParagraphs(lines: readonly string[]): string[] {
  return lines.filter((line, at) => line !== ".PP" || !/^\.S[HS] /.test(lines[at - 1] ?? ""));
}

function sectionLines(text: string, sources: PageSources): string[] {
  const [title = "", ...rest] = text.split("\n");
  const [head = "", ...subsections] = rest.join("\n").split(/^### /m);
  return [
    ...section(title.trim()),
    ...bodyLines(head, sources),
    ...subsections.flatMap((each) => {
      const [subtitle = "", ...lines] = each.split("\n");
      return [...subsection(subtitle.trim()), ...bodyLines(lines.join("\n"), sources)];
    }),
  ];
}

/** The page as man(7). */
export function renderPage({ name, section: number, text }: PageText, sources: PageSources): string {
  const [, summary = ""] = /^# \S+ - (.+)$/m.exec(text) ?? [];
  if (summary === "") throw new Error(`${name}.${number}.md: "# ${name} - what it is" expected in its first line`);
  const [, ...sections] = text.split(/^## /m);
  const lines = [
    `.\\" Made by npm run man: change docs/man/ or the definitions of the command line, not this file.`,
    `.TH ${name.toUpperCase()} ${number} ${sources.date} "coverlay ${sources.version}" "${number === "5" ? "File Formats" : "System Administration"}"`,
    ".SH NAME",
    `${escape(name)} \\- ${escape(summary)}`,
    ...sections.flatMap((each) => sectionLines(each, sources)),
  ];
  return `${withoutIdleParagraphs(lines).join("\n")}\n`;
}
