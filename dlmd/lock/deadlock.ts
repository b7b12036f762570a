/**
 * Circles of waiting locks over all resources and nodes, between transactions that programs declare: edge chasing (Chandy, Misra, Haas,
 * "Distributed deadlock detection", ACM TOCS 1983, AND model), gone round twice. Why that is sound: dlmd/lock/README.md, "Deadlocks between
 * resources".
 */
import { type Hop, type LockName, maxHops, type ProbeMessage } from "../wire/peer-message.ts";
import { NODLCKWT, NOORDER } from "../wire/flag.ts";
import { isUnordered, type Lkb, type LockClient } from "./lkb.ts";
import type { LockTables } from "./lock-tables.ts";
import { type Mode, modesCompatible } from "../wire/mode.ts";

/** Blockers that one probe goes on to; the next probe takes others. */
const fanOut = 64;
/** Waiting locks from which probes start in one sweep; the next one begins with others. */
const startsPerSweep = 1024;
/** Probes of which it is remembered where they went; the oldest is forgotten, and may go there twice. */
const rememberedProbes = 1024;

export interface DeadlockPort {
  send(nodeid: number, message: ProbeMessage): void;
  /** The request ends with "deadlock". */
  refuse(lkb: Lkb): void;
}

export class Deadlocks {
  readonly #tables: LockTables;
  readonly #port: DeadlockPort;
  readonly #afterMs: number;
  readonly #visited: Map<string, Set<number>> = new Map();
  #lastSweepMs = Number.NEGATIVE_INFINITY;
  #round = 0;
  /** Circles that were found and broken. */
  broken = 0;

  constructor(tables: LockTables, port: DeadlockPort, afterMs: number) {
    this.#tables = tables;
    this.#port = port;
    this.#afterMs = afterMs;
  }

  /** When to sweep next; Infinity: nothing waits. */
  get deadlineMs(): number {
    return this.#tables.waiting.size === 0 ? Number.POSITIVE_INFINITY : this.#lastSweepMs + this.#afterMs / 2;
  }

