/** What `--help` says of a command, read from its text: options, positionals and examples. Not made of the definitions, which the pages are made of. */
import yargs, { type Argv } from "yargs";
import { dlmdCli } from "../../../dlmd/arguments.ts";
import { coverlayCli } from "../../../overlay/cli/root.ts";

export interface HelpItem {
  readonly name: string;
  /** As a page has to say it. */
  readonly words: string;
}

export interface Help {
  readonly text: string;
  /** In full, without places: "coverlay lab up". */
  readonly commands: readonly string[];
  readonly positionals: readonly HelpItem[];
  readonly options: readonly HelpItem[];
  /** Lines, as they begin. */
  readonly examples: readonly string[];
}

/** Two blanks part them from the words, which may end with brackets of their own. */
const MARKS = /(?: {2,}\[(?:boolean|string|number|array|required|choices: )[^\]]*\](?: \[(?:required|choices|default)[^\]]*\]*)*)?$/;

/** "what it does  [string] [choices: "a", "b"] [default: "a"]" as a page has it. */
function wordsOf(rest: string): string {
  const marks = MARKS.exec(rest)?.[0] ?? "";
  const describe = rest.slice(0, rest.length - marks.length).trim();
  const choices = /\[choices: ([^\]]*)\]/.exec(marks)?.[1]?.replaceAll('"', "") ?? "";
  const given = /\[default: ("[^"]*"|[^\]]*)\]/.exec(marks)?.[1]?.replaceAll('"', "") ?? "";
  const parts = [
    `${describe}.`,
    ...(choices === "" ? [] : [`One of ${choices}.`]),
    ...(["", "false", "["].includes(given) ? [] : [`Default: ${given}.`]),
    ...(marks.includes("[required]") ? ["Required."] : []),
  ];
  return parts.join(" ").replaceAll("`", "");
}

function block(text: string, title: string): string[] {
  const found = new RegExp(`^${title}:\\n((?: +.*\\n?)+)`, "m").exec(text)?.[1] ?? "";
  return found.split("\n").filter((line) => line.trim() !== "");
}

function read(text: string): Help {
  const items = (title: string, form: RegExp): HelpItem[] =>
    block(text, title).map((line) => {
      const [, name = "", rest = ""] = form.exec(line) ?? [];
      if (name === "") throw new Error(`a line of help expected, found ${line}`);
      return { name, words: wordsOf(rest) };
    });
  return {
    text,
    commands: block(text, "Commands").map((line) => /^ +([a-z]+(?: [a-z-]+)*)/.exec(line)?.[1] ?? ""),
    positionals: items("Positionals", /^ +([\w-]+) {2,}(.*)$/),
    options: items("Options", /^ +(?:-\w, )? *--([\w-]+) {2,}(.*)$/).filter(({ name }) => name !== "help" && name !== "version"),
    examples: block(text, "Examples?").map((line) => line.trim()),
  };
}

async function helpText(cli: Argv): Promise<string> {
  let text = "";
  const words = ["--help"];
  await cli
    .wrap(null)
    .exitProcess(false)
    .parseAsync(words, {}, (_error, _argv, output) => void (text = output));
  return text;
}

/** `words`: after the program's name. */
export async function coverlayHelp(words: readonly string[]): Promise<Help> {
  let text = "";
  const cli = (await coverlayCli(words)).wrap(null);
  await cli.parseAsync([...words, "--help"], {}, (_error: unknown, _argv: unknown, output: string) => void (text = output));
  return read(text);
}

export async function dlmdHelp(): Promise<Help> {
  return read(await helpText(dlmdCli(yargs([]))));
}
