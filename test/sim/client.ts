/**
 * A program on a node, as far as dlmd can tell: it locks, converts, unlocks and cancels at random, yields to blocking
 * ASTs, answers "gone" after a while, and checks that each request is answered exactly once.
 */
import {
  ALTCW,
  ALTPR,
  CONVDEADLK,
  DEMOTED,
  EXPEDITE,
  FORCEUNLOCK,
  HEADQUE,
  IVVALBLK,
  NODLCKWT,
  NOORDER,
  NOQUEUE,
  NOQUEUEBAST,
  ORPHAN,
  PERSISTENT,
  QUECVT,
  VALBLK,
  worthWhileConverting,
} from "../../dlmd/wire/flag.ts";
import { readsLvb } from "../../dlmd/wire/lvb.ts";
import { Mode, modeCovers, modesCompatible } from "../../dlmd/wire/mode.ts";
import type { ClientEvent, ClientRequest, GoneClient } from "../../dlmd/wire/program.ts";
import type { Checker } from "./checker.ts";
import type { SimNode } from "./cluster-node.ts";
import { SimGroupClient } from "./group-client.ts";
import { SimPlockClient } from "./plock-client.ts";
import type { Random } from "./random.ts";

export interface SimLock {
  readonly id: number;
  readonly client: SimClient;
  readonly resource: string;
  /** Raised when dlmd grants, lowered when the client sends (hazard H2). */
  mode: Mode | null;
  /** What is outstanding. */
  asked: "lock" | "up" | "down" | "unlock" | null;
  canceled: boolean;
  /** What is outstanding is a conversion to the same mode, which reads the block and may wait like one up. */
  rereads: boolean;
  /** While a conversion is outstanding: what the lock is worth until it is answered. */
  worth: Mode | null;
  /** FORCEUNLOCK was sent while something was outstanding: its answer, if any, comes before that of the unlock. */
  forced: boolean;
  timed: boolean;
  persistent: boolean;
  /** Of a program that asked to be kept: it stays for an heir as long as its program is. */
  heirloom: boolean;
  /** What an adopted lock was before. */
  orphan: SimLock | null;
  adopted: boolean;
  /** An orphan whose adopter died before he heard whether he had it: it may have gone with him. */
  doubtful: boolean;
  blocking: Mode;
  /** Of the value block, as last read valid or written. */
  seenVersion: number;
  sinceMs: number;
}

const secondPrefix = "second-";

export class SimClient {
  readonly node: SimNode;
  /** Of the node, when this client connected. */
  readonly incarnation: string;
  readonly id: number;
  readonly locks: Map<number, SimLock> = new Map();
  readonly #givenUp = new Set<number>();
  /** Asked to let go of and not yet answered; and answered. */
  readonly goneAsked: Map<number, string[]> = new Map();
  readonly goneAcked: Set<string> = new Set();
  /** Members, as "nodeid.incarnation", of quorate views installed while it was connected, and since when. */
  readonly metMembers: Map<string, number> = new Map();
  alive = true;
  diedMs: number = Number.POSITIVE_INFINITY;
  /** Its lock manager lived on, and told the others of its end. */
  outlived = false;
  #nextLockId = 1;
  readonly #purging: SimNode[] = [];
  readonly owner: string;
  readonly plocks: SimPlockClient;
  /**
   * Keeps what it has until it has all that it wants (blocking ASTs or not), then gives all of it up: so do databases, and
   * so they come to wait in circles.
   */
  readonly transactional: boolean;
  /** Orphans of it in its lockspace are to go. */
  purged = false;
  /** Taken to hang by its node, when it has not answered a blocking AST for that long; 0: never (hazard H13). */
  readonly bastLimitMs: number;
  /** It asks to be kept for an heir for so long; 0: not. */
  readonly keepMs: number;
  ending = false;
  /** Its process stands still until then: it hears nothing, answers nothing. */
  hangsUntilMs = 0;
  /** How often it did. */
  hangs = 0;
  /** The lockspace that it has open. Resources of the second have names of their own. */
  readonly space: "sim" | "second";
  readonly random: Random;
  readonly groups: SimGroupClient;
  readonly #checker: Checker;
  readonly #send: (requests: ClientRequest[]) => void;

