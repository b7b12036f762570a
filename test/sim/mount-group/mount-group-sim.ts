/**
 * Mounters of one volume on a cluster of simulated engines: joins, clean ends, deaths of programs and nodes, partitions, at random under a seed.
 * The lock manager's election is a stand-in: one mounter at a time may have the disk, and the next one only when the one before is over.
 */
import type { EngineEvent } from "../../../dlmd/engine/engine.ts";
import { viewName } from "../../../dlmd/wire/view-id.ts";
import { EngineSim, EngineSimFailure } from "../engine/engine-sim.ts";
import type { EngineSimNode } from "../engine/sim-node.ts";
import { MountGroupChecker } from "./checker.ts";
import { group, nameOf, SimMounter } from "./sim-mounter.ts";

/** Deliveries that a program makes at once, before time goes on. */
const EVERY_MS = 6;
const TROUBLE_EVERY_MS = 50;

export class MountGroupSim {
  readonly engines: EngineSim;
  readonly checker: MountGroupChecker;
  readonly mounters: SimMounter[] = [];
  quiet = false;
  /** Who has the disk, or may have. */
  #holder: SimMounter | null = null;
  #epoch = 0;
  /** The epoch of the holder that serves; 0: it does not yet, or none does. */
  #served = 0;
  /** Counts the holders: what one of them began ends with it. */
  #tenure = 0;
  #nextClientId = 1;
  /** Some are slow at letting go of the dead. */
  readonly #slow: number;

  constructor(seed: number, nodes = 0) {
    const count = nodes > 0 ? nodes : (([3, 3, 2, 4, 3, 5, 1, 3] as const)[seed % 8] as number);
    this.engines = new EngineSim({ seed, nodes: count, checked: false, hears: (node, event) => this.#heard(node, event) });
    this.checker = new MountGroupChecker(this);
    const { random, agenda } = this.engines;
    const harsh = random.chance(0.3) ? 0 : random.next();
    this.engines.weather = { loss: harsh * 0.12, duplicate: harsh * 0.08, late: harsh * 0.2, maxDelayMs: 40 };
    this.#slow = random.chance(0.4) ? 0.25 : 0;
    for (const node of this.engines.nodes) agenda.at(random.between(0, 100), () => node.start());
    this.#every(EVERY_MS, () => this.#act());
    this.#every(2, () => this.#elect());
    this.#every(3, () => this.#find());
    this.#every(20, () => this.#link());
    this.#every(TROUBLE_EVERY_MS, () => this.#trouble());
  }

  fail(message: string): never {
    throw new EngineSimFailure(message);
  }

  after(ms: number, run: () => void): void {
    this.engines.agenda.at(this.engines.agenda.nowMs + ms, run);
  }

  trace(text: string): void {
    this.engines.trace(text);
  }

  #every(ms: number, run: () => void): void {
    const again = (): void => {
      run();
      this.after(this.engines.random.between(0.5, 1.5) * ms, again);
    };
    this.after(ms, again);
  }

  #link(): void {
    const { nodes, cut } = this.engines;
    for (const a of nodes) {
      for (const b of nodes) {
        const isReached = !cut.has(`${a.nodeid}>${b.nodeid}`) && !cut.has(`${b.nodeid}>${a.nodeid}`);
        if (a !== b && a.alive && b.alive && isReached) a.linked(b);
      }
    }
  }

  // ------------------------------------------------------------------------------------------------ what engines tell

  #heard(node: EngineSimNode, event: EngineEvent): void {
    if (event.kind === "room") for (const mounter of this.#of(node)) mounter.pump();
    if ((event.kind !== "members" && event.kind !== "message") || event.group !== group) return;
    const { view, delivered } = node.engine.ordering;
    const place = `${view === null ? "?" : viewName(view.id)} ${delivered}`;
    for (const mounter of this.#of(node)) {
      if (event.to.includes(mounter.id.clientId)) mounter.deliver(() => this.#deliver(mounter, event, place), this.#delayMs());
    }
  }

  #of(node: EngineSimNode): SimMounter[] {
    return this.mounters.filter((one) => one.node === node && one.isLiving);
  }

