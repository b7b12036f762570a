/**
 * The lock manager of one node while its lock service runs: requests of its clients, messages of its peers. Both
 * sides of every lock: holder (what a client has) and master (the queues, rules in master.ts). Linux fs/dlm/lock.c.
 * Its tables are rebuilt between views by recovery/rebuild.ts.
 */
import { E } from "../base/errno.ts";
import type { LockStatus } from "../client/api.ts";
import type { ClientEvent, ClientRequest } from "../node-api.ts";
import type { GrantMessage, LvbWrite, PeerMessage, Refusal } from "../wire/peer.ts";
import { maxLvbBytes, maxNameBytes } from "../wire/peer.ts";
import type { Member } from "../wire/view-id.ts";
import type { Client } from "./client.ts";
import { allFlags, VALBLK } from "./flag.ts";
import { enqueue, isIdle, type Lkb, type Lockspace, newLkb, newResource, type Resource } from "./lkb.ts";
import { lvbWriteOf, readsLvb } from "./lvb.ts";
import { masterCancel, masterConvert, masterDown, type MasterPort, masterRemove, masterRequest, writeLvb } from "./master.ts";
import { masterOf } from "./mastering.ts";
import { isMode, Mode, modeCovers, modesCompatible } from "./mode.ts";

/** Lockspaces that one client may have open; the next "open" is refused. */
export const lockspacesPerClient = 64;

export interface LockPort {
  toPeer(nodeid: number, message: PeerMessage): void;
  toClient(client: Client, event: ClientEvent): void;
  /** A peer said what it cannot have meant. */
  protest(nodeid: number, message: string): void;
}

export type LockRequest = Extract<ClientRequest, { lockId: number }>;

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

export class LockManager implements MasterPort {
  readonly nodeid: number;
  readonly lockspaces: Map<string, Lockspace> = new Map();
  /** Locks of our clients whose master is another node, by lkb id. */
  readonly heldElsewhere: Map<number, Lkb> = new Map();
  /** Locks of other nodes mastered here: nodeid -> lkb id. */
  readonly masteredFor: Map<number, Map<number, Lkb>> = new Map();
  /** Members of the view whose tables these are, in ascending order. */
  members: readonly Member[] = [];
  nowMs = 0;
  /** Between the first and the last step of a rebuild: resources without locks are kept, new ones have no known block. */
  rebuilding = false;
  readonly #port: LockPort;
  readonly #locksPerClient: number;
  #nextLkbId = 1;

  constructor(nodeid: number, port: LockPort, locksPerClient: number) {
    this.nodeid = nodeid;
    this.#port = port;
    this.#locksPerClient = locksPerClient;
  }

  // ------------------------------------------------------------------------------------------------------- tables

  lockspace(name: string): Lockspace {
    let lockspace = this.lockspaces.get(name);
    if (lockspace === undefined) {
      lockspace = { name, resources: new Map(), opens: 0 };
      this.lockspaces.set(name, lockspace);
    }
    return lockspace;
  }

  resource(lockspace: Lockspace, name: string): Resource {
    let resource = lockspace.resources.get(name);
    if (resource === undefined) {
      resource = newResource(lockspace, name, masterOf(this.members, lockspace.name, name));
      // Nobody holds a lock on it, so there is no block to be known.
      resource.lvbKnown = !this.rebuilding && resource.masterNodeid === this.nodeid;
      lockspace.resources.set(name, resource);
    }
    return resource;
  }

  /** Forgets a resource (its value block too) that no lock needs any more. */
  release(resource: Resource): void {
    if (resource.held > 0 || this.rebuilding || !isIdle(resource)) return;
    const lockspace = resource.lockspace;
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
    const client = lkb.client as Client;
    client.locks.delete(lkb.lockId);
    this.heldElsewhere.delete(lkb.id);
    lkb.resource.held--;
    this.release(lkb.resource);
  }

  // ------------------------------------------------------------------------------------------------ client requests

