/** What must hold after every step, as clients see it. */
import { Mode, modeNames, modesCompatible } from "../../dlmd/wire/mode.ts";
import { hasMember, viewName } from "../../dlmd/wire/view-id.ts";
import { Circles } from "./circles.ts";
import type { SimLock } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import type { SimNode } from "./cluster-node.ts";
import { Turns } from "./turns.ts";

export class SimFailure extends Error {
  override readonly name = "SimFailure";
}

/** Who asks for a conversion has given up what the lock may lose by it. */
function worth(lock: SimLock): Mode {
  return lock.worth ?? (lock.mode as Mode);
}

interface LastWrite {
  /** null: invalidated. */
  readonly version: number | null;
  readonly writer: SimLock;
  readonly atMs: number;
  /** Locks held at the write: while one of them stays, the block may not be forgotten. */
  readonly keepers: Set<SimLock>;
  /** The one before it; of that none is kept. */
  readonly before: LastWrite | null;
  /** Its program died before it was answered: it may not have been done. */
  doubtful: boolean;
}

export class Checker {
  readonly #cluster: Cluster;
  /** Locks with a granted mode, by resource; those of dead clients stay until nobody serves them any more. */
  readonly #held: Map<string, Set<SimLock>> = new Map();
  /** Locks of programs that live, and that others have nevertheless: they are to act on none of them again (hazard C4). */
  readonly #lost: Set<SimLock> = new Set();
  readonly #writes: Map<string, LastWrite> = new Map();
  #version = 0;
  readonly #circles: Circles = new Circles();
  readonly #turns: Turns = new Turns();
  /** The view in which its masters were compared with those of the others. */
  readonly #compared: Map<SimNode, string> = new Map();
  deadlocks = 0;
  grants = 0;
  reads = 0;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  nowMs(): number {
    return this.#cluster.agenda.nowMs;
  }

  fail(message: string): never {
    throw new SimFailure(message);
  }

