/**
 * What a command line is: taken down from the very definitions that yargs is given. `CommandRecorder` stands in yargs' place: it has the
 * calls that our definitions use, and no others, so that a new one fails where it is made and cannot be left out of a page.
 */
import type { Argv, CommandModule } from "yargs";

export interface Option {
  readonly name: string;
  /** One letter each. */
  readonly letters: readonly string[];
  /** What stands for its value; "" for a flag. */
  readonly value: string;
  readonly choices: readonly string[];
  /** As people write it; "" where it goes without saying. */
  readonly defaultWords: string;
  readonly isRequired: boolean;
  readonly describe: string;
}

export interface Positional {
  readonly name: string;
  readonly isRequired: boolean;
  readonly isMany: boolean;
  readonly describe: string;
}

export interface Command {
  /** "coverlay", "lab", "up" */
  readonly words: readonly string[];
  readonly summary: string;
  /** Its usage in words of its own; "": it is made of positionals and options. */
  readonly usage: string;
  /** It is what the command above does when none of its words is given. */
  readonly isDefault: boolean;
  readonly positionals: readonly Positional[];
  readonly options: readonly Option[];
  readonly commands: readonly Command[];
  readonly examples: readonly (readonly [line: string, words: string])[];
  readonly notes: readonly string[];
}

interface OptionSpec {
  readonly alias?: string;
  readonly type?: "boolean" | "string" | "number";
  readonly array?: boolean;
  readonly choices?: readonly string[];
  readonly default?: unknown;
  readonly demandOption?: boolean;
  readonly describe?: string;
  /** Not for people: it is in no page and no completion. */
  readonly hidden?: boolean;
}

function valueOf(name: string, { type = "string", choices = [] }: OptionSpec): string {
  if (type === "boolean") return "";
  if (choices.length > 0) return name.toUpperCase();
  if (type === "number") return "N";
  return (name.split("-").at(-1) ?? name).toUpperCase();
}

function defaultWordsOf(value: unknown): string {
  if (value === undefined || value === false || value === "") return "";
  return Array.isArray(value) ? value.join(" ") : typeof value === "string" ? value : JSON.stringify(value);
}

function optionOf(name: string, spec: OptionSpec): Option {
  return {
    name,
    letters: spec.alias === undefined ? [] : [spec.alias],
    value: valueOf(name, spec),
    choices: spec.choices ?? [],
    defaultWords: defaultWordsOf(spec.default),
    isRequired: spec.demandOption ?? false,
    describe: spec.describe ?? "",
  };
}

/** "up", "exec <node>", "why <names..>", "$0 [node]" */
function parseDefinition(definition: string): { readonly word: string; readonly places: readonly Omit<Positional, "describe">[] } {
  const [word = "", ...rest] = definition.split(" ");
  const places = rest.map((place) => ({
    name: place.replaceAll(/[<>[\].]/g, ""),
    isRequired: place.startsWith("<"),
    isMany: place.includes(".."),
  }));
  return { word, places };
}

type Definition = Pick<CommandModule, "command" | "describe" | "builder">;

class CommandRecorder {
  readonly options = new Map<string, OptionSpec>();
  readonly described = new Map<string, string>();
  readonly modules: Definition[] = [];
  readonly examples: [string, string][] = [];
  readonly notes: string[] = [];
  usageText = "";

  option(name: string, spec: OptionSpec): this {
    if (spec.hidden !== true) this.options.set(name, spec);
    return this;
  }
  positional(name: string, { describe = "" }: OptionSpec): this {
    this.described.set(name, describe);
    return this;
  }
  command(module: Definition): this {
    this.modules.push(module);
    return this;
  }
  example(line: string, words: string): this {
    this.examples.push([line, words]);
    return this;
  }
  epilogue(note: string): this {
    this.notes.push(note);
    return this;
  }
  usage(text: string): this {
    this.usageText = text;
    return this;
  }
  /** What yargs alone needs: how words are read, and how help is laid out. */
  readonly scriptName = (): this => this;
  readonly parserConfiguration = (): this => this;
  readonly demandCommand = (): this => this;
  readonly recommendCommands = (): this => this;
  readonly strict = (): this => this;
  readonly check = (): this => this;
  readonly conflicts = (): this => this;
  readonly implies = (): this => this;
  readonly version = (): this => this;
  readonly help = (): this => this;
  readonly alias = (): this => this;
  readonly wrap = (): this => this;
  readonly exitProcess = (): this => this;
  readonly fail = (): this => this;
}

function finish(
  recorder: CommandRecorder,
  given: Pick<Command, "words" | "summary" | "isDefault">,
  places: readonly Omit<Positional, "describe">[],
): Command {
  const [program = ""] = given.words;
  const named = (text: string): string => text.replaceAll("$0", program);
  return {
    ...given,
    usage: named(recorder.usageText),
    positionals: places.map((place) => ({ ...place, describe: recorder.described.get(place.name) ?? "" })),
    options: [...recorder.options].map(([name, spec]) => optionOf(name, spec)),
    commands: recorder.modules.flatMap((module) => recordModule(module, given.words)),
    examples: recorder.examples.map(([line, words]) => [named(line), words] as const),
    notes: recorder.notes.map(named),
  };
}

/** None, if help does not show it. */
function recordModule({ command, describe, builder }: Definition, above: readonly string[]): Command[] {
  if (describe === false || describe === undefined) return [];
  const recorder = new CommandRecorder();
  if (typeof builder !== "function") throw new Error(`${String(command)}: a builder that is a function expected`);
  void builder(recorder as unknown as Argv);
  const { word, places } = parseDefinition(String(command));
  const isDefault = word === "$0";
  return [finish(recorder, { words: isDefault ? above : [...above, word], summary: describe, isDefault }, places)];
}

/** `define`: what gives yargs the definitions of a whole program. */
export async function recordProgram(name: string, summary: string, define: (cli: Argv) => Promise<unknown>): Promise<Command> {
  const recorder = new CommandRecorder();
  await define(recorder as unknown as Argv);
  return finish(recorder, { words: [name], summary, isDefault: false }, []);
}

/** The command and all below it, in the order of the definitions. */
export function flatten(command: Command): readonly Command[] {
  return [command, ...command.commands.flatMap(flatten)];
}
