/**
 * The files whose locks this node masters: requests of all nodes in, exactly one answer out for each. Between views it is
 * emptied and filled again with what the homes say (home.ts): `claim`, `again`, then `settle`.
 */
import type {
  PlockAgainMessage,
  PlockAsk,
  PlockEdge,
  PlockHeldMessage,
  PlockMessage,
  PlockRequestName,
  PlockStatus,
} from "../wire/peer-plock.ts";
import { firstOnesFirst, GatedRequests } from "./gated.ts";
import { ownerKey, type PlockOwner, type Range, spaceOf } from "../wire/plock-range.ts";
import { blockingOwner, type FileLockHolder, isWaiter, PlockTable, type TableSink, type Waiter } from "./table.ts";
import { mostAdded } from "./owned.ts";

/** Each with what happens at it. */
export interface PlockLimits {
  /** Held ranges and waiting requests of one file: a lock beyond it ends with ENOLCK. An unlock may split beyond it. */
  readonly fileLocksPerFile: number;
  /**
   * Held ranges and unanswered file-lock requests of one client: beyond, a lock, or an unlock that splits, ends with ENOLCK; a test where so
   * many are unanswered. Of its requests that wait for a lockspace (gated.ts) a lock or a test beyond it.
   */
  readonly fileLocksPerClient: number;
}

/** Blockers of one request that a search for deadlocks looks at; more come into view as these go. */
export const edgesPerRequest = 256;

/** Places in queues count up from here; those of requests that go first (hazard F45 of the overlay) count down. */
const HEAD_RANK = 2 ** 40;

export interface FileLockPort {
  readonly nodeid: number;
  nowMs(): number;
  /** To that node's part of the service, this one's too. */
  send(nodeid: number, message: PlockMessage): void;
  /** Nothing is granted in that lockspace. */
  blocks(lockspace: string): boolean;
  protest(nodeid: number, message: string): void;
  /** A request waits for somebody for whom it did not wait before: there may be a deadlock. */
  blocked(waiter: Waiter): void;
}

export interface PlockFile {
  readonly lockspace: string;
  readonly name: string;
  readonly ranges: PlockTable;
  readonly flock: PlockTable;
}

/** A request without an answer, named to this node, and when it was. */
interface Again {
  readonly from: number;
  readonly message: PlockAgainMessage;
  readonly atMs: number;
}

export class PlockMaster implements TableSink {
  readonly files: Map<string, PlockFile> = new Map();
  readonly #port: FileLockPort;
  readonly #limits: PlockLimits;
  /** Requests that wait: nodeid -> request id. */
  readonly #waiters: Map<number, Map<number, Waiter>> = new Map();
  #agains: Again[] = [];
  readonly #gated: GatedRequests;
  #counter = HEAD_RANK;
  /** The place before all that wait: below all others. */
  #head = HEAD_RANK;

  constructor(port: FileLockPort, limits: PlockLimits) {
    this.#port = port;
    this.#limits = limits;
    this.#gated = new GatedRequests(limits.fileLocksPerClient);
  }

  readonly #next = (): number => ++this.#counter;

  #file(lockspace: string, name: string): PlockFile {
    const key = `${lockspace}\0${name}`;
    let file = this.files.get(key);
    if (file === undefined) {
      const table = (): PlockTable => new PlockTable(key, this, this.#next, () => this.#port.nowMs());
      file = { lockspace, name, ranges: table(), flock: table() };
      this.files.set(key, file);
    }
    return file;
  }

