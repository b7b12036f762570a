/**
 * The holder's side of locks: what clients of this node ask for, and what masters answer. Linux fs/dlm/lock.c (request_lock,
 * convert_lock, unlock_lock, cancel_lock and their replies). Where holder and master are one node there is one lkb and no message.
 */
import { E } from "../base/errno.ts";
import type { LockStatus } from "../wire/local-batch.ts";
import type { ClientEvent, ClientRequest } from "../wire/program.ts";
import type { BastMessage, GrantMessage, HolderMessage, LvbWrite, PeerMessage, Refusal, RefuseMessage } from "../wire/peer-message.ts";
import { lockspacesPerClient } from "../wire/peer-gone.ts";
import { maxLvbBytes, maxNameBytes } from "../wire/peer.ts";
import { CANCEL, DEMOTED, FORCEUNLOCK, MAYKEEP, ORPHAN, PERSISTENT, VALBLK, wrongFlags, wrongMode } from "../wire/flag.ts";
import { type Lkb, newLkb, type Resource, type LockClient } from "./lkb.ts";
import { isName, type LockTables, type TablesPort } from "./lock-tables.ts";
import { lvbWriteOf, readsLvb, unlockWriteOf } from "../wire/lvb.ts";
import { masterCancel, masterConvert, masterDown, type MasterPort, masterRemove, masterRequest, writeLvb } from "./master.ts";
import { joinModes, Mode, modeCovers, modesCompatible } from "../wire/mode.ts";
import { Orphans } from "./orphans.ts";
import { BastWatchdog } from "./bast-watchdog.ts";

export interface LockPort extends TablesPort {
  toPeer(nodeid: number, message: PeerMessage): void;
  toClient(client: LockClient, event: ClientEvent): void;
  /** The first client of this node opens it, the last one is gone and so are its locks. False: too many are open. */
  opensLockspace(name: string): boolean;
  closesLockspace(name: string): void;
  /** A peer said what it cannot have meant, and may wait for an answer: the view is rebuilt. */
  protest(nodeid: number, message: string): void;
}

export type LockRequest = Extract<ClientRequest, { lockId: number }>;
type Asked<K> = Extract<ClientRequest, { kind: K }>;

export class Holder {
  readonly orphans: Orphans = new Orphans();
  readonly unanswered: BastWatchdog = new BastWatchdog();
  readonly #tables: LockTables;
  readonly #port: LockPort;
  readonly #master: MasterPort;
  readonly #locksPerClient: number;
  #nextLkbId = 1;

  constructor(tables: LockTables, port: LockPort, master: MasterPort, locksPerClient: number) {
    this.#tables = tables;
    this.#port = port;
    this.#master = master;
    this.#locksPerClient = locksPerClient;
  }

  // ------------------------------------------------------------------------------------------------------- requests

  open(client: LockClient, lockspaceId: number, name: string): void {
    const known = client.lockspaces.get(lockspaceId);
    let error = "";
    if (!isName(name)) error = `lockspace names have 1 to ${maxNameBytes} bytes of UTF-8`;
    else if (known !== undefined && known.name !== name) error = `lockspace id ${lockspaceId} is in use for ${known.name}`;
    else if (known === undefined && client.lockspaces.size >= lockspacesPerClient)
      error = `more than ${lockspacesPerClient} lockspaces open`;
    else if (known === undefined) error = this.#openAnother(client, lockspaceId, name);
    this.#port.toClient(client, { kind: "opened", lockspaceId, error });
  }

