/**
 * What the clients of this node hold and what they have asked for: the side from which a master is rebuilt.
 *
 * What is held here follows the master's answers, which come in the order in which it acted. What was given up and is not answered yet is
 * not named to a new master (hazard H2): until its answer an unlock stays among the requests, also one that no client waits for, else a
 * master's death at that moment would keep the lock for ever (hazard M5).
 */
import type { LockClient } from "../lock/lkb.ts";
import { E } from "../base/errno.ts";
import { isName } from "../lock/lock-tables.ts";
import type { ClientEvent } from "../wire/program.ts";
import { ageOf, waitedSince } from "../wire/peer-field.ts";
import type { PlockClientRequest } from "../wire/local-plock.ts";
import type {
  PlockAnswerMessage,
  PlockAsk,
  PlockConflict,
  PlockMessage,
  PlockOp,
  PlockRequestName,
  PlockStatus,
} from "../wire/peer-plock.ts";
import { IntervalTree } from "./interval-tree.ts";
import type { PlockLimits } from "./master.ts";
import { changeOwned, type Held, mostAdded } from "./owned.ts";
import { maxOffset, type OwnerKind, ownerKey, type PlockOwner, type PlockType } from "../wire/plock-range.ts";

/** Ranges in one message of a rebuild. */
const rangesPerMessage = 1024;
/** Requests for which one owner waits that a search for deadlocks hears of; more come into view as these go. */
export const maxOwnerWaits = 256;

/** An owner on one file. */
interface Owned {
  readonly client: HomeClient;
  readonly lockspace: string;
  readonly file: string;
  readonly owner: PlockOwner;
  readonly ranges: IntervalTree<Held<Owned>>;
  /** Requests without an answer, in order. */
  readonly asked: Map<number, Asked>;
}

interface Asked {
  readonly ask: PlockAsk;
  readonly owned: Owned;
  /** The client's number for it; null: nobody waits for the answer. */
  readonly clientRequestId: number | null;
  readonly sinceMs: number;
  /** As PlockAsk.begun, by now. */
  begun: boolean;
  canceling: boolean;
  /** Named to another master than was asked first. */
  named: boolean;
}

interface HomeClient {
  readonly client: LockClient;
  readonly owned: Map<string, Owned>;
  /** By the client's numbers. */
  readonly asked: Map<number, Asked>;
  ranges: number;
  /** Requests without an answer, those too that the client does not wait for. */
  outstanding: number;
}

export interface HomePort {
  readonly nodeid: number;
  nowMs(): number;
  masterOf(lockspace: string, file: string): number;
  send(nodeid: number, message: PlockMessage): void;
  toClient(client: LockClient, event: ClientEvent): void;
}

const errnos: Record<Exclude<PlockStatus, "removed">, number> = {
  ok: 0,
  again: E.EAGAIN,
  deadlock: E.EDEADLK,
  canceled: E.EINTR,
  limit: E.ENOLCK,
};

export class PlockHome {
  readonly #port: HomePort;
  readonly #limits: PlockLimits;
  readonly #clients: Map<number, HomeClient> = new Map();
  readonly #asked: Map<number, Asked> = new Map();
  /** Requests of an owner that may be waiting, whatever the file. */
  readonly #waits: Map<string, Set<Asked>> = new Map();
  /** On how many files an owner has locks or requests. */
  readonly #files: Map<string, number> = new Map();
  #nextRequestId = 1;
  #rank = 0;

  constructor(port: HomePort, limits: PlockLimits) {
    this.#port = port;
    this.#limits = limits;
  }

  readonly #nextRank = (): number => ++this.#rank;

