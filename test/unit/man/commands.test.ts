/** What holds for every command, so that a new one cannot lack it: --json, a status in the man page, and what its long work shows and Ctrl-C does. */
import { describe, expect, it } from "vitest";
import { type Command, flatten } from "../../../docs/man/command.ts";
import { recordPrograms } from "../../../docs/man/programs.ts";
import { read } from "../../tidy/paths.ts";

const { coverlay, dlmd } = await recordPrograms();
const page = read("docs/man/coverlay.8.md");

const section = (title: string): string => page.split(/^## /m).find((part) => part.startsWith(title)) ?? "";

/** Commands named in the first column of a table: `fence NODE` names `fence`, and `status --watch` names `status`. */
function namedIn(text: string): ReadonlySet<string> {
  const cells = [...text.matchAll(/^\| (`[^|]+) \|/gm)].flatMap(([, cell = ""]) => [...cell.matchAll(/`([^`]+)`/g)]);
  return new Set(cells.map(([, words = ""]) => words.replace(/ (?:--|[A-Z]).*$/, "")));
}

/** All that do something themselves, with the options that they inherit. */
function commandsOf(
  command: Command,
  inherited: readonly string[] = [],
): { readonly command: Command; readonly options: readonly string[] }[] {
  const options = [...inherited, ...command.options.map(({ name }) => name)];
  const isGroup = command.commands.length > 0 && !(command.positionals.length > 0 || command.words.at(-1) === "setup");
  return [...(isGroup ? [] : [{ command, options }]), ...command.commands.flatMap((each) => commandsOf(each, options))];
}

const all = commandsOf(coverlay).map(({ command, options }) => ({ name: command.words.slice(1).join(" "), command, options }));

/** They ask dlmd or overlays, which have a limit of some seconds, or change files and settings. */
const QUICK: ReadonlySet<string> = new Set(
  [
    "status, metrics, nodes, locks, why, fence show, fence history, fence ack, quorum reset",
    "volume show, volume release, config show, keygen, install-mount-helper",
    "lab status, lab owner, lab kill, lab cut, lab uncut, lab hang, lab unhang, lab stall, lab unstall, lab partition, lab heal, lab net",
  ].flatMap((names) => names.split(", ")),
);

it("there are as many as that", () => {
  expect(all.length).toBeGreaterThan(35);
  expect(flatten(coverlay).length).toBeGreaterThanOrEqual(all.length);
});

describe.each(all)("coverlay $name", ({ name, options, command }) => {
  it("takes --json", () => expect(options).toContain("json"));

  it("is quick, or the man page has what it shows and what Ctrl-C does", () => {
    const isLong = namedIn(section("LONG WORK")).has(name);
    expect([name, isLong || QUICK.has(name)]).toEqual([name, true]);
  });

  it("with exit statuses of its own stands in the table of them, too", () => {
    const own = [...command.notes, command.summary].some((note) => /exit status/i.test(note));
    // The lab's commands and mounts have a page of their own.
    const elsewhere = name === "mount" || name.startsWith("lab");
    expect([name, !own || elsewhere || namedIn(section("EXIT STATUS")).has(name)]).toEqual([name, true]);
  });
});

it("each row about long work says what is shown, and what Ctrl-C leaves", () => {
  const rows = [...section("LONG WORK").matchAll(/^\| `(.*) \|$/gm)].map(([, row = ""]) => row.split(" | "));
  expect(rows.length).toBeGreaterThan(12);
  expect(rows.filter((cells) => cells.length !== 3 || cells.some((cell) => cell.trim() === ""))).toEqual([]);
});

it("what the tables name is a command", () => {
  const known = new Set(all.map(({ name }) => name));
  const named = [...namedIn(section("LONG WORK")), ...namedIn(section("EXIT STATUS"))];
  expect(named.filter((name) => !known.has(name))).toEqual([]);
  expect([...QUICK].filter((name) => !known.has(name))).toEqual([]);
});

it("dlmd says its exit statuses", () => {
  expect(dlmd.notes.some((note) => /exit status/i.test(note))).toBe(true);
});
