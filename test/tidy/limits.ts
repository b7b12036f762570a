/**
 * The timers and limits of the product, read from its sources: each top-level constant whose name says that it is one, with its value as
 * a person writes it. Of C++ there is the keeper, a program of its own. `limits.test.ts` holds overlay/LIMITS.md and dlmd/LIMITS.md to them.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

export const root: string = path.resolve(import.meta.dirname, "../..");

export interface Limit {
  /** Relative to its table's folder; of C++ to the root. */
  readonly file: string;
  readonly name: string;
  /** "60 s", "64 KiB", "0.6 time-outs", "4,096". */
  readonly value: string;
}

/** Timers end in their unit; limits say MAX, MIN, LIMIT or TRIES; a share is one of the cluster's time-out. */
const NAME = /(_MS|Ms|_US)$|^(MAX|MIN|max|min)(_|[A-Z])|(_MAX|_MIN|_LIMIT|_TRIES|Limit|Share|Every|Window|AtOnce)$|TIMEOUT/;
const CONSTANT = /^(?:export )?const ([A-Za-z_]\w*)(?:: number)? = ([\w .*+()-]+);$/gm;

/** The same of C++. */
const NATIVE_NAME = /^k\w*(Ms|Us|Ns|Max|Min|Limit|Tries)$/;
const NATIVE_CONSTANT = /^(?:static |inline )*constexpr [\w:]+ (k\w+) = ([\w' .*+()-]+);/gm;
/** <cstdint> */
const NATIVE_MEANINGS: ReadonlyMap<string, string> = new Map([["INT32_MAX", "2147483647"]]);
const KEEPER = "native/src/keeper";

function sources(folder: string, ending: RegExp): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => ending.test(file) && !file.includes("node_modules"))
    .sort();
}

/** All constants of a file with a plain arithmetical value, by name. */
function constantsOf(text: string, constant: RegExp): Map<string, string> {
  return new Map([...text.matchAll(constant)].map(([, name, value]) => [name ?? "", (value ?? "").replaceAll("'", "_")]));
}

/** `overlay` or `dlmd`: what is TypeScript there. */
export function limitsOf(folder: string): Limit[] {
  const texts = new Map(sources(folder, /\.ts$/).map((file) => [file, readFileSync(path.join(root, folder, file), "utf8")]));
  return limitsIn(texts, { constant: CONSTANT, isLimit: (name) => NAME.test(name) });
}

/** Of the keeper of a mount (C++). */
export function keeperLimits(): Limit[] {
  const files = sources(KEEPER, /\.(cc|h)$/).map((file) => `${KEEPER}/${file}`);
  const texts = new Map(files.map((file) => [file, readFileSync(path.join(root, file), "utf8")]));
  return limitsIn(texts, { constant: NATIVE_CONSTANT, isLimit: (name) => NATIVE_NAME.test(name), known: NATIVE_MEANINGS });
}

interface Language {
  readonly constant: RegExp;
  readonly isLimit: (name: string) => boolean;
  readonly known?: ReadonlyMap<string, string>;
}

function limitsIn(texts: ReadonlyMap<string, string>, { constant, isLimit, known = new Map() }: Language): Limit[] {
  const everywhere = new Map([...known, ...[...texts.values()].flatMap((text) => [...constantsOf(text, constant)])]);
  const limits: Limit[] = [];
  for (const [file, text] of texts) {
    const here = constantsOf(text, constant);
    for (const [name, expression] of here) {
      if (!isLimit(name) || expression.endsWith("n")) continue;
      limits.push({
        file,
        name,
        value: shown(
          name,
          evaluate(expression, (other) => here.get(other) ?? everywhere.get(other) ?? ""),
        ),
      });
    }
  }
  return limits;
}

/** Sums and products of numbers and of other constants. Throws Error for anything else. */
export function evaluate(expression: string, meaning: (name: string) => string): number {
  const tokens = expression.match(/[A-Za-z_]\w*|\d[\w.]*|\*\*|[*+()-]/g) ?? [];
  let at = 0;
  const atom = (): number => {
    const token = tokens[at++] ?? "";
    if (token === "(") {
      const value = sum();
      at += 1;
      return value;
    }
    const number = Number(token.replaceAll("_", ""));
    if (/^\d/.test(token) && !Number.isNaN(number)) return number;
    const other = meaning(token);
    if (other === "") throw new Error(`"${token}" in "${expression}" is no number and no constant`);
    return evaluate(other, meaning);
  };
  const power = (): number => {
    const base = atom();
    if (tokens[at] !== "**") return base;
    at += 1;
    return base ** power();
  };
  const product = (): number => {
    let value = power();
    while (tokens[at] === "*") {
      at += 1;
      value *= power();
    }
    return value;
  };
  const sum = (): number => {
    let value = product();
    while (tokens[at] === "+" || tokens[at] === "-") value += tokens[at++] === "+" ? product() : -product();
    return value;
  };
  return sum();
}

function shown(name: string, value: number): string {
  if (name.endsWith("_US")) return `${value} us`;
  if (/(_MS|Ms)$/.test(name)) return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
  if (name.endsWith("Share")) return `${value} time-outs`;
  if (!/bytes/i.test(name)) return value.toLocaleString("en-US");
  for (const [unit, bytes] of [
    ["GiB", 2 ** 30],
    ["MiB", 2 ** 20],
    ["KiB", 2 ** 10],
  ] as const) {
    if (value >= bytes && value % bytes === 0) return `${value / bytes} ${unit}`;
  }
  return `${value.toLocaleString("en-US")} bytes`;
}

/** A row of a table. */
export interface LimitRow extends Limit {
  readonly what: string;
  /** Below `test/`. */
  readonly test: string;
}

/** The rows of that page, below `root`. */
export function rowsOf(page: string): LimitRow[] {
  const text = readFileSync(path.join(root, page), "utf8");
  return [...text.matchAll(/^\| `([^`]+)` `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]*) \|$/gm)].map(([, file, name, value, what, test]) => ({
    file: file ?? "",
    name: name ?? "",
    value: (value ?? "").trim(),
    what: (what ?? "").trim(),
    test: (test ?? "").trim().replaceAll("`", ""),
  }));
}
