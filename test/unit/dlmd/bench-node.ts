/** One node alone in its cluster, which serves at once: lock rules without a network. */
import type { LockStatus } from "../../../dlmd/client/api.ts";
import { ALTMODE, DEMOTED } from "../../../dlmd/wire/flag.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { NodeCore } from "../../../dlmd/node.ts";
import { inspectedLocks, inspectHere } from "../../../dlmd/query/inspect.ts";
import type { NodeInspected } from "../../../dlmd/wire/inspect-answer.ts";
import type { Effect, Node, NodeLimits } from "../../../dlmd/node-api.ts";
import type { ClientEvent, ClientRequest, ClientIdentity } from "../../../dlmd/wire/program.ts";

export interface Bench {
  readonly node: Node;
  /** What the clients were told since this was asked last, "client:lock status mode" or "client:lock bast mode". */
  told(): string[];
  /** What that client was told of those kinds since the beginning. */
  heard<K extends ClientEvent["kind"]>(clientId: number, ...kinds: K[]): Extract<ClientEvent, { kind: K }>[];
  /** The last "ast" of that lock. */
  last(clientId: number, lockId: number): Extract<ClientEvent, { kind: "ast" }>;
  /** `lockspaces`: those that it opens, as 1, 2 ... */
  connect(clientId: number, identity?: ClientIdentity, lockspaces?: readonly string[]): void;
  /** Lets time pass. */
  at(nowMs: number): void;
  request(clientId: number, ...requests: ClientRequest[]): void;
  lock(clientId: number, lockId: number, mode: Mode, flags?: number): void;
  convert(clientId: number, lockId: number, mode: Mode, flags?: number, lvb?: Uint8Array | null): void;
  unlock(clientId: number, lockId: number, flags?: number, lvb?: Uint8Array | null): void;
  cancel(clientId: number, lockId: number): void;
  /** `endedHere`: dlmd closed its connection. */
  gone(clientId: number, endedHere?: boolean): void;
  /** What the node says of all locks at that time. */
  inspected(nowMs?: number): NodeInspected;
  /** Effects of the last step. */
  effects: readonly Effect[];
}

export function createBench(clients: readonly number[], limits: Partial<NodeLimits> = {}): Bench {
  const node = new NodeCore({
    nodeid: 1,
    incarnation: "00000000000000aa",
    configVersion: 1,
    nodes: [{ nodeid: 1, name: "node1", address: "", votes: 1 }],
    timeoutMs: 1000,
    promisedEpoch: 0,
    seed: 1,
    nowMs: 0,
    limits,
  });
  let nowMs = 1;
  const words: string[] = [];
  const events: { readonly clientId: number; readonly event: ClientEvent }[] = [];
  const asts = new Map<string, Extract<ClientEvent, { kind: "ast" }>>();
  const names = ["NL", "CR", "CW", "PR", "PW", "EX"];
  const note = (clientId: number, event: ClientEvent): void => {
    events.push({ clientId, event });
    if (event.kind === "purged") words.push(`${clientId} purged ${event.locks}${event.error === "" ? "" : ` ${event.error}`}`);
    if (event.kind === "bast") words.push(`${clientId}:${event.lockId} bast ${names[event.wanted]}`);
    if (event.kind !== "ast") return;
    asts.set(`${clientId}:${event.lockId}`, event);
    const status: LockStatus = event.status;
    const marks = `${(event.sbFlags & DEMOTED) !== 0 ? " demoted" : ""}${(event.sbFlags & ALTMODE) !== 0 ? " altmode" : ""}`;
    words.push(`${clientId}:${event.lockId} ${status} ${names[event.mode]}${marks}`);
  };
  const step = (event: Parameters<Node["step"]>[0]): void => {
    bench.effects = node.step(event, nowMs);
    for (const effect of bench.effects) {
      if (effect.kind === "persist") step({ kind: "persisted", promisedEpoch: effect.promisedEpoch });
      if (effect.kind === "client-events") for (const event of effect.events) note(effect.clientId, event);
    }
  };
  const request = (clientId: number, ...requests: ClientRequest[]): void => step({ kind: "client-requests", clientId, requests });
  const bench: Bench = {
    node,
    effects: [],
    told: () => words.splice(0),
    heard<K extends ClientEvent["kind"]>(clientId: number, ...kinds: K[]) {
      const wanted: ReadonlySet<string> = new Set(kinds);
      const found = events.filter((each) => each.clientId === clientId && wanted.has(each.event.kind));
      return found.map(({ event }) => event as Extract<ClientEvent, { kind: K }>);
    },
    last: (clientId, lockId) => asts.get(`${clientId}:${lockId}`) as Extract<ClientEvent, { kind: "ast" }>,
    connect: (clientId, identity, lockspaces = ["space"]) => {
      step(identity === undefined ? { kind: "client-connected", clientId } : { kind: "client-connected", clientId, identity });
      lockspaces.forEach((name, at) => request(clientId, { kind: "open", lockspaceId: at + 1, name }));
    },
    request,
    at: (ms) => {
      nowMs = ms;
      step({ kind: "tick" });
    },
    lock: (clientId, lockId, mode, flags = 0) => request(clientId, { kind: "lock", lockspaceId: 1, lockId, resource: "r", mode, flags }),
    convert: (clientId, lockId, mode, flags = 0, lvb = null) => request(clientId, { kind: "convert", lockId, mode, flags, lvb }),
    unlock: (clientId, lockId, flags = 0, lvb = null) => request(clientId, { kind: "unlock", lockId, flags, lvb }),
    cancel: (clientId, lockId) => request(clientId, { kind: "cancel", lockId }),
    inspected: (atMs = nowMs) => inspectHere(node, { lockspace: "", resource: "", nodeid: 0, waitingMs: null }, inspectedLocks, atMs),
    gone: (clientId, endedHere = false) => step({ kind: "client-gone", clientId, endedHere }),
  };
  step({ kind: "tick" });
  for (const clientId of clients) bench.connect(clientId);
  return bench;
}