  constructor(node: SimNode, id: number, random: Random, checker: Checker, send: (requests: ClientRequest[]) => void) {
    this.node = node;
    this.incarnation = node.incarnation;
    this.id = id;
    this.random = random;
    this.#checker = checker;
    this.#send = send;
    const heirs = node.cluster.streams.of(`heirs ${node.nodeid}/${id}`);
    this.keepMs = node.cluster.heirs && heirs.chance(0.6) ? heirs.between(200, 1500) : 0;
    this.owner = `owner${random.int(2)}`;
    this.transactional = node.cluster.transactions && random.chance(0.6);
    this.bastLimitMs = !this.transactional && random.chance(0.2) ? 900 : 0;
    const { streams, script } = node.cluster;
    const only = script.apart ? streams.of(`spaces of ${node.nodeid}`).pick(["sim", "second", null] as const) : null;
    const drawn = script.lockspaces > 1 && streams.of(`space ${node.nodeid}/${id}`).chance(script.fenced ? 0.6 : 0.3) ? "second" : "sim";
    this.space = script.lockspaces > 1 && only !== null ? only : drawn;
    node.cluster.lockspaceChecker.opens(this);
    this.plocks = new SimPlockClient({
      prefix: this.space === "sim" ? "" : secondPrefix,
      nodeid: node.nodeid,
      clientId: id,
      lockspaceId: 7,
      random,
      checker: node.cluster.plockChecker,
      deadly: random.next(),
      send: (request) => send([request]),
    });
    this.groups = new SimGroupClient(this, (request) => send([request]));
    send([{ kind: "open", lockspaceId: 7, name: this.space }]);
    if (this.keepMs > 0) send([{ kind: "keep-locks", requestId: 1, limitMs: Math.round(this.keepMs), held: false }]);
  }

  get stands(): boolean {
    return this.#checker.nowMs() < this.hangsUntilMs;
  }

  /** Its process stands still for that long. */
  hang(ms: number): void {
    this.hangs++;
    this.hangsUntilMs = this.#checker.nowMs() + ms;
  }

  /** It died, and its node keeps what it had. */
  get isKept(): boolean {
    const { node, incarnation, id, alive } = this;
    return !alive && node.alive && node.incarnation === incarnation && node.core.clients.all.get(id)?.kept === true;
  }

  get name(): string {
    return `${this.key}/${this.id}`;
  }

  /** Its node, in that life. */
  get key(): string {
    return `${this.node.nodeid}.${this.incarnation}`;
  }

  /** One random thing to do, under that seed. */
  act(names: readonly string[], seed: number): void {
    const { random } = this;
    if (this.stands) return;
    const resources = this.space === "sim" ? names : names.map((name) => `${secondPrefix}${name}`);
    random.reseed(seed);
    // Under every other seed there is little else than locks.
    const what = this.node.cluster.script.seed % 2 === 0 && random.chance(0.7) ? 1 : random.next();
    // With file locks it would not be kept.
    if (what < 0.25 && (this.keepMs === 0 || random.chance(0.02))) return this.plocks.act();
    if (what < 0.4) return this.groups.act();
    if (what < 0.41) return this.#inspect(resources);
    if (this.node.cluster.heirs && random.chance(0.03))
      return this.send({ kind: "inherit", requestId: 2, lockspace: this.space, fromClientId: 0, skip: 0 });
    if (this.transactional) return this.#transact(resources);
    const idle = [...this.locks.values()].filter((lock) => lock.asked === null);
    const busy = [...this.locks.values()].filter((lock) => lock.asked !== null);
    if (busy.length > 0 && random.chance(0.1)) return this.#cancel(random.pick(busy));
    if (busy.length > 0 && random.chance(0.03)) return this.#force(random.pick(busy));
    const orphans = this.node.orphans.filter(({ client }) => client.owner === this.owner && client.space === this.space && !client.purged);
    if (orphans.length > 0 && random.chance(0.2)) return this.#adopt(random.pick(orphans));
    if (random.chance(0.003)) return this.purge(1 + random.int(5));
    if (idle.length === 0 || (this.locks.size < 6 && random.chance(0.4))) {
      if (this.locks.size < 8) this.#lock(random.pick(resources));
      return;
    }
    const lock = random.pick(idle);
    if (random.chance(0.25)) this.#unlock(lock);
    else this.#convert(lock, random.int(6) as Mode);
  }

