/**
 * Completions of bash and zsh, from the same definitions as the pages: commands, options, and the values of options that have few. They run no
 * program of ours, so they know no names of nodes and volumes; where a path is expected the shell completes it.
 */
import type { Command, Option, Positional } from "./command.ts";
import { pageCommands } from "./parts.ts";
import type { Programs } from "./programs.ts";

/** Places and options whose value is a path. */
const PATHS: ReadonlySet<string> = new Set(
  "config device dir directory file image json-log metrics names run-dir state-dir target volume".split(" "),
);

/** One command, as a completion sees it. */
interface Entry {
  /** "coverlay lab up" */
  readonly path: string;
  /** Words that may follow, each with what it does. */
  readonly words: readonly (readonly [word: string, describe: string])[];
  readonly options: readonly Option[];
  readonly takesPath: boolean;
}

const HELP = ["--help", "print what the command does"] as const;

function entryOf(group: readonly { readonly command: Command; readonly inherited: readonly Option[] }[]): Entry {
  const [first] = group;
  if (first === undefined) throw new Error("a command expected");
  const commands = group.flatMap(({ command }) => command.commands.filter(({ isDefault }) => !isDefault));
  const places: readonly Positional[] = group.flatMap(({ command }) => command.positionals);
  const { words } = first.command;
  return {
    path: words.join(" "),
    words: commands.map((command) => [command.words.at(-1) ?? "", command.summary] as const),
    options: group.flatMap(({ command, inherited }, at) => (at === 0 ? [...inherited, ...command.options] : command.options)),
    takesPath: places.some(({ name }) => PATHS.has(name)),
  };
}

/** A command and what it does without a word of its own are one. */
function entriesOf(program: Command): readonly Entry[] {
  const all = pageCommands(program);
  const paths = [...new Set(all.map(({ command }) => command.words.join(" ")))];
  return paths.map((path) => entryOf(all.filter(({ command }) => command.words.join(" ") === path)));
}

/** For single quotes of a shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function optionWords(entry: Entry): (readonly [word: string, describe: string])[] {
  return [
    ...entry.options.flatMap(({ name, letters, describe }) => [
      [`--${name}`, describe] as const,
      ...letters.map((letter) => [`-${letter}`, describe] as const),
    ]),
    HELP,
  ];
}

/** "coverlay lab up --lower": what its value may be. */
function valueCases(entries: readonly Entry[], choices: (values: readonly string[]) => string, paths: string): string[] {
  return entries.flatMap(({ path, options }) =>
    options
      .filter(({ value }) => value !== "")
      .map((option) => {
        const names = [`--${option.name}`, ...option.letters.map((letter) => `-${letter}`)];
        const act = option.choices.length > 0 ? choices(option.choices) : PATHS.has(option.name) ? paths : "return 0";
        return `    ${names.map((name) => quote(`${path} ${name}`)).join("|")}) ${act} ;;`;
      }),
  );
}

/** Both shells read the words before the one that is completed in the same way: which command is meant, and where its own words end. */
function walk(entries: readonly Entry[]): string[] {
  const paths = entries.filter(({ path }) => path.includes(" ")).map(({ path }) => quote(path));
  const valued = valueCases(entries, () => "skip=1", "skip=1").map((line) => line.replace(/\) .*? ;;$/, ") skip=1 ;;"));
  return [
    '    case "$command $word" in',
    ...valued.map((line) => `  ${line}`),
    ...(paths.length === 0 ? [] : [`      ${paths.join("|")}) command="$command $word" ;;`]),
    "    esac",
  ];
}

const head = (program: string, shell: string): string =>
  `# ${shell} completion of ${program}. Made by npm run man: change the definitions of the command line, not this file.`;

