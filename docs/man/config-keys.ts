/** The keys of cluster.yaml, from the schema that parses it: what each expects, in the words of its own refusal, and its default. */
import type * as z from "zod";
import { clusterFileSchema } from "../../dlmd/config/cluster-config.ts";

export interface ConfigKey {
  /** "nodes[].address" */
  readonly path: string;
  /** What may stand there: a refusal says "expected" and these words. */
  readonly expected: string;
  /** As YAML; "" without one. */
  readonly defaultWords: string;
  readonly isRequired: boolean;
}

/** What zod's classes say of themselves, as far as it is looked at here (zod 4, `def`). */
interface Schema {
  readonly def: {
    readonly type: string;
    readonly innerType?: Schema;
    readonly element?: Schema;
    readonly in?: Schema;
    readonly out?: Schema;
    readonly shape?: Readonly<Record<string, Schema>>;
    readonly defaultValue?: unknown;
  };
  readonly safeParse: z.ZodType["safeParse"];
}

/** A value that no key takes. */
const WRONG = Symbol("wrong");

function expectedBy(schema: Schema): string {
  return schema.safeParse(WRONG).error?.issues[0]?.message ?? "";
}

/** What stands behind optional, default and transformations; "[]" for each list that it stands in. */
function inside({ def }: Schema, lists = ""): { readonly lists: string; readonly shape: Readonly<Record<string, Schema>> | null } {
  if (def.shape !== undefined) return { lists, shape: def.shape };
  if (def.element !== undefined) return inside(def.element, `${lists}[]`);
  const below = def.innerType ?? (def.in?.def.type === "transform" ? def.out : def.in);
  return below === undefined ? { lists, shape: null } : inside(below, lists);
}

function wordsOfDefault(value: unknown): string {
  return value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
}

function keysOf(shape: Readonly<Record<string, Schema>>, above: string): ConfigKey[] {
  return Object.entries(shape).flatMap(([name, schema]) => {
    const path = `${above}${name}`;
    const { type, defaultValue } = schema.def;
    // What is filled in before it is parsed is no default of its own: its keys have theirs.
    const hasDefault = type === "default";
    const key: ConfigKey = {
      path,
      expected: expectedBy(schema),
      defaultWords: hasDefault ? wordsOfDefault(defaultValue) : "",
      isRequired: !["default", "prefault", "optional"].includes(type),
    };
    const below = inside(schema);
    return below.shape === null ? [key] : [key, ...keysOf(below.shape, `${path}${below.lists}.`)];
  });
}

export function configKeys(): readonly ConfigKey[] {
  const { shape } = inside(clusterFileSchema());
  if (shape === null) throw new Error("the schema of cluster.yaml has keys, expected");
  return keysOf(shape, "");
}
