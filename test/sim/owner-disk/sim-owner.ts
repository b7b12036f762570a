/**
 * One life of a mount's process, of the code that ships: the owner's state machine, the taking of the device, the proofs, the lease and the
 * self-fence, by the clock of its node. Mounting and releasing follow overlay/volume/lower-mount.ts. A process that is stopped hears nothing, and
 * its timers and answers wait; its kernel goes on.
 */
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { FenceAnswer, LifeAnswer } from "../../../dlmd/client/api.ts";
import { leaseMarginMs, PublishedLease } from "../../../dlmd/membership/lease.ts";
import { LeaseCore } from "../../../overlay/lease/lease-core.ts";
import { WITHDRAW_AGAIN_MS } from "../../../overlay/lower/server/disk-fault.ts";
import { SelfFence } from "../../../overlay/serve/self-fence.ts";
import { OWNER_BLOCK_EVERY_MS } from "../../../overlay/serve/withdrawal.ts";
import { FenceProof } from "../../../overlay/volume/fence-proof.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import type { Mmp } from "../../../overlay/volume/mmp.ts";
import { isSameBlock, type OwnerBlock } from "../../../overlay/volume/owner-block.ts";
import { PROOF_RETRY_MS, REACH_AGAIN_MIN_MS } from "../../../overlay/volume/owner.ts";
import { OwnerCore } from "../../../overlay/volume/owner-core.ts";
import type { Claim, OwnerEffect, OwnerEvent } from "../../../overlay/volume/owner-event.ts";
import { createProveGoneAnywhere, type ProveGoneAnywhere } from "../../../overlay/volume/prove-elsewhere.ts";
import { type BlockAccess, claimingProcess, isAnothers, type Taken, takeDevice } from "../../../overlay/volume/taking.ts";
import type { ClaimedLife } from "./disk-model.ts";
import { KernelMount } from "./kernel-mount.ts";
import type { OwnerDiskSim } from "./owner-disk-sim.ts";
import type { SimMachine } from "./sim-machine.ts";

export const TIMEOUT_MS = 3000;
const FIRST_VIEW = { epoch: 1, proposer: 1, incarnation: "0" };

export class SimOwner {
  readonly clientId: number;
  readonly incarnation: string;
  readonly core: OwnerCore;
  readonly machine: SimMachine;
  readonly lease: PublishedLease;
  readonly leaseCore: LeaseCore = new LeaseCore();
  kernel: KernelMount | null = null;
  /** The others went on without it. */
  excluded = false;
  stopped = false;
  dead = false;
  left = false;
  /** True time of the last heartbeat that a quorum acknowledged. */
  heardMs = 0;
  /** Commands of its own to the disk, and mount(2): a process that was killed ends after them. */
  #under = 0;
  readonly #sim: OwnerDiskSim;
  readonly #selfFence: SelfFence;
  readonly #prove: ProveGoneAnywhere;
  #taken: Taken | null = null;
  #backlog: (() => void)[] = [];
  #watches = 0;