/** bash-completion(7) loads it by its name, that of the program. */
function bash(program: Command): string {
  const [name = ""] = program.words;
  const entries = entriesOf(program);
  const cases = entries.map((entry) => {
    const words = [...entry.words, ...optionWords(entry)].map(([word]) => word).join(" ");
    const plain = entry.words.map(([word]) => word).join(" ");
    return `    ${quote(entry.path)}) options=${quote(words)} words=${quote(plain)} paths=${entry.takesPath ? "1" : ""} ;;`;
  });
  return `${[
    head(name, "bash"),
    `_${name}() {`,
    `  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command=${name} word options words paths at skip=`,
    "  COMPREPLY=()",
    "  # bash parts --name=value into three words.",
    "  [[ $cur == = ]] && cur=",
    "  [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}",
    "  for ((at = 1; at < COMP_CWORD; at++)); do",
    "    word=${COMP_WORDS[at]}",
    "    # Behind -- stands another program's command line.",
    "    [[ $word == -- ]] && return 0",
    "    [[ $word == = ]] && continue",
    "    if [[ $skip ]]; then skip=; continue; fi",
    ...walk(entries),
    "  done",
    '  case "$command $prev" in',
    ...valueCases(
      entries,
      (values) => `mapfile -t COMPREPLY < <(compgen -W ${quote(values.join(" "))} -- "$cur"); return 0`,
      "compopt -o default; return 0",
    ),
    "  esac",
    '  case "$command" in',
    ...cases,
    "  esac",
    '  if [[ $cur == -* ]]; then mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur"); return 0; fi',
    '  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")',
    "  [[ $paths ]] && compopt -o default",
    "  return 0",
    "}",
    `complete -F _${name} ${name}`,
  ].join("\n")}\n`;
}

/** For _describe: a colon parts the word from what it does. */
const described = (rows: readonly (readonly [string, string])[]): string =>
  rows.map(([word, describe]) => quote(`${word.replaceAll(":", "\\:")}:${describe}`)).join(" ");

/** zsh loads it from a folder of $fpath, as the file _NAME. */
function zsh(program: Command): string {
  const [name = ""] = program.words;
  const entries = entriesOf(program);
  const cases = entries.map(
    (entry) =>
      `    ${quote(entry.path)}) entries=(${described(entry.words)}); flags=(${described(optionWords(entry))}); paths=${entry.takesPath ? "1" : ""} ;;`,
  );
  return `${[
    `#compdef ${name}`,
    head(name, "zsh"),
    `_${name}() {`,
    `  local cur=\${words[CURRENT]} prev=\${words[CURRENT-1]} command=${name} word paths skip=`,
    "  local -a entries flags values",
    "  integer at",
    "  for ((at = 2; at < CURRENT; at++)); do",
    "    word=${words[at]}",
    "    # Behind -- stands another program's command line.",
    "    if [[ $word == -- ]]; then shift at words; (( CURRENT -= at )); _normal; return; fi",
    "    if [[ -n $skip ]]; then skip=; continue; fi",
    ...walk(entries),
    "  done",
    '  case "$command $prev" in',
    ...valueCases(entries, (values) => `values=(${values.map(quote).join(" ")}); _describe value values; return`, "_files; return").map(
      (line) => line.replace("return 0", "return"),
    ),
    "  esac",
    '  case "$command" in',
    ...cases,
    "  esac",
    "  if [[ $cur == -* ]]; then _describe option flags; return; fi",
    "  (( ${#entries} )) && _describe command entries",
    "  [[ -n $paths ]] && _files",
    "}",
    `_${name} "$@"`,
  ].join("\n")}\n`;
}

/** File name -> text: for /usr/share/bash-completion/completions and /usr/share/zsh/vendor-completions. */
export function completionFiles({ coverlay, dlmd }: Programs): ReadonlyMap<string, string> {
  return new Map([
    ["bash/coverlay", bash(coverlay)],
    ["bash/dlmd", bash(dlmd)],
    ["zsh/_coverlay", zsh(coverlay)],
    ["zsh/_dlmd", zsh(dlmd)],
  ]);
}