  /** "": it is open, else why not. */
  #openAnother(client: LockClient, lockspaceId: number, name: string): string {
    const lockspace = this.#tables.lockspace(name);
    if (lockspace.opens === 0 && !this.#port.opensLockspace(name)) {
      this.#tables.releaseLockspace(lockspace);
      return "this node has as many lockspaces open as it may";
    }
    lockspace.opens++;
    client.lockspaces.set(lockspaceId, lockspace);
    return "";
  }

  request(client: LockClient, request: LockRequest): void {
    switch (request.kind) {
      case "lock":
        return (request.flags & ORPHAN) === 0 ? this.#lock(client, request) : this.#adopt(client, request);
      case "convert":
        return this.#convert(client, request);
      case "unlock":
        return (request.flags & CANCEL) === 0 ? this.#unlock(client, request) : this.#cancelByUnlock(client, request);
      case "cancel":
        return this.#cancel(client.locks.get(request.lockId), "canceled");
    }
  }

  /** Null: nothing is wrong with it so far. */
  #wrongLock(client: LockClient, request: Asked<"lock">): [number, string] | null {
    const { lockId, mode, flags, resource } = request;
    if (client.locks.has(lockId)) return [E.EEXIST, `lock id ${lockId} is in use`];
    if (!client.lockspaces.has(request.lockspaceId)) return [E.ENOENT, `lockspace ${request.lockspaceId} is not open`];
    const wrong = wrongMode(mode) ?? wrongFlags("lock", null, mode, flags);
    if (wrong !== null) return [E.EINVAL, wrong];
    if (!isName(resource)) return [E.EINVAL, `resource names have 1 to ${maxNameBytes} bytes of UTF-8`];
    if (client.locks.size < this.#locksPerClient) return null;
    return [E.ENOLCK, `the client has ${client.locks.size} locks, its limit`];
  }

  #lock(client: LockClient, request: Asked<"lock">): void {
    const { lockId, mode, flags, resource: name } = request;
    const wrong = this.#wrongLock(client, request);
    if (wrong !== null) return this.fail(client, lockId, ...wrong);
    const tables = this.#tables;
    const lockspace = client.lockspaces.get(request.lockspaceId) as Resource["lockspace"];
    const resource = tables.resource(lockspace, name);
    const lkb = newLkb(resource, tables.nodeid, this.#nextLkbId++, client, client.id, lockId);
    lkb.requested = mode;
    lkb.flags = flags;
    lkb.transaction = request.transaction ?? 0;
    tables.asked(lkb, this.#deadlineOf(request));
    resource.held++;
    client.locks.set(lockId, lkb);
    if (tables.masters(resource)) return masterRequest(this.#master, resource, lkb);
    tables.heldElsewhere.set(lkb.id, lkb);
    const { id: lkbId, transaction } = lkb;
    const message = {
      kind: "request",
      lkbId,
      clientId: client.id,
      lockspace: lockspace.name,
      resource: name,
      mode,
      flags,
      transaction,
    } as const;
    this.#toMaster(resource, message);
  }

  #toMaster(resource: Resource, message: HolderMessage): void {
    this.#port.toPeer(resource.masterNodeid, message);
  }

  #deadlineOf(request: Asked<"lock" | "convert">): number {
    if (request.deadlineMs !== undefined) return request.deadlineMs;
    return request.timeoutMs === undefined || request.timeoutMs === 0 ? 0 : this.#tables.nowMs + request.timeoutMs;
  }

  /** A lock that a connection of the same owner left behind is this client's from now on (hazard C6). */
  #adopt(client: LockClient, request: Asked<"lock">): void {
    const { lockId, mode, resource: name } = request;
    const wrong = this.#wrongLock(client, request);
    if (wrong !== null) return this.fail(client, lockId, ...wrong);
    const lockspace = client.lockspaces.get(request.lockspaceId) as Resource["lockspace"];
    const found = this.orphans.find(client, lockspace.resources.get(name), mode);
    if (found === "none") return this.fail(client, lockId, E.ENOENT, `no orphan of this owner on ${name}`);
    if (found === "other-mode") return this.fail(client, lockId, E.EAGAIN, `the orphan of this owner on ${name} has another mode`);
    if (found.requested !== null) return this.fail(client, lockId, E.EBUSY, `the orphan on ${name} has a request outstanding`);
    const told = found.bastMode;
    this.orphans.adopt(found, client, lockId);
    // The new owner's time to answer starts now.
    this.unanswered.answered(found);
    found.flags = request.flags;
    found.sbFlags = 0;
    if (!this.#tables.masters(found.resource)) this.#toMaster(found.resource, { kind: "adopted", lkbId: found.id, clientId: client.id });
    this.#ast(found, "granted", (request.flags & VALBLK) !== 0 && found.lvbRead);
    // Nobody heard what its former owner was told last.
    if (!modesCompatible(mode, told)) this.bast(found, told);
  }

  #convert(client: LockClient, request: Asked<"convert">): void {
    const { lockId, mode, flags, lvb } = request;
    const lkb = client.locks.get(lockId);
    if (lkb === undefined) return this.fail(client, lockId, E.ENOENT, `no lock ${lockId}`);
    if (lkb.requested !== null) return this.fail(client, lockId, E.EBUSY, `lock ${lockId} has a request outstanding`);
    const granted = lkb.granted as Mode;
    const wrong = wrongMode(mode) ?? wrongFlags("convert", granted, mode, flags) ?? wrongBlock(lvb);
    if (wrong !== null) return this.fail(client, lockId, E.EINVAL, wrong);
    if (modeCovers(granted, mode) && !readsLvb(granted, mode, flags)) return this.#down(lkb, granted, request);
    if (request.silent === true)
      return this.fail(client, lockId, E.EINVAL, `lock ${lockId}: what is not answered goes down, and reads no block`);
    lkb.transaction = request.transaction ?? lkb.transaction;
    this.#tables.asked(lkb, this.#deadlineOf(request));
    const resource = lkb.resource;
    const kept = flags | (lkb.flags & (PERSISTENT | MAYKEEP));
    if (this.#tables.masters(resource)) return masterConvert(this.#master, resource, lkb, mode, kept);
    lkb.requested = mode;
    lkb.flags = kept;
    lkb.sbFlags = 0;
    const { id: lkbId, transaction } = lkb;
    this.#toMaster(resource, { kind: "convert", lkbId, mode, flags: kept, transaction });
  }

  /** Takes effect here and now; the master learns of it (hazard H2). */
  #down(lkb: Lkb, granted: Mode, { mode, flags, lvb, silent }: Asked<"convert">): void {
    const resource = lkb.resource;
    const write = lvbWriteOf(granted, mode, flags, lvb);
    if (write !== "none") {
      lkb.lvbSeq++;
      lkb.lvbRead = true;
      lkb.lvbValid = write === "write";
      if (write === "write") lkb.lvb = lvb;
    }
    const tell = mode !== granted || write !== "none";
    lkb.granted = mode;
    lkb.sbFlags = 0;
    // What the master is not told changes nothing for who waits, and the blocking AST is not told again.
    if (tell) {
      lkb.grantNo = (lkb.grantNo + 1) >>> 0;
      lkb.bastMode = Mode.NL;
      this.unanswered.answered(lkb);
    }
    // Before the master looks again: a blocking AST for the new mode comes after it.
    if (silent !== true) this.#ast(lkb, "granted", false);
    if (!tell) return;
    const { grantNo, lvbSeq } = lkb;
    if (this.#tables.masters(resource)) {
      writeLvb(resource, write, lvbSeq, lvb);
      masterDown(this.#master, resource, lkb, mode, grantNo);
    } else {
      const block = write === "write" ? lvb : null;
      this.#toMaster(resource, { kind: "down", lkbId: lkb.id, grantNo, mode, lvbWrite: write, lvbSeq, lvb: block });
    }
  }

  #unlock(client: LockClient, request: Asked<"unlock">): void {
    const { lockId, flags, lvb } = request;
    const lkb = client.locks.get(lockId);
    if (lkb === undefined) return this.fail(client, lockId, E.ENOENT, `no lock ${lockId}`);
    const wrong = wrongFlags("unlock", lkb.granted, Mode.NL, flags) ?? wrongBlock(lvb);
    if (wrong !== null) return this.fail(client, lockId, E.EINVAL, wrong);
    const outstanding = lkb.requested !== null;
    if (outstanding && ((flags & FORCEUNLOCK) === 0 || request.silent === true)) {
      return this.fail(client, lockId, E.EBUSY, `lock ${lockId} has a request outstanding: cancel it first, or unlock with FORCEUNLOCK`);
    }
    // Each request has its answer: that which is cut short too.
    if (outstanding) this.#ast(lkb, "canceled", false);
    this.#remove(lkb, unlockWriteOf(lkb, flags, lvb), lvb);
    if (request.silent !== true) this.#port.toClient(client, astEvent(lockId, "unlocked", Mode.NL));
  }

  #remove(lkb: Lkb, write: LvbWrite, lvb: Uint8Array | null): void {
    this.unanswered.answered(lkb);
    const resource = lkb.resource;
    const seq = write === "none" ? lkb.lvbSeq : lkb.lvbSeq + 1;
    if (this.#tables.masters(resource)) {
      writeLvb(resource, write, seq, lvb);
      masterRemove(this.#master, resource, lkb);
    } else {
      const block = write === "write" ? lvb : null;
      this.#toMaster(resource, { kind: "unlock", lkbId: lkb.id, lvbWrite: write, lvbSeq: seq, lvb: block });
    }
    this.#tables.forget(lkb);
  }

  #cancelByUnlock(client: LockClient, { lockId, flags }: Asked<"unlock">): void {
    const lkb = client.locks.get(lockId);
    const wrong = lkb === undefined ? null : wrongFlags("unlock", lkb.granted, Mode.NL, flags);
    if (wrong !== null) return this.fail(client, lockId, E.EINVAL, wrong);
    this.#cancel(lkb, "canceled");
  }

  #cancel(lkb: Lkb | undefined, status: "canceled" | "timeout"): void {
    // Its answer is under way to the client, or the client is wrong: either way there is nothing to take back.
    if (lkb === undefined || lkb.requested === null || lkb.canceling !== null) return;
    if (this.#tables.masters(lkb.resource)) return masterCancel(this.#master, lkb.resource, lkb, status);
    lkb.canceling = status;
    if (lkb.deadlineMs !== 0) {
      lkb.deadlineMs = 0;
      this.#tables.deadlines.drop();
    }
    this.#toMaster(lkb.resource, { kind: "cancel", lkbId: lkb.id });
  }

  /** Requests whose time is over are taken back. */
  expire(): void {
    const { deadlines, nowMs } = this.#tables;
    for (let lkb = deadlines.expired(nowMs); lkb !== null; lkb = deadlines.expired(nowMs)) {
      lkb.deadlineMs = 0;
      const status = lkb.canceling ?? "timeout";
      lkb.canceling = null;
      this.#cancel(lkb, status);
    }
  }

  /** Its master is gone, and it is being taken back: that goes on, at the next master, when there is lock service. */
  cancelAgain(lkb: Lkb): void {
    const { deadlines, nowMs } = this.#tables;
    if (lkb.deadlineMs !== 0) deadlines.drop();
    lkb.deadlineMs = Math.max(nowMs, 1);
    deadlines.add(lkb);
  }

  // -------------------------------------------------------------------------------------------------- gone clients

  /** Some of its locks are nobody's once every client has let go of it (hazard C7): others stay as orphans (hazard C6). */
  mustRelease(client: LockClient): boolean {
    if (client.locks.size === 0) return true;
    for (const lkb of client.locks.values()) if (client.ending || !staysBehind(lkb)) return true;
    return false;
  }

  /** Its persistent locks are orphans from now on, unless this node killed it; where it is kept for an heir, all that it was granted (hazard C12). */
  abandon(client: LockClient): void {
    if (client.ending) client.purged = new Set([...client.locks.values()].map((lkb) => lkb.resource.lockspace));
    for (const lkb of client.locks.values()) if (staysBehind(lkb)) this.orphans.add(lkb);
  }

  /** What orphans had asked for is taken back, new locks that would be orphans too; of a client that is kept for an heir all. */
  cancelOrphans(client: LockClient): void {
    for (const lkb of client.locks.values()) if (client.kept || (lkb.flags & PERSISTENT) !== 0) this.#cancel(lkb, "canceled");
  }

  /** It is kept no more: nobody adopts what is not persistent. */
  endKept(client: LockClient): void {
    for (const lkb of client.locks.values()) if (!staysBehind(lkb)) this.orphans.delete(lkb);
  }

  /** Locks of a client that nobody serves any more (hazard C7) go, waiting ones too; orphans only in purged lockspaces. */
  releaseClient(client: LockClient): number {
    let released = 0;
    for (const lkb of client.locks.values()) {
      if (staysBehind(lkb) && client.purged?.has(lkb.resource.lockspace) !== true) continue;
      released++;
      // As a dead holder's: what it would have written is not known.
      const writer = lkb.granted !== null && lkb.granted >= Mode.PW;
      this.orphans.delete(lkb);
      this.#remove(lkb, writer ? "invalidate" : "none", null);
    }
    if (client.locks.size === 0) this.closeLockspaces(client);
    return released;
  }

  closeLockspaces(client: LockClient): void {
    for (const lockspace of client.lockspaces.values()) {
      lockspace.opens--;
      if (lockspace.opens === 0) this.#port.closesLockspace(lockspace.name);
      this.#tables.releaseLockspace(lockspace);
    }
    client.lockspaces.clear();
  }

  // -------------------------------------------------------------------------------------------------------- answers

  fail(client: LockClient, lockId: number, errno: number, message: string): void {
    const mode = client.locks.get(lockId)?.granted ?? Mode.NL;
    this.#port.toClient(client, { ...astEvent(lockId, "error", mode), error: { errno, message } });
  }

  #ast(lkb: Lkb, status: LockStatus, lvbRead: boolean): void {
    this.#port.toClient(lkb.client as LockClient, {
      kind: "ast",
      lockId: lkb.lockId,
      status,
      mode: lkb.granted ?? Mode.NL,
      sbFlags: lkb.sbFlags,
      lvbRead,
      lvb: lvbRead ? lkb.lvb : null,
      lvbValid: lkb.lvbValid,
      error: null,
    });
  }

  /** The lock's fields say what it has now. */
  granted(lkb: Lkb): void {
    this.#tables.answered(lkb);
    // Granted before it could be taken back.
    if ((lkb.client as LockClient).gone && staysBehind(lkb)) this.orphans.add(lkb);
    this.#ast(lkb, "granted", lkb.lvbRead);
  }

  refused(lkb: Lkb, status: Refusal): void {
    const canceling = lkb.canceling;
    this.#tables.answered(lkb);
    this.#ast(lkb, status === "canceled" && canceling !== null ? canceling : status, false);
    if (lkb.granted === null) this.#tables.forget(lkb);
  }

  /** Also while the service is stopped: what a master granted in its view is granted (hazard H3). */
  receive(m: GrantMessage | RefuseMessage | BastMessage): void {
    const lkb = this.#tables.heldElsewhere.get(m.lkbId);
    // Unknown: the lock was given up while this was on its way.
    if (lkb === undefined) return;
    if (m.kind === "grant") return this.#receiveGrant(lkb, m);
    if (m.kind === "refuse") {
      lkb.requested = null;
      lkb.sbFlags = m.sbFlags | (lkb.sbFlags & DEMOTED);
      if ((m.sbFlags & DEMOTED) !== 0) this.#demoted(lkb, m.grantNo);
      return this.refused(lkb, m.status);
    }
    if (lkb.granted === null || lkb.grantNo !== m.grantNo || modesCompatible(lkb.granted, m.wanted)) return;
    lkb.bastMode = joinModes(lkb.bastMode, m.wanted);
    this.bast(lkb, m.wanted);
  }

  /** Its master took its mode away to end a conversion deadlock, and what it asked for did not come. */
  #demoted(lkb: Lkb, grantNo: number): void {
    lkb.granted = Mode.NL;
    lkb.grantNo = grantNo;
    lkb.bastMode = Mode.NL;
  }

  #receiveGrant(lkb: Lkb, m: GrantMessage): void {
    lkb.granted = m.mode;
    lkb.requested = null;
    lkb.sbFlags = m.sbFlags | (lkb.sbFlags & DEMOTED);
    lkb.grantNo = m.grantNo;
    lkb.bastMode = Mode.NL;
    lkb.lvbSeq = m.lvbSeq;
    lkb.lvbRead = m.lvbRead;
    lkb.lvbValid = m.lvbValid;
    lkb.lvb = m.lvb;
    this.granted(lkb);
  }

  bast(lkb: Lkb, wanted: Mode): void {
    this.unanswered.told(lkb, wanted, this.#tables.nowMs);
    this.#port.toClient(lkb.client as LockClient, { kind: "bast", lockId: lkb.lockId, wanted });
  }

  /** Puts a client's lock back after `canceling` when its master is gone. */
  completeCancel(lkb: Lkb): void {
    lkb.requested = null;
    this.refused(lkb, "canceled");
  }
}

/** Granted, and persistent or kept for an heir: it outlives its client. */
function staysBehind({ granted, flags, client }: Lkb): boolean {
  return granted !== null && ((flags & PERSISTENT) !== 0 || (client as LockClient).kept);
}

function wrongBlock(lvb: Uint8Array | null): string | null {
  if (lvb === null || lvb.byteLength <= maxLvbBytes) return null;
  return `a value block of ${lvb.byteLength} bytes, at most ${maxLvbBytes} allowed`;
}

export function astEvent(lockId: number, status: LockStatus, mode: Mode): Extract<ClientEvent, { kind: "ast" }> {
  return { kind: "ast", lockId, status, mode, sbFlags: 0, lvbRead: false, lvb: null, lvbValid: false, error: null };
}
