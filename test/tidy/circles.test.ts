/**
 * No file of the product imports itself by way of others, neither values nor types: what two files need of each other lies below both.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");

function sources(folder: string): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !/node_modules|native\/build/.test(file))
    .map((file) => path.join(folder, file));
}

function importsOf(file: string): string[] {
  const text = readFileSync(path.join(root, file), "utf8");
  return [...text.matchAll(/(?:^\s*(?:import|export)\s[^"';]*?from\s+|^\s*import\s+|\bimport\()"(\.[^"]+)"/gm)].map(([, specifier]) =>
    path.join(path.dirname(file), specifier ?? ""),
  );
}

/** Of a graph, the nodes that can be reached from themselves. */
function inCircles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const reaches = (from: string): boolean => {
    const seen = new Set<string>();
    const open = [...(graph.get(from) ?? [])];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (next === from) return true;
      if (seen.has(next)) continue;
      seen.add(next);
      open.push(...(graph.get(next) ?? []));
    }
    return false;
  };
  return [...graph.keys()].filter(reaches).toSorted();
}

it("finds a circle of three, and what only leads to it is not in it", () => {
  const graph = new Map([
    ["a", ["b"]],
    ["b", ["c"]],
    ["c", ["d"]],
    ["d", ["b"]],
  ]);
  expect(inCircles(graph)).toEqual(["b", "c", "d"]);
});

it("no file imports itself by way of others", () => {
  const graph = new Map([...sources("dlmd"), ...sources("overlay")].map((file) => [file, importsOf(file)]));
  expect(graph.size).toBeGreaterThan(100);
  expect(inCircles(graph)).toEqual([]);
});