  #locks(resource: string): Set<SimLock> {
    let locks = this.#held.get(resource);
    if (locks === undefined) {
      locks = new Set();
      this.#held.set(resource, locks);
    }
    return locks;
  }

  granted(lock: SimLock, mode: Mode): void {
    this.grants++;
    lock.mode = mode;
    const locks = this.#locks(lock.resource);
    for (const other of locks) {
      if (other === lock || modesCompatible(worth(other), mode)) continue;
      const why = this.#stillCounts(lock, other);
      if (why !== null) {
        this.fail(
          `${lock.client.name} was granted ${modeNames[mode]} on ${lock.resource} while ${other.client.name} has ${modeNames[other.mode as Mode]} (${why})`,
        );
      }
      locks.delete(other);
      this.#loses(other);
    }
    locks.add(lock);
  }

  /**
   * A conversion of that lock has ended without what it asked for: it has what it had. A program whose node has no lease acts on nothing that it is
   * told: it must not have one again with that lock.
   */
  keeps(lock: SimLock): void {
    const mode = lock.mode as Mode;
    for (const other of this.#locks(lock.resource)) {
      if (other === lock || modesCompatible(worth(other), mode) || this.#stillCounts(lock, other) === null) continue;
      const has = `${other.client.name} has ${modeNames[other.mode as Mode]}`;
      if (this.#leaseMs(lock) > 0)
        this.fail(`${lock.client.name} was told that it keeps ${modeNames[mode]} on ${lock.resource} while ${has}`);
      this.#loses(lock);
    }
  }

  /** For how long its program may act on it, as it sees by itself; 0: not. */
  #leaseMs({ client }: SimLock): number {
    return client.alive ? Math.max(0, client.node.leaseEndMs - this.nowMs()) : 0;
  }

  #loses(lock: SimLock): void {
    if (!lock.client.alive) return;
    this.#lost.add(lock);
    this.#lostUnused();
  }

  /** From then on until its program ends or gives it up. */
  #lostUnused(): void {
    for (const lock of this.#lost) {
      const leaseMs = this.#leaseMs(lock);
      if (leaseMs > 0)
        this.fail(`${lock.client.name} may act on its lock on ${lock.resource} for ${leaseMs} ms more, and others were granted it`);
      if (!lock.client.alive) this.#lost.delete(lock);
    }
  }

  /** Why a lock excludes a grant to `granted`; null: it is gone, and everybody who could still serve its client knows. */
  #stillCounts(granted: SimLock, other: SimLock): string | null {
    const node = granted.client.node;
    const holder = other.client;
    const members = node.core.engine.membership.view?.members ?? [];
    const inView = hasMember(members, holder.node.nodeid, holder.incarnation);
    if (inView && holder.alive) return "alive and in the view";
    if (inView && other.persistent && !other.doubtful && !holder.purged) return "an orphan";
    if (inView && other.heirloom && !other.doubtful && holder.isKept) return "kept for an heir";
    // A program whose lock manager outlived it wrote nothing more, whatever became of its node.
    const { twoNode } = this.#cluster;
    if (!inView && (twoNode || holder.space === "second") && !holder.outlived && this.#cluster.isUnfenced(holder.key, members))
      return "not known to be dead";
    // About its node they are not asked, if that had closed the lockspace: they had let go of the program before.
    const names = [holder.name, holder.key];
    for (const member of members) {
      const at = this.#cluster.nodes.find((at) => at.nodeid === member.nodeid);
      if (at === undefined || !at.alive || at.incarnation !== member.incarnation) continue;
      for (const client of at.clients.values()) {
        if (client.space !== holder.space) continue;
        // Who came after its end has never served it.
        const metMs = client.metMembers.get(holder.key) ?? Number.POSITIVE_INFINITY;
        if (!client.alive || metMs >= holder.diedMs || names.some((name) => client.goneAcked.has(name))) continue;
        return `gone, but ${client.name} has not let go of it`;
      }
    }
    return null;
  }

  /** Its new owner has it as it was. */
  adopted(orphan: SimLock): void {
    this.#locks(orphan.resource).delete(orphan);
    orphan.client.node.forgetOrphan(orphan);
  }

  /** mode null: unlocked. */
  lowered(lock: SimLock, mode: Mode | null): void {
    lock.mode = mode;
    if (mode !== null) return;
    this.#locks(lock.resource).delete(lock);
    this.#lost.delete(lock);
    const last = this.#writes.get(lock.resource);
    for (const write of [last, last?.before]) write?.keepers.delete(lock);
  }

  wrote(lock: SimLock): Uint8Array {
    const version = ++this.#version;
    lock.seenVersion = version;
    this.#lastWrite(lock, version);
    const block = new Uint8Array(4);
    new DataView(block.buffer).setUint32(0, version, true);
    return block;
  }

  invalidated(lock: SimLock): void {
    this.#lastWrite(lock, null);
  }

  #lastWrite(writer: SimLock, version: number | null): void {
    // Its node was left out, and others had the lock since: this write is never done.
    if (!this.#locks(writer.resource).has(writer)) return;
    // A view without its node does not wait for it: what it writes before it knows is never done.
    const { node, incarnation } = writer.client;
    const isWithWriter = ({ client }: SimLock): boolean =>
      hasMember(client.node.core.engine.membership.view?.members ?? [], node.nodeid, incarnation);
    const keepers = new Set([...this.#locks(writer.resource)].filter(isWithWriter));
    const last = this.#writes.get(writer.resource);
    const before = last === undefined ? null : { ...last, before: null };
    this.#writes.set(writer.resource, { version, writer, atMs: this.nowMs(), keepers, before, doubtful: false });
  }

  /**
   * Its program died, and what it asked for last was not answered. If there was no service it was never done: the lock is an orphan as it was
   * before, and who adopts it reads the block that was written before.
   */
  unanswered(lock: SimLock): void {
    const write = this.#writes.get(lock.resource);
    if (write?.writer === lock && write.atMs === lock.sinceMs) write.doubtful = true;
  }

  read(lock: SimLock, lvb: Uint8Array | null, valid: boolean): void {
    this.reads++;
    if (!valid) return;
    const version = lvb === null ? 0 : new DataView(lvb.buffer, lvb.byteOffset).getUint32(0, true);
    if (version < lock.seenVersion)
      this.fail(`${lock.client.name} read block ${version} of ${lock.resource} and ${lock.seenVersion} before`);
    lock.seenVersion = version;
    const write = this.#writes.get(lock.resource);
    // Beside NL and CR there may be a writer, whose write is still on its way to the master.
    if (write === undefined || (lock.mode as Mode) <= Mode.CR) return;
    const wrong = this.#misses(write, lock, version);
    if (wrong !== null) this.fail(`${lock.client.name} read ${wrong}`);
  }

  /** How the reader of a valid block misses that write; null: he does not. */
  #misses(write: LastWrite, lock: SimLock, read: number): string | null {
    const { resource, client } = lock;
    const members = client.node.core.engine.membership.view?.members ?? [];
    const kept = [...write.keepers].some(({ client }) => client.alive && hasMember(members, client.node.nodeid, client.incarnation));
    if (!kept || (write.version !== null && read >= write.version)) return null;
    if (write.doubtful) return write.before === null ? null : this.#misses(write.before, lock, read);
    if (write.version === null) return `a valid block ${read} of ${resource}, which was invalidated`;
    return `block ${read} of ${resource}, ${write.version} was written`;
  }

  /** It was told that it waits in a circle. */
  deadlocked(lock: SimLock): void {
    this.deadlocks++;
    if (!this.#circles.seen(lock)) this.fail(`${lock.client.name}: lock ${lock.id} on ${lock.resource} was never part of a deadlock`);
  }

  /** Two views in which locks are served at one moment; somebody overtaken in a queue; a lease with locks that others have. */
  afterStep(stepped: SimNode): void {
    this.#lostUnused();
    const overtaken = this.#turns.look(stepped);
    if (overtaken !== null) this.fail(overtaken);
    if (this.#cluster.transactions) this.#circles.look(this.#cluster.nodes);
    let first: SimNode | null = null;
    for (const node of this.#cluster.nodes) {
      if (!node.alive || !node.core.servesAt(node.localMs(this.nowMs()))) continue;
      const view = node.core.engine.membership.view;
      if (view === null || !view.quorum.quorate) this.fail(`node ${node.nodeid} serves without quorum`);
      if (this.#cluster.twoNode) continue;
      if (first === null) first = node;
      else if (viewName(view.id) !== viewName(first.core.engine.membership.view?.id ?? view.id)) {
        this.fail(`nodes ${first.nodeid} and ${node.nodeid} serve in two views`);
      }
    }
    if (stepped.alive && stepped.core.recovery.serving) this.#oneMaster(stepped);
  }

  /** Nodes that serve in one view have one master for each resource. Looked at once in a view, when a node begins to serve in it. */
  #oneMaster(stepped: SimNode): void {
    const id = stepped.core.engine.membership.view?.id;
    const view = id === undefined ? "" : viewName(id);
    if (this.#compared.get(stepped) === view) return;
    this.#compared.set(stepped, view);
    for (const node of this.#cluster.nodes) {
      const other = node.core.engine.membership.view?.id;
      if (node === stepped || !node.alive || !node.core.recovery.serving || other === undefined || viewName(other) !== view) continue;
      for (const [name, lockspace] of stepped.core.locks.tables.lockspaces) {
        const theirs = node.core.locks.tables.lockspaces.get(name)?.resources;
        for (const resource of lockspace.resources.values()) {
          const master = theirs?.get(resource.name)?.masterNodeid ?? resource.masterNodeid;
          if (master === resource.masterNodeid) continue;
          this.fail(`${resource.name}: node ${stepped.nodeid} has master ${resource.masterNodeid}, node ${node.nodeid} has ${master}`);
        }
      }
    }
  }

  /** Everything is healed and long quiet: nothing may wait. */
  atRest(): void {
    for (const node of this.#cluster.nodes) {
      if (!node.alive || !node.core.servesAt(node.localMs(this.nowMs()))) {
        this.fail(
          `node ${node.nodeid} does not serve after everything was healed: ${node.core.recovery.explain(node.localMs(this.nowMs()))}`,
        );
      }
      for (const client of node.clients.values()) {
        for (const lock of client.locks.values()) {
          if (lock.asked === null) continue;
          this.fail(`${client.name}: ${lock.asked} of lock ${lock.id} on ${lock.resource} unanswered since ${lock.sinceMs.toFixed(1)}`);
        }
      }
      for (const lockspace of node.core.locks.tables.lockspaces.values()) {
        for (const resource of lockspace.resources.values()) {
          if (resource.waitQueue.length + resource.convertQueue.length > 0)
            this.fail(`node ${node.nodeid}: ${resource.name} has waiters at rest`);
        }
      }
    }
  }
}
