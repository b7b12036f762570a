/**
 * Groups of the programs of a node: their requests become commands of the engine (engine/engine.ts), its events go to them. What the engine
 * has no room for waits here in the client's order, and that client is not read meanwhile. A message of a program carries
 * its number in front, counted since the program joined, or several messages the number of the first.
 */
import { ByteWriter } from "../base/bytes.ts";
import type { EngineCommand, EngineEvent } from "../engine/engine.ts";
import type { CommandResult, GroupMember } from "../wire/group.ts";
import { DAEMON_GROUP_PREFIX } from "../wire/lockspace-group.ts";
import type { Client } from "./client.ts";
import {
  type GroupClientRequest,
  type GroupEvent,
  type GroupResult,
  readSequence,
  sequenceBytes,
  writeSequence,
} from "../wire/local-group.ts";

export interface GroupsPort {
  readonly nodeid: number;
  command(command: EngineCommand): CommandResult;
  client(clientId: number): Client | undefined;
  /** That client is kept for this one (hazard C12). */
  isHeir(heir: Client, clientId: number): boolean;
  toClient(client: Client, event: GroupEvent): void;
  adjustPause(client: Client): void;
  protest(nodeid: number, message: string): void;
}

type Farewell = Extract<GroupClientRequest, { kind: "group-farewell" }>;

interface Joined {
  /** The join was ordered: before, what comes is of a membership before this one. */
  in: boolean;
  sent: number;
}

const REQUEST_BYTES = 256;

/** Of memory, about. */
function bytesOf(request: GroupClientRequest): number {
  return REQUEST_BYTES + ("data" in request ? request.data.length : 0);
}

export class ClientGroups {
  readonly #port: GroupsPort;
  readonly #memberships: Map<number, Map<string, Joined>> = new Map();
  readonly #waiting: Map<Client, { readonly requests: GroupClientRequest[]; bytes: number }> = new Map();
  /** The engine was given something to do. */
  touched = false;
  /** The engine has room again, and somebody waits for it. */
  roomy = false;

  constructor(port: GroupsPort) {
    this.#port = port;
  }

  request(client: Client, request: GroupClientRequest): void {
    const waiting = this.#waiting.get(client);
    if (waiting !== undefined) {
      waiting.requests.push(request);
      waiting.bytes += bytesOf(request);
      return;
    }
    if (this.#perform(client, request)) return;
    this.#waiting.set(client, { requests: [request], bytes: bytesOf(request) });
    this.#port.adjustPause(client);
  }

  bytesWaiting(client: Client): number {
    return this.#waiting.get(client)?.bytes ?? 0;
  }

  waits(client: Client): boolean {
    return this.#waiting.has(client);
  }

  /** False: the engine is full. */
  #perform(client: Client, request: GroupClientRequest): boolean {
    const result = request.kind === "group-farewell" ? this.#farewell(client, request) : this.#command(client.id, request);
    if (result === "full") return false;
    this.touched = true;
    this.#port.toClient(client, { kind: "group-result", requestId: request.requestId, result: result satisfies GroupResult });
    return true;
  }

  #farewell(heir: Client, { clientId, group, data }: Farewell): CommandResult | "not-kept" {
    if (!this.#port.isHeir(heir, clientId)) return "not-kept";
    const result = this.#command(clientId, { kind: "group-send", requestId: 0, group, count: 1, data });
    if (result === "accepted") this.#port.command({ kind: "leave", group, clientId, reason: "left" });
    return result;
  }

