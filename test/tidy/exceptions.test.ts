/**
 * The contract of the overlay and its exceptions lead to each other. The table of overlay/README.md names exactly the numbers and letters that
 * overlay/EXCEPTIONS.md explains, and no comment or page cites another one.
 */
import { expect, it } from "vitest";
import { filesBelow, read } from "./paths.ts";

/** A page that is read from its beginning to its end. */
const README_WORDS_MAX = 1500;
const CITED = /\bexception (S?\d+) (?:of the contract|in `)|EXCEPTIONS\.md`?, (?:exception )?(S?\d+)\b/gi;

const contract = read("overlay/README.md");
const page = read("overlay/EXCEPTIONS.md");

/** A section for each number, a row for each letter, in the order of the page. */
const explained = [...page.matchAll(/^(?:## (\d+)\. |\| (S\d+) \|)/gm)].map(([, number, letter]) => number ?? letter ?? "");

/** Of the table's last column, without pages that it names. */
function named(): string[] {
  const [, table = ""] = /^## The contract\n[\s\S]*?^(\| call [\s\S]*?)\n\n/m.exec(contract) ?? [];
  const cells = table.split("\n").map((row) => row.split("|").at(-2) ?? "");
  return cells.slice(2).flatMap((cell) =>
    cell
      .replaceAll(/`[^`]*`/g, "")
      .split(/\s+/)
      .filter((word) => word !== ""),
  );
}

it("overlay/README.md is short, and leads to the exceptions", () => {
  expect(contract.split(/\s+/).filter((word) => word !== "").length).toBeLessThan(README_WORDS_MAX);
  expect(contract).toContain("(EXCEPTIONS.md)");
});

it("the contract names each exception that is explained, each is explained once, and no other is named", () => {
  expect(explained.length).toBeGreaterThan(20);
  expect(explained.toSorted()).toEqual([...new Set(named())].toSorted());
});

it("a page or a comment that cites an exception cites one that is there", () => {
  const files = ["overlay", "dlmd", "native", "docs", "test"].flatMap(filesBelow).filter((file) => /\.(ts|md|cc|h)$/.test(file));
  const cited = [...files, "README.md", "CHANGELOG.md"].flatMap((file) =>
    [...read(file).matchAll(CITED)].map(([, first, second]) => ({ file, exception: (first ?? second ?? "").toUpperCase() })),
  );
  expect(cited.length).toBeGreaterThan(10);
  expect(cited.filter(({ exception }) => !explained.includes(exception))).toEqual([]);
});
