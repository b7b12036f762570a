/**
 * The programs connected to a node: their requests while lock service runs and while it does not, and what becomes of their locks
 * when they are gone (hazards C6, C7).
 */
import { assert } from "../base/assert.ts";
import { E } from "../base/errno.ts";
import type { GoneClient, ViewInfo, ClientEvent, ClientRequest, QueryWhat, ClientIdentity } from "../wire/program.ts";
import { type Client, newClient, nobody } from "./client.ts";
import { KeptClients } from "./kept-clients.ts";
import type { LockClient } from "../lock/lkb.ts";
import { ORPHAN } from "../wire/flag.ts";
import type { ClientDeathBarrier } from "./death-barrier.ts";
import { astEvent } from "../lock/holder.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import { Mode } from "../wire/mode.ts";
import type { StepTime } from "../base/step-time.ts";
import type { ProgramTime } from "../base/program-time.ts";
import { Purges } from "./purges.ts";
import type { View } from "../engine/engine.ts";
import type { PlockService } from "../plock/service.ts";
import type { ClientGoneMessage } from "../wire/peer-gone.ts";
import type { PeerMessage } from "../wire/peer-message.ts";
import type { GroupClientRequest } from "../wire/local-group.ts";
import type { HeirClientRequest } from "../wire/local-heir.ts";
import { isPlockRequest } from "../wire/local-plock.ts";
import type { FenceAnswer, FenceQuestion } from "../wire/fence-life.ts";
import type { Member } from "../wire/view-id.ts";

/** What clients see of recovery. */
export interface LockService {
  readonly serving: boolean;
  /** A later view was promised. */
  readonly stopped: boolean;
  readonly view: View | null;
  /** Too much is on its way to other nodes. */
  readonly crowded: boolean;
  send(nodeid: number, message: PeerMessage): void;
}

export interface ClientsParts {
  readonly locks: LockManager;
  readonly plocks: PlockService;
  readonly deaths: ClientDeathBarrier;
  readonly service: LockService;
}

export interface ClientsPort {
  toClient(client: Client, event: ClientEvent): void;
  pauseClient(clientId: number, pause: boolean): void;
  viewInfo(): ViewInfo;
  query(what: QueryWhat): unknown;
  inspect(client: Client, request: InspectClientRequest): void;
  askLife(client: Client, request: AskLifeClientRequest): void;
  fenceLife(question: FenceQuestion): FenceAnswer;
  group(client: Client, request: GroupClientRequest): void;
  /** Its connection ended: it leaves its groups, or stays in them for an heir. */
  groupsGone(client: Client): void;
  /** Requests of that client wait for room in the engine. */
  groupsWait(client: Client): boolean;
  groupBytesWaiting(client: Client): number;
  /** It hangs: its process has to end (hazard H13). */
  endClient(client: LockClient, reason: string): void;
  /** Every member knows that this node has that lockspace open. */
  isUsable(lockspace: string): boolean;
  log(level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>): void;
}

export type InspectClientRequest = Extract<ClientRequest, { kind: "inspect" }>;
export type AskLifeClientRequest = Extract<ClientRequest, { kind: "ask-life" }>;

type SavedRequest = Exclude<
  ClientRequest,
  {
    kind:
      | "open"
      | "gone-ack"
      | "bast-limit"
      | "query"
      | "inspect"
      | "ask-life"
      | "fence-life"
      | HeirClientRequest["kind"]
      | GroupClientRequest["kind"];
  }
>;
type Timed = Extract<ClientRequest, { kind: "lock" | "convert" }>;

/** A client that is read only because it owes an answer to "gone" is ended when it has saved so many times the usual limit. */
export const MAX_SAVED_SHARE = 64;
/** The same of requests of groups that wait for room: the library of clients sends less than this unanswered. */
export const MAX_GROUP_BYTES: number = 64 * 1024 * 1024;
/** Clients that are gone and whose locks are not released yet: beyond, no lockspace is opened until some are. */
export const MAX_LEAVING_CLIENTS = 4096;
/** Of the time-out; membership ticks three times in it. */
const hearingShare = 0.15;

