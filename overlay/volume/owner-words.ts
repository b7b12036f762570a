/** What a mount is to its volume, or waits for, in one line for people: the words of the owner's state machine (owner-core.ts). */
import { assertNever } from "../../dlmd/base/assert.ts";
import type { OwnerState } from "./owner-state.ts";

/** What a person can do about a withdrawn owner. A process that waits for its disk in the kernel takes no signal: then only the fence is left. */
const WITHDRAWN_HINT =
  "If it stays so: end the overlay of this node (SIGTERM; coverlay status there names its process), or, if it does not end, run coverlay fence NODE --yes on another node; then a node that reaches the disk goes on.";

/** What the parts of the state machine know beside what they share. */
export interface RoleDetails {
  /** Why there is no proof that the owner before is over; null: none is missing, as far as is known. */
  readonly unproved: string | null;
  /** Of which node there is none. */
  readonly unprovedNode: number | null;
  /** Why the disk could not be proved released. */
  readonly unreleased: Error | null;
  /** The disk is free, but not all is on it. */
  readonly letGo: boolean;
  /** This node has let go of the disk without a quorum. */
  readonly selfFenced: boolean;
  /** To whom this owner hands the volume over; 0: to nobody. */
  readonly heir: number;
}

export function describeRole(state: OwnerState, details: RoleDetails): string {
  const name = state.last === null ? "" : state.nameOf(state.last.nodeid);
  switch (state.phase) {
    case "owning":
      return "this node has the volume mounted";
    case "watching":
      return `${state.found === null ? whyWatching(state, details, name) : `through ${name}`}${whyUnreached(state)}`;
    case "claiming":
    case "announcing":
    case "mounting":
    case "raising":
    case "publishing":
      return "mounting the volume";
    case "retreating":
    case "admitting":
    case "withdrawing":
      return `withdrawing: ${state.withdrawal}; calls wait until the disk is released`;
    case "withdrawn":
      return `withdrawn: ${state.withdrawal}; the disk could not be proved released: ${details.unreleased?.message ?? "?"}. Calls wait on every node. ${WITHDRAWN_HINT}`;
    case "letting-go":
      return `${state.withdrawal}: this node lets go of the disk, so that another one may mount it; calls wait. If that takes long it waits to be fenced`;
    case "closing":
    case "releasing":
    case "passing-on":
    case "retiring":
      return whyReleasing(state, details);
    case "idle":
    case "reading":
    case "stepping-down":
      return "the owner is changing";
    case "left":
      return state.error === null ? "left" : `left: ${state.error.message}`;
    default:
      return assertNever(state.phase, "phase");
  }
}

function whyReleasing(state: OwnerState, { selfFenced, heir, letGo }: RoleDetails): string {
  if (selfFenced) return `${state.withdrawal}: this node has let go of the disk. Calls wait until it is back in the cluster`;
  if (heir !== 0) return `handing the volume over to ${state.nameOf(heir)}`;
  if (state.withdrawal === "") return "releasing the volume";
  return `withdrawing: ${state.withdrawal}; the disk is ${letGo ? "let go of" : "released"}`;
}

function whyWatching(state: OwnerState, details: RoleDetails, name: string): string {
  const verdict = state.verdict();
  if (verdict === "following" && state.last?.state === "withdrawn") {
    return `owner ${name} has withdrawn: its disk has failed. Calls wait until the disk is released (coverlay status on ${name} says why). ${WITHDRAWN_HINT.replace("this node", name).replace("NODE", name)}`;
  }
  if (verdict === "following") return `${name} is mounting the volume`;
  const unproved = details.unproved === null ? "" : `; no other node may: ${details.unproved}`;
  if (verdict === "dead") return `owner ${name} is gone: operations go on when ${name} mounts the volume again${unproved}`;
  if (details.unproved !== null && details.unprovedNode !== null) {
    return `${state.nameOf(details.unprovedNode)} may have the volume mounted still: ${details.unproved}`;
  }
  return state.next === "none" ? "no node that mounts the volume reaches its device" : "waiting for its turn to mount the volume";
}

function whyUnreached({ reaches, mountError }: OwnerState): string {
  if (reaches || mountError === null) return "";
  return `; this node does not reach the device, and looks again: ${mountError.message}`;
}