  /** Sends a probe for each lock that has waited long enough. */
  sweep(nowMs: number): void {
    if (nowMs < this.deadlineMs) return;
    this.#lastSweepMs = nowMs;
    this.#round = (this.#round + 1) >>> 0;
    const { waiting } = this.#tables;
    const due: Lkb[] = [];
    for (const lkb of waiting.values()) {
      if (due.length === startsPerSweep) break;
      if (stillWanted(lkb) && (lkb.flags & NODLCKWT) === 0 && nowMs - lkb.sinceMs >= this.#afterMs) due.push(lkb);
    }
    for (const lkb of due) {
      // To the end: the next sweep begins with others.
      waiting.delete(lkb.id);
      waiting.set(lkb.id, lkb);
      const target = { nodeid: lkb.nodeid, lkbId: lkb.id };
      this.#pass(lkb.resource.masterNodeid, {
        kind: "probe",
        initiator: target,
        round: this.#round,
        step: "wait",
        confirming: false,
        index: 0,
        target,
        path: [],
      });
    }
  }

  #pass(nodeid: number, probe: ProbeMessage): void {
    if (nodeid === this.#tables.nodeid) this.receive(probe);
    else this.#port.send(nodeid, probe);
  }

  receive(probe: ProbeMessage): void {
    if (probe.step === "wait") return probe.confirming ? this.#confirmWait(probe) : this.#chaseWait(probe);
    if (probe.step === "hold") return probe.confirming ? this.#confirmHold(probe) : this.#chaseHold(probe);
    const lkb = this.#mastered(probe.initiator);
    const first = probe.path[0];
    if (lkb === null || first === undefined || lkb.waitNo === 0 || lkb.waitNo !== first.waiter.no) return;
    this.broken++;
    this.#port.refuse(lkb);
  }

  // ------------------------------------------------------------------------------------------------ at the master

  #mastered({ nodeid, lkbId }: LockName): Lkb | null {
    const own = nodeid === this.#tables.nodeid;
    const lkb = own ? this.#tables.waiting.get(lkbId) : this.#tables.masteredFor.get(nodeid)?.get(lkbId);
    return lkb === undefined || !this.#tables.masters(lkb.resource) ? null : lkb;
  }

  #chaseWait(probe: ProbeMessage): void {
    const lkb = this.#mastered(probe.target);
    if (lkb === null || lkb.waitNo === 0 || probe.path.length >= maxHops) return;
    const blockers = distinct(blockersOf(lkb));
    const first = blockers.length > fanOut ? probe.round % blockers.length : 0;
    for (let i = 0; i < Math.min(blockers.length, fanOut); i++) {
      const blocker = blockers[(first + i) % blockers.length] as Blocker;
      const path = [...probe.path, this.#hop(lkb, blocker)];
      this.#pass(blocker.lkb.nodeid, { ...probe, step: "hold", index: probe.path.length, path });
    }
  }

  #hop(waiter: Lkb, blocker: Blocker): Hop {
    const { nodeid, id: lkbId, clientId, transaction } = blocker.lkb;
    return {
      masterNodeid: this.#tables.nodeid,
      waiter: { nodeid: waiter.nodeid, lkbId: waiter.id, no: waiter.waitNo },
      blocker: { nodeid, lkbId, no: numberOf(blocker) },
      queued: blocker.queued,
      via: blocker.via,
      clientId,
      transaction,
    };
  }

  #confirmWait(probe: ProbeMessage): void {
    const hop = probe.path[probe.index];
    const lkb = hop === undefined ? null : this.#mastered(hop.waiter);
    if (hop === undefined || lkb === null || lkb.waitNo === 0 || lkb.waitNo !== hop.waiter.no) return;
    const same = (blocker: Blocker): boolean =>
      blocker.lkb.nodeid === hop.blocker.nodeid &&
      blocker.lkb.id === hop.blocker.lkbId &&
      blocker.queued === hop.queued &&
      blocker.via === hop.via &&
      numberOf(blocker) === hop.blocker.no;
    if (blockersOf(lkb).some(same)) this.#pass(hop.blocker.nodeid, { ...probe, step: "hold" });
  }

  // -------------------------------------------------------------------------------------------------- at the home

  /** Id of its client; null: its holder has given up what blocks, by a message that is on its way. */
  #stillHeld(hop: Hop): number | null {
    if (hop.masterNodeid === this.#tables.nodeid) return hop.clientId;
    const lkb = this.#tables.heldElsewhere.get(hop.blocker.lkbId);
    if (lkb === undefined || lkb.canceling !== null) return null;
    const holds = hop.queued ? lkb.requested !== null : lkb.granted !== null && lkb.grantNo === hop.blocker.no;
    return holds ? (lkb.client as LockClient).id : null;
  }

  /** Locks for which that transaction waits. */
  #waitingOf(hop: Hop): Lkb[] {
    const clientId = this.#stillHeld(hop);
    if (clientId === null) return [];
    return [...this.#tables.waitingOf(clientId, hop.transaction)].filter(stillWanted);
  }

  #chaseHold(probe: ProbeMessage): void {
    const { initiator, path } = probe;
    const hop = path[path.length - 1];
    if (hop === undefined) return;
    for (const lkb of this.#waitingOf(hop)) {
      if (lkb.nodeid === initiator.nodeid && lkb.id === initiator.lkbId) {
        this.#pass((path[0] as Hop).masterNodeid, { ...probe, step: "wait", confirming: true, index: 0 });
      } else if (((lkb.flags & NODLCKWT) !== 0 || !outranks(lkb, initiator)) && this.#visit(probe, lkb.id)) {
        const target = { nodeid: lkb.nodeid, lkbId: lkb.id };
        this.#pass(lkb.resource.masterNodeid, { ...probe, step: "wait", target });
      }
    }
  }

  /** False: a probe of that round has gone on from there already. */
  #visit({ initiator, round }: ProbeMessage, lkbId: number): boolean {
    const key = `${initiator.nodeid}/${initiator.lkbId}/${round}`;
    let visited = this.#visited.get(key);
    if (visited === undefined) {
      visited = new Set();
      this.#visited.set(key, visited);
      if (this.#visited.size > rememberedProbes) this.#visited.delete(this.#visited.keys().next().value as string);
    }
    if (visited.has(lkbId)) return false;
    visited.add(lkbId);
    return true;
  }

  #confirmHold(probe: ProbeMessage): void {
    const hop = probe.path[probe.index];
    if (hop === undefined) return;
    const next = probe.path[probe.index + 1]?.waiter ?? probe.initiator;
    if (!this.#waitingOf(hop).some((lkb) => lkb.nodeid === next.nodeid && lkb.id === next.lkbId)) return;
    const master = (probe.path[probe.index + 1] ?? probe.path[0] ?? hop).masterNodeid;
    if (probe.index + 1 < probe.path.length) this.#pass(master, { ...probe, step: "wait", index: probe.index + 1 });
    else this.#pass(master, { ...probe, step: "victim" });
  }
}