  constructor(sim: OwnerDiskSim, machine: SimMachine, clientId: number) {
    this.#sim = sim;
    this.machine = machine;
    this.clientId = clientId;
    const { nodeid } = machine;
    this.incarnation = machine.incarnation;
    const nodes = sim.machines.map((one) => ({ nodeid: one.nodeid, name: `node${one.nodeid}` }));
    this.core = new OwnerCore({
      nodeid,
      incarnation: this.incarnation,
      clientId,
      nodes,
      process: claimingProcess("/dev/null", this.#asMachine()),
      reachesLower: true,
    });
    const members = sim.machines.map((one) => ({ nodeid: one.nodeid, incarnation: `of ${one.nodeid}` }));
    this.lease = new PublishedLease(members[nodeid - 1] ?? { nodeid, incarnation: "" }, TIMEOUT_MS);
    const voters = nodes.map((one) => ({ nodeid: one.nodeid, votes: 1 }));
    this.lease.tell(FIRST_VIEW, { members, grounds: [{ nodes: voters, needed: Math.floor(nodes.length / 2) + 1 }] });
    const after = (ms: number, run: () => void): (() => void) => this.after(ms, run);
    this.#selfFence = new SelfFence({ marginMs: leaseMarginMs(TIMEOUT_MS), letGo: (why) => this.#letGo(why), timers: { after } });
    this.#prove = this.#createProve();
  }

  get nodeid(): number {
    return this.machine.nodeid;
  }

  get live(): boolean {
    return !this.dead && !this.left;
  }

  /** As the kernel of its machine sees it. */
  get runs(): boolean {
    return !this.dead || this.#under > 0;
  }

  start(): void {
    this.step({ kind: "start" });
    this.#lookAtLease();
  }

  /** Now, or when it runs again; never, if it has ended. */
  deliver(run: () => void): void {
    if (this.dead) return;
    if (this.stopped || this.machine.paused) this.#backlog.push(run);
    else run();
  }

  goOn(): void {
    this.stopped = false;
    if (this.machine.paused) return;
    for (const run of this.#backlog.splice(0)) this.deliver(run);
  }

  /** By the clock of its node. The answer ends the wait. */
  after(ms: number, run: () => void): () => void {
    let ended = false;
    this.#sim.agenda.at(this.machine.trueMs(this.machine.nowMs() + ms), () =>
      this.deliver(() => {
        if (!ended) run();
      }),
    );
    return () => void (ended = true);
  }

  step(event: OwnerEvent): void {
    this.deliver(() => {
      if (this.left) return;
      for (const effect of this.core.step(event)) this.#perform(effect);
    });
  }

  kill(): void {
    this.dead = true;
    const { kernel } = this;
    // The kernel unmounts what a process leaves behind.
    kernel?.unmount(() => undefined);
  }

  /* The lease ------------------------------------------------------------------------------------------------------ */

  /** The end of its lease by its own clock; a quorum acknowledges all that it says. */
  leaseEndMs(): number {
    if (this.machine.heard && !this.excluded) {
      this.heardMs = this.#sim.agenda.nowMs;
      for (const { nodeid } of this.#sim.machines) {
        if (nodeid !== this.nodeid) this.lease.acked({ from: nodeid, incarnation: `of ${nodeid}` }, this.machine.nowMs());
      }
    }
    return this.lease.endMs;
  }

  #lookAtLease(): void {
    if (!this.live) return;
    const nowMs = this.machine.nowMs();
    const endMs = this.leaseEndMs();
    const change = this.leaseCore.look(endMs, nowMs);
    if (change === "lapse") this.#selfFence.lapsed();
    else if (change === "renew") this.#selfFence.end();
    const nextMs = this.leaseCore.nextLookMs(endMs, nowMs);
    // As lease.ts: a whole number, or the time might not move on.
    if (nextMs !== null) this.after(Math.ceil(nextMs), () => this.#lookAtLease());
  }

  #letGo(why: string): void {
    if (!this.live) return;
    this.#sim.selfFenced(this);
    this.step({ kind: "self-fence", why });
  }

  /* What its state machine asks for -------------------------------------------------------------------------------- */

