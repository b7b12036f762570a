/**
 * The programs connected to a node: their requests while lock service runs and while it does not, and what becomes of their locks
 * when they are gone (hazards C6, C7).
 */
import { assert } from "./base/assert.ts";
import { E } from "./base/errno.ts";
import type { ViewInfo } from "./client/api.ts";
import { type Client, type ClientIdentity, newClient, nobody } from "./lock/client.ts";
import { ORPHAN } from "./lock/flag.ts";
import type { GoneAsks } from "./lock/gone.ts";
import { astEvent } from "./lock/holder.ts";
import type { LockManager } from "./lock/lock-manager.ts";
import { Mode } from "./lock/mode.ts";
import { Purges } from "./lock/purges.ts";
import type { View } from "./membership/membership.ts";
import type { ClientEvent, ClientRequest, QueryWhat } from "./node-api.ts";
import type { PlockService } from "./plock/service.ts";
import type { PeerMessage } from "./wire/peer-message.ts";
import type { GroupClientRequest } from "./wire/local-group.ts";
import { isPlockRequest } from "./wire/local-plock.ts";
import type { Member } from "./wire/view-id.ts";

export interface ClientsHost {
  toClient(client: Client, event: ClientEvent): void;
  send(nodeid: number, message: PeerMessage): void;
  pauseClient(clientId: number, pause: boolean): void;
  serving(): boolean;
  /** Too much is on its way to other nodes. */
  crowded(): boolean;
  stopped(): boolean;
  view(): View | null;
  viewInfo(): ViewInfo;
  query(what: QueryWhat): unknown;
  inspect(client: Client, request: InspectClientRequest): void;
  group(client: Client, request: GroupClientRequest): void;
  /** Requests of that client wait for room in the engine. */
  groupsWait(client: Client): boolean;
  /** It hangs: its process has to end (hazard H13). */
  endClient(client: Client, reason: string): void;
}

export type InspectClientRequest = Extract<ClientRequest, { kind: "inspect" }>;

type SavedRequest = Exclude<ClientRequest, { kind: "open" | "gone-ack" | "bast-limit" | "query" | "inspect" | GroupClientRequest["kind"] }>;
type Timed = Extract<ClientRequest, { kind: "lock" | "convert" }>;

/** Of the time-out; membership ticks three times in it. */
const hearingShare = 0.15;

export class Clients {
  readonly all: Map<number, Client> = new Map();
  readonly #self: Member;
  readonly #locks: LockManager;
  readonly #plocks: PlockService;
  readonly #asks: GoneAsks;
  readonly #host: ClientsHost;
  readonly #savedLimit: number;
  readonly #purges: Purges;
  /** Clients that are gone and still hold locks that are to go. */
  readonly #leaving: Set<Client> = new Set();
  /** Saved requests that run out of time, in no order. */
  readonly #timed: Map<Timed, Client> = new Map();
  #nextExpiryMs = Number.POSITIVE_INFINITY;
  nowMs = 0;