  #table({ lockspace, file, ownerKind }: Pick<PlockHeldMessage, "lockspace" | "file" | "ownerKind">): PlockTable {
    return this.#file(lockspace, file)[spaceOf(ownerKind)];
  }

  /** Forgets an owner, and a file, that nobody needs any more. */
  #release(table: PlockTable, holder: FileLockHolder): void {
    table.release(holder);
    const file = this.files.get(table.fileKey);
    if (file !== undefined && file.ranges.holders.size + file.flock.holders.size === 0) this.files.delete(table.fileKey);
  }

  waiter({ nodeid, requestId }: PlockRequestName): Waiter | null {
    return this.#waiters.get(nodeid)?.get(requestId) ?? null;
  }

  *waiters(): Iterable<Waiter> {
    for (const requests of this.#waiters.values()) yield* requests.values();
  }

  // --------------------------------------------------------------------------------------------------------- requests

  request(from: number, m: PlockAsk, waitedMs = 0): void {
    if (this.waiter({ nodeid: from, requestId: m.requestId }) !== null || this.#gated.has(from, m.requestId))
      return this.#port.protest(from, `file-lock request ${m.requestId} twice`);
    // Free by now, but not reviewed yet (`unblock`): an unlock must not go before the lock that it follows.
    const gated = this.#port.blocks(m.lockspace) || this.#gated.hasOfOwner(from, m);
    const taken = gated ? this.#gated.take(from, m, this.#port.nowMs() - waitedMs) : "passes";
    if (taken === "full") return this.#answer(from, m.requestId, "limit");
    if (taken === "waits") return;
    if (taken === "crowded") this.#endGated(from, m.clientId);
    const table = this.#table(m);
    const holder = table.holder(ownerOf(from, m));
    if (m.op === "test") {
      const held = table.conflict(holder, m);
      const conflict = held && { type: held.type, start: held.start, end: held.end, pid: held.pid, owner: held.holder.owner };
      this.#port.send(from, { kind: "plock-answer", requestId: m.requestId, status: "ok", conflict });
    } else if (m.op === "unlock") {
      // Its answer first: whoever is served by it is told later.
      this.#answer(from, m.requestId, "ok");
      table.take(holder, m.start, m.end);
    } else this.#lock(from, table, holder, m, waitedMs);
    this.#release(table, holder);
  }

  /** Nothing of a client waits for its lockspace any more: no unlock is lost, so its locks and tests end. */
  #endGated(from: number, clientId: number): void {
    for (const { message } of this.#gated.removeClient(from, clientId)) {
      if (message.op === "unlock") this.request(from, message);
      else this.#answer(from, message.requestId, "limit");
    }
  }

  #lock(from: number, table: PlockTable, holder: FileLockHolder, m: PlockAsk, waitedMs: number): void {
    const rank = m.first ? (this.#head -= 1) : this.#next();
    const blocker = m.wait ? table.blocker(holder, m, rank, m.first) : (table.conflict(holder, m)?.holder ?? null);
    if (table.size + mostAdded > this.#limits.fileLocksPerFile) return this.#answer(from, m.requestId, "limit");
    const sinceMs = this.#port.nowMs() - waitedMs;
    const heldSinceMs = m.heldMs === null ? null : sinceMs - m.heldMs;
    if (blocker === null) {
      this.#answer(from, m.requestId, "ok");
      return table.give(holder, m, heldSinceMs ?? this.#port.nowMs());
    }
    if (m.wait) {
      const waiter = table.wait(holder, m, blocker, { nodeid: from, requestId: m.requestId, sinceMs, heldSinceMs, rank, first: m.first });
      this.#remember(waiter);
      if (m.entangled) this.blocked(waiter);
    } else this.#answer(from, m.requestId, "again");
    // flock(2): "the existing lock is first removed, and then a new lock is established".
    if (m.ownerKind === "flock" && !m.begun && holder.ranges.size > 0) this.#removeFirst(from, table, holder, m);
  }

  #removeFirst(from: number, table: PlockTable, holder: FileLockHolder, m: PlockAsk): void {
    if (m.wait) this.#answer(from, m.requestId, "removed");
    table.take(holder, m.start, m.end);
  }

  /** Some lockspaces are not blocked any more. */
  unblock(): void {
    for (const { from, message, sinceMs } of this.#gated.release((lockspace) => this.#port.blocks(lockspace))) {
      // Its owner may have come to hold something since it asked, and its home has found nothing here to be looked at again.
      this.request(from, { ...message, entangled: true }, this.#port.nowMs() - sinceMs);
    }
  }

  cancel(from: number, requestId: number): void {
    if (this.#gated.cancel(from, requestId)) return this.#answer(from, requestId, "canceled");
    const waiter = this.waiter({ nodeid: from, requestId });
    // Its answer is under way.
    if (waiter !== null) this.#end(waiter, "canceled");
  }

  /** Ends a request that waits, or lets it overtake; false: it does not wait any more, or nobody waits for it who could do without it (`first`). */
  sentence(name: PlockRequestName, sentence: "deadlock" | "overtake"): boolean {
    const waiter = this.waiter(name);
    if (waiter === null || waiter.first) return false;
    if (sentence === "deadlock") this.#end(waiter, "deadlock");
    else waiter.table.overtake(waiter);
    return true;
  }

  #end(waiter: Waiter, status: "canceled" | "deadlock"): void {
    this.#forget(waiter);
    this.#answer(waiter.nodeid, waiter.requestId, status);
    waiter.table.cancel(waiter);
    this.#release(waiter.table, waiter.holder);
  }

  #remember(waiter: Waiter): void {
    let requests = this.#waiters.get(waiter.nodeid);
    if (requests === undefined) {
      requests = new Map();
      this.#waiters.set(waiter.nodeid, requests);
    }
    requests.set(waiter.requestId, waiter);
  }

  #forget(waiter: Waiter): void {
    this.#waiters.get(waiter.nodeid)?.delete(waiter.requestId);
  }

  #answer(nodeid: number, requestId: number, status: PlockStatus): void {
    this.#port.send(nodeid, { kind: "plock-answer", requestId, status, conflict: null });
  }

  // -------------------------------------------------------------------------------------------------------- TableSink

  granted(waiter: Waiter): void {
    this.#forget(waiter);
    this.#answer(waiter.nodeid, waiter.requestId, "ok");
  }

  blocked(waiter: Waiter): void {
    if (!waiter.first) this.#port.blocked(waiter);
  }

  // -------------------------------------------------------------------------------------------------------- deadlocks

  /** For whom a request waits: whoever holds what excludes it, and whose earlier request it stands behind. */
  edges(waiter: Waiter): PlockEdge[] {
    const to = (owner: PlockOwner, soft: boolean, stamp: number): PlockEdge => ({
      masterNodeid: this.#port.nodeid,
      request: { nodeid: waiter.nodeid, requestId: waiter.requestId },
      from: waiter.holder.owner,
      to: owner,
      soft,
      stamp,
    });
    const edges = waiter.table.conflicting(waiter, edgesPerRequest).map((holder) => to(holder.owner, false, holder.stamp));
    const blocker = waiter.blocker;
    if (blocker === null) return edges;
    const { owner, stamp } = blockingOwner(blocker);
    if (isWaiter(blocker)) edges.push(to(owner, true, blocker.rank));
    else if (!edges.some((edge) => edge.stamp === stamp)) edges.push(to(owner, false, stamp));
    return edges;
  }

  /** Whether that edge has been there since it was seen. */
  stillThere(edge: PlockEdge): boolean {
    const waiter = this.waiter(edge.request);
    return waiter !== null && this.edges(waiter).some(({ soft, stamp }) => soft === edge.soft && stamp === edge.stamp);
  }

  // --------------------------------------------------------------------------------------------------------- recovery

  clear(): void {
    this.files.clear();
    this.#waiters.clear();
    this.#gated.clear();
    this.#agains = [];
  }

  claim(from: number, m: PlockHeldMessage): void {
    const table = this.#table(m);
    const holder = table.holder(ownerOf(from, m));
    const nowMs = this.#port.nowMs();
    for (const range of m.ranges) table.claim(holder, range, range.heldMs === null ? null : nowMs - range.heldMs);
  }

  again(from: number, message: PlockAgainMessage): void {
    this.#agains.push({ from, message, atMs: this.#port.nowMs() });
  }

  /** All homes have said what they have. Requests are asked again in the order of their ages, those that go first before all; one at each step. */
  *settle(): Generator<void> {
    const agains = this.#agains;
    this.#agains = [];
    const inTurn = firstOnesFirst(agains.sort(byAge));
    const explained = this.#explain(inTurn);
    for (const { from, message, atMs } of inTurn) {
      if (explained.has(message)) this.#answer(from, message.requestId, "ok");
      else if (message.canceled && message.op === "lock") this.#answer(from, message.requestId, "canceled");
      else this.request(from, message, message.waitedMs + this.#port.nowMs() - atMs);
      yield;
    }
  }

  /**
   * Nothing that a master grants contradicts what it granted before, so two claims that exclude each other mean that one owner has less by
   * now than its home knows: its request for less was granted, the answer died with the master. It is among those without an answer.
   */
  #explain(agains: readonly Again[]): Set<PlockAgainMessage> {
    const explained = new Set<PlockAgainMessage>();
    agains.forEach(({ from, message: m }, at) => {
      if (m.op !== "lock") return;
      const flock = m.ownerKind === "flock";
      if (flock && m.begun) return;
      const table = this.#table(m);
      const holder = table.holder(ownerOf(from, m));
      const claimed = holder.ranges.overlapping(m.start, m.end).filter((held) => flock || held.type === "write");
      const contradicted = claimed.some((held) => table.conflict(holder, within(held, m)) !== null);
      // Its conversion began by giving up what it had.
      if (contradicted && flock) this.#removeFirst(from, table, holder, m);
      else if (contradicted && m.type === "read") {
        explained.add(m);
        // The dead master granted it, at a time that nobody knows.
        table.give(holder, m, null);
        for (const later of agains.slice(at + 1)) this.#giveUpAgain(table, holder, from, later);
      }
      this.#release(table, holder);
    });
    return explained;
  }

  /** What an owner gave up after that, it still has given up. */
  #giveUpAgain(table: PlockTable, holder: FileLockHolder, from: number, later: Again): void {
    const m = later.message;
    if (later.from !== from || m.op !== "unlock" || this.#table(m) !== table || ownerKey(ownerOf(from, m)) !== holder.key) return;
    table.take(holder, m.start, m.end);
  }
}

function byAge({ from, message: a }: Again, { from: other, message: b }: Again): number {
  return b.waitedMs - a.waitedMs || from - other || a.requestId - b.requestId;
}

function ownerOf(nodeid: number, { clientId, ownerKind, owner }: Pick<PlockHeldMessage, "clientId" | "ownerKind" | "owner">): PlockOwner {
  return { nodeid, clientId, kind: ownerKind, owner };
}

function within(held: Range, to: Range): Range {
  const start = held.start > to.start ? held.start : to.start;
  const end = held.end < to.end ? held.end : to.end;
  return { ...held, start, end };
}
