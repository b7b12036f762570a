/** Documents are true and easy to read, as far as that can be counted: paths that they name, variables, widths, lengths of sentences. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { filesBelow, missingOf, read, root } from "./paths.ts";

const LINE_COLUMNS = 100;
const SENTENCE_WORDS = 25;

const documents = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"], { cwd: root, encoding: "utf8" })
  .split("\n")
  .filter((file) => file !== "");

/** Without what is no prose: blocks of code (indented or fenced) and tables. */
function proseOf(text: string): string[] {
  return text
    .replaceAll(/^```[\s\S]*?^```$/gm, "")
    .split("\n")
    .filter((line) => !/^(\||    |\t)/.test(line));
}

/** A sentence ends with a stop, with a colon before a capital, or with its paragraph, its point or its heading. */
function sentencesOf(text: string): string[] {
  return proseOf(text)
    .join("\n")
    .replaceAll(/^ *(#+|\*|\d+\.) /gm, "\n\n")
    .split(/\n\s*\n/)
    .flatMap((paragraph) => paragraph.replaceAll(/\s+/g, " ").split(/(?<=[.?!][)*"]*) +(?=["*`(]*[A-Z0-9a-z./_-])|(?<=:) +(?=[A-Z`*])/))
    .map((sentence) => sentence.trim());
}

/**
 * What looks like a file or a folder of ours: in code quotes (from the root, from the document's folder, or from `test/`), and in pictures and
 * tables with its folder in front.
 */
function pathsOf(text: string): string[] {
  const quoted = text.matchAll(/`([\w-][\w./-]*(?:\.(?:ts|md|cc|h|scenario)|\/))`/g);
  const full = text.matchAll(/(?<![\w./-])((?:overlay|dlmd|native|test|examples)\/[a-z0-9./-]+\.(?:ts|md|cc|h|scenario))\b/g);
  return [...new Set([...quoted, ...full].map(([, file]) => file ?? ""))];
}

describe.each(documents)("%s", (document) => {
  const text = read(document);

  it("names only paths that are there", () => {
    const bases = ["", path.dirname(document), "test"];
    const paths = pathsOf(text).filter((file) => !bases.some((base) => existsSync(path.join(root, base, file))));
    expect(missingOf(paths)).toEqual([]);
  });

  it(`has lines of up to ${LINE_COLUMNS} columns, but for tables and code`, () => {
    expect(proseOf(text).filter((line) => line.length > LINE_COLUMNS)).toEqual([]);
  });

  it(`has sentences of up to ${SENTENCE_WORDS} words`, () => {
    expect(sentencesOf(text).filter((sentence) => sentence.split(" ").length > SENTENCE_WORDS)).toEqual([]);
  });
});

it.each(["overlay", "dlmd"])("%s/README.md names each room", (folder) => {
  const rooms = new Set(filesBelow(folder).flatMap((file) => (/^\w+\/[\w-]+\/.*\.ts$/.test(file) ? [file.split("/")[1] ?? ""] : [])));
  const text = read(`${folder}/README.md`);
  expect([...rooms].filter((room) => !new RegExp(`(?<![\\w/-])${room}/`).test(text))).toEqual([]);
});

it("comments lead to sections that are there", () => {
  const files = ["overlay", "dlmd", "native", "test", "examples"].flatMap(filesBelow).filter((file) => /\.(ts|mjs|cc|h)$/.test(file));
  const lost = files.flatMap((file) =>
    [
      ...read(file)
        .replaceAll(/\n\s*(\*|\/\/) /g, " ")
        .matchAll(/((?:[\w-]+\/)*[A-Z]+\.md), "([^"]+)"/g),
    ]
      .filter(([, page = "", title = ""]) => !existsSync(path.join(root, page)) || !new RegExp(`^#+ ${title}$`, "m").test(read(page)))
      .map(([words]) => `${file}: ${words}`),
  );
  expect(lost).toEqual([]);
});

it("test/README.md has a row for each environment variable of ours, and for no other", () => {
  const files = ["overlay", "dlmd", "native", "test", "examples"].flatMap(filesBelow).filter((file) => /\.(ts|mjs|cc|h|py)$/.test(file));
  const used = [...files, "vitest.config.ts", ".ci/run"].flatMap((file) => read(file).match(/\bCOVERLAY_[A-Z_]+\b/g) ?? []);
  const rows = [...read("test/README.md").matchAll(/^\| `(COVERLAY_\w+)` \|/gm)].map(([, name]) => name ?? "");
  expect(rows.toSorted()).toEqual([...new Set(used)].toSorted());
});