  #perform(effect: OwnerEffect): void {
    const sim = this.#sim;
    switch (effect.kind) {
      case "request":
      case "unlock":
      case "probe-mounters":
        return sim.locks.perform(this, effect);
      case "read-owner-block":
        return this.#answer(
          this.#readBlock(),
          (block) => ({ kind: "owner-block", block }),
          (error) => ({ kind: "owner-block-failed", error }),
        );
      case "prove-gone":
        return this.#answer(
          this.#prove(effect, (why) => this.step({ kind: "proof-waits", why })),
          (proof) => ({ kind: "proved", proof }),
          (error) => ({ kind: "proved", proof: { kind: "none", why: error.message } }),
        );
      case "ask-later":
        return void this.after(PROOF_RETRY_MS, () => this.step({ kind: "ask-again" }));
      case "reach-later":
        return void this.after(effect.after === "withdrawal" ? WITHDRAW_AGAIN_MS : REACH_AGAIN_MIN_MS, () =>
          this.#answer(
            this.#readBlock(),
            () => ({ kind: "reached", error: null }),
            (error) => ({ kind: "reached", error }),
          ),
        );
      case "mount-lower":
        return this.#answer(
          this.#mount(effect.epochAbove, effect.claim),
          (epoch) => ({ kind: "mounted", epoch, address: "10.0.0.1", port: 7000 }),
          (error) => {
            // As ../../../overlay/serve/owner-service.ts does.
            if (error instanceof OperatingError && ["lease-lapsed", "not-given-back"].includes(error.code)) this.#end(error.code);
            return { kind: "mount-failed", error };
          },
        );
      case "release-lower":
        return this.#answer(
          this.#release(),
          () => ({ kind: "released" }),
          (error) => ({ kind: "release-failed", error, letGo: error instanceof OperatingError && error.code === "let-go" }),
        );
      case "become-owner":
        return this.#watch();
      case "left":
        return this.#end("left");
      case "withdrawal-seen":
      case "owner-found":
      case "owner-lost":
        return;
    }
  }

  /** Its process exits. */
  #end(why: string): void {
    if (!this.live) return;
    this.left = true;
    this.#selfFence.end();
    this.leaseCore.end();
    this.#sim.count(`ends: ${why}`);
    this.#sim.ended(this);
  }

  #answer<T>(work: Promise<T>, good: (value: T) => OwnerEvent, bad: (error: Error) => OwnerEvent): void {
    work
      .then(
        (value) => this.step(good(value)),
        (error: unknown) => this.step(bad(error instanceof Error ? error : new Error(String(error)))),
      )
      .catch((error: unknown) => this.#sim.fail(error));
  }

  /* The disk ------------------------------------------------------------------------------------------------------- */

  #readBlock(): Promise<OwnerBlock> {
    return new Promise((resolve, reject) =>
      this.machine.path.read(
        (disk) => disk.block,
        (error, block) => this.deliver(() => (error === null && block !== null ? resolve(block) : reject(ioError(error)))),
      ),
    );
  }

  #access(life: ClaimedLife): BlockAccess {
    const { path } = this.machine;
    return {
      readOwnerBlock: () => this.#readBlock(),
      writeOwnerBlock: (_device, _offset, block) =>
        // A process may be stopped between its last look at the lease and the write.
        this.#asked(() => {}).then(
          () =>
            new Promise((resolve, reject) => {
              this.#under += 1;
              path.write({ life, kind: "block", block }, (error) => {
                this.#under -= 1;
                this.deliver(() => (error === null ? resolve() : reject(ioError(error))));
              });
            }),
        ),
      // The block alone says whose MMP it is: the kernel's own check would hide what is looked for here.
      readMmp: () => this.#readBlock().then(({ life: named }) => named && heldBy(named)),
      clearMmp: (_device, mayWrite) => this.#clearMmp(life, mayWrite),
      forgetOldErrors: () => this.#readBlock().then(() => undefined),
      machine: this.#asMachine(),
    };
  }

  /** A tool does that: it goes on, whatever becomes of the process, and holds the device. */
  async #clearMmp(life: ClaimedLife, mayWrite: () => void): Promise<void> {
    mayWrite();
    await this.#asked(() => {});
    const { machine } = this;
    const { path } = machine;
    this.#sim.count("tools that clear MMP");
    machine.tools += 1;
    const error = await new Promise<Error | null>((resolve) =>
      path.write({ life, kind: "mmp" }, (failed) => {
        if (path === machine.path) machine.tools -= 1;
        this.deliver(() => resolve(failed));
      }),
    );
    if (error !== null) throw ioError(error);
  }

  #asMachine(): BlockAccess["machine"] {
    const { bootId, machineId } = this.machine;
    return { bootId: () => bootId, machineId: () => machineId, startTimeOf: () => BigInt(this.clientId) };
  }

  async #mount(epochAbove: number, claim: Claim): Promise<number> {
    const life = this.#sim.claim(this, claim);
    const type = this.#sim.random.pick(["xfs", "ext4"]);
    const taken = await takeDevice({
      device: "/dev/null",
      offset: 0,
      volumeUuid: "u",
      superblock: { type, uuid: "u" } as never,
      readOnly: false,
      epoch: epochAbove + 1,
      taking: {
        self: { nodeid: this.nodeid, incarnation: this.incarnation, clientId: this.clientId },
        claim,
        mayMount: () => !this.#sim.asksLease || this.machine.nowMs() < this.leaseEndMs(),
        disk: { ask: (_what, work) => work(), carryOut: (_what, work) => work(() => {}) },
      },
      blocks: this.#access(life),
    });
    this.#taken = taken;
    try {
      taken.requireLease();
      // It may be stopped between that look and mount(2), too.
      await this.#asked(() => {});
      this.kernel = await this.#mountKernel(life);
    } catch (error) {
      return taken.undo(error);
    }
    try {
      await taken.confirm();
    } catch (error) {
      await this.#release();
      throw error;
    }
    return taken.epoch;
  }

  /** mount(2) reads the disk by itself, and goes on if its caller is stopped meanwhile. */
  #mountKernel(life: ClaimedLife): Promise<KernelMount> {
    const { machine } = this;
    const { path } = machine;
    this.#under += 1;
    return new Promise((resolve, reject) =>
      path.read(
        (disk) => [...disk.files],
        (error, files) => {
          this.#under -= 1;
          if (error !== null || files === null || path.cut) return this.deliver(() => reject(ioError(error)));
          if (this.dead) return;
          const failed = (): void => this.step({ kind: "withdraw", why: "EIO" });
          const kernel = new KernelMount({ life, path, clock: machine, files, failed });
          this.kernel = kernel;
          machine.kernels.push(kernel);
          this.#sim.mounted(this, files);
          this.deliver(() => resolve(kernel));
        },
      ),
    );
  }

  async #release(): Promise<void> {
    const { kernel } = this;
    const taken = this.#taken;
    if (kernel === null || taken === null) return;
    const anothers = await taken.confirm().then(
      () => null,
      (error: unknown) => (isAnothers(error) ? error : null),
    );
    if (anothers !== null) kernel.shutDown();
    const wrote = kernel.writes;
    await new Promise<void>((resolve) => kernel.unmount(() => this.deliver(resolve)));
    this.kernel = null;
    if (anothers !== null) throw anothers;
    if (!wrote) throw new OperatingError("not clean", { code: "let-go", hint: "" });
    try {
      await taken.giveBack();
    } catch (error) {
      if (isAnothers(error)) throw error;
      throw new OperatingError(String(error), { code: "let-go", hint: "" });
    }
  }

  /** As ../../../overlay/serve/withdrawal.ts does. */
  #watch(): void {
    const watch = ++this.#watches;
    const look = (): void =>
      void this.after(OWNER_BLOCK_EVERY_MS, () => {
        const { kernel } = this;
        const taken = this.#taken;
        if (watch !== this.#watches || !this.live || kernel === null || taken === null || this.core.role !== "owner") return;
        taken
          .confirm()
          .catch((error: unknown) => {
            if (!isAnothers(error) || this.core.role !== "owner") return;
            kernel.shutDown();
            this.#sim.count("owners that found their block another's");
            this.step({ kind: "withdraw", why: "the block is another's" });
          })
          .catch((error: unknown) => this.#sim.fail(error));
        look();
      });
    look();
  }

  /* Proofs --------------------------------------------------------------------------------------------------------- */

  #createProve(): ProveGoneAnywhere {
    const sim = this.#sim;
    const fence = new FenceProof({
      fenceLife: (question): Promise<FenceAnswer> => this.#asked(() => sim.fenceLife(this, question)),
      isMember: (nodeid) => sim.machine(nodeid).isMember,
      heard: (nodeid) => this.#asked(() => ({ incarnation: sim.machine(nodeid).incarnation, now: sim.machine(nodeid).heard })),
      fences: () => Promise.resolve({ quorumForMs: null, history: [] }),
      activity: () =>
        new Promise((resolve, reject) =>
          this.machine.path.read(
            (disk) => ({ mark: String(disk.mmpWrites), everyMs: 1000 }),
            (error, found) => this.deliver(() => (error === null && found !== null ? resolve(found) : reject(ioError(error)))),
          ),
        ),
      volume: "data",
      nameOf: (nodeid) => `node${nodeid}`,
      log: silentLog,
      nowMs: () => this.machine.nowMs(),
      wallMs: () => this.machine.nowMs(),
    });
    const { nodeid } = this.machine;
    return createProveGoneAnywhere({
      nodeid,
      nameOf: (other) => `node${other}`,
      isUnchanged: async (then) => isSameBlock(await this.#readBlock(), then),
      askLife: (life): Promise<LifeAnswer> => this.#asked(() => sim.askLife(life)),
      here: (life) => this.#asked(() => sim.proveHere(this, life)),
      fence,
      nowMs: () => this.machine.nowMs(),
      wait: (ms) => new Promise<void>((resolve) => this.after(ms, resolve)),
    });
  }

  /** A question to the cluster, there and back. */
  #asked<T>(answer: () => T): Promise<T> {
    return new Promise((resolve) => this.after(this.#sim.delayMs(), () => resolve(answer())));
  }
}

function heldBy({ hostName, device }: Life): Mmp {
  return { state: "in-use", hostName, deviceName: device.split("/").at(-1) ?? "", atS: 0 };
}

function ioError(error: Error | null): OperatingError {
  return new OperatingError(error?.message ?? "nothing was read", { code: "device-io", hint: "" });
}
