/**
 * What a node knows of locks: resources by lockspace, its own locks that others master, others' locks that it masters. Linux fs/dlm
 * keeps the same in ls_rsbtbl and ls_lkbidr.
 */
import type { StepTime } from "../base/step-time.ts";
import { maxNameBytes } from "../wire/peer.ts";
import type { Member } from "../wire/view-id.ts";
import { DeadlineQueue } from "./deadline-queue.ts";
import { enqueue, isIdle, type Lkb, type Lockspace, newResource, queueOf, type Resource, type LockClient } from "./lkb.ts";
import { masterOf } from "./mastering.ts";
import { Mode } from "../wire/mode.ts";

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

export interface TablesPort {
  /** Nothing is granted in that lockspace: it waits until a node is known to be dead, or for clients. */
  blocks(lockspace: string): boolean;
}

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
  /** Between the first and the last step of a rebuild: resources without locks are kept, new ones have no known block. */
  rebuilding = false;
  /** Counts rebuilds. */
  round = 0;
  readonly #time: StepTime;
  readonly #port: TablesPort;

  constructor(nodeid: number, time: StepTime, port: TablesPort) {
    this.nodeid = nodeid;
    this.#time = time;
    this.#port = port;
  }

  get nowMs(): number {
    return this.#time.nowMs;
  }

  /** Nothing is granted in that lockspace. */
  blocks(lockspace: string): boolean {
    return this.#port.blocks(lockspace);
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

  /** This node has its queues, and may grant. */
  masters(resource: Resource): boolean {
    return resource.masterNodeid === this.nodeid;
  }

  /** Forgets a resource (its value block too) that no lock needs any more. */
  release(resource: Resource): void {
    if (resource.held > 0 || this.rebuilding || !isIdle(resource)) return;
    const lockspace = resource.lockspace;
    if (lockspace.resources.get(resource.name) !== resource) return;
    lockspace.resources.delete(resource.name);
    this.releaseLockspace(lockspace);
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
    const client = lkb.client as LockClient;
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