  open(client: Client, lockspaceId: number, name: string): void {
    const known = client.lockspaces.get(lockspaceId);
    let error = "";
    if (!isName(name)) error = `lockspace names have 1 to ${maxNameBytes} bytes of UTF-8`;
    else if (known !== undefined && known.name !== name) error = `lockspace id ${lockspaceId} is in use for ${known.name}`;
    else if (known === undefined && client.lockspaces.size >= lockspacesPerClient)
      error = `more than ${lockspacesPerClient} lockspaces open`;
    else if (known === undefined) {
      const lockspace = this.lockspace(name);
      lockspace.opens++;
      client.lockspaces.set(lockspaceId, lockspace);
    }
    this.#port.toClient(client, { kind: "opened", lockspaceId, error });
  }

  request(client: Client, request: LockRequest): void {
    switch (request.kind) {
      case "lock":
        return this.#lock(client, request);
      case "convert":
        return this.#convert(client, request);
      case "unlock":
        return this.#unlock(client, request);
      case "cancel":
        return this.#cancel(client, request.lockId);
    }
  }

  #lock(client: Client, request: Extract<ClientRequest, { kind: "lock" }>): void {
    const { lockId, mode, flags, resource: name } = request;
    const lockspace = client.lockspaces.get(request.lockspaceId);
    if (client.locks.has(lockId)) return this.#fail(client, lockId, E.EEXIST, `lock id ${lockId} is in use`);
    if (lockspace === undefined) return this.#fail(client, lockId, E.ENOENT, `lockspace ${request.lockspaceId} is not open`);
    const wrong = wrongRequest(mode, flags, null);
    if (wrong !== null) return this.#fail(client, lockId, E.EINVAL, wrong);
    if (!isName(name)) return this.#fail(client, lockId, E.EINVAL, `resource names have 1 to ${maxNameBytes} bytes of UTF-8`);
    if (client.locks.size >= this.#locksPerClient) {
      return this.#fail(client, lockId, E.ENOLCK, `the client has ${client.locks.size} locks, its limit`);
    }
    const resource = this.resource(lockspace, name);
    const lkb = newLkb(resource, this.nodeid, this.#nextLkbId++, client, client.id, lockId);
    lkb.requested = mode;
    lkb.flags = flags;
    lkb.sinceMs = this.nowMs;
    resource.held++;
    client.locks.set(lockId, lkb);
    if (resource.masterNodeid === this.nodeid) return masterRequest(this, resource, lkb);
    this.heldElsewhere.set(lkb.id, lkb);
    const message = {
      kind: "request",
      lkbId: lkb.id,
      clientId: client.id,
      lockspace: lockspace.name,
      resource: name,
      mode,
      flags,
    } as const;
    this.#port.toPeer(resource.masterNodeid, message);
  }

