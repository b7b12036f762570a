/** Shapes of cluster.yaml's values. Their errors are the words after "expected", which a refusal quotes as they stand. */
import * as z from "zod";

export function text(pattern: RegExp, expected: string): z.ZodType<string> {
  return z.string({ error: expected }).regex(pattern, { error: expected });
}
export function whole(min: number, max: number, unit = ""): z.ZodType<number> {
  const expected = `a whole number from ${min} to ${max}${unit}`;
  return z.int({ error: expected }).min(min, { error: expected }).max(max, { error: expected });
}
export function list<T>(row: z.ZodType<T>, min: number, max: number, what: string): z.ZodType<T[]> {
  const expected = `a list of ${min} to ${max} ${what}`;
  return z.array(row, { error: expected }).min(min, { error: expected }).max(max, { error: expected });
}
export function flag(): z.ZodDefault<z.ZodBoolean> {
  return z.boolean({ error: "true or false" }).default(false);
}
export function objectExpected(issue: { readonly code?: string | undefined }): string | undefined {
  return issue.code === "invalid_type" ? "keys and values" : undefined;
}
export const memberName: RegExp = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/;

export interface ConfigProblem {
  /** "nodes[1].address"; "" for the file as a whole. */
  readonly path: string;
  readonly expected: string;
  readonly found: string;
}