  #command(clientId: number, request: Exclude<GroupClientRequest, Farewell>): CommandResult {
    const { group } = request;
    const membership = this.#memberships.get(clientId)?.get(group);
    switch (request.kind) {
      case "group-join": {
        if (membership !== undefined) return "joined-already";
        if (group.startsWith(DAEMON_GROUP_PREFIX)) return "bad-name";
        const result = this.#port.command({ kind: "join", group, clientId });
        if (result !== "accepted") return result;
        const groups = this.#memberships.get(clientId) ?? new Map<string, Joined>();
        this.#memberships.set(clientId, groups.set(group, { in: false, sent: 0 }));
        return result;
      }
      case "group-leave":
        return this.#port.command({ kind: "leave", group, clientId, reason: "left" });
      case "group-send": {
        if (membership === undefined) return "not-joined";
        const w = new ByteWriter(sequenceBytes + request.data.byteLength, sequenceBytes + request.data.byteLength);
        const data = writeSequence(w, membership.sent + 1, request.count)
          .bytes(request.data)
          .view();
        const result = this.#port.command({ kind: "multicast", group, clientId, data });
        if (result === "accepted") membership.sent += request.count;
        return result;
      }
    }
  }

  /** One request of each client in turn, until there is no room. */
  drain(): void {
    this.roomy = false;
    let full = false;
    while (this.#waiting.size > 0 && !full) {
      for (const [client, waiting] of this.#waiting) {
        const [first] = waiting.requests;
        if (first === undefined) {
          this.#waiting.delete(client);
          this.#port.adjustPause(client);
          continue;
        }
        full = !this.#perform(client, first);
        if (full) break;
        waiting.requests.shift();
        waiting.bytes -= bytesOf(first);
      }
    }
  }

  /** Its connection broke, and it stays in its groups for an heir (hazard C12). What came for it is dropped, since it is gone. */
  keep(client: Client): void {
    this.#waiting.delete(client);
  }

  /** Its connection ended, or it is kept no more. */
  gone(client: Client): void {
    this.#waiting.delete(client);
    for (const group of this.#memberships.get(client.id)?.keys() ?? []) {
      this.#port.command({ kind: "leave", group, clientId: client.id, reason: "client-died" });
      // An heir's request may be what ended it.
      this.touched = true;
    }
    this.#memberships.delete(client.id);
  }

  /** It does not read what it is sent: groups would fill the memory, so it is in none any more. It stays connected. */
  slow(client: Client, reason: string): void {
    const groups = [...(this.#memberships.get(client.id)?.keys() ?? [])];
    for (const group of groups) {
      this.#port.command({ kind: "leave", group, clientId: client.id, reason: "left" });
      this.#end(client.id, group, reason);
    }
  }

  #end(clientId: number, group: string, reason: string): void {
    const groups = this.#memberships.get(clientId);
    if (groups?.delete(group) !== true) return;
    if (groups.size === 0) this.#memberships.delete(clientId);
    const client = this.#port.client(clientId);
    if (client !== undefined) this.#port.toClient(client, { kind: "group-ended", group, reason });
  }

  // ---------------------------------------------------------------------------------------------------------- events

  event(event: EngineEvent): void {
    switch (event.kind) {
      case "members":
        for (const clientId of event.to) this.#members(clientId, event);
        return;
      case "message":
        return this.#message(event);
      case "join-refused":
        return this.#end(event.clientId, event.group, "the cluster has as many memberships of groups as it may have");
      case "room":
        this.roomy = this.#waiting.size > 0;
        return;
      case "view":
      case "blocked":
        // Of a view's end members hear by "left": without quorum nothing is ordered, and clients have "view" events.
        return;
    }
  }

  #members(clientId: number, { group, members, joined, left }: Extract<EngineEvent, { kind: "members" }>): void {
    const client = this.#port.client(clientId);
    const membership = this.#memberships.get(clientId)?.get(group);
    if (client === undefined || membership === undefined) return;
    const itself = (member: GroupMember): boolean => member.clientId === clientId && member.nodeid === this.#port.nodeid;
    if (joined.some(itself)) membership.in = true;
    if (!membership.in) return;
    this.#port.toClient(client, { kind: "group-members", group, members, joined, left });
    if (!left.some(({ member }) => itself(member))) return;
    const groups = this.#memberships.get(clientId);
    groups?.delete(group);
    if (groups?.size === 0) this.#memberships.delete(clientId);
  }

  #message({ group, to, from, data }: Extract<EngineEvent, { kind: "message" }>): void {
    if (data.byteLength < sequenceBytes) {
      // Of a daemon, not of a program: programs' messages have their number.
      if (from.clientId !== 0) this.#port.protest(from.nodeid, `message of ${data.byteLength} bytes in group ${group}, without a number`);
      return;
    }
    const { seq, count } = readSequence(data);
    for (const clientId of to) {
      const client = this.#port.client(clientId);
      if (client === undefined || this.#memberships.get(clientId)?.get(group)?.in !== true) continue;
      this.#port.toClient(client, { kind: "group-message", group, from, seq, count, data: data.subarray(sequenceBytes) });
    }
  }
}
