/** The parts of a page that are made of code: commands, options, exit statuses, keys of cluster.yaml, mount options. Lines of man(7). */
import { type ExitingProgram, exitMeanings } from "../../dlmd/base/exit-status.ts";
import { knownOptions } from "../../overlay/volume/mount-options.ts";
import { type Command, type Option, type Positional, flatten } from "./command.ts";
import { configKeys } from "./config-keys.ts";
import { escape, example, paragraph, subsection, tagged } from "./roff.ts";

/** An option that so many commands have in the same words is described once. */
const COMMON_FROM = 3;

const bold = (text: string): string => `\\fB${escape(text)}\\fR`;
const place = (text: string): string => `\\fI${escape(text)}\\fR`;

export function optionTag({ name, letters, value }: Option): string {
  const names = [...letters.map((letter) => `-${letter}`), `--${name}`].map(bold).join(", ");
  return value === "" ? names : `${names} ${place(value)}`;
}

function optionWords({ describe, choices, defaultWords, isRequired }: Option): string {
  const parts = [
    `${describe}.`,
    ...(choices.length > 0 ? [`One of ${choices.map((choice) => `\`${choice}\``).join(", ")}.`] : []),
    ...(defaultWords === "" ? [] : [`Default: \`${defaultWords}\`.`]),
    ...(isRequired ? ["Required."] : []),
  ];
  return parts.join(" ");
}

const optionItem = (option: Option): string[] => tagged(optionTag(option), optionWords(option));

function positionalWords({ name, isRequired, isMany }: Positional): string {
  const word = `${name.toUpperCase()}${isMany ? "..." : ""}`;
  return isRequired ? word : `[${word}]`;
}

/** A command as a page shows it: with the options of the groups that it is in. */
export interface PageCommand {
  readonly command: Command;
  readonly inherited: readonly Option[];
}

export function pageCommands(command: Command, inherited: readonly Option[] = []): readonly PageCommand[] {
  const below = [...inherited, ...command.options];
  return [{ command, inherited }, ...command.commands.flatMap((each) => pageCommands(each, below))];
}

const sameOption = (a: Option, b: Option): boolean => JSON.stringify(a) === JSON.stringify(b);

export function commonOptions(commands: readonly PageCommand[]): readonly Option[] {
  const all = commands.flatMap(({ command, inherited }) => [...inherited, ...command.options]);
  return all.filter(
    (option, at) =>
      all.findIndex((other) => sameOption(other, option)) === at && all.filter((other) => sameOption(other, option)).length >= COMMON_FROM,
  );
}

export function commandTitle({ words, usage, positionals }: Command): string {
  // A usage in words of its own is kept where it is one line about places, not about options.
  if (usage.startsWith(words.join(" "))) return usage.replaceAll(/<(\w+)>/g, (_, name: string) => name.toUpperCase());
  return [...words, ...positionals.map(positionalWords)].join(" ");
}

/** Text of an epilogue: lines that are indented stay lines. */
function noteLines(note: string): string[] {
  const blocks: { readonly isIndented: boolean; readonly lines: string[] }[] = [];
  for (const line of note.split("\n")) {
    const isIndented = line.startsWith("  ");
    const last = blocks.at(-1);
    if (last?.isIndented === isIndented) last.lines.push(line);
    else blocks.push({ isIndented, lines: [line] });
  }
  return blocks.flatMap(({ isIndented, lines }) =>
    isIndented ? example(lines.map((line) => line.slice(2))) : paragraph(lines.filter((line) => line !== "").join(" ")),
  );
}

function sentence(words: string): string {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}

