/**
 * The owner's role over a disk whose writes are in flight, under faults and with clocks that drift. README.md has what must hold. The cores and
 * what performs them are those that ship; the lock manager, the views and the fences are modelled.
 */
import { leaseWaitShare } from "../../../dlmd/membership/lease.ts";
import type { FenceAnswer, FenceQuestion, LifeAnswer, ProcessLife } from "../../../dlmd/client/api.ts";
import type { Life, Proof } from "../../../overlay/volume/life.ts";
import type { Claim, OwnerEvent } from "../../../overlay/volume/owner-event.ts";
import { Agenda, Random } from "../random.ts";
import { ARRAY_MS, type ClaimedLife, DiskModel, type DiskWrite } from "./disk-model.ts";
import { isLockWay, LockModel } from "./lock-model.ts";
import { SimMachine } from "./sim-machine.ts";
import { SimOwner, TIMEOUT_MS } from "./sim-owner.ts";

export interface OwnerDiskOptions {
  readonly seed: number;
  /** Clocks are off by up to that share; null: as the seed says, up to 0.083. */
  readonly drift?: number;
  /** The cut of a path is no fence (hazard R11). */
  readonly leakyCut?: boolean;
  /** No mount asks whether its lease holds: what proves the lives over must do alone. */
  readonly withoutLease?: boolean;
}

/** Chrony slews a clock by up to that share (maxslewrate); the kernel's frequency adjustment alone is 0.0005. */
export const MOST_DRIFT = 0.083;

/** Nothing comes later than that after all is well again. */
const QUIET_LIMIT_MS = 300_000;

export class OwnerDiskSim {
  readonly agenda: Agenda = new Agenda();
  readonly machines: readonly SimMachine[];
  readonly locks: LockModel<SimOwner>;
  readonly disk: DiskModel;
  readonly counts: Map<string, number> = new Map();
  /** The last things that happened. */
  readonly story: string[] = [];
  readonly violations: string[] = [];
  readonly random: Random;
  readonly #owners: SimOwner[] = [];
  readonly #claims: { readonly life: ClaimedLife; readonly owner: SimOwner; readonly proof: string }[] = [];
  readonly #synced: number[] = [0, 0, 0, 0];
  #version = 0;
  readonly #lastOnWay = new Map<string, number>();
  #held: { readonly owner: SimOwner; readonly way: string; readonly deliver: () => void }[] = [];
  readonly #fences = new Map<string, { state: "running" | "fenced"; readonly sinceMs: number }>();
  #healing = false;

  readonly asksLease: boolean;

  constructor({ seed, drift, leakyCut = false, withoutLease = false }: OwnerDiskOptions) {
    this.asksLease = !withoutLease;
    this.random = new Random(seed * 7919 + 1);
    this.disk = new DiskModel((write) => this.#landed(write));
    const off = drift ?? this.random.pick([0, 0.0005, 0.02, MOST_DRIFT]);
    const world = { agenda: this.agenda, random: this.random, disk: this.disk, leakyCut };
    this.machines = [1, 2, 3].map((nodeid) => new SimMachine(nodeid, 1 + this.random.pick([-1, 1]) * off, world));
    this.locks = new LockModel({
      post: (way, deliver) => this.#post(way, deliver),
      deliver: (owner, event) => this.#deliver(owner, event),
    });
  }

  /** So much time with trouble; then all is well, and there must be an owner. */
  async run(troubleMs: number): Promise<void> {
    for (const machine of this.machines) this.#start(machine);
    this.#load();
    this.agenda.at(5000, () => this.#trouble(troubleMs));
    await this.#until(() => this.agenda.nowMs >= troubleMs);
    this.#heal();
    const healedMs = this.agenda.nowMs;
    const served = (): boolean => this.#owner() !== null && this.agenda.nowMs > healedMs + 30_000;
    await this.#until(() => served() || this.agenda.nowMs > healedMs + QUIET_LIMIT_MS);
    if (!served())
      this.#violation(
        `nobody owns the volume: ${this.#owners
          .filter((one) => one.live)
          .map((one) => `node${one.nodeid} ${one.core.why}`)
          .join("; ")}`,
      );
    const owner = this.#owner();
    for (const [file, version] of this.#synced.entries()) {
      if (owner !== null && (owner.kernel?.version(file) ?? 0) < version) this.#violation(`file ${file} is not as it was synced`);
    }
  }

  async #until(reached: () => boolean): Promise<void> {
    while (!reached() && this.violations.length === 0 && this.agenda.step()) await new Promise((resolve) => setImmediate(resolve));
  }