/** A client that is gone gives up what it has, whatever it waits for. */
function stillWanted(lkb: Lkb): boolean {
  return lkb.canceling === null && lkb.client?.gone !== true;
}

/** Which of two locks of a circle is its victim: the order is that of their names. */
function outranks(lkb: Lkb, initiator: LockName): boolean {
  return lkb.nodeid > initiator.nodeid || (lkb.nodeid === initiator.nodeid && lkb.id > initiator.lkbId);
}

/** A lock that must be given up before another can be granted. */
interface Blocker {
  readonly lkb: Lkb;
  /** It is not granted itself yet, but its turn comes first. */
  readonly queued: boolean;
  /** waitNo of the request that it is incompatible with: the waiting lock, or one whose turn comes before. */
  readonly via: number;
}

function numberOf({ lkb, queued }: Blocker): number {
  return queued ? lkb.waitNo : lkb.grantNo;
}

/**
 * Whom a waiting lock waits for. What waits before it has to be granted first, so it waits for whoever blocks that, too: locks that
 * belong to no transaction pass the wait on in this way, and in no other.
 */
function blockersOf(lkb: Lkb): Blocker[] {
  const { grantQueue, convertQueue } = lkb.resource;
  const requests = [...requestsBefore(lkb), lkb];
  const blockers: Blocker[] = [];
  requests.forEach((request, at) => {
    const wanted = request.requested as Mode;
    for (const queue of [grantQueue, convertQueue]) {
      for (const other of queue) {
        if (other === request || other.transaction === 0 || modesCompatible(other.granted as Mode, wanted)) continue;
        blockers.push({ lkb: other, queued: false, via: request.waitNo });
      }
    }
    for (const other of requests.slice(0, at)) {
      if (other.transaction === 0 || modesCompatible(other.requested as Mode, wanted)) continue;
      blockers.push({ lkb: other, queued: true, via: request.waitNo });
    }
  });
  return blockers;
}

function requestsBefore(lkb: Lkb): Lkb[] {
  const { convertQueue, waitQueue } = lkb.resource;
  if (lkb.granted === null) return isUnordered(lkb) ? [] : [...convertQueue, ...waitQueue.slice(0, waitQueue.indexOf(lkb))];
  return lkb.unordered || (lkb.flags & NOORDER) !== 0 ? [] : convertQueue.slice(0, convertQueue.indexOf(lkb));
}

/** One lock for each transaction: the same probes would come of the others. */
function distinct(blockers: readonly Blocker[]): Blocker[] {
  const byTransaction = new Map<string, Blocker>();
  for (const blocker of blockers) {
    const { nodeid, clientId, transaction } = blocker.lkb;
    const key = `${nodeid}/${clientId}/${transaction}`;
    if (!byTransaction.has(key)) byTransaction.set(key, blocker);
  }
  return [...byTransaction.values()];
}