  constructor(
    self: Member & { readonly timeoutMs: number },
    locks: LockManager,
    plocks: PlockService,
    asks: GoneAsks,
    savedLimit: number,
    host: ClientsHost,
  ) {
    this.#self = self;
    this.#locks = locks;
    this.#plocks = plocks;
    this.#asks = asks;
    this.#savedLimit = savedLimit;
    this.#host = host;
    locks.holder.unanswered.hearingMs = hearingShare * self.timeoutMs;
    this.#purges = new Purges(self.nodeid, {
      toClient: (client, event) => host.toClient(client, event),
      send: (nodeid, message) => host.send(nodeid, message),
      release: (lockspace, pid, uid) => this.#purge(lockspace, pid, uid),
    });
  }

  /** A step begins. */
  begin(nowMs: number): void {
    this.#locks.holder.unanswered.passed(nowMs - this.nowMs, this.#host.serving());
    this.nowMs = nowMs;
  }

  connected(clientId: number, identity: ClientIdentity = nobody): void {
    assert(!this.all.has(clientId), `client id ${clientId} used twice`);
    const client = newClient(clientId, identity);
    this.all.set(clientId, client);
    this.#host.toClient(client, { kind: "view", view: this.#host.viewInfo() });
  }

  requests(clientId: number, requests: readonly ClientRequest[]): void {
    const client = this.all.get(clientId);
    if (client === undefined || client.gone) return;
    for (const request of requests) {
      switch (request.kind) {
        case "open":
          this.#locks.holder.open(client, request.lockspaceId, request.name);
          break;
        case "gone-ack":
          this.#asks.answered(client, request.goneId);
          break;
        case "bast-limit":
          client.bastLimitMs = request.limitMs;
          this.#locks.holder.unanswered.review(client, this.nowMs);
          break;
        case "query":
          this.#host.toClient(client, { kind: "answer", queryId: request.queryId, data: this.#host.query(request.what) });
          break;
        case "inspect":
          this.#host.inspect(client, request);
          break;
        case "group-join":
        case "group-leave":
        case "group-send":
          this.#host.group(client, request);
          break;
        default:
          if (this.#host.serving()) this.#serve(client, request);
          else this.#save(client, request);
      }
    }
    if (client.saved.length > 0) this.adjustPause(client);
  }

  #serve(client: Client, request: SavedRequest): void {
    if (isPlockRequest(request)) return this.#plocks.request(client, request);
    if (request.kind !== "purge") {
      this.#locks.holder.request(client, request);
      if (request.kind !== "lock" || (request.flags & ORPHAN) === 0) return;
      for (const other of this.all.values()) this.forgetEmpty(other);
      return;
    }
    const members = (this.#host.view() as View).members;
    this.#purges.ask(client, request, members);
  }

  // ---------------------------------------------------------------------------------------------- without service

  #save(client: Client, request: SavedRequest): void {
    if (request.kind === "plock-cancel" && this.#cancelSaved(client, request.requestId)) return;
    const timeoutMs = (request.kind === "lock" || request.kind === "convert" ? request.timeoutMs : undefined) ?? 0;
    if (timeoutMs === 0) {
      client.saved.push(request);
      return;
    }
    const timed: Timed = { ...(request as Timed), deadlineMs: this.nowMs + timeoutMs };
    client.saved.push(timed);
    this.#timed.set(timed, client);
    this.#nextExpiryMs = Math.min(this.#nextExpiryMs, this.nowMs + timeoutMs);
  }

  /** A file-lock request that no master has seen ends at once. */
  #cancelSaved(client: Client, requestId: number): boolean {
    const at = client.saved.findIndex(
      (saved) => saved.kind === "plock" && saved.requestId === requestId && saved.op === "lock" && saved.wait,
    );
    if (at < 0) return false;
    client.saved.splice(at, 1);
    this.#host.toClient(client, { kind: "plock-result", requestId, errno: E.EINTR, conflict: null });
    return true;
  }

  /** When a request runs out of time or has waited long; Infinity: never. What is outstanding waits for service: only its master can say. */
  get deadlineMs(): number {
    if (!this.#host.serving()) return this.#nextExpiryMs;
    const { tables, deadlocks, holder, moves } = this.#locks;
    return Math.min(tables.deadlines.nextMs, deadlocks.deadlineMs, holder.unanswered.nextMs, moves.deadlineMs);
  }

  expire(): void {
    if (this.nowMs >= this.#nextExpiryMs) this.#expireSaved();
    if (!this.#host.serving()) return;
    this.#locks.moves.expire(this.nowMs);
    this.#locks.holder.expire();
    this.#locks.deadlocks.sweep(this.nowMs);
    for (const { client, reason } of this.#locks.holder.unanswered.hanging(this.nowMs)) this.#host.endClient(client, reason);
  }

  #expireSaved(): void {
    this.#nextExpiryMs = Number.POSITIVE_INFINITY;
    for (const [request, client] of this.#timed) {
      const deadlineMs = request.deadlineMs as number;
      const at = client.saved.indexOf(request);
      if (at < 0) this.#timed.delete(request);
      else if (deadlineMs > this.nowMs) this.#nextExpiryMs = Math.min(this.#nextExpiryMs, deadlineMs);
      else {
        this.#timed.delete(request);
        client.saved.splice(at, 1);
        const mode = client.locks.get(request.lockId)?.granted ?? Mode.NL;
        this.#host.toClient(client, astEvent(request.lockId, "timeout", mode));
        this.adjustPause(client);
      }
    }
  }

  /** Service begins: what was saved is done, the dead are asked about anew. */
  enterService(): void {
    this.#timed.clear();
    this.#nextExpiryMs = Number.POSITIVE_INFINITY;
    for (const client of this.all.values()) this.#replay(client);
    for (const client of this.#leaving) {
      if (client.awaited === null) this.#askAll(client);
      else this.#releaseIfAnswered(client);
    }
    for (const client of this.all.values()) if (client.gone) this.#locks.holder.cancelOrphans(client);
  }

  /** A later view was promised. */
  stop(): void {
    for (const client of this.#leaving) client.awaited = null;
    this.#purges.stop();
    this.#locks.holder.unanswered.clear();
  }

  #replay(client: Client): void {
    const saved = client.saved;
    client.saved = [];
    for (const request of saved) this.#serve(client, request as SavedRequest);
    this.adjustPause(client);
  }

  /** Its answer to "gone" comes behind its requests, so a client that is asked is read in any case. */
  adjustPause(client: Client): void {
    const pause = client.asked === 0 && (client.saved.length > this.#savedLimit || this.#host.crowded() || this.#host.groupsWait(client));
    if (pause === client.paused || client.gone) return;
    client.paused = pause;
    if (!pause) this.#locks.holder.unanswered.resumed(client, this.nowMs);
    this.#host.pauseClient(client.id, pause);
  }

  // -------------------------------------------------------------------------------------------------- gone clients

  gone(clientId: number): void {
    const client = this.all.get(clientId);
    if (client === undefined || client.gone) return;
    client.gone = true;
    client.saved = [];
    this.#asks.forgetClient(client);
    this.#purges.forget(client);
    const { holder } = this.#locks;
    if (client.lockspaces.size === 0) {
      this.all.delete(clientId);
      return;
    }
    holder.abandon(client);
    if (holder.mustRelease(client) || this.#plocks.has(client)) this.#askAboutLater(client);
    if (this.#host.serving()) holder.cancelOrphans(client);
  }

  #askAboutLater(client: Client): void {
    this.#leaving.add(client);
    client.awaited = null;
    if (this.#host.serving()) this.#askAll(client);
  }

  /** Every client of the cluster is asked to let go of that one; then its locks go (hazard C7). */
  #askAll(client: Client): void {
    const { members, id } = this.#host.view() as View;
    const { nodeid: self, incarnation } = this.#self;
    client.awaited = new Set(members.map((member) => member.nodeid));
    for (const { nodeid } of members) if (nodeid !== self) this.#host.send(nodeid, { kind: "client-gone", clientId: client.id });
    this.#asks.ask(this.all.values(), [{ nodeid: self, incarnation, clientId: client.id }], false, () => {
      if (this.#host.view()?.id === id) this.#answeredBy(client, self);
    });
  }

  #answeredBy(client: Client, nodeid: number): void {
    client.awaited?.delete(nodeid);
    this.#releaseIfAnswered(client);
  }

  #releaseIfAnswered(client: Client): void {
    if (client.awaited === null || client.awaited.size > 0 || !this.#host.serving()) return;
    this.#leaving.delete(client);
    this.#plocks.releaseClient(client);
    this.#locks.holder.releaseClient(client);
    this.forgetEmpty(client);
  }

  /** A gone client without locks is nobody any more. */
  forgetEmpty(client: Client): void {
    if (!client.gone || client.locks.size > 0 || this.#leaving.has(client)) return;
    this.#locks.holder.closeLockspaces(client);
    this.all.delete(client.id);
  }

  /** Releases orphans as if their client had died just now; returns how many. */
  #purge(lockspace: string, pid: number, uid: number): number {
    let locks = 0;
    for (const client of this.all.values()) {
      if (!client.gone || (pid !== 0 && client.pid !== pid) || (uid !== 0 && client.uid !== uid)) continue;
      const found = [...client.locks.values()].filter((lkb) => lkb.resource.lockspace.name === lockspace);
      if (found.length === 0) continue;
      locks += found.length;
      client.purged ??= new Set();
      for (const lkb of found) client.purged.add(lkb.resource.lockspace);
      this.#askAboutLater(client);
    }
    return locks;
  }

  /** A message of a running view about clients. False: it is none. */
  receive(from: number, message: PeerMessage): boolean {
    switch (message.kind) {
      case "client-gone-ack": {
        const client = this.all.get(message.clientId);
        if (client?.gone === true) this.#answeredBy(client, from);
        return true;
      }
      case "client-gone":
        this.#askLocals(from, message.clientId);
        return true;
      case "purge":
      case "purged":
        this.#purges.receive(from, message);
        return true;
      default:
        return false;
    }
  }

  #askLocals(from: number, clientId: number): void {
    const { members, id } = this.#host.view() as View;
    const { incarnation } = members.find((member) => member.nodeid === from) as Member;
    this.#asks.ask(this.all.values(), [{ nodeid: from, incarnation, clientId }], false, () => {
      if (this.#host.view()?.id === id && !this.#host.stopped()) this.#host.send(from, { kind: "client-gone-ack", clientId });
    });
  }
}
