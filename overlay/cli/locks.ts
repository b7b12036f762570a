/** `coverlay locks`: the locks that this node's dlmd knows of, by resource. */
import type { CommandModule } from "yargs";
import { askDlmd } from "./dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand } from "./output.ts";

interface LocksArguments extends NodeOptions {
  readonly resource: string | undefined;
}

/** Plain data as indented lines: what dlmd tells about its locks is its own, and grows. */
export function describeData(value: unknown, indent = ""): string {
  if (Array.isArray(value)) return value.map((item) => describeItem(item, indent)).join("\n");
  if (typeof value !== "object" || value === null) return `${indent}${String(value)}`;
  return Object.entries(value)
    .map(([key, inner]) =>
      isNested(inner) ? `${indent}${key}:\n${describeData(inner, `${indent}  `)}` : `${indent}${key} ${words(inner)}`,
    )
    .join("\n");
}

function describeItem(item: unknown, indent: string): string {
  if (typeof item !== "object" || item === null || Array.isArray(item)) return describeData(item, indent);
  const entries = Object.entries(item);
  const line = entries.filter(([, inner]) => !isNested(inner)).map(([key, inner]) => `${key} ${words(inner)}`);
  const below = entries
    .filter(([, inner]) => isNested(inner))
    .map(([key, inner]) => `${indent}  ${key}:\n${describeData(inner, `${indent}    `)}`);
  return [`${indent}${line.join("  ")}`, ...below].join("\n");
}

/** Worth lines of its own: a list of objects, or an object that is not empty. */
function isNested(value: unknown): boolean {
  if (Array.isArray(value)) return value.some((item) => typeof item === "object" && item !== null);
  return typeof value === "object" && value !== null && Object.keys(value).length > 0;
}

function words(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? "-" : value.join(",");
  if (typeof value === "object") return "-";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Keeps, of every list in it, the entries about that resource. */
export function onlyResource(value: unknown, resource: string): unknown {
  if (Array.isArray(value)) {
    const about = value.filter((item) => !hasResource(item) || nameOf(item) === resource);
    return about.map((item) => (hasResource(item) ? item : onlyResource(item, resource)));
  }
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, onlyResource(inner, resource)]));
}

function nameOf(item: unknown): unknown {
  return (item as { resource?: unknown }).resource;
}

function hasResource(item: unknown): boolean {
  return typeof item === "object" && item !== null && typeof nameOf(item) === "string";
}

export const locksCommand: CommandModule<object, LocksArguments> = {
  command: "locks [resource]",
  describe: "the locks this node masters or holds, by resource",
  builder: (yargs) =>
    nodeOptions(yargs)
      .positional("resource", { type: "string", describe: "only this resource" })
      .example("$0 locks", "all of them")
      .example("$0 locks --json", "for programs"),
  handler: ({ runDir, json, resource }) =>
    runCommand(json, async () => {
      const { answer } = await askDlmd(runDir, "locks");
      const shown = resource === undefined ? answer : onlyResource(answer, resource);
      if (json) printJson(shown);
      else print(describeData(shown) || "no locks");
    }),
};
