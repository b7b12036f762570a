/** A person says that a node is dead for sure: found among those that are waited for, and given to the core (recovery/fence-gate.ts). */
import { OperatingError } from "../base/error.ts";
import type { NodeEvent } from "../node-api.ts";
import type { StatusAnswer } from "../query/answer.ts";
import { parseViewName } from "../wire/view-id.ts";

export type FencedNode = StatusAnswer["unfenced"][number];

function nobodyWaits(nodeid: number, status: StatusAnswer | null): OperatingError {
  const waited = (status?.unfenced ?? []).map((one) => one.nodeid);
  return new OperatingError(`nothing waits until node ${nodeid} is known to be dead`, {
    code: "not-waited-for",
    hint: waited.length === 0 ? "Nothing waits for any node." : `What is waited for: nodes ${waited.join(", ")}.`,
  });
}

/** `step`: gives the core's answer, "" it was taken; null: there is no core between two lives. Throws OperatingError. */
export function acknowledgeFence(
  nodeid: number,
  by: string,
  status: StatusAnswer | null,
  step: (result: Extract<NodeEvent, { kind: "fence-result" }>) => string | null,
): FencedNode {
  const open = status?.unfenced.find((one) => one.nodeid === nodeid);
  const failingView = open === undefined ? null : parseViewName(open.failingView);
  if (open === undefined || failingView === null) throw nobodyWaits(nodeid, status);
  const refused = step({ kind: "fence-result", nodeid, incarnation: open.incarnation, failingView, by });
  if (refused === "") return open;
  throw new OperatingError(`the acknowledgement was not taken: ${refused ?? "this node is between two lives"}`, {
    code: "not-fenced",
    hint: "coverlay fence show says who is waited for now.",
  });
}
