/** A person says that the nodes for which this one waits are gone for good: refused where nobody is waited for (membership/README.md). */
import { OperatingError } from "../base/error.ts";
import type { NodeEvent } from "../node-api.ts";
import type { StatusAnswer } from "../query/answer.ts";

/** `was`: whose votes counted here until now. Throws OperatingError. */
export function countAll(
  by: string,
  status: StatusAnswer | null,
  step: (event: Extract<NodeEvent, { kind: "count-all" }>) => void,
): { readonly was: readonly number[] } {
  const refuse = (message: string, hint: string): OperatingError => new OperatingError(message, { code: "not-reset", hint });
  if (status === null) throw refuse("this node is between two lives", "Ask again in a moment.");
  if (status.quorate) throw refuse(`this node has the quorum: ${status.quorumReason}`, "Nothing is to be done.");
  if (status.counting === null) {
    throw refuse(`the votes of all nodes count: ${status.quorumReason}`, "Start more nodes, or remove votes: coverlay config --help.");
  }
  step({ kind: "count-all", by });
  return { was: status.counting };
}
