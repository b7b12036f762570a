/**
 * What a process finds when it goes on after a standstill: each way has kept its order, and which of them is read first is nobody's promise (epoll_wait(2), and
 * timers before all of them). The disk's answers come behind what the thread of the heartbeats had said before (hazard C4).
 */
import type { NodeEvent } from "../../dlmd/node-api.ts";
import type { ConfigEvent } from "../../dlmd/config/change-event.ts";
import type { Random } from "./random.ts";

/** What the shell gives to the keeper of the configuration, in its place among the rest. */
export interface ConfigInput {
  readonly kind: "config";
  readonly event: ConfigEvent;
}
export type Input = NodeEvent | ConfigInput;

function wayOf(input: Input): string {
  switch (input.kind) {
    case "peer-up":
    case "peer-down":
    case "peer-frame":
      return `node ${input.nodeid}`;
    case "client-connected":
    case "client-requests":
    case "client-gone":
    case "client-spared":
      return `client ${input.clientId}`;
    case "config":
      if (input.event.kind === "message") return `node ${input.event.from}`;
      if (input.event.kind === "connected") return `node ${input.event.nodeid}`;
      return "config";
    case "persisted":
    case "fences-kept":
    case "heartbeat":
      return "thread and disk";
    default:
      return input.kind;
  }
}

export function mixed(inputs: readonly Input[], random: Random): Input[] {
  const ways = new Map<string, Input[]>();
  for (const input of inputs) {
    const way = ways.get(wayOf(input));
    if (way === undefined) ways.set(wayOf(input), [input]);
    else way.push(input);
  }
  const found: Input[] = [];
  // Most often all of a way at once, as a socket is read.
  const whole = random.chance(0.7);
  while (ways.size > 0) {
    const [name, way] = random.pick([...ways]);
    found.push(...way.splice(0, whole ? way.length : 1));
    if (way.length === 0) ways.delete(name);
  }
  return found;
}