  #convert(client: Client, request: Extract<ClientRequest, { kind: "convert" }>): void {
    const { lockId, mode, flags, lvb } = request;
    const lkb = client.locks.get(lockId);
    if (lkb === undefined) return this.#fail(client, lockId, E.ENOENT, `no lock ${lockId}`);
    if (lkb.requested !== null) return this.#fail(client, lockId, E.EBUSY, `lock ${lockId} has a request outstanding`);
    const wrong = wrongRequest(mode, flags, lvb);
    if (wrong !== null) return this.#fail(client, lockId, E.EINVAL, wrong);
    const granted = lkb.granted as Mode;
    if (modeCovers(granted, mode) && !readsLvb(granted, mode, flags)) return this.#down(lkb, granted, mode, flags, lvb);
    lkb.sinceMs = this.nowMs;
    const resource = lkb.resource;
    if (resource.masterNodeid === this.nodeid) return masterConvert(this, resource, lkb, mode, flags);
    lkb.requested = mode;
    lkb.flags = flags;
    this.#port.toPeer(resource.masterNodeid, { kind: "convert", lkbId: lkb.id, mode, flags });
  }

  /** Takes effect here and now; the master learns of it (hazard H2). */
  #down(lkb: Lkb, granted: Mode, mode: Mode, flags: number, lvb: Uint8Array | null): void {
    const resource = lkb.resource;
    const write = lvbWriteOf(granted, mode, flags, lvb);
    if (write !== "none") {
      lkb.lvbSeq++;
      lkb.lvbRead = true;
      lkb.lvbValid = write === "write";
      if (write === "write") lkb.lvb = lvb;
    }
    const tell = mode !== granted || write !== "none";
    if (tell) lkb.grantNo = (lkb.grantNo + 1) >>> 0;
    lkb.granted = mode;
    // Before the master looks again: a blocking AST for the new mode comes after it.
    this.#ast(lkb, "granted", false);
    if (!tell) return;
    const { grantNo, lvbSeq } = lkb;
    if (resource.masterNodeid === this.nodeid) {
      writeLvb(resource, write, lvbSeq, lvb);
      masterDown(this, resource, lkb, mode, grantNo);
    } else {
      const block = write === "write" ? lvb : null;
      this.#port.toPeer(resource.masterNodeid, { kind: "down", lkbId: lkb.id, grantNo, mode, lvbWrite: write, lvbSeq, lvb: block });
    }
  }

  #unlock(client: Client, request: Extract<ClientRequest, { kind: "unlock" }>): void {
    const { lockId, flags, lvb } = request;
    const lkb = client.locks.get(lockId);
    if (lkb === undefined) return this.#fail(client, lockId, E.ENOENT, `no lock ${lockId}`);
    if (lkb.requested !== null) return this.#fail(client, lockId, E.EBUSY, `lock ${lockId} has a request outstanding: cancel it first`);
    const wrong = wrongRequest(Mode.NL, flags, lvb);
    if (wrong !== null) return this.#fail(client, lockId, E.EINVAL, wrong);
    this.#remove(lkb, lvbWriteOf(lkb.granted as Mode, null, flags, lvb), lvb);
    this.#port.toClient(client, astEvent(lockId, "unlocked", Mode.NL));
  }

  #remove(lkb: Lkb, write: LvbWrite, lvb: Uint8Array | null): void {
    const resource = lkb.resource;
    const seq = write === "none" ? lkb.lvbSeq : lkb.lvbSeq + 1;
    if (resource.masterNodeid === this.nodeid) {
      writeLvb(resource, write, seq, lvb);
      masterRemove(this, resource, lkb);
    } else {
      const block = write === "write" ? lvb : null;
      this.#port.toPeer(resource.masterNodeid, { kind: "unlock", lkbId: lkb.id, lvbWrite: write, lvbSeq: seq, lvb: block });
    }
    this.forget(lkb);
  }

  #cancel(client: Client, lockId: number): void {
    const lkb = client.locks.get(lockId);
    // Its answer is under way to the client, or the client is wrong: either way there is nothing to take back.
    if (lkb === undefined || lkb.requested === null || lkb.canceling) return;
    if (lkb.resource.masterNodeid === this.nodeid) return masterCancel(this, lkb.resource, lkb);
    lkb.canceling = true;
    this.#port.toPeer(lkb.resource.masterNodeid, { kind: "cancel", lkbId: lkb.id });
  }

  /** All locks of a client that nobody serves any more (hazard C7) go, waiting ones too. */
  releaseClient(client: Client): void {
    for (const lkb of client.locks.values()) {
      // As a dead holder's: what it would have written is not known.
      const writer = lkb.granted !== null && lkb.granted >= Mode.PW && (lkb.flags & VALBLK) !== 0;
      this.#remove(lkb, writer ? "invalidate" : "none", null);
    }
    for (const lockspace of client.lockspaces.values()) {
      lockspace.opens--;
      this.releaseLockspace(lockspace);
    }
    client.lockspaces.clear();
  }

  #fail(client: Client, lockId: number, errno: number, message: string): void {
    const mode = client.locks.get(lockId)?.granted ?? Mode.NL;
    const error = { errno, message };
    this.#port.toClient(client, { kind: "ast", lockId, status: "error", mode, lvbRead: false, lvb: null, lvbValid: false, error });
  }

  #ast(lkb: Lkb, status: LockStatus, lvbRead: boolean): void {
    this.#port.toClient(lkb.client as Client, {
      kind: "ast",
      lockId: lkb.lockId,
      status,
      mode: lkb.granted ?? Mode.NL,
      lvbRead,
      lvb: lvbRead ? lkb.lvb : null,
      lvbValid: lkb.lvbValid,
      error: null,
    });
  }

  // ------------------------------------------------------------------------------------------- MasterPort: to holders

  granted(lkb: Lkb): void {
    if (lkb.nodeid === this.nodeid) return this.#ast(lkb, "granted", lkb.lvbRead);
    this.#port.toPeer(lkb.nodeid, {
      kind: "grant",
      lkbId: lkb.id,
      grantNo: lkb.grantNo,
      mode: lkb.granted as Mode,
      lvbSeq: lkb.lvbSeq,
      lvbRead: lkb.lvbRead,
      lvbValid: lkb.lvbValid,
      lvb: lkb.lvb,
    });
  }

  refused(lkb: Lkb, status: Refusal): void {
    if (lkb.nodeid === this.nodeid) return this.#refusedHere(lkb, status);
    this.#port.toPeer(lkb.nodeid, { kind: "refuse", lkbId: lkb.id, status });
    if (lkb.granted !== null) return;
    this.mastered(lkb.nodeid).delete(lkb.id);
    this.release(lkb.resource);
  }

  #refusedHere(lkb: Lkb, status: Refusal): void {
    lkb.canceling = false;
    this.#ast(lkb, status, false);
    if (lkb.granted === null) this.forget(lkb);
  }

  bast(lkb: Lkb, wanted: Mode): void {
    if (lkb.nodeid === this.nodeid) this.#port.toClient(lkb.client as Client, { kind: "bast", lockId: lkb.lockId, wanted });
    else this.#port.toPeer(lkb.nodeid, { kind: "bast", lkbId: lkb.id, grantNo: lkb.grantNo, wanted });
  }

  // -------------------------------------------------------------------------------------------------- peer messages

  /** A lock message of a member of this view. False: not a lock message. */
  receive(from: number, message: PeerMessage): boolean {
    switch (message.kind) {
      case "request":
        this.#receiveRequest(from, message);
        return true;
      case "convert":
      case "down":
      case "unlock":
      case "cancel":
        this.#receiveAsMaster(from, message);
        return true;
      case "grant":
      case "refuse":
      case "bast":
        this.receiveAsHolder(message);
        return true;
      default:
        return false;
    }
  }

  #receiveRequest(from: number, m: Extract<PeerMessage, { kind: "request" }>): void {
    const resource = this.resource(this.lockspace(m.lockspace), m.resource);
    const locks = this.mastered(from);
    if (resource.masterNodeid !== this.nodeid || locks.has(m.lkbId)) {
      this.#port.protest(from, `request ${m.lkbId} for ${m.resource}: not mastered here, or its id is in use`);
      return this.release(resource);
    }
    const lkb = newLkb(resource, from, m.lkbId, null, m.clientId, 0);
    lkb.requested = m.mode;
    lkb.flags = m.flags;
    lkb.sinceMs = this.nowMs;
    locks.set(m.lkbId, lkb);
    masterRequest(this, resource, lkb);
  }

  #receiveAsMaster(from: number, m: Extract<PeerMessage, { kind: "convert" | "down" | "unlock" | "cancel" }>): void {
    const lkb = this.masteredFor.get(from)?.get(m.lkbId);
    if (lkb === undefined) {
      // A cancel may cross the refusal that ended the lock.
      if (m.kind !== "cancel") this.#port.protest(from, `${m.kind} of unknown lock ${m.lkbId}`);
      return;
    }
    const resource = lkb.resource;
    if (m.kind === "cancel") return masterCancel(this, resource, lkb);
    if (m.kind === "unlock") {
      writeLvb(resource, m.lvbWrite, m.lvbSeq, m.lvb);
      masterRemove(this, resource, lkb);
      (this.masteredFor.get(from) as Map<number, Lkb>).delete(m.lkbId);
      return this.release(resource);
    }
    if (lkb.granted === null || lkb.requested !== null)
      return this.#port.protest(from, `${m.kind} of lock ${m.lkbId}, which is not granted`);
    if (m.kind === "convert") {
      lkb.sinceMs = this.nowMs;
      return masterConvert(this, resource, lkb, m.mode, m.flags);
    }
    if (!modeCovers(lkb.granted, m.mode)) return this.#port.protest(from, `conversion down of lock ${m.lkbId} to a higher mode`);
    writeLvb(resource, m.lvbWrite, m.lvbSeq, m.lvb);
    masterDown(this, resource, lkb, m.mode, m.grantNo);
  }

  /** Also while the service is stopped: what a master granted in its view is granted (hazard H3). */
  receiveAsHolder(m: Extract<PeerMessage, { kind: "grant" | "refuse" | "bast" }>): void {
    const lkb = this.heldElsewhere.get(m.lkbId);
    // Unknown: the lock's client died and it was given up while this was on its way.
    if (lkb === undefined) return;
    if (m.kind === "grant") return this.#receiveGrant(lkb, m);
    if (m.kind === "refuse") {
      lkb.requested = null;
      return this.#refusedHere(lkb, m.status);
    }
    if (lkb.granted === null || lkb.grantNo !== m.grantNo || modesCompatible(lkb.granted, m.wanted)) return;
    this.#port.toClient(lkb.client as Client, { kind: "bast", lockId: lkb.lockId, wanted: m.wanted });
  }

  #receiveGrant(lkb: Lkb, m: GrantMessage): void {
    lkb.granted = m.mode;
    lkb.requested = null;
    lkb.canceling = false;
    lkb.grantNo = m.grantNo;
    lkb.lvbSeq = m.lvbSeq;
    lkb.lvbRead = m.lvbRead;
    lkb.lvbValid = m.lvbValid;
    lkb.lvb = m.lvb;
    this.#ast(lkb, "granted", m.lvbRead);
  }

  /**
   * While the service is stopped nothing is granted, but what holders of our resources have already done counts: their value blocks
   * exist nowhere else (hazards H2, H3).
   */
  receiveStopped(from: number, m: Extract<PeerMessage, { kind: "down" | "unlock" }>): void {
    const lkb = this.masteredFor.get(from)?.get(m.lkbId);
    if (lkb === undefined) return;
    writeLvb(lkb.resource, m.lvbWrite, m.lvbSeq, m.lvb);
    if (m.kind === "down") lkb.granted = m.mode;
    // Unlocked: still on its queue until the rebuild clears that, but nothing will be written by it any more.
    else lkb.granted = lkb.granted === null ? null : Mode.NL;
  }

  /** Puts a client's lock back after `canceling` or a rebuild. */
  completeCancel(lkb: Lkb): void {
    lkb.requested = null;
    this.#refusedHere(lkb, "canceled");
  }

  /** A rebuilt lock goes on the queue that its state says. */
  place(lkb: Lkb): void {
    const queue = lkb.granted === null ? "waitQueue" : lkb.requested === null ? "grantQueue" : "convertQueue";
    lkb.unordered = queue === "convertQueue";
    lkb.bastMode = Mode.NL;
    enqueue(lkb.resource, queue, lkb);
  }
}

function wrongRequest(mode: number, flags: number, lvb: Uint8Array | null): string | null {
  if (!isMode(mode)) return `mode ${mode} is none of 0 to 5`;
  if ((flags & ~allFlags) !== 0) return `unknown flags 0x${(flags & ~allFlags).toString(16)}`;
  if (lvb !== null && lvb.byteLength > maxLvbBytes) return `a value block of ${lvb.byteLength} bytes, at most ${maxLvbBytes} allowed`;
  return null;
}

function astEvent(lockId: number, status: LockStatus, mode: Mode): ClientEvent {
  return { kind: "ast", lockId, status, mode, lvbRead: false, lvb: null, lvbValid: false, error: null };
}