  #inspect(resources: readonly string[]): void {
    const { random } = this;
    const resource = random.chance(0.5) ? random.pick(resources) : "";
    const waitingMs = random.chance(0.3) ? 1 : null;
    this.send({ kind: "inspect", queryId: this.node.cluster.sightChecker.asked(this), lockspace: "", resource, nodeid: 0, waitingMs });
  }

  send(request: ClientRequest): void {
    this.#send([request]);
  }

  /** Long after everything was healed. */
  atRest(): void {
    this.groups.atRest();
    this.node.cluster.sightChecker.clientAtRest(this);
  }

  #transact(resources: readonly string[]): void {
    const locks = [...this.locks.values()];
    const waiting = locks.filter((lock) => lock.asked !== null);
    if (waiting.length > 0) {
      if (this.random.chance(0.02)) this.#cancel(this.random.pick(waiting));
      return;
    }
    if (locks.length < 3 && this.random.chance(0.6)) this.#want(this.random.pick(resources));
    else this.finish();
  }

  #want(resource: string): void {
    const lock = this.#add(resource);
    const mode = this.random.pick([Mode.PR, Mode.EX, Mode.EX]);
    this.#send([{ kind: "lock", lockspaceId: 7, lockId: lock.id, resource, mode, flags: VALBLK, transaction: 1 }]);
  }

  /** Gives everything up, if it waits for nothing. */
  finish(): void {
    const locks = [...this.locks.values()];
    if (!this.transactional || locks.some((lock) => lock.asked !== null)) return;
    for (const lock of locks) this.#unlock(lock);
  }

  #flags(mode: Mode): number {
    const random = this.random;
    const queueing = random.chance(0.15) ? NOQUEUE | (random.chance(0.5) ? NOQUEUEBAST : 0) : 0;
    // Who may write always takes part in the block: otherwise its death need not invalidate it.
    return queueing | (mode >= Mode.PW || random.chance(0.7) ? VALBLK : 0);
  }

  /** Of the flags that change in which order or mode a request is granted; each seldom, or nothing of the usual course is left. */
  #rarely(...flags: number[]): number {
    return flags.reduce((all, flag) => (this.random.chance(0.06) ? all | flag : all), 0);
  }

  #timeout(): number {
    return this.random.chance(0.1) ? this.random.between(1, 300) : 0;
  }

  /** A lock that a client of the same owner left behind. */
  #adopt(orphan: SimLock): void {
    const lock = this.#add(orphan.resource);
    lock.orphan = orphan;
    const mode = this.random.chance(0.9) ? (orphan.mode as Mode) : Mode.CR;
    const flags = ORPHAN | VALBLK | (this.random.chance(0.5) ? PERSISTENT : 0);
    lock.persistent = (flags & PERSISTENT) !== 0;
    this.#send([{ kind: "lock", lockspaceId: 7, lockId: lock.id, resource: orphan.resource, mode, flags }]);
  }

  /** The mode that was not meant for this orphan may be that of another one. */
  #found(meant: SimLock, mode: Mode): SimLock {
    if (meant.mode === mode) return meant;
    const fits = ({ client, resource, mode: its }: SimLock): boolean =>
      client.owner === this.owner && !client.purged && resource === meant.resource && its === mode;
    return this.node.orphans.find(fits) ?? meant;
  }

  purge(nodeid: number): void {
    const node = this.node.cluster.nodes.find((node) => node.nodeid === nodeid);
    if (node === undefined) return;
    // Released when all have let go of them, from now on: those too that are left behind before it is answered.
    for (const { client } of node.orphans) if (client.space === this.space) client.purged = true;
    node.purges++;
    this.#purging.push(node);
    this.#send([{ kind: "purge", purgeId: 1, lockspaceId: 7, nodeid, pid: 0 }]);
  }

  #add(resource: string): SimLock {
    const id = this.#nextLockId++;
    const lock: SimLock = {
      id,
      client: this,
      resource,
      mode: null,
      asked: "lock",
      canceled: false,
      rereads: false,
      worth: null,
      forced: false,
      timed: false,
      persistent: false,
      heirloom: this.keepMs > 0,
      orphan: null,
      adopted: false,
      doubtful: false,
      blocking: Mode.NL,
      seenVersion: 0,
      sinceMs: 0,
    };
    lock.sinceMs = this.#checker.nowMs();
    this.locks.set(id, lock);
    return lock;
  }

  #lock(resource: string): void {
    const mode = this.random.int(6) as Mode;
    const lock = this.#add(resource);
    const timeoutMs = this.#timeout();
    lock.timed = timeoutMs > 0;
    let flags = this.#flags(mode) | this.#rarely(HEADQUE, NOORDER, ALTPR, ALTCW, PERSISTENT);
    if (mode === Mode.NL && (flags & NOQUEUE) === 0) flags |= this.#rarely(EXPEDITE);
    lock.persistent = (flags & PERSISTENT) !== 0;
    this.#send([{ kind: "lock", lockspaceId: 7, lockId: lock.id, resource, mode, flags, timeoutMs }]);
  }

  #convert(lock: SimLock, mode: Mode): void {
    const from = lock.mode as Mode;
    const down = modeCovers(from, mode);
    let flags = this.#flags(from > mode ? from : mode);
    let lvb: Uint8Array | null = null;
    if (down && from !== mode) flags &= VALBLK;
    lock.sinceMs = this.#checker.nowMs();
    if (down && from >= Mode.PW && !(from === Mode.PW && mode === Mode.EX)) {
      lvb = this.#write(lock, flags);
      if (lvb === null) flags |= IVVALBLK;
    }
    lock.asked = down ? "down" : "up";
    lock.rereads = from === mode;
    const timeoutMs = down ? 0 : this.#timeout();
    lock.timed = timeoutMs > 0;
    if (!down) {
      flags |= this.#rarely(HEADQUE, NOORDER, ALTPR, ALTCW, QUECVT, NODLCKWT);
      if ((flags & NOQUEUE) === 0) flags |= this.random.chance(0.2) ? CONVDEADLK : 0;
      lock.worth = worthWhileConverting(from, mode, flags);
    }
    if (down) this.#checker.lowered(lock, mode);
    const silent = this.#isSilent(lock) && down && from !== mode && !readsLvb(from, mode, flags);
    if (silent) lock.asked = null;
    this.#send([{ kind: "convert", lockId: lock.id, mode, flags, lvb, timeoutMs, ...(silent ? { silent } : {}) }]);
  }

  /** A new block, told to the checker as written; null: invalidated. */
  #write(lock: SimLock, flags: number): Uint8Array | null {
    if ((flags & VALBLK) === 0) return new Uint8Array(0);
    if (this.random.chance(0.1)) {
      this.#checker.invalidated(lock);
      return null;
    }
    return this.#checker.wrote(lock);
  }

  /** In a quarter of the scripts programs want no answer where they know what it would be (hazard H2), of every second lock. */
  #isSilent({ id }: SimLock): boolean {
    return this.node.cluster.silent && id % 2 === 1;
  }

  #unlock(lock: SimLock): void {
    let flags = this.random.chance(0.7) ? VALBLK : 0;
    let lvb: Uint8Array | null = null;
    if ((lock.mode as Mode) >= Mode.PW) {
      lvb = this.#write(lock, flags);
      if (lvb === null) flags |= IVVALBLK;
    }
    lock.asked = "unlock";
    lock.sinceMs = this.#checker.nowMs();
    this.#checker.lowered(lock, null);
    const silent = this.#isSilent(lock);
    if (silent) {
      this.locks.delete(lock.id);
      this.#givenUp.add(lock.id);
    }
    this.#send([{ kind: "unlock", lockId: lock.id, flags, lvb, ...(silent ? { silent } : {}) }]);
  }

  /** Gives up a lock that is waiting or converting. */
  #force(lock: SimLock): void {
    if (lock.asked === "unlock" || lock.orphan !== null) return;
    lock.forced = true;
    lock.asked = "unlock";
    lock.worth = null;
    this.#checker.lowered(lock, null);
    this.#send([{ kind: "unlock", lockId: lock.id, flags: FORCEUNLOCK, lvb: null }]);
  }

  #cancel(lock: SimLock): void {
    if (lock.asked !== "lock" && lock.asked !== "up" && !(lock.asked === "down" && lock.rereads)) return;
    lock.canceled = true;
    this.#send([{ kind: "cancel", lockId: lock.id }]);
  }

  /** Steps down for whoever waits. */
  yieldTo(lock: SimLock): void {
    if (!this.alive || this.transactional || !this.locks.has(lock.id) || lock.blocking === Mode.NL) return;
    if (lock.asked !== null) return this.#cancel(lock);
    const wanted = lock.blocking;
    lock.blocking = Mode.NL;
    if (lock.mode === null || modesCompatible(lock.mode, wanted)) return;
    if (this.random.chance(0.3)) return this.#unlock(lock);
    const highest = ([4, 3, 2, 1, 0] as Mode[]).find((mode) => modeCovers(lock.mode as Mode, mode) && modesCompatible(mode, wanted));
    this.#convert(lock, this.random.chance(0.7) ? (highest as Mode) : Mode.NL);
  }

  /** `emitted` at the time when dlmd says it; what the client does about it comes later. */
  emitted(event: ClientEvent, later: (run: () => void) => void): void {
    switch (event.kind) {
      case "ast":
        return this.#ast(event, later);
      case "bast": {
        const lock = this.locks.get(event.lockId);
        // Said before the unlock came, which is not answered.
        if (this.#givenUp.has(event.lockId)) return;
        if (lock === undefined) return this.#checker.fail(`${this.name}: bast for unknown lock ${event.lockId}`);
        // PR and CW wanted together: only what goes beside both helps.
        const both = !modeCovers(lock.blocking, event.wanted) && !modeCovers(event.wanted, lock.blocking);
        lock.blocking = both ? Mode.PW : (Math.max(lock.blocking, event.wanted) as Mode);
        return later(() => this.yieldTo(lock));
      }
      case "gone": {
        const names = event.clients.map((gone) => `${gone.nodeid}.${gone.incarnation}${gone.clientId === null ? "" : `/${gone.clientId}`}`);
        for (const gone of event.clients) this.#checkGone(gone);
        if (event.clients.some(({ clientId }) => clientId === null)) this.node.cluster.lockspaceChecker.goneAsked(this, event.clients);
        this.goneAsked.set(event.goneId, names);
        return later(() => {
          if (!this.alive || !this.goneAsked.delete(event.goneId)) return;
          for (const name of names) this.goneAcked.add(name);
          this.#send([{ kind: "gone-ack", goneId: event.goneId }]);
        });
      }
      case "opened":
        if (event.error !== "") this.#checker.fail(`${this.name}: open failed: ${event.error}`);
        return;
      case "purged": {
        const node = this.#purging.shift();
        if (node !== undefined) node.purges = Math.max(0, node.purges - 1);
        return;
      }
      case "plock-result":
        return this.plocks.result(event);
      case "inherited":
        return this.#inherited(event, later);
      case "heir-result":
        return;
      case "answer":
        return this.node.cluster.sightChecker.answered(this, event.queryId, event.data);
      case "group-result":
      case "group-members":
      case "group-message":
      case "group-ended":
        return this.groups.told(event);
      case "view":
        return;
    }
  }

  /** Nobody is asked to let go of a program that is kept. */
  #checkGone({ nodeid, incarnation, clientId }: GoneClient): void {
    const node = this.node.cluster.nodes.find((one) => one.nodeid === nodeid && one.incarnation === incarnation && one.alive);
    if (clientId !== null && node?.core.clients.all.get(clientId)?.kept === true)
      this.#checker.fail(`${this.name} is asked about ${nodeid}/${clientId}, which is kept for an heir`);
  }

  /** Whatever it is told of can be adopted at once. Some of the dead it wants nothing more of. */
  #inherited({ clients }: Extract<ClientEvent, { kind: "inherited" }>, later: (run: () => void) => void): void {
    for (const { clientId } of clients) {
      const dead = this.node.core.clients.all.get(clientId);
      const wrong =
        dead?.kept !== true || dead.owner !== this.owner || [...dead.locks.values()].some(({ requested }) => requested !== null);
      if (wrong) this.#checker.fail(`${this.name} inherits of client ${clientId}, which is not kept for it, or has something outstanding`);
      if (this.random.chance(0.4)) later(() => this.send({ kind: "end-kept", requestId: 3, clientId }));
    }
  }

  #ast(event: Extract<ClientEvent, { kind: "ast" }>, later: (run: () => void) => void): void {
    const lock = this.locks.get(event.lockId);
    if (lock === undefined || lock.asked === null)
      return this.#checker.fail(`${this.name}: answer for lock ${event.lockId}, which asked nothing`);
    if (lock.forced) {
      if (event.status === "unlocked" || event.status === "error") this.locks.delete(lock.id);
      return;
    }
    if (event.status === "error" && lock.orphan !== null) {
      this.locks.delete(lock.id);
      if (lock.orphan.heirloom && !lock.orphan.persistent && !lock.orphan.client.isKept) this.node.forgetOrphan(lock.orphan);
      return;
    }
    if (event.status === "error") return this.#checker.fail(`${this.name}: lock ${lock.id}: ${event.error?.message}`);
    const asked = lock.asked;
    const wrong =
      asked === "unlock" ? event.status !== "unlocked" : event.status === "unlocked" || (asked === "down" && event.status !== "granted");
    // A conversion to the same mode that reads the block may be refused like one up.
    if (wrong && asked !== "down") return this.#checker.fail(`${this.name}: ${asked} of lock ${lock.id} ended with ${event.status}`);
    if (event.status === "canceled" && !lock.canceled) return this.#checker.fail(`${this.name}: lock ${lock.id} canceled by nobody`);
    if (event.status === "timeout" && !lock.timed) return this.#checker.fail(`${this.name}: lock ${lock.id} timed out without a time-out`);
    const demoted = (event.sbFlags & DEMOTED) !== 0;
    if (demoted && lock.worth !== Mode.NL) return this.#checker.fail(`${this.name}: lock ${lock.id} demoted without CONVDEADLK`);
    if (event.status === "deadlock" && this.transactional) this.#checker.deadlocked(lock);
    lock.asked = null;
    lock.canceled = false;
    lock.worth = null;
    if (lock.orphan !== null) {
      this.#checker.adopted(this.#found(lock.orphan, event.mode));
      lock.adopted = true;
    }
    lock.orphan = null;
    if (demoted && lock.mode !== null) this.#checker.lowered(lock, Mode.NL);
    if (event.status === "granted") {
      // Who still waits for the new mode to go is told of anew.
      if (asked !== "down") lock.blocking = Mode.NL;
      if (asked !== "down") this.node.cluster.lockspaceChecker.granted(this);
      if (asked !== "down") this.#checker.granted(lock, event.mode);
      if (lock.mode !== event.mode) return this.#checker.fail(`${this.name}: lock ${lock.id} is ${event.mode}, ${lock.mode} expected`);
      if (event.lvbRead) this.#checker.read(lock, event.lvb, event.lvbValid);
    } else if (event.status === "deadlock" && this.transactional) {
      this.locks.delete(lock.id);
      this.finish();
    } else if (lock.mode === null || event.status === "unlocked") this.locks.delete(lock.id);
    else if (lock.mode !== event.mode) return this.#checker.fail(`${this.name}: lock ${lock.id} is ${event.mode}, ${lock.mode} expected`);
    else this.#checker.keeps(lock);
    if (lock.blocking !== Mode.NL) later(() => this.yieldTo(lock));
  }
}
