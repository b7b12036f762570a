/**
 * "Who has this lock, who waits for it, and why?" asked of the whole cluster, for `coverlay why` and `locks`. The queues of a resource are
 * at its master and who a client is its own node knows, so every member of the view is asked. It changes nothing and belongs to no view:
 * it is answered in any phase of a recovery, and a node that does not answer, or leaves meanwhile, ends it with a reason.
 */
import type { InspectRequest, ViewInfo } from "../wire/program.ts";
import { WireError } from "../base/error.ts";
import type { Client } from "../clients/client.ts";
import { type Lkb, type QueueName, queueOf, type Resource } from "../lock/lkb.ts";
import type { InspectClientRequest } from "../clients/clients.ts";
import { describeLock, describeLockspaces } from "./describe.ts";
import type { QueriedNode } from "./queried-node.ts";
import { describeFiles, describeProcesses } from "../plock/describe.ts";
import {
  decodeInspected,
  type FileAnswer,
  type InspectAnswer,
  type InspectAnswerRow,
  type InspectedClient,
  type LockAnswer,
  type NodeInspected,
  type ResourceAnswer,
} from "../wire/inspect-answer.ts";
import type { InspectedMessage, InspectMessage, PeerMessage } from "../wire/peer-message.ts";
import { maxInspectedBytes } from "../wire/peer.ts";
import type { Member } from "../wire/view-id.ts";

/** A node that has not answered by then is left out. */
export const inspectLimitMs = 2000;
/** Questions of this node's programs under way; one more is answered "busy". */
const asksAtOnce = 64;
/** Locks of one answer for a single resource; of all answers for many. */
export const inspectedLocks = 4000;
/** Resources that a node looks at for one answer: beyond, `truncated`. */
const lookedAt = 200_000;
/** Text of all answers to one question: what the local socket carries. */
const answerBytes = 3_500_000;
/** Of a program's name. */
const programChars = 128;

/* What one node says --------------------------------------------------------------------------------------------- */

class Sight {
  readonly resources: ResourceAnswer[] = [];
  files: readonly FileAnswer[] = [];
  readonly clients: Map<number, InspectedClient> = new Map();
  truncated = false;
  readonly #node: QueriedNode;
  readonly #wanted: InspectRequest;
  readonly #nowMs: number;
  #left: number;

  constructor(node: QueriedNode, wanted: InspectRequest, limit: number, nowMs: number) {
    this.#node = node;
    this.#wanted = wanted;
    this.#left = limit;
    this.#nowMs = nowMs;
  }

