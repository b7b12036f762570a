/**
 * Which packages of node_modules the programs need when they run, from the "dependencies" of each package.json. A package is
 * looked for as Node.js does: in node_modules beside the one that wants it, then further up.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";

export interface Carried {
  readonly name: string;
  readonly version: string;
  /** SPDX. */
  readonly license: string;
  /** Relative to the project: node_modules/... */
  readonly folder: string;
}

interface PackageJson {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
  readonly author?: string | { readonly name?: string };
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Builds the addon, and is not needed after that. */
const BUILD_ONLY: ReadonlySet<string> = new Set(["node-gyp"]);

export function readPackage(folder: string): PackageJson {
  return JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8")) as PackageJson;
}

function find(root: string, from: string, name: string): string | null {
  for (let folder = from; ; folder = path.dirname(folder)) {
    const candidate = path.join(folder, "node_modules", name);
    if (existsSync(path.join(candidate, "package.json"))) return candidate;
    if (folder === root) return null;
  }
}

/** Sorted by folder. Throws Error for one that is not installed; an optional one may be absent. */
export function carriedPackages(root: string): Carried[] {
  const found = new Map<string, Carried>();
  const visit = (folder: string): void => {
    const { dependencies = {}, optionalDependencies = {} } = readPackage(folder);
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      if (BUILD_ONLY.has(name)) continue;
      const at = find(root, folder, name);
      if (at === null && name in optionalDependencies) continue;
      if (at === null) throw new Error(`${name} is not installed, and ${path.relative(root, folder) || "coverlay"} needs it: run npm ci`);
      const relative = path.relative(root, at);
      if (found.has(relative)) continue;
      const { version, license = "unknown" } = readPackage(at);
      found.set(relative, { name, version, license, folder: relative });
      visit(at);
    }
  };
  visit(root);
  return [...found.values()].toSorted((a, b) => (a.folder < b.folder ? -1 : 1));
}