function commandLines({ command, inherited }: PageCommand, common: readonly Option[]): string[] {
  const effective = [...inherited, ...command.options];
  const isCommon = (option: Option): boolean => common.some((other) => sameOption(other, option));
  const shared = effective.filter(isCommon);
  const own = effective.filter((option) => !isCommon(option));
  return [
    ...subsection(commandTitle(command)),
    ...paragraph(sentence(command.summary)),
    ...command.positionals.flatMap((each) => tagged(place(each.name.toUpperCase()), `${each.describe}.`)),
    ...own.flatMap(optionItem),
    ...(shared.length === 0 ? [] : paragraph(`Also: ${shared.map(({ name }) => `\`--${name}\``).join(", ")}.`)),
    ...command.notes.flatMap(noteLines),
    ...exampleLines(command),
  ];
}

function exampleLines({ examples, commands }: Command): string[] {
  // A group's examples are those of its commands.
  if (commands.length > 0) return [];
  return examples.flatMap(([line, words]) => tagged(bold(line), `${words}.`));
}

export function commandsPart(commands: readonly PageCommand[]): string[] {
  const common = commonOptions(commands);
  return commands.flatMap((each) => commandLines(each, common));
}

const helpOption: Option = {
  name: "help",
  letters: ["h"],
  value: "",
  choices: [],
  defaultWords: "",
  isRequired: false,
  describe: "print what the command does, its options and examples",
};
const versionOption: Option = { ...helpOption, name: "version", letters: [], describe: "print the version" };

export function commonPart(commands: readonly PageCommand[]): string[] {
  return [...commonOptions(commands), helpOption, versionOption].flatMap(optionItem);
}

/** Of a program without commands. */
export function optionsPart(command: Command): string[] {
  return [...command.options, { ...helpOption, letters: [] }].flatMap(optionItem);
}

export function examplesPart(command: Command): string[] {
  return command.examples.flatMap(([line, words]) => tagged(bold(line), `${words}.`));
}

export function exitPart(program: ExitingProgram): string[] {
  return exitMeanings.flatMap(({ status, meaning }) => {
    const words = meaning[program];
    return words === undefined ? [] : tagged(bold(String(status)), sentence(words));
  });
}

/** `described`: of each key, what it is for. */
export function keysPart(described: ReadonlyMap<string, string>): string[] {
  return configKeys().flatMap(({ path, expected, defaultWords, isRequired }) => {
    const rest = [
      `Expected: ${expected}.`,
      ...(defaultWords === "" ? [] : [`Default: \`${defaultWords}\`.`]),
      ...(isRequired ? ["Required."] : []),
    ];
    return tagged(bold(path), [described.get(path) ?? "", ...rest].join(" "));
  });
}

export interface OwnMountOption {
  /** "runDir=PATH" */
  readonly form: string;
  readonly describe: string;
}

/** Mount options of our own, from the words of `coverlay mount --help`: indented, the option and what it does. */
export function ownMountOptions(mount: Command): readonly OwnMountOption[] {
  return mount.notes.flatMap((note) =>
    [...note.matchAll(/^ {2}([a-z][A-Za-z]*(?:=\S+)?) {2,}(\S.*)$/gm)].map(([, form = "", describe = ""]) => ({ form, describe })),
  );
}

/** Those that mount(8) explains. */
export function genericMountOptions(mount: Command): readonly string[] {
  const own = new Set(ownMountOptions(mount).map(({ form }) => form.split("=")[0]));
  return knownOptions.filter((option) => !own.has(option));
}

export function mountOptionsPart(mount: Command): string[] {
  const own = ownMountOptions(mount).flatMap(({ form, describe }) => {
    const [name = "", value] = form.split("=");
    return tagged(value === undefined ? bold(name) : `${bold(`${name}=`)}${place(value)}`, `${describe}.`);
  });
  const generic = genericMountOptions(mount).map((option) => `\`${option}\``);
  return [...own, ...paragraph(`As in mount(8): ${generic.join(", ")}, and what begins with \`x-\`. Options of ext4 and XFS are refused.`)];
}

export function commandNamed(program: Command, ...words: readonly string[]): Command {
  const wanted = [program.words[0], ...words].join(" ");
  const found = flatten(program).find((command) => command.words.join(" ") === wanted);
  if (found === undefined) throw new Error(`${wanted} is a command, expected`);
  return found;
}