  #delayMs(): number {
    const { random } = this.engines;
    return random.chance(0.03) && !this.quiet ? random.between(1, 120) : random.between(0, 0.3);
  }

  #deliver(mounter: SimMounter, event: Extract<EngineEvent, { kind: "members" | "message" }>, place: string): void {
    if (event.kind === "message") {
      mounter.step({ kind: "message", from: event.from, data: event.data });
      this.checker.delivered(mounter, `${place} ${nameOf(event.from)} ${Buffer.from(event.data).toString("hex")}`);
      return;
    }
    if (event.joined.some((one) => nameOf(one) === mounter.name)) mounter.joined = true;
    if (event.left.some(({ member }) => nameOf(member) === mounter.name)) {
      mounter.left = true;
      mounter.alive = false;
      return;
    }
    for (const { member } of event.left) this.checker.leftSeen(mounter, nameOf(member));
    mounter.step({ kind: "members", members: event.members, joined: event.joined });
    this.checker.delivered(mounter, `${place} members ${event.members.map(nameOf).join(" ")}`);
  }

  // ------------------------------------------------------------------------------------------ what mounters have to do

  /** It has its jid: the mount comes to be. */
  ready(mounter: SimMounter): void {
    this.after(this.engines.random.between(0, 5), () => {
      mounter.mounted = true;
      if (!mounter.leaving) mounter.step({ kind: "mounted" });
    });
  }

  letGo(mounter: SimMounter, asked: NonNullable<SimMounter["letGo"]>): void {
    const { random } = this.engines;
    const ms = random.chance(this.#slow) && !this.quiet ? random.between(10, 400) : random.between(0, 2);
    this.after(ms, () => {
      if (mounter.letGo !== asked || !mounter.isLiving) return;
      for (const one of asked.dead) this.checker.letGo(mounter, nameOf(one));
      if (!mounter.leaving) mounter.step({ kind: "stopped", round: asked.round });
    });
  }

  recover(mounter: SimMounter, asked: NonNullable<SimMounter["recover"]>): void {
    this.after(this.engines.random.between(0, 12), () => {
      if (mounter.recover !== asked || !mounter.isLiving || this.#holder !== mounter || mounter.leaving) return;
      // With a later round it counts for nothing, and the group must know that by itself.
      if (mounter.core.state?.round === asked.round) this.checker.recovered(mounter, asked.jid);
      mounter.step({ kind: "recovered", round: asked.round, jid: asked.jid });
    });
  }

  /** Its files are opened at the owner of that epoch, some late; the owner hears of it. */
  reopen(mounter: SimMounter, epoch: number): void {
    const { random } = this.engines;
    const ms = random.chance(0.1) && !this.quiet ? random.between(50, 3000) : random.between(0, 4);
    this.after(ms, () => {
      const owner = this.#holder;
      if (owner?.ownEpoch !== epoch || mounter.ownerEpoch !== epoch || !mounter.isLiving || mounter.leaving || !owner.isLiving) return;
      if (!this.#orders(mounter.node)) return this.reopen(mounter, epoch);
      mounter.filesAt = epoch;
      owner.reopenedHere.add(mounter);
      owner.reportReopened();
    });
  }

  /** Programs there open a file, if that is possible now. */
  #open(mounter: SimMounter): void {
    const isServed = mounter.filesAt > 0 && mounter.filesAt === this.#holder?.ownEpoch && this.#holder.isLiving;
    if (isServed && !mounter.blocked && mounter.joined && this.#orders(mounter.node)) mounter.hasFiles = true;
  }

  // --------------------------------------------------------------------------------- a stand-in for locks and proofs

  #elect(): void {
    const { random } = this.engines;
    const candidates = this.mounters.filter((one) => one.isLiving && one.usesJid !== null && !one.leaving && this.#orders(one.node));
    if (candidates.length === 0 || random.chance(0.5)) return;
    const next = random.pick(candidates);
    const before = this.#holder;
    if (before !== null && !this.#isOver(before, next)) return;
    this.#holder = next;
    this.#served = 0;
    this.#tenure++;
    this.trace(`${next.name} claims`);
    next.step({ kind: "claimed" });
  }

  /** The others know: it touches the disk. */
  claimKnown(mounter: SimMounter): void {
    const { random } = this.engines;
    if (this.#holder !== mounter || mounter.leaving) return;
    this.trace(`${mounter.name} has the disk`);
    this.checker.claimed(mounter, ++this.#epoch);
    mounter.ownEpoch = this.#epoch;
    mounter.reopenedHere.clear();
    const [epoch, tenure] = [this.#epoch, this.#tenure];
    this.after(random.between(0, 15), () => {
      if (this.#tenure !== tenure || this.#holder !== mounter || !mounter.isLiving || mounter.leaving) return;
      if (!this.quiet && random.chance(0.1)) return this.#release(mounter);
      this.#serve(mounter, epoch);
    });
  }

  #serve(owner: SimMounter, epoch: number): void {
    this.#served = epoch;
    owner.step({ kind: "serving", epoch });
  }

  /** By the value block of the owner's lock, which waits for nothing that is ordered. */
  #find(): void {
    const epoch = this.#served;
    for (const mounter of this.mounters) {
      if (!mounter.isLiving || mounter.leaving || mounter.usesJid === null || mounter.ownerEpoch === epoch) continue;
      this.after(this.engines.random.between(0, 3), () => {
        const isServed = epoch > 0 && this.#served === epoch && mounter.isLiving && !mounter.leaving && this.#orders(mounter.node);
        if (isServed && mounter.ownerEpoch !== epoch) mounter.ownerFound(epoch);
      });
    }
  }

  #orders(node: EngineSimNode): boolean {
    const { engine, alive } = node;
    return alive && engine.ordering.view !== null && !engine.ordering.stopped && engine.mayOrder(this.engines.agenda.nowMs);
  }

  /** It is dead, and the lock manager of `next` knows: every mounter in its view has let go of it. */
  #isOver(holder: SimMounter, next: SimMounter): boolean {
    const { view } = next.node.engine.ordering;
    const hasNode = view?.members.some(({ nodeid, incarnation }) => nodeid === holder.id.nodeid && incarnation === holder.id.incarnation);
    if (hasNode === true && holder.hasNode) return !holder.alive && this.engines.random.chance(0.2);
    return hasNode === false;
  }

  /** The disk is given back, and the next one may have it before anybody is told. */
  #release(mounter: SimMounter): void {
    this.checker.released(mounter);
    mounter.recover = null;
    if (this.#holder === mounter) {
      this.#holder = null;
      this.#served = 0;
    }
    mounter.step({ kind: "released" });
  }

  // ----------------------------------------------------------------------------------------------------------- trouble

  #start(node: EngineSimNode): void {
    const mounter = new SimMounter(this, node, this.#nextClientId++);
    this.trace(`${mounter.name} begins to mount`);
    this.mounters.push(mounter);
    mounter.join();
  }

  #act(): void {
    const { random } = this.engines;
    // The dead are not looked at for ever.
    if (this.mounters.length > 64) this.mounters.splice(0, this.mounters.length, ...this.mounters.filter((one) => one.isLiving));
    const node = random.pick(this.engines.nodes);
    if (!node.alive) return;
    const here = this.#of(node);
    if (here.length === 0 || (!this.quiet && here.length < 3 && random.chance(0.03))) return this.#start(node);
    if (this.quiet) return;
    const mounter = random.pick(here);
    this.#open(mounter);
    if (random.chance(0.02)) this.#end(mounter);
    else if (random.chance(0.03) && this.#holder === mounter) this.#release(mounter);
  }

  #end(mounter: SimMounter): void {
    const { random } = this.engines;
    if (random.chance(0.5)) {
      this.trace(`${mounter.name} is killed`);
      return mounter.kill(random.between(0, 4));
    }
    if (!mounter.joined) return;
    this.trace(`${mounter.name} leaves`);
    if (this.#holder === mounter) this.#release(mounter);
    mounter.leave();
  }

  #trouble(): void {
    const { random, agenda, nodes, cut } = this.engines;
    if (this.quiet || !random.chance(0.25)) return;
    const node = random.pick(nodes);
    const what = random.next();
    if (what < 0.3) {
      node.crash();
      this.after(random.between(5, 800), () => node.start());
    } else if (what < 0.45) {
      for (const peer of nodes) if (peer !== node) cut.add(`${peer.nodeid}>${node.nodeid}`).add(`${node.nodeid}>${peer.nodeid}`);
      this.trace(`${node.nodeid} is cut off`);
    } else if (what < 0.7) {
      this.trace("healed");
      this.engines.heal();
    } else if (what < 0.85) node.pausedUntilMs = agenda.nowMs + random.between(10, 900);
    else node.busyUntilMs = agenda.nowMs + random.between(10, 600);
  }

  /** That many steps of trouble, then rest. Throws EngineSimFailure. */
  run(steps: number): void {
    const { engines } = this;
    while (engines.steps < steps && engines.agenda.step());
    this.quiet = true;
    this.trace("quiet");
    engines.heal();
    engines.weather = { loss: 0, duplicate: 0, late: 0, maxDelayMs: 1 };
    for (const node of engines.nodes) node.start();
    engines.run(40 * engines.timeoutMs);
    this.checker.atRest();
  }
}