  #client(client: LockClient): HomeClient {
    let home = this.#clients.get(client.id);
    if (home === undefined) {
      home = { client, owned: new Map(), asked: new Map(), ranges: 0, outstanding: 0 };
      this.#clients.set(client.id, home);
    }
    return home;
  }

  #owned(client: HomeClient, lockspace: string, file: string, kind: OwnerKind, owner: bigint): Owned {
    const name: PlockOwner = { nodeid: this.#port.nodeid, clientId: client.client.id, kind, owner };
    const key = ownedKey(lockspace, file, name);
    let owned = client.owned.get(key);
    if (owned === undefined) {
      owned = { client, lockspace, file, owner: name, ranges: new IntervalTree(), asked: new Map() };
      client.owned.set(key, owned);
      const everywhere = ownerKey(name);
      this.#files.set(everywhere, (this.#files.get(everywhere) ?? 0) + 1);
    }
    return owned;
  }

  #release(owned: Owned): void {
    if (owned.ranges.size > 0 || owned.asked.size > 0) return;
    owned.client.owned.delete(ownedKey(owned.lockspace, owned.file, owned.owner));
    const key = ownerKey(owned.owner);
    const files = (this.#files.get(key) ?? 0) - 1;
    if (files > 0) this.#files.set(key, files);
    else this.#files.delete(key);
    if (owned.client.owned.size === 0) this.#clients.delete(owned.client.client.id);
  }

  /** Processes of this node that have or want locks: those of one file, or of all ("" stands for any). */
  *pids(lockspace: string, file: string): Generator<number> {
    for (const { owned } of this.#clients.values()) {
      for (const one of owned.values()) {
        if ((lockspace !== "" && lockspace !== one.lockspace) || (file !== "" && file !== one.file)) continue;
        for (const { pid } of one.ranges.overlapping(0n, maxOffset)) yield pid;
        for (const { ask } of one.asked.values()) yield ask.pid;
      }
    }
  }

  // --------------------------------------------------------------------------------------------------- client requests

  request(client: LockClient, request: PlockClientRequest): void {
    switch (request.kind) {
      case "plock":
        return this.#request(client, request);
      case "plock-cancel": {
        const asked = this.#clients.get(client.id)?.asked.get(request.requestId);
        if (asked !== undefined) this.#cancel(asked);
        return;
      }
      case "plock-release":
        return this.#releaseOwner(client, request);
    }
  }

  #request(client: LockClient, request: Extract<PlockClientRequest, { kind: "plock" }>): void {
    const { requestId, file, op, ownerKind, owner, wait, begun, heldMs, first } = request;
    const lockspace = client.lockspaces.get(request.lockspaceId);
    const home = this.#client(client);
    const whole = ownerKind === "flock" && op !== "test";
    const range = { type: request.type, start: whole ? 0n : request.start, end: whole ? maxOffset : request.end, pid: request.pid };
    const owned = this.#owned(home, lockspace?.name ?? "", file, ownerKind, owner);
    let errno = 0;
    if (home.asked.has(requestId)) errno = E.EEXIST;
    else if (lockspace === undefined) errno = E.ENOENT;
    else if (!isName(file) || (ownerKind === "flock" && op === "test")) errno = E.EINVAL;
    else if (range.start < 0n || range.start > range.end || range.end > maxOffset) errno = E.EINVAL;
    else if (this.#full(owned, op, range.start, range.end)) errno = E.ENOLCK;
    if (errno === 0) {
      const isLock = op === "lock";
      const how = { wait: wait && isLock, begun: begun && ownerKind === "flock", heldMs: isLock ? heldMs : null, first: first && isLock };
      this.#ask(owned, { ...range, op, ...how }, requestId);
    } else this.#tell(client, requestId, errno, null);
    this.#release(owned);
  }

  /** Whether a client has so much that this might be more than its limit. An unlock is refused only if it splits; a test adds no range. */
  #full(owned: Owned, op: PlockOp, start: bigint, end: bigint): boolean {
    const { ranges, outstanding } = owned.client;
    if (op === "test") return outstanding >= this.#limits.fileLocksPerClient;
    if (ranges + outstanding + mostAdded <= this.#limits.fileLocksPerClient) return false;
    return op === "lock" || owned.ranges.first(start, end, (held) => held.start < start && held.end > end) !== null;
  }

  #entangled(owned: Owned): boolean {
    return owned.ranges.size > 0 || owned.asked.size > 1 || (this.#files.get(ownerKey(owned.owner)) ?? 0) > 1;
  }

  #ask(
    owned: Owned,
    what: Pick<PlockAsk, "op" | "wait" | "begun" | "heldMs" | "first" | "type" | "start" | "end" | "pid">,
    clientRequestId: number | null,
  ): void {
    const { lockspace, file, owner } = owned;
    const requestId = this.#nextRequestId++;
    const names = { requestId, lockspace, file, clientId: owner.clientId, ownerKind: owner.kind, owner: owner.owner };
    const entangled = owned.asked.size > 0 || this.#entangled(owned);
    const ask: PlockAsk = { ...what, ...names, entangled };
    const asked: Asked = { ask, owned, clientRequestId, sinceMs: this.#port.nowMs(), begun: ask.begun, canceling: false, named: false };
    this.#asked.set(requestId, asked);
    owned.asked.set(requestId, asked);
    owned.client.outstanding++;
    if (clientRequestId !== null) owned.client.asked.set(clientRequestId, asked);
    if (ask.wait) this.#noteWait(asked);
    this.#port.send(this.#port.masterOf(lockspace, file), { kind: "plock-request", ...ask });
  }

  #noteWait(asked: Asked): void {
    const key = ownerKey(asked.owned.owner);
    const waits = this.#waits.get(key);
    if (waits === undefined) this.#waits.set(key, new Set([asked]));
    else waits.add(asked);
  }

  #change(owned: Owned, { start, end, pid }: PlockAsk, type: PlockType | null, sinceMs: number | null = null): void {
    const before = owned.ranges.size;
    changeOwned(owned.ranges, owned, { start, end, type, pid }, sinceMs, this.#nextRank);
    owned.client.ranges += owned.ranges.size - before;
  }

  #cancel(asked: Asked): void {
    if (!asked.ask.wait || asked.canceling) return;
    asked.canceling = true;
    const { lockspace, file, requestId } = asked.ask;
    this.#port.send(this.#port.masterOf(lockspace, file), { kind: "plock-cancel", requestId });
  }

  /** On one file: the owner's locks. Everywhere: its waiting requests too, because the owner is no more. */
  #releaseOwner(client: LockClient, request: Extract<PlockClientRequest, { kind: "plock-release" }>): void {
    const { ownerKind, owner, file } = request;
    const lockspace = client.lockspaces.get(request.lockspaceId)?.name;
    for (const owned of this.#clients.get(client.id)?.owned.values() ?? []) {
      if (owned.lockspace !== lockspace || owned.owner.kind !== ownerKind || owned.owner.owner !== owner) continue;
      if (file === null || file === owned.file) this.#giveUp(owned, file === null);
    }
  }

  #giveUp(owned: Owned, cancel: boolean): void {
    const locks = [...owned.asked.values()].filter(({ ask }) => ask.op === "lock");
    if (cancel) for (const asked of locks) this.#cancel(asked);
    if (owned.ranges.size === 0 && locks.length === 0) return;
    const all = { type: "read", start: 0n, end: maxOffset, pid: 0 } as const;
    this.#ask(owned, { op: "unlock", wait: false, begun: false, heldMs: null, first: false, ...all }, null);
  }

  has(client: LockClient): boolean {
    return this.#clients.has(client.id);
  }

  /** Not those that go first: they keep what its predecessor has for the next heir, where the client is an heir itself (hazard F45 of the overlay). */
  endWaits(client: LockClient): void {
    for (const asked of this.#clients.get(client.id)?.asked.values() ?? []) if (!asked.ask.first) this.#cancel(asked);
  }

  /** A client that nobody serves any more (hazard C7). */
  releaseClient(client: LockClient): void {
    for (const owned of this.#clients.get(client.id)?.owned.values() ?? []) this.#giveUp(owned, true);
  }

  #tell(client: LockClient, requestId: number, errno: number, conflict: PlockConflict | null): void {
    this.#port.toClient(client, { kind: "plock-result", requestId, errno, conflict });
  }

  // ---------------------------------------------------------------------------------------------------------- answers

  /**
   * `late`: the service has stopped, but what a master did in its view is done (hazard H3); nothing may be sent then, because it would go
   * before what is rebuilt. Answers to nothing asked are dropped.
   */
  answer({ requestId, status, conflict }: Omit<PlockAnswerMessage, "kind">, late: boolean): void {
    const asked = this.#asked.get(requestId);
    if (asked === undefined) return;
    const { ask, owned, clientRequestId } = asked;
    if (status === "removed") {
      asked.begun = true;
      return this.#change(owned, ask, null);
    }
    this.#asked.delete(requestId);
    owned.asked.delete(requestId);
    owned.client.outstanding--;
    if (clientRequestId !== null) owned.client.asked.delete(clientRequestId);
    if (ask.wait) this.#forgetWait(asked);
    if (ask.op === "unlock" && status === "ok") this.#change(owned, ask, null);
    else if (ask.op === "lock" && status === "ok") this.#granted(asked, late);
    // A conversion that failed: what it had was removed first.
    else if (status === "again" && ask.ownerKind === "flock" && !asked.begun) this.#change(owned, ask, null);
    if (clientRequestId !== null) this.#tell(owned.client.client, clientRequestId, errnos[status], conflict);
    this.#release(owned);
  }

  #granted(asked: Asked, late: boolean): void {
    const { owned, ask } = asked;
    this.#change(owned, ask, ask.type, this.#grantedAtMs(asked));
    if (ask.ownerKind === "flock") noteBegun(owned, ask.requestId);
    if (late) return;
    // Others may have come to wait for this owner since its other requests were looked at.
    for (const { ask } of this.#waits.get(ownerKey(owned.owner)) ?? []) {
      this.#port.send(this.#port.masterOf(ask.lockspace, ask.file), { kind: "plock-recheck", requestId: ask.requestId });
    }
  }

  /** Null: it may be the dead master that granted it, for which a new one has only what others claim (master.ts, `#explain`). */
  #grantedAtMs({ ask, owned, sinceMs, named }: Asked): number | null {
    if (ask.heldMs !== null) return sinceMs - ask.heldMs;
    const weakens = ask.type === "read" && owned.ranges.first(ask.start, ask.end, (held) => held.type === "write") !== null;
    return named && weakens ? null : this.#port.nowMs();
  }

  #forgetWait(asked: Asked): void {
    const key = ownerKey(asked.owned.owner);
    const waits = this.#waits.get(key);
    waits?.delete(asked);
    if (waits?.size === 0) this.#waits.delete(key);
  }

  /** What an owner of ours may be waiting for: the oldest of it. */
  waits(owner: PlockOwner): { masterNodeid: number; request: PlockRequestName }[] {
    const waits: { masterNodeid: number; request: PlockRequestName }[] = [];
    for (const { ask } of this.#waits.get(ownerKey(owner)) ?? []) {
      if (waits.length >= maxOwnerWaits) break;
      const request = { nodeid: this.#port.nodeid, requestId: ask.requestId };
      waits.push({ masterNodeid: this.#port.masterOf(ask.lockspace, ask.file), request });
    }
    return waits;
  }

  /** What clients of this node hold, as far as it was answered. */
  *held(): Iterable<Pick<Owned, "lockspace" | "file" | "owner" | "ranges">> {
    for (const client of this.#clients.values()) yield* client.owned.values();
  }

  // --------------------------------------------------------------------------------------------------------- recovery

  /** Names everything to the masters of the new view, a message at each step. Nothing else happens here meanwhile. */
  *rebuild(): Generator<void> {
    // One time for all, however many turns this takes: the master takes an owner's requests in the order of their ages.
    const nowMs = this.#port.nowMs();
    for (const client of this.#clients.values()) {
      for (const owned of client.owned.values()) yield* this.#name(owned);
    }
    for (const asked of this.#asked.values()) {
      const { ask, begun, canceling } = asked;
      asked.named = true;
      const waitedMs = waitedSince(asked.sinceMs, nowMs);
      const entangled = this.#entangled(asked.owned);
      const master = this.#port.masterOf(ask.lockspace, ask.file);
      this.#port.send(master, { kind: "plock-again", ...ask, begun, entangled, waitedMs, canceled: canceling });
      yield;
    }
  }

  *#name(owned: Owned): Generator<void> {
    for (const { ask } of owned.asked.values()) if (ask.op === "unlock") this.#change(owned, ask, null);
    const { lockspace, file, owner } = owned;
    const master = this.#port.masterOf(lockspace, file);
    const nowMs = this.#port.nowMs();
    const ranges = owned.ranges.overlapping(0n, maxOffset).map(({ sinceMs, type, start, end, pid }) => {
      return { type, start, end, pid, heldMs: ageOf(sinceMs, nowMs) };
    });
    for (let at = 0; at < ranges.length; at += rangesPerMessage) {
      const some = ranges.slice(at, at + rangesPerMessage);
      const shared = { lockspace, file, clientId: owner.clientId, ownerKind: owner.kind, owner: owner.owner };
      this.#port.send(master, { kind: "plock-held", ...shared, ranges: some });
      yield;
    }
  }
}

/** A master takes the requests of an owner in order: of those that wait it has begun with all before the one that it granted. */
function noteBegun(owned: Owned, grantedId: number): void {
  for (const asked of owned.asked.values()) if (asked.ask.requestId < grantedId) asked.begun = true;
}

function ownedKey(lockspace: string, file: string, owner: PlockOwner): string {
  return `${lockspace}\0${file}\0${owner.kind}\0${owner.owner}`;
}
