/** A node's machine: its clock, its boot, its path to the disk, its lock manager's life, and whether the others hear it. */
import type { Agenda } from "../random.ts";
import { DiskPath, type PathWorld } from "./disk-model.ts";
import type { KernelMount } from "./kernel-mount.ts";
import type { SimOwner } from "./sim-owner.ts";

export class SimMachine {
  readonly nodeid: number;
  readonly machineId: string;
  /** Of its clock: true time times that. */
  readonly rate: number;
  path: DiskPath;
  up = true;
  /** All of it stands still, its kernel too. */
  paused = false;
  /** No other node hears it, and it hears none. */
  cut = false;
  /** It is in the view. */
  isMember = true;
  /** Its fence says that it is done, and does nothing. */
  liar = false;
  boots = 1;
  lives = 1;
  owner: SimOwner | null = null;
  /** Tools that have the device, and may outlive the process that started them. */
  tools = 0;
  /** File systems that were mounted in this boot. */
  kernels: KernelMount[] = [];
  readonly #world: PathWorld & { readonly agenda: Agenda };
  #backlog: (() => void)[] = [];

  constructor(nodeid: number, rate: number, world: PathWorld) {
    this.nodeid = nodeid;
    this.machineId = `m${nodeid}`;
    this.rate = rate;
    this.#world = world;
    this.path = new DiskPath(world);
  }

  get heard(): boolean {
    return this.up && !this.paused && !this.cut;
  }

  get bootId(): string {
    return `boot ${this.boots} of ${this.nodeid}`;
  }

  /** Of its lock manager. */
  get incarnation(): string {
    return `${this.nodeid}.${this.lives}`;
  }

  get deviceBusy(): boolean {
    return this.tools > 0 || this.kernels.some((kernel) => kernel.mounted);
  }

  nowMs(): number {
    return this.#world.agenda.nowMs * this.rate;
  }

  trueMs(localMs: number): number {
    return localMs / this.rate;
  }

  /** Of the kernel. */
  after(ms: number, run: () => void): void {
    const boot = this.boots;
    this.#world.agenda.at(this.trueMs(this.nowMs() + ms), () => {
      if (boot !== this.boots || !this.up) return;
      if (this.paused) this.#backlog.push(run);
      else run();
    });
  }

  resume(): void {
    this.paused = false;
    for (const run of this.#backlog.splice(0)) run();
    this.owner?.goOn();
  }

  powerOff(): void {
    this.up = false;
    this.paused = false;
    this.#backlog = [];
    this.path.cutOff(true);
    for (const kernel of this.kernels) kernel.lost();
    this.kernels = [];
    this.tools = 0;
  }

  boot(): void {
    this.up = true;
    this.liar = false;
    this.boots += 1;
    this.lives += 1;
    this.path = new DiskPath(this.#world);
  }
}
