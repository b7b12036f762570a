/**
 * What a node knows of locks: resources by lockspace, its own locks that others master, others' locks that it masters. Linux fs/dlm
 * keeps the same in ls_rsbtbl and ls_lkbidr.
 */
import { maxNameBytes } from "../wire/peer.ts";
import type { HolderMessage } from "../wire/peer-message.ts";
import type { Member } from "../wire/view-id.ts";
import type { Client } from "./client.ts";
import { DeadlineQueue } from "./deadline-queue.ts";
import { enqueue, isIdle, type Lkb, type Lockspace, newResource, queueOf, type Resource } from "./lkb.ts";
import { masterOf } from "./mastering.ts";
import { Mode } from "./mode.ts";
import { type Displaced, isMoving } from "./displaced.ts";

/** Whether a text is 1 to 64 bytes of UTF-8. */
export function isName(name: string): boolean {
  if (name.length === 0 || name.length > maxNameBytes) return false;
  if (name.length * 3 <= maxNameBytes) return true;
  let bytes = 0;
  for (const char of name) {
    const code = char.codePointAt(0) as number;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return bytes <= maxNameBytes;
}

const nothing: ReadonlySet<Lkb> = new Set();

export class LockTables {
  readonly nodeid: number;
  readonly lockspaces: Map<string, Lockspace> = new Map();
  /** Locks of our clients whose master is another node, by lkb id. */
  readonly heldElsewhere: Map<number, Lkb> = new Map();
  /** Locks of other nodes mastered here: nodeid -> lkb id. */
  readonly masteredFor: Map<number, Map<number, Lkb>> = new Map();
  /** Locks of our clients with a request outstanding that belongs to a transaction, by lkb id. */
  readonly waiting: Map<number, Lkb> = new Map();
  readonly #byTransaction: Map<string, Set<Lkb>> = new Map();
  /** Outstanding requests that end with "timeout". */
  readonly deadlines: DeadlineQueue = new DeadlineQueue();
  /** Members of the view whose tables these are, in ascending order. */
  members: readonly Member[] = [];
  nowMs = 0;
  /** Between the first and the last step of a rebuild: resources without locks are kept, new ones have no known block. */
  rebuilding = false;
  /** Counts rebuilds. */
  round = 0;
  /** Lockspaces in which nothing is granted. */
  blocks: (lockspace: string) => boolean = () => false;

  /** Resources that are not at their homes, or on the way, as far as this node knows (move.ts). */
  readonly displaced: Map<Resource, Displaced> = new Map();
  /** A displaced resource that this node masters has no locks any more. */
  idle: (resource: Resource) => void = () => {};
  /** Of what clients have asked for while there was no master to be asked: so much waits, of all resources, that clients must wait (hazard H9). */
  crowded = false;
  /** `crowded` changed. */
  crowding: () => void = () => {};
  unsentLimit: number = Number.POSITIVE_INFINITY;
  #unsent = 0;

  constructor(nodeid: number) {
    this.nodeid = nodeid;
  }

  lockspace(name: string): Lockspace {
    let lockspace = this.lockspaces.get(name);
    if (lockspace === undefined) {
      lockspace = { name, resources: new Map(), opens: 0, blocked: this.blocks(name) };
      this.lockspaces.set(name, lockspace);
    }
    return lockspace;
  }

  resource(lockspace: Lockspace, name: string): Resource {
    let resource = lockspace.resources.get(name);
    if (resource === undefined) {
      resource = newResource(lockspace, name, masterOf(this.members, lockspace.name, name));
      resource.round = this.round;
      // Nobody holds a lock on it, so there is no block to be known.
      resource.lvbKnown = !this.rebuilding && resource.masterNodeid === this.nodeid;
      lockspace.resources.set(name, resource);
    }
    return resource;
  }

  /** Who masters it unless it was given away, and knows where it is then. */
  homeOf({ lockspace, name }: Resource): number {
    return masterOf(this.members, lockspace.name, name);
  }

  /** This node has its queues, and may grant. */
  masters(resource: Resource): boolean {
    if (resource.masterNodeid !== this.nodeid) return false;
    return this.displaced.size === 0 || !isMoving(this.displaced.get(resource));
  }

  /** Forgets a resource (its value block too) that no lock needs any more. */
  release(resource: Resource): void {
    if (resource.held > 0 || this.rebuilding || !isIdle(resource)) return;
    if (this.displaced.size > 0 && !this.#forgetsDisplaced(resource)) return;
    const lockspace = resource.lockspace;
    if (lockspace.resources.get(resource.name) !== resource) return;
    lockspace.resources.delete(resource.name);
    this.releaseLockspace(lockspace);
  }

  /** Whoever has no locks on it need not know where it is, except its home; its master gives it back first. */
  #forgetsDisplaced(resource: Resource): boolean {
    const displaced = this.displaced.get(resource);
    if (displaced === undefined) return true;
    if (isMoving(displaced) || this.homeOf(resource) === this.nodeid) return false;
    if (resource.masterNodeid === this.nodeid) {
      this.idle(resource);
      return false;
    }
    return this.displaced.delete(resource);
  }

  keepUnsent(displaced: Displaced, message: HolderMessage): void {
    displaced.waiting.push(message);
    this.#countUnsent(1);
  }

  /** What waits, and does not any more; of one lock only, if that is given. */
  takeUnsent(displaced: Displaced, lkbId: number | null = null): HolderMessage[] {
    const taken = lkbId === null ? displaced.waiting : displaced.waiting.filter((m) => m.lkbId === lkbId);
    displaced.waiting = lkbId === null ? [] : displaced.waiting.filter((m) => m.lkbId !== lkbId);
    this.#countUnsent(-taken.length);
    return taken;
  }

  #countUnsent(more: number): void {
    this.#unsent += more;
    const crowded = this.#unsent > (this.crowded ? this.unsentLimit / 2 : this.unsentLimit);
    if (crowded === this.crowded) return;
    this.crowded = crowded;
    this.crowding();
  }

  releaseLockspace(lockspace: Lockspace): void {
    if (lockspace.opens === 0 && lockspace.resources.size === 0) this.lockspaces.delete(lockspace.name);
  }

  mastered(nodeid: number): Map<number, Lkb> {
    let locks = this.masteredFor.get(nodeid);
    if (locks === undefined) {
      locks = new Map();
      this.masteredFor.set(nodeid, locks);
    }
    return locks;
  }

  /** Ends a client's lock: its id is free again. */
  forget(lkb: Lkb): void {
    const client = lkb.client as Client;
    client.locks.delete(lkb.lockId);
    this.answered(lkb);
    this.heldElsewhere.delete(lkb.id);
    lkb.resource.held--;
    this.release(lkb.resource);
  }

  /** A request of one of our clients is outstanding from now on. */
  asked(lkb: Lkb, deadlineMs: number): void {
    lkb.sinceMs = this.nowMs;
    if (lkb.transaction !== 0) this.#wait(lkb);
    if (deadlineMs === 0) return;
    lkb.deadlineMs = deadlineMs;
    this.deadlines.add(lkb);
  }

  /** It is not any more. */
  answered(lkb: Lkb): void {
    lkb.canceling = null;
    if (lkb.transaction !== 0) this.#endWait(lkb);
    if (lkb.deadlineMs === 0) return;
    lkb.deadlineMs = 0;
    this.deadlines.drop();
  }

  #wait(lkb: Lkb): void {
    this.waiting.set(lkb.id, lkb);
    const key = `${lkb.clientId}/${lkb.transaction}`;
    const locks = this.#byTransaction.get(key);
    if (locks === undefined) this.#byTransaction.set(key, new Set([lkb]));
    else locks.add(lkb);
  }

  #endWait(lkb: Lkb): void {
    if (!this.waiting.delete(lkb.id)) return;
    const key = `${lkb.clientId}/${lkb.transaction}`;
    const locks = this.#byTransaction.get(key);
    if (locks?.delete(lkb) === true && locks.size === 0) this.#byTransaction.delete(key);
  }

  /** What that transaction of that client waits for. */
  waitingOf(clientId: number, transaction: number): ReadonlySet<Lkb> {
    return this.#byTransaction.get(`${clientId}/${transaction}`) ?? nothing;
  }

  /** A rebuilt lock goes on the queue that its state says. */
  place(lkb: Lkb): void {
    const queue = queueOf(lkb);
    lkb.unordered = queue === "convertQueue";
    lkb.bastMode = Mode.NL;
    enqueue(lkb.resource, queue, lkb);
  }
}