  fail(error: unknown): void {
    this.#violation(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  tell(words: string): void {
    this.story.push(`${this.agenda.nowMs.toFixed(1)} ${words}`);
    if (this.story.length > 200) this.story.shift();
  }

  delayMs(): number {
    return this.random.between(0.2, 10);
  }

  machine(nodeid: number): SimMachine {
    const machine = this.machines[nodeid - 1];
    if (machine === undefined) throw new Error(`no node ${nodeid}`);
    return machine;
  }

  #violation(words: string): void {
    this.violations.push(`${this.agenda.nowMs.toFixed(1)} ms: ${words}`);
  }

  /* Lives ---------------------------------------------------------------------------------------------------------- */

  #start(machine: SimMachine): void {
    if (!machine.up || !machine.isMember || machine.owner?.dead === false) return;
    const owner = new SimOwner(this, machine, this.#owners.length + 1);
    machine.owner = owner;
    this.#owners.push(owner);
    this.tell(`node${machine.nodeid} starts ${owner.clientId}`);
    owner.start();
  }

  #startLater(machine: SimMachine): void {
    this.agenda.at(this.agenda.nowMs + this.random.between(300, 3000), () => this.#start(machine));
  }

  /** Its process exits. */
  ended(owner: SimOwner): void {
    this.tell(`node${owner.nodeid} ${owner.clientId} ends: ${owner.core.why}`);
    owner.kill();
    if (!owner.excluded) this.#forget(owner);
    this.#startLater(owner.machine);
  }

  #forget(owner: SimOwner, prefix = ""): void {
    const gone = { nodeid: owner.nodeid, incarnation: owner.incarnation, clientId: owner.clientId };
    for (const other of this.#owners) {
      if (other !== owner && other.live)
        this.#post(`gone>${other.clientId}`, () => this.#deliver(other, { kind: "gone", clients: [gone] }));
    }
    this.locks.forget(owner, prefix);
  }

  #owner(): SimOwner | null {
    return this.#owners.find((one) => one.live && one.core.role === "owner" && !one.excluded) ?? null;
  }

  /* The cluster ---------------------------------------------------------------------------------------------------- */

  #post(way: string, deliver: () => void): void {
    const atMs = Math.max(this.#lastOnWay.get(way) ?? 0, this.agenda.nowMs + this.delayMs());
    this.#lastOnWay.set(way, atMs);
    const owner = this.#owners.find((one) => isLockWay(way, one));
    this.agenda.at(atMs, () => {
      if (owner === undefined) return deliver();
      if (owner.excluded) return;
      if (owner.machine.heard) deliver();
      else this.#held.push({ owner, way, deliver });
    });
  }

  #deliver(owner: SimOwner, event: OwnerEvent): void {
    if (owner.live && !owner.excluded) owner.step(event);
  }

  /** No other node hears it from now on. The others go on without it after leaseWaitShare time-outs, by the fastest clock among them. */
  #unheard(machine: SimMachine): void {
    const fastest = Math.max(...this.machines.filter((one) => one !== machine).map((one) => one.rate));
    const waitMs = leaseWaitShare * TIMEOUT_MS + (this.random.chance(0.5) ? 0 : this.random.between(0, TIMEOUT_MS));
    const since = this.agenda.nowMs;
    const look = (): void => {
      if (machine.heard || !machine.isMember || this.#unheardSince.get(machine) !== since) return;
      const others = this.machines.filter((one) => one !== machine && one.heard && one.isMember).length;
      if (others * 2 > this.machines.length) this.#exclude(machine);
      else this.agenda.at(this.agenda.nowMs + 500, look);
    };
    this.#unheardSince.set(machine, since);
    this.agenda.at(since + waitMs / fastest, look);
  }
  readonly #unheardSince = new Map<SimMachine, number>();

  #exclude(machine: SimMachine): void {
    machine.isMember = false;
    this.count("nodes that the others went on without");
    this.tell(`node${machine.nodeid} is out`);
    const { owner } = machine;
    if (owner !== null && !owner.excluded) {
      const leaseMs = owner.leaseEndMs() - machine.nowMs();
      if (owner.live && leaseMs >= 0)
        this.#violation(`node${machine.nodeid} has a lease for ${leaseMs.toFixed(1)} ms when its locks are given to others`);
    }
    // A process that was killed meanwhile has its locks still: nobody has heard of its end.
    for (const one of this.#owners.filter((life) => life.machine === machine && !life.excluded)) {
      one.excluded = true;
      this.#held = this.#held.filter((held) => held.owner !== one);
      this.#forget(one, "purge of ");
    }
    for (const other of this.#owners) if (other.live && !other.excluded) other.step({ kind: "ask-again" });
  }

  /** It hears the others, and they hear it. */
  #heardAgain(machine: SimMachine): void {
    this.#unheardSince.delete(machine);
    if (machine.isMember) {
      const held = this.#held.filter(({ owner }) => owner.machine === machine);
      this.#held = this.#held.filter(({ owner }) => owner.machine !== machine);
      for (const { way, deliver } of held) this.#post(way, deliver);
      return;
    }
    this.agenda.at(this.agenda.nowMs + this.random.between(50, 800), () => this.#join(machine));
  }

  #join(machine: SimMachine): void {
    if (!machine.heard || machine.isMember) return;
    const { owner } = machine;
    machine.lives += 1;
    machine.isMember = true;
    this.tell(`node${machine.nodeid} joins`);
    for (const other of this.#owners) if (other.live && !other.excluded) other.step({ kind: "ask-again" });
    // A path that was cut comes back with the next boot.
    if (machine.path.cut) this.agenda.at(this.agenda.nowMs + 1000, () => this.#powerOff(machine, 3000));
    if (owner === null || owner.dead) return this.#startLater(machine);
    owner.step({ kind: "broken", error: new Error("the cluster went on without this node") });
  }

  askLife({ nodeid, startTime }: ProcessLife): LifeAnswer {
    const machine = this.machine(nodeid);
    if (!machine.heard || !machine.isMember) return { missing: "it is not in the view" };
    const { bootId, machineId } = machine;
    const process = this.#owners[startTime - 1]?.runs === true ? "alive" : "gone";
    return { seen: { bootId, machineId, process, device: machine.deviceBusy ? "busy" : "free" } };
  }

  proveHere(asker: SimOwner, life: Life): Proof {
    const { machine } = asker;
    if (life.bootId !== machine.bootId) return { kind: "rebooted" };
    const alive = this.#owners[Number(life.startTime) - 1]?.runs === true && Number(life.startTime) !== asker.clientId;
    return alive || machine.deviceBusy ? { kind: "none", why: "it runs, or its device is in use" } : { kind: "ended" };
  }

  fenceLife(asker: SimOwner, { nodeid, incarnation, bootId }: FenceQuestion): FenceAnswer {
    const machine = this.machine(nodeid);
    const refused = (why: string): FenceAnswer => ({ kind: "refused", why });
    if (asker.excluded || !asker.machine.heard) return refused("no quorum");
    if (machine.isMember) return refused("it is a member");
    const nowMs = asker.machine.nowMs();
    const life = `node${nodeid} ${incarnation} ${bootId}`;
    const fence = this.#fences.get(life);
    if (fence?.state === "fenced") return { kind: "fenced", by: "device", atMs: nowMs };
    if (fence === undefined) this.#fence(machine, life);
    return { kind: "running", sinceMs: fence?.sinceMs ?? nowMs, step: "device" };
  }

  #fence(machine: SimMachine, life: string): void {
    const fence = { state: "running" as "running" | "fenced", sinceMs: this.agenda.nowMs };
    this.#fences.set(life, fence);
    const done = (): void => {
      fence.state = "fenced";
      this.tell(`${life} is fenced`);
    };
    this.agenda.at(this.agenda.nowMs + this.random.between(50, 1500), () => {
      // It is back: the run ends without a fence.
      if (machine.isMember) return void this.#fences.delete(life);
      if (machine.liar) {
        this.count("fences that lied");
        return done();
      }
      this.count("fences");
      if (this.random.chance(0.5)) this.#powerOff(machine, this.random.between(2000, 8000));
      else machine.path.cutOff(false);
      this.agenda.at(this.agenda.nowMs + ARRAY_MS + 1, done);
    });
  }

  /* What must hold ------------------------------------------------------------------------------------------------- */

  claim(owner: SimOwner, claim: Claim): ClaimedLife {
    const life = { nodeid: owner.nodeid, clientId: owner.clientId, number: this.#claims.length + 1 };
    const proof = claim.proof?.kind ?? "released";
    this.#claims.push({ life, owner, proof });
    this.count(`claims: ${proof}`);
    this.tell(`node${owner.nodeid} ${owner.clientId} claims (${life.number}), ${proof}`);
    if (this.#healing) return life;
    // A process that is stopped just now may write its block late.
    if (this.random.chance(0.15)) this.agenda.at(this.agenda.nowMs + this.random.between(0, 25), () => this.#stopAndCut(owner));
    return life;
  }

  mounted(owner: SimOwner, files: readonly number[]): void {
    const number = this.#claims.findLast((one) => one.owner === owner)?.life.number ?? 0;
    this.tell(`node${owner.nodeid} ${owner.clientId} mounts (${number})`);
    for (const machine of this.machines) {
      const writer = machine !== owner.machine && !machine.path.cut && machine.kernels.some((kernel) => kernel.mounted && kernel.writes);
      if (writer) this.#violation(`node${owner.nodeid} mounts while node${machine.nodeid} may write`);
    }
    for (const [file, version] of files.entries()) {
      const synced = this.#synced[file] ?? 0;
      if (version < synced) this.#violation(`node${owner.nodeid} finds version ${version} of file ${file}, ${synced} was synced`);
    }
  }

  #landed(write: DiskWrite): void {
    const { life } = write;
    const last = this.#claims.at(-1);
    this.count("writes");
    if (last !== undefined && life.number < last.life.number) {
      this.#violation(
        `a write (${write.kind}) of claim ${life.number}, node${life.nodeid}, reaches the disk after claim ${last.life.number} of node${last.life.nodeid} (${last.proof})`,
      );
    }
    if (write.kind === "data" && write.version < (this.#synced[write.file] ?? 0)) this.#violation(`an old write covers what was synced`);
  }

  /** An owner that is back within a time-out has lost nothing, because the others wait longer: it keeps its disk. */
  selfFenced(owner: SimOwner): void {
    const aloneMs = this.agenda.nowMs - owner.heardMs;
    this.count("self-fences");
    this.tell(`node${owner.nodeid} lets go`);
    if (aloneMs < TIMEOUT_MS) this.#violation(`node${owner.nodeid} lets go of its disk ${aloneMs.toFixed(1)} ms after it was heard`);
  }

  /* Load and trouble ----------------------------------------------------------------------------------------------- */

  #load(): void {
    this.agenda.at(this.agenda.nowMs + this.random.between(20, 200), () => this.#load());
    const owner = this.#owners.find((one) => one.live && one.core.role === "owner" && !one.stopped && !one.machine.paused);
    const kernel = owner?.kernel ?? null;
    if (owner === undefined || kernel?.writes !== true || !this.#mayAnswer(owner)) return;
    const file = this.random.int(this.#synced.length);
    this.#version += 1;
    const version = this.#version;
    kernel.change(file, version, this.random.between(0, 2000));
    if (!this.random.chance(0.3)) return;
    kernel.fsync(file, () =>
      owner.deliver(() => {
        if (!this.#mayAnswer(owner)) return;
        this.count("answered fsyncs");
        this.#synced[file] = Math.max(this.#synced[file] ?? 0, version);
      }),
    );
  }

  #mayAnswer(owner: SimOwner): boolean {
    return owner.leaseCore.state === "holds" && owner.machine.nowMs() < owner.leaseEndMs();
  }

  #trouble(untilMs: number): void {
    if (this.agenda.nowMs >= untilMs) return;
    this.agenda.at(this.agenda.nowMs + this.random.between(200, 5000), () => this.#trouble(untilMs));
    const machine = this.random.pick(this.machines);
    // A liar is well but for the network: a disk that is quiet by accident shows no lie.
    if (!machine.up || machine.liar) return;
    const fate = this.random.int(10);
    const lastsMs = this.random.chance(0.3) ? this.random.between(100, 1500) : this.random.between(1500, 12_000);
    const owner = machine.owner?.live === true ? machine.owner : null;
    // Both at once: what the host holds back is what a fence is for.
    if ((fate < 3 || fate === 6) && this.random.chance(0.4)) this.#hang(machine, lastsMs + this.random.between(0, 8000));
    if (fate < 3) this.#cut(machine, lastsMs, this.random.chance(0.2));
    else if (fate === 3) this.#hang(machine, lastsMs);
    else if (fate === 4 && owner !== null) this.#stop(owner, lastsMs);
    else if (fate === 5) this.#pause(machine, lastsMs);
    else if (fate === 6 && owner !== null) this.#kill(owner);
    else if (fate === 7 && this.#spares(machine)) this.#powerOff(machine, this.random.between(2000, 8000));
    else if (fate === 8 && owner !== null) owner.step({ kind: "leave" });
    else if (fate === 9 && owner !== null && owner.core.role === "owner")
      owner.step({ kind: "hand-over", heir: this.random.pick(this.machines).nodeid });
  }

  /** A quorum is left without it. */
  #spares(machine: SimMachine): boolean {
    return this.machines.every((one) => one === machine || (one.heard && one.isMember));
  }

  #stopAndCut(owner: SimOwner): void {
    if (!owner.live || owner.machine.liar || !this.#spares(owner.machine)) return;
    this.count("processes stopped while they claim");
    this.#cut(owner.machine, 6000, false);
    this.#stop(owner, this.random.between(3000, 9000));
  }

  #cut(machine: SimMachine, lastsMs: number, liar: boolean): void {
    if (!machine.heard || !this.#spares(machine)) return;
    this.tell(`node${machine.nodeid} is cut off${liar ? ", and its fence lies" : ""}`);
    machine.liar = liar && !machine.path.hung && machine.owner?.stopped !== true;
    machine.owner?.leaseEndMs();
    machine.cut = true;
    this.#unheard(machine);
    this.agenda.at(this.agenda.nowMs + lastsMs, () => {
      if (!machine.cut) return;
      machine.cut = false;
      machine.liar = false;
      if (machine.heard) this.#heardAgain(machine);
    });
  }

  #hang(machine: SimMachine, lastsMs: number): void {
    if (machine.path.hung) return;
    this.tell(`the disk of node${machine.nodeid} hangs`);
    const { path } = machine;
    path.hung = true;
    this.agenda.at(this.agenda.nowMs + lastsMs, () => path.unhang());
  }

  #stop(owner: SimOwner, lastsMs: number): void {
    this.tell(`node${owner.nodeid} ${owner.clientId} is stopped`);
    owner.stopped = true;
    this.agenda.at(this.agenda.nowMs + lastsMs, () => owner.goOn());
  }

  #pause(machine: SimMachine, lastsMs: number): void {
    if (!machine.heard || !this.#spares(machine)) return;
    this.tell(`node${machine.nodeid} stands still`);
    machine.owner?.leaseEndMs();
    machine.paused = true;
    this.#unheard(machine);
    this.agenda.at(this.agenda.nowMs + lastsMs, () => {
      if (!machine.paused) return;
      machine.resume();
      if (machine.heard) this.#heardAgain(machine);
    });
  }

  #kill(owner: SimOwner): void {
    this.tell(`node${owner.nodeid} ${owner.clientId} is killed`);
    owner.kill();
    if (!owner.excluded) this.#forget(owner);
    this.#startLater(owner.machine);
  }

  #powerOff(machine: SimMachine, offMs: number): void {
    if (!machine.up) return;
    this.tell(`node${machine.nodeid} loses its power`);
    this.count("power failures");
    if (machine.heard) machine.owner?.leaseEndMs();
    if (machine.owner !== null) machine.owner.dead = true;
    machine.powerOff();
    if (machine.isMember) this.#unheard(machine);
    this.agenda.at(this.agenda.nowMs + offMs, () => {
      // Its life before is out by then.
      if (machine.isMember) this.#exclude(machine);
      machine.cut = false;
      machine.boot();
      this.#heardAgain(machine);
    });
  }

  #heal(): void {
    this.#healing = true;
    for (const machine of this.machines) {
      machine.liar = false;
      machine.path.unhang();
      machine.owner?.goOn();
      if (machine.paused) machine.resume();
      if (!machine.up || !machine.cut) {
        if (machine.heard) this.#heardAgain(machine);
        continue;
      }
      machine.cut = false;
      this.#heardAgain(machine);
    }
  }
}
