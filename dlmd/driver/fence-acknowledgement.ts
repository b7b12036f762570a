/** A person says that a node is dead for sure: found among those that are waited for, and given to the core (recovery/fence-gate.ts). */
import { OperatingError } from "../base/error.ts";
import type { NodeEvent } from "../node-api.ts";
import type { StatusAnswer } from "../query/answer.ts";
import { parseViewName } from "../wire/view-id.ts";

export type FencedNode = StatusAnswer["unfenced"][number];

function nobodyWaits(nodeid: number, status: StatusAnswer | null): OperatingError {
  const waited = [...new Set([...(status?.unfenced ?? []), ...(status?.fencing.wanted ?? [])].map((one) => one.nodeid))];
  return new OperatingError(`nothing waits until node ${nodeid} is known to be dead`, {
    code: "not-waited-for",
    hint: waited.length === 0 ? "Nothing waits for any node." : `What is waited for: nodes ${waited.join(", ")}.`,
  });
}

/** What a program asks for (fencing/): a lockspace may wait for the same node. */
function acknowledgeWanted(
  nodeid: number,
  by: string,
  wanted: StatusAnswer["fencing"]["wanted"][number] | undefined,
  step: AcknowledgeStep,
): FencedNode | null {
  if (wanted === undefined) return null;
  const refused = step({ kind: "fence-ack", nodeid, by });
  if (refused !== "") throw notTaken(refused);
  return { nodeid, incarnation: wanted.incarnations.at(-1) ?? "", failingView: "", lockspaces: [] };
}

function notTaken(refused: string | null): OperatingError {
  return new OperatingError(`the acknowledgement was not taken: ${refused ?? "this node is between two lives"}`, {
    code: "not-fenced",
    hint: "coverlay fence show says who is waited for now.",
  });
}

export function notOrdered(nodeid: number, refused: string | null): OperatingError {
  return new OperatingError(`node ${nodeid} is not fenced: ${refused ?? "this node is between two lives"}`, {
    code: "not-fenced",
    hint: "coverlay fence show says which nodes have a device; coverlay status, what the view is.",
  });
}

type AcknowledgeStep = (event: Extract<NodeEvent, { kind: "fence-result" | "fence-ack" }>) => string | null;

/** `step`: gives the core's answer, "" it was taken; null: there is no core between two lives. Throws OperatingError. */
export function acknowledgeFence(nodeid: number, by: string, status: StatusAnswer | null, step: AcknowledgeStep): FencedNode {
  const open = status?.unfenced.find((one) => one.nodeid === nodeid);
  const failingView = open === undefined ? null : parseViewName(open.failingView);
  const asked = acknowledgeWanted(
    nodeid,
    by,
    status?.fencing.wanted.find((one) => one.nodeid === nodeid),
    step,
  );
  if (open === undefined || failingView === null) {
    if (asked === null) throw nobodyWaits(nodeid, status);
    return asked;
  }
  const refused = step({ kind: "fence-result", nodeid, incarnation: open.incarnation, failingView, by });
  // Where one word was enough for both, nothing waited for the second.
  if (refused === "" || asked !== null) return open;
  throw notTaken(refused);
}
