/** What another node's `coverlay doctor` has printed (judge-others.ts, toldToAnother): text of another machine, so nothing of it is believed unread. */
import * as z from "zod";
import type { Finding } from "./finding.ts";
import { MAX_TOLD_FINDINGS } from "./judge-others.ts";

/** Of each word of a finding. */
const MAX_WORDS_CHARS = 16 * 1024;

const words = z.string().max(MAX_WORDS_CHARS);
const shape = z.object({
  node: z.string().max(64).nullable(),
  findings: z
    .array(
      z.object({
        // A later version may have more.
        check: z.string().regex(/^[a-z-]{1,32}$/),
        about: words,
        status: z.enum(["ok", "warn", "fail", "unknown"]),
        expected: words,
        found: words,
        action: words,
      }),
    )
    .max(MAX_TOLD_FINDINGS + 1),
});

/** A string: why it is no report of that node. */
export function readForeignReport(text: string, node: string): readonly Finding[] | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "its answer is no JSON";
  }
  const { success, data, error } = shape.safeParse(value);
  if (!success) return `its answer is no report: ${z.prettifyError(error).slice(0, 200).replaceAll("\n", " ")}`;
  if (data.node !== node) return `${data.node === null ? "a machine that is no node" : `node ${data.node}`} answers there`;
  return data.findings as Finding[];
}
