/** A person says that the nodes for which this one waits are gone for good: refused where nobody is waited for (membership/README.md). */
import { OperatingError } from "../base/error.ts";
import type { NodeEvent } from "../node-api.ts";
import type { StatusAnswer } from "../query/answer.ts";

/**
 * `was`: whose votes counted here until now. `step` answers whether this node had anything to reset; null: there was nobody to ask. Throws
 * OperatingError "not-reset".
 */
export function countAll(
  by: string,
  status: StatusAnswer | null,
  step: (event: Extract<NodeEvent, { kind: "count-all" }>) => boolean | null,
): { readonly was: readonly number[] } {
  const refuse = (message: string, hint: string): OperatingError => new OperatingError(message, { code: "not-reset", hint });
  const betweenLives = (): OperatingError => refuse("this node is between two lives", "Ask again in a moment.");
  if (status === null) throw betweenLives();
  if (status.quorate) throw refuse(`this node has the quorum: ${status.quorumReason}`, "Nothing is to be done.");
  if (status.counting === null) {
    throw refuse(`the votes of all nodes count: ${status.quorumReason}`, "Start more nodes, or remove votes: coverlay config --help.");
  }
  const isReset = step({ kind: "count-all", by });
  if (isReset === null) throw betweenLives();
  if (!isReset) {
    const others = status.members.filter((nodeid) => nodeid !== status.nodeid);
    const where = others.length === 0 ? "every other node that is there" : `node ${others.join(", node ")}`;
    throw refuse("this node had nothing to reset: that not all count is what others of this view have stored", `Run it on ${where}.`);
  }
  return { was: status.counting };
}