export class Clients {
  readonly all: Map<number, Client> = new Map();
  readonly kept: KeptClients;
  readonly #self: Member;
  readonly #locks: LockManager;
  readonly #plocks: PlockService;
  readonly #deaths: ClientDeathBarrier;
  readonly #service: LockService;
  readonly #time: StepTime;
  readonly #port: ClientsPort;
  readonly #savedLimit: number;
  readonly #purges: Purges;
  /** Clients that are gone and still hold locks that are to go. */
  readonly #leaving: Set<Client> = new Set();
  /** Who is to be told of it when they are gone. */
  readonly #released: Map<Client, () => void> = new Map();
  /** Saved requests that run out of time, in no order. */
  readonly #timed: Map<Timed, Client> = new Map();
  #nextExpiryMs = Number.POSITIVE_INFINITY;
  #lastMs = 0;

  constructor(self: Member & { readonly timeoutMs: number }, time: StepTime, parts: ClientsParts, port: ClientsPort, savedLimit: number) {
    this.#self = self;
    this.#time = time;
    this.#locks = parts.locks;
    this.#plocks = parts.plocks;
    this.#deaths = parts.deaths;
    this.#service = parts.service;
    this.#port = port;
    this.#savedLimit = savedLimit;
    this.kept = new KeptClients({
      clients: () => this.all.values(),
      toClient: (client, event) => port.toClient(client, event),
      adjustPause: (client) => this.adjustPause(client),
      end: (client, why, released) => this.#endKept(client, why, released),
    });
    for (const time of this.#times()) time.hearingMs = hearingShare * self.timeoutMs;
    this.#purges = new Purges(self.nodeid, {
      toClient: (client, event) => port.toClient(client, event),
      send: (nodeid, message) => this.#service.send(nodeid, message),
      release: (lockspace, pid, uid) => this.#purge(lockspace, pid, uid),
    });
  }

  /** A step begins. */
  begin(): void {
    const passedMs = this.#time.nowMs - this.#lastMs;
    this.#locks.holder.unanswered.time.passed(passedMs, this.#service.serving);
    this.#deaths.time.passed(passedMs, true);
    this.kept.time.passed(passedMs, true);
    this.#lastMs = this.#time.nowMs;
  }

  #times(): ProgramTime[] {
    return [this.#locks.holder.unanswered.time, this.#deaths.time, this.kept.time];
  }

  connected(clientId: number, identity: ClientIdentity = nobody): void {
    assert(!this.all.has(clientId), `client id ${clientId} used twice`);
    const client = newClient(clientId, identity);
    this.all.set(clientId, client);
    this.#port.toClient(client, { kind: "view", view: this.#port.viewInfo() });
  }

  requests(clientId: number, requests: readonly ClientRequest[]): void {
    const client = this.all.get(clientId);
    if (client === undefined || client.gone) return;
    for (const request of requests) {
      switch (request.kind) {
        case "open":
          if (this.#leaving.size < MAX_LEAVING_CLIENTS) this.#open(client, request);
          else this.#refuseOpen(client, request.lockspaceId);
          break;
        case "gone-ack":
          this.#deaths.answered(client, request.goneId);
          this.adjustPause(client);
          break;
        case "bast-limit":
          client.bastLimitMs = request.limitMs;
          this.#locks.holder.unanswered.review(client, this.#time.nowMs);
          break;
        case "query":
          this.#port.toClient(client, { kind: "answer", queryId: request.queryId, data: this.#port.query(request.what) });
          break;
        case "inspect":
          this.#port.inspect(client, request);
          break;
        case "ask-life":
          this.#port.askLife(client, request);
          break;
        case "fence-life":
          this.#port.toClient(client, { kind: "answer", queryId: request.queryId, data: this.#port.fenceLife(request) });
          break;
        case "keep-locks":
        case "inherit":
        case "end-kept":
          this.kept.request(client, request);
          break;
        case "group-join":
        case "group-leave":
        case "group-send":
        case "group-farewell":
          if (this.#port.groupBytesWaiting(client) < MAX_GROUP_BYTES) this.#port.group(client, request);
          else this.#endFlood(client);
          break;
        default:
          if (this.#service.serving && client.opening.size === 0) this.#serve(client, request);
          else this.#save(client, request);
      }
    }
    if (client.saved.length > 0) this.adjustPause(client);
  }

  #open(client: Client, { lockspaceId, name }: Extract<ClientRequest, { kind: "open" }>): void {
    this.#locks.holder.open(client, lockspaceId, name);
    const lockspace = client.lockspaces.get(lockspaceId)?.name;
    if (lockspace !== undefined && !this.#port.isUsable(lockspace)) client.opening.add(lockspace);
  }

  /** Every member knows that this node has it open (hazard M6). */
  usable(lockspace: string): void {
    for (const client of this.all.values()) {
      if (client.opening.delete(lockspace) && this.#service.serving) this.#replay(client);
    }
  }

  #serve(client: Client, request: SavedRequest): void {
    if (isPlockRequest(request)) return this.#plocks.request(client, request);
    if (request.kind !== "purge") {
      this.#locks.holder.request(client, request);
      if (request.kind !== "lock" || (request.flags & ORPHAN) === 0) return;
      for (const other of this.all.values()) this.forgetEmpty(other);
      return;
    }
    const members = (this.#service.view as View).members;
    this.#purges.ask(client, request, members);
  }

  // ---------------------------------------------------------------------------------------------- without service

  #save(client: Client, request: SavedRequest): void {
    if (client.saved.length >= MAX_SAVED_SHARE * this.#savedLimit) return this.#endFlood(client);
    if (request.kind === "plock-cancel" && this.#cancelSaved(client, request.requestId)) return;
    const timeoutMs = (request.kind === "lock" || request.kind === "convert" ? request.timeoutMs : undefined) ?? 0;
    if (timeoutMs === 0) {
      client.saved.push(request);
      return;
    }
    const timed: Timed = { ...(request as Timed), deadlineMs: this.#time.nowMs + timeoutMs };
    client.saved.push(timed);
    this.#timed.set(timed, client);
    this.#nextExpiryMs = Math.min(this.#nextExpiryMs, this.#time.nowMs + timeoutMs);
  }

  /** A request is lost, so it is not believed again, though its process may not end for now. */
  #endFlood(client: Client): void {
    client.flooded = true;
    if (client.ending) return;
    client.ending = true;
    this.#port.endClient(
      client,
      `it has sent ${client.saved.length} requests, and ${this.#port.groupBytesWaiting(client)} bytes for groups, and not answered that it has let go of clients that are gone`,
    );
  }

  #refuseOpen(client: Client, lockspaceId: number): void {
    const error = `${this.#leaving.size} programs of this node ended and their locks are not released yet: try again later`;
    this.#port.toClient(client, { kind: "opened", lockspaceId, error });
  }

  /** A file-lock request that no master has seen ends at once. */
  #cancelSaved(client: Client, requestId: number): boolean {
    const at = client.saved.findIndex(
      (saved) => saved.kind === "plock" && saved.requestId === requestId && saved.op === "lock" && saved.wait,
    );
    if (at < 0) return false;
    client.saved.splice(at, 1);
    this.#port.toClient(client, { kind: "plock-result", requestId, errno: E.EINTR, conflict: null });
    return true;
  }

  /** When a request runs out of time or has waited long; Infinity: never. What is outstanding waits for service: only its master can say. */
  get deadlineMs(): number {
    const alwaysMs = Math.min(this.#deaths.nextMs, this.kept.nextMs);
    const savedMs = Math.min(alwaysMs, this.#nextExpiryMs);
    if (!this.#service.serving) return savedMs;
    const { tables, deadlocks, holder } = this.#locks;
    return Math.min(savedMs, tables.deadlines.nextMs, deadlocks.deadlineMs, holder.unanswered.nextMs);
  }

  expire(): void {
    this.#deaths.expire(this.#time.nowMs);
    this.kept.expire(this.#time.nowMs);
    this.kept.review();
    if (this.#time.nowMs >= this.#nextExpiryMs) this.#expireSaved();
    if (!this.#service.serving) return;
    this.#locks.holder.expire();
    this.#locks.deadlocks.sweep(this.#time.nowMs);
    for (const { client, reason } of this.#locks.holder.unanswered.hanging(this.#time.nowMs)) this.#port.endClient(client, reason);
  }

  /** All of one client in one pass: there may be some hundred thousand. */
  #expireSaved(): void {
    this.#nextExpiryMs = Number.POSITIVE_INFINITY;
    const late = new Map<Client, Set<SavedRequest>>();
    for (const [request, client] of this.#timed) {
      const deadlineMs = request.deadlineMs as number;
      if (client.saved.length > 0 && deadlineMs > this.#time.nowMs) {
        this.#nextExpiryMs = Math.min(this.#nextExpiryMs, deadlineMs);
        continue;
      }
      this.#timed.delete(request);
      const requests = late.get(client);
      if (requests === undefined) late.set(client, new Set([request]));
      else requests.add(request);
    }
    for (const [client, requests] of late) this.#endLate(client, requests);
  }

  #endLate(client: Client, late: ReadonlySet<unknown>): void {
    /** What locks hold once the saved requests before are done. Only those that are not answered can be of the same lock (hazard H2). */
    const modes = new Map<number, Mode>();
    const kept: typeof client.saved = [];
    for (const saved of client.saved) {
      if (late.has(saved)) {
        const { lockId } = saved as Timed;
        this.#port.toClient(client, astEvent(lockId, "timeout", modes.get(lockId) ?? client.locks.get(lockId)?.granted ?? Mode.NL));
        continue;
      }
      kept.push(saved);
      if (saved.kind === "convert") modes.set(saved.lockId, saved.mode);
      else if (saved.kind === "unlock") modes.set(saved.lockId, Mode.NL);
    }
    client.saved = kept;
    this.adjustPause(client);
  }

  /** Service begins: what was saved is done, the dead are asked about anew. */
  enterService(): void {
    for (const client of this.all.values()) this.#replay(client);
    for (const client of this.#leaving) {
      if (client.awaited === null) this.#askAll(client);
      else this.#releaseIfAnswered(client);
    }
    for (const client of this.all.values()) if (client.gone) this.#takeBack(client);
    this.kept.review();
  }

  /** A later view was promised. */
  stop(): void {
    for (const client of this.#leaving) client.awaited = null;
    this.#deaths.stop();
    this.#purges.stop();
    this.#locks.holder.unanswered.clear();
  }

  #replay(client: Client): void {
    if (client.opening.size > 0) return;
    const saved = client.saved;
    client.saved = [];
    for (const request of saved) {
      if (this.#timed.size > 0) this.#timed.delete(request as Timed);
      this.#serve(client, request as SavedRequest);
    }
    if (this.#timed.size === 0) this.#nextExpiryMs = Number.POSITIVE_INFINITY;
    this.adjustPause(client);
  }

  /** Its answer to "gone" comes behind its requests, as its end does, so a client that is asked or has an heir is read in any case. */
  adjustPause(client: Client): void {
    const isFull = client.saved.length > this.#savedLimit || this.#service.crowded || this.#port.groupsWait(client);
    const pause = isFull && client.asked === 0 && !this.kept.isAwaited(client);
    if (pause === client.paused || client.gone) return;
    client.paused = pause;
    if (!pause) this.#locks.holder.unanswered.resumed(client, this.#time.nowMs);
    this.#port.pauseClient(client.id, pause);
  }

  // -------------------------------------------------------------------------------------------------- gone clients

  /** `endedHere`: its connection did not break, this node has ended it. */
  gone(clientId: number, endedHere = false): void {
    const client = this.all.get(clientId);
    if (client === undefined || client.gone) return;
    client.gone = true;
    client.saved = [];
    this.#deaths.forgetClient(client);
    this.#purges.forget(client);
    this.kept.forgetHeir(client);
    // Its heir asks for its file locks before all that wait, and gets them when it is kept no more (hazard F45 of the overlay).
    if ((!endedHere || client.ending) && this.kept.keep(client, this.#time.nowMs)) this.#logKept(client);
    this.#port.groupsGone(client);
    this.kept.connectionEnded(client);
    const { holder } = this.#locks;
    if (client.lockspaces.size === 0 && !client.kept) {
      this.all.delete(clientId);
      return;
    }
    holder.abandon(client);
    if (!client.kept && (holder.mustRelease(client) || this.#plocks.has(client))) this.#askAboutLater(client);
    if (this.#service.serving) this.#takeBack(client);
  }

  /** What a client that is gone had asked for. */
  #takeBack(client: Client): void {
    this.#locks.holder.cancelOrphans(client);
    if (client.kept) this.#plocks.endWaits(client);
  }

  #logKept({ id: clientId, pid, program, keepMs, locks }: Client): void {
    this.#port.log("info", "what a client had is kept for an heir", { clientId, pid, program, keepMs, locks: locks.size });
  }

  /** It is gone now, as if its connection had ended just then (hazard C12). All are asked, also if no lock of it is left. */
  #endKept(client: Client, why: string, released: () => void = () => undefined): void {
    this.#port.log("info", "a client is kept no more", { clientId: client.id, why, locks: client.locks.size });
    this.kept.forget(client);
    this.#locks.holder.endKept(client);
    this.#port.groupsGone(client);
    if (client.lockspaces.size === 0) {
      this.all.delete(client.id);
      return released();
    }
    // Its other locks are only in the way of who asks for them.
    if (this.#plocks.has(client)) this.#released.set(client, released);
    else released();
    this.#askAboutLater(client);
  }

  /** Its process was to end and cannot: it waits in the kernel. It has its time anew. */
  spared(clientId: number): void {
    const client = this.all.get(clientId);
    if (client === undefined || client.gone || !client.ending) return;
    if (!this.#deaths.spared(client, this.#time.nowMs)) return;
    client.ending = false;
    this.#locks.holder.unanswered.review(client, this.#time.nowMs);
  }

  #askAboutLater(client: Client): void {
    this.#leaving.add(client);
    client.awaited = null;
    if (this.#service.serving) this.#askAll(client);
  }

  /** Every client of the cluster in its lockspaces is asked to let go of that one; then its locks go (hazard C7). */
  #askAll(client: Client): void {
    const { members, id } = this.#service.view as View;
    const { nodeid: self, incarnation } = this.#self;
    client.awaited = new Set(members.map((member) => member.nodeid));
    const lockspaces = [...new Set([...client.lockspaces.values()].map(({ name }) => name))];
    for (const { nodeid } of members)
      if (nodeid !== self) this.#service.send(nodeid, { kind: "client-gone", clientId: client.id, lockspaces });
    this.#askHere({ nodeid: self, incarnation, clientId: client.id }, lockspaces, () => {
      if (this.#service.view?.id === id) this.#answeredBy(client, self);
    });
  }

  #askHere(gone: GoneClient, lockspaces: readonly string[], done: () => void): void {
    const concerns = (lockspace: string): boolean => lockspaces.includes(lockspace);
    this.#deaths.ask(this.all.values(), { gone: [gone], concerns, ofNode: false, done }, this.#time.nowMs);
  }

  #answeredBy(client: Client, nodeid: number): void {
    client.awaited?.delete(nodeid);
    this.#releaseIfAnswered(client);
  }

  #releaseIfAnswered(client: Client): void {
    if (client.awaited === null || client.awaited.size > 0 || !this.#service.serving) return;
    this.#leaving.delete(client);
    this.#plocks.releaseClient(client);
    this.#locks.holder.releaseClient(client);
    const released = this.#released.get(client);
    this.#released.delete(client);
    this.forgetEmpty(client);
    released?.();
  }

  /** A gone client without locks is nobody any more, unless it is kept. */
  forgetEmpty(client: Client): void {
    if (!client.gone || client.kept || client.locks.size > 0 || this.#leaving.has(client)) return;
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
      if (client.kept) this.#endKept(client, "its locks are purged");
      else this.#askAboutLater(client);
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
        this.#askLocals(from, message);
        return true;
      case "purge":
      case "purged":
        this.#purges.receive(from, message);
        return true;
      default:
        return false;
    }
  }

  #askLocals(from: number, { clientId, lockspaces }: ClientGoneMessage): void {
    const { members, id } = this.#service.view as View;
    const { incarnation } = members.find((member) => member.nodeid === from) as Member;
    this.#askHere({ nodeid: from, incarnation, clientId }, lockspaces, () => {
      if (this.#service.view?.id === id && !this.#service.stopped) this.#service.send(from, { kind: "client-gone-ack", clientId });
    });
  }
}
