/**
 * The volume's disk, and the paths of nodes to it. A write waits in the host, then in the array, and lands. A path that hangs keeps what the host
 * has; one that is cut fails it. What the array has taken lands all the same, within ARRAY_MS: a fence's `settle` is for that.
 */
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";
import type { Agenda, Random } from "../random.ts";

/** The longest that a command stays in the array. */
export const ARRAY_MS = 200;

/** Who has mounted, or was about to: one claim. */
export interface ClaimedLife {
  readonly nodeid: number;
  readonly clientId: number;
  /** How many claims there were before it. */
  readonly number: number;
}

export type DiskWrite = { readonly life: ClaimedLife } & (
  | { readonly kind: "block"; readonly block: OwnerBlock }
  /** By the kernel, each second. */
  | { readonly kind: "mmp" }
  | { readonly kind: "data"; readonly file: number; readonly version: number }
);

export class DiskModel {
  block: OwnerBlock = { volumeUuid: "u", sequence: 0, epoch: 0, atMs: 0, state: "released", life: null };
  /** Versions of the files. */
  readonly files: number[] = [0, 0, 0, 0];
  mmpWrites = 0;
  readonly #landed: (write: DiskWrite) => void;

  constructor(landed: (write: DiskWrite) => void) {
    this.#landed = landed;
  }

  land(write: DiskWrite): void {
    this.#landed(write);
    if (write.kind === "block") this.block = write.block;
    else if (write.kind === "mmp") this.mmpWrites += 1;
    else this.files[write.file] = write.version;
  }
}

export interface PathWorld {
  readonly agenda: Agenda;
  readonly random: Random;
  readonly disk: DiskModel;
  /** Hazard R11: what was held back before a cut lands after it. */
  readonly leakyCut: boolean;
}

type Done = (error: Error | null) => void;

export class DiskPath {
  hung = false;
  cut = false;
  /** Commands of this path that are on their way. */
  under = 0;
  readonly #world: PathWorld;
  #waiting: (() => void)[] = [];

  constructor(world: PathWorld) {
    this.#world = world;
  }

  write(write: DiskWrite, done: Done): void {
    this.#submit(() => this.#world.disk.land(write), done);
  }

  read<T>(look: (disk: DiskModel) => T, done: (error: Error | null, found: T | null) => void): void {
    let found: T | null = null;
    this.#submit(
      () => (found = look(this.#world.disk)),
      (error) => done(error, found),
    );
  }

  unhang(): void {
    this.hung = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const go of waiting) go();
  }

  /** What the host has is never sent: it fails (a fence), or is forgotten with the host (`silently`: a power failure). */
  cutOff(silently: boolean): void {
    this.cut = true;
    if (silently) {
      this.under -= this.#waiting.length;
      this.#waiting = [];
    } else if (!this.#world.leakyCut) this.unhang();
  }

  #submit(land: () => void, done: Done): void {
    const { agenda, random, leakyCut } = this.#world;
    const fails = this.cut || !leakyCut;
    this.under += 1;
    const end = (error: Error | null): void => {
      this.under -= 1;
      done(error);
    };
    const send = (): void => {
      if (this.hung && !(this.cut && fails)) return void this.#waiting.push(send);
      if (this.cut && fails) return end(new Error("EIO"));
      // Most commands are quick; a few are as slow as the array allows.
      const arrayMs = random.chance(0.9) ? random.between(0.1, 5) : random.between(5, ARRAY_MS);
      agenda.at(agenda.nowMs + arrayMs, () => {
        land();
        end(this.cut ? new Error("EIO") : null);
      });
    };
    agenda.at(agenda.nowMs + random.between(0.05, 5), send);
  }
}