  look(): void {
    let seen = 0;
    for (const lockspace of this.#node.locks.tables.lockspaces.values()) {
      if (this.#wanted.lockspace !== "" && this.#wanted.lockspace !== lockspace.name) continue;
      const only = this.#wanted.resource === "" ? undefined : lockspace.resources.get(this.#wanted.resource);
      if (this.#wanted.resource !== "" && only === undefined) continue;
      for (const resource of only === undefined ? lockspace.resources.values() : [only]) {
        if (++seen > lookedAt || this.#left <= 0) {
          this.truncated = true;
          return;
        }
        this.#see(resource);
      }
    }
  }

  lookAtFiles(): void {
    const { plocks, boot } = this.#node;
    const limits = { rows: this.#left, lookedAt };
    const { files, truncated } = describeFiles(plocks.master, boot.nodeid, this.#wanted, limits, this.#nowMs);
    this.files = files;
    this.truncated ||= truncated;
  }

  #see(resource: Resource): void {
    const { tables } = this.#node.locks;
    const mine = tables.masters(resource);
    if (!mine && this.#wanted.resource === "") return;
    const elsewhere = mine ? [] : [...tables.heldElsewhere.values()].filter((lkb) => lkb.resource === resource);
    const locksOn = (name: QueueName): readonly Lkb[] => (mine ? resource[name] : elsewhere.filter((lkb) => queueOf(lkb) === name));
    const [granted, converting, waiting] = [locksOn("grantQueue"), locksOn("convertQueue"), locksOn("waitQueue")];
    if (!this.#isWanted(granted, [...converting, ...waiting])) return;
    this.resources.push({
      lockspace: resource.lockspace.name,
      resource: resource.name,
      masterNodeid: resource.masterNodeid,
      lvb: mine && resource.lvbSeq > 0 ? { bytes: resource.lvb?.byteLength ?? 0, seq: resource.lvbSeq, valid: resource.lvbValid } : null,
      grantQueue: this.#describe(granted),
      convertQueue: this.#describe(converting),
      waitQueue: this.#describe(waiting),
    });
    // A resource costs something too.
    this.#left--;
  }

  #isWanted(granted: readonly Lkb[], requested: readonly Lkb[]): boolean {
    const { waitingMs, nodeid } = this.#wanted;
    if (waitingMs !== null && !requested.some((lkb) => this.#nowMs - lkb.sinceMs >= waitingMs)) return false;
    return nodeid === 0 || [...granted, ...requested].some((lkb) => lkb.nodeid === nodeid);
  }

  #describe(queue: readonly Lkb[]): LockAnswer[] {
    const shown = queue.slice(0, Math.max(0, this.#left));
    if (shown.length < queue.length) this.truncated = true;
    this.#left -= shown.length;
    return shown.map((lkb) => describeLock(lkb, this.#nowMs));
  }

  /** This node's programs; of a single resource those that have to do with it. */
  name(limit: number): void {
    const one = this.#wanted.resource !== "";
    const rows = [
      ...this.resources.flatMap(({ grantQueue, convertQueue, waitQueue }) => [...grantQueue, ...convertQueue, ...waitQueue]),
      ...this.files.flatMap(({ held, waiting }) => [...held, ...waiting]),
    ];
    const concerned = new Set(rows.filter(({ nodeid }) => nodeid === this.#node.boot.nodeid).map(({ clientId }) => clientId));
    for (const client of this.#node.clients.all.values()) {
      const { id, pid, program } = client;
      if (one && !concerned.has(id)) continue;
      if (this.clients.size >= limit) return;
      const kept = this.#node.clients.kept.leftMs(client, this.#nowMs);
      const heir = kept === null ? "" : `, kept for an heir for ${(kept / 1000).toFixed(1)} s at most`;
      this.clients.set(id, { clientId: id, pid, program: `${program.slice(-programChars)}${heir}` });
    }
  }
}

/** What this node knows. */
export function inspectHere(node: QueriedNode, wanted: InspectRequest, limit: number, nowMs: number): NodeInspected {
  const sight = new Sight(node, wanted, limit, nowMs);
  sight.look();
  sight.lookAtFiles();
  sight.name(limit);
  const state = node.engine.leaving ? "leaving" : node.recovery.explain(nowMs);
  const { resources, files, truncated } = sight;
  const { programOf = (): string => "" } = node.boot;
  const pids = node.plocks.home.pids(wanted.lockspace, wanted.resource);
  const processes = describeProcesses(pids, (pid) => programOf(pid).slice(-programChars));
  const clients = [...sight.clients.values()];
  const named = new Set([...resources.map(({ lockspace }) => lockspace), ...files.map(({ lockspace }) => lockspace)]);
  const lockspaces = describeLockspaces(node, named);
  return { serving: node.recovery.serving, state, resources, files, clients, processes, lockspaces, truncated };
}

/* Asking all ----------------------------------------------------------------------------------------------------- */

export interface InspectPort {
  /** Members of the view; empty before the first. */
  members(): readonly Member[];
  /** Nodeids of the configuration. */
  configured(): readonly number[];
  viewInfo(): ViewInfo;
  here(wanted: InspectRequest, limit: number): NodeInspected;
  send(nodeid: number, message: PeerMessage): void;
  toClient(client: Client, event: { readonly kind: "answer"; readonly queryId: number; readonly data: unknown }): void;
  protest(nodeid: number, message: string): void;
}

interface Ask {
  readonly client: Client;
  readonly queryId: number;
  readonly members: readonly Member[];
  readonly waiting: Set<number>;
  readonly rows: Map<number, InspectAnswerRow>;
  readonly deadlineMs: number;
  bytesLeft: number;
}

export class Inspections {
  readonly #nodeid: number;
  readonly #port: InspectPort;
  readonly #asks: Map<number, Ask> = new Map();
  #lastId = 0;

  constructor(nodeid: number, port: InspectPort) {
    this.#nodeid = nodeid;
    this.#port = port;
  }

  ask(client: Client, { queryId, lockspace, resource, nodeid, waitingMs }: InspectClientRequest, nowMs: number): void {
    const members = this.#port.members();
    const others = members.filter((member) => member.nodeid !== this.#nodeid);
    const askId = (this.#lastId = (this.#lastId + 1) >>> 0);
    const ask: Ask = {
      client,
      queryId,
      members,
      waiting: new Set(others.map((member) => member.nodeid)),
      rows: new Map(),
      deadlineMs: nowMs + inspectLimitMs,
      bytesLeft: answerBytes,
    };
    if (this.#asks.size >= asksAtOnce) {
      for (const id of this.#port.configured()) {
        ask.rows.set(id, { nodeid: id, missing: `not asked: this node has ${asksAtOnce} such questions under way` });
      }
      return this.#answer(askId, ask);
    }
    this.#asks.set(askId, ask);
    const wanted = { lockspace, resource, nodeid, waitingMs };
    const limit = resource === "" ? Math.max(100, Math.floor(inspectedLocks / Math.max(1, members.length))) : inspectedLocks;
    this.#take(ask, this.#nodeid, new TextEncoder().encode(JSON.stringify(this.#port.here(wanted, limit))));
    for (const id of this.#port.configured()) {
      if (id !== this.#nodeid && !ask.waiting.has(id)) ask.rows.set(id, { nodeid: id, missing: "it is not in the view" });
    }
    for (const other of others) this.#port.send(other.nodeid, { kind: "inspect", askId, ...wanted, limit });
    if (ask.waiting.size === 0) this.#answer(askId, ask);
  }

  #take(ask: Ask, nodeid: number, json: Uint8Array): void {
    ask.waiting.delete(nodeid);
    if (json.byteLength > ask.bytesLeft) {
      ask.rows.set(nodeid, { nodeid, missing: "too much for one answer: ask for one resource, one node, or those who wait" });
      return;
    }
    ask.bytesLeft -= json.byteLength;
    try {
      ask.rows.set(nodeid, { nodeid, answer: decodeInspected(json) });
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // An authentic peer of another make: it is said to whoever asked, and in the log.
      this.#port.protest(nodeid, `answer about locks that cannot be read: ${(error as Error).message}`);
      ask.rows.set(nodeid, { nodeid, missing: "its answer cannot be read" });
    }
  }

  #answer(askId: number, ask: Ask): void {
    this.#asks.delete(askId);
    const nodes = [...ask.rows.values()].sort((a, b) => a.nodeid - b.nodeid);
    const data: InspectAnswer = { view: this.#port.viewInfo(), nodes };
    this.#port.toClient(ask.client, { kind: "answer", queryId: ask.queryId, data });
  }

  receive(from: number, message: InspectMessage | InspectedMessage): void {
    if (message.kind === "inspect") {
      const { askId, lockspace, resource, nodeid, waitingMs, limit } = message;
      if (!this.#port.members().some((member) => member.nodeid === from)) return;
      const answer = this.#port.here({ lockspace, resource, nodeid, waitingMs }, Math.min(limit, inspectedLocks));
      const json = new TextEncoder().encode(JSON.stringify(answer));
      const fits = json.byteLength <= maxInspectedBytes;
      return this.#port.send(from, { kind: "inspected", askId, json: fits ? json : new TextEncoder().encode("too much") });
    }
    const ask = this.#asks.get(message.askId);
    if (ask === undefined || !ask.waiting.has(from)) return;
    this.#take(ask, from, message.json);
    if (ask.waiting.size === 0) this.#answer(message.askId, ask);
  }

  /** Another view: who is not in it any more, in the life in which it was asked, will not answer. */
  viewChanged(): void {
    const now = this.#port.members();
    for (const [askId, ask] of this.#asks) {
      for (const { nodeid, incarnation } of ask.members) {
        if (!ask.waiting.has(nodeid) || now.some((member) => member.nodeid === nodeid && member.incarnation === incarnation)) continue;
        ask.waiting.delete(nodeid);
        ask.rows.set(nodeid, { nodeid, missing: "it left the view before it answered" });
      }
      if (ask.waiting.size === 0) this.#answer(askId, ask);
    }
  }

  get deadlineMs(): number {
    const [first] = this.#asks.values();
    return first?.deadlineMs ?? Number.POSITIVE_INFINITY;
  }

  expire(nowMs: number): void {
    for (const [askId, ask] of this.#asks) {
      if (nowMs < ask.deadlineMs) return;
      for (const nodeid of ask.waiting) ask.rows.set(nodeid, { nodeid, missing: `it did not answer within ${inspectLimitMs / 1000} s` });
      this.#answer(askId, ask);
    }
  }
}
