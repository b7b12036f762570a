/** A file system that a node's kernel has mounted: it writes by itself, whatever the process does, until it is unmounted or shut down. */
import type { ClaimedLife, DiskPath } from "./disk-model.ts";

/** Of the machine: nothing runs while it stands still. */
export interface KernelClock {
  after(ms: number, run: () => void): void;
}

export interface KernelOptions {
  readonly life: ClaimedLife;
  readonly path: DiskPath;
  readonly clock: KernelClock;
  /** Versions of the files as they are on the disk. */
  readonly files: readonly number[];
  /** The path fails: it writes nothing any more. */
  readonly failed: () => void;
}

const MMP_MS = 1000;

export class KernelMount {
  /** It may write still. */
  writes = true;
  mounted = true;
  readonly #options: KernelOptions;
  readonly #files: number[];
  /** Of files with a write under way: the kernel sends one at a time of a block. */
  readonly #sending = new Set<number>();
  readonly #dirty = new Set<number>();
  #waiters: { readonly file: number; readonly version: number; readonly done: () => void }[] = [];
  #stored: number[];
  #unmounting: (() => void) | null = null;
  #under = 0;

  constructor(options: KernelOptions) {
    this.#options = options;
    this.#files = [...options.files];
    this.#stored = [...options.files];
    this.#mmp();
  }

  /** A change in memory; written back a moment later. */
  change(file: number, version: number, backMs: number): void {
    this.#files[file] = version;
    this.#dirty.add(file);
    this.#options.clock.after(backMs, () => this.#writeBack(file));
  }

  version(file: number): number {
    return this.#files[file] ?? 0;
  }

  /** `done`: what the file holds now is on the disk. Never, if the disk fails. */
  fsync(file: number, done: () => void): void {
    this.#waiters.push({ file, version: this.version(file), done });
    this.#writeBack(file);
    this.#wake();
  }

  /** Nothing is sent any more; what is in memory is lost. */
  shutDown(): void {
    this.writes = false;
  }

  /** The machine has lost its power. */
  lost(): void {
    this.writes = false;
    this.mounted = false;
  }

  /** `done`: all is written back, or lost with the path, and the device is free. */
  unmount(done: () => void): void {
    this.#unmounting = done;
    for (const file of this.#dirty) this.#writeBack(file);
    this.#look();
  }

  #mmp(): void {
    this.#options.clock.after(MMP_MS, () => {
      if (!this.writes || this.#unmounting !== null) return;
      const { path, life } = this.#options;
      this.#send(() => path.write({ life, kind: "mmp" }, (error) => this.#sent(error)));
      this.#mmp();
    });
  }

  #writeBack(file: number): void {
    if (!this.writes || !this.#dirty.has(file) || this.#sending.has(file)) return;
    this.#dirty.delete(file);
    this.#sending.add(file);
    const version = this.version(file);
    const { path, life } = this.#options;
    this.#send(() =>
      path.write({ life, kind: "data", file, version }, (error) => {
        this.#sending.delete(file);
        if (error === null) this.#stored[file] = version;
        if (this.#unmounting !== null || this.#waiters.some((waiter) => waiter.file === file)) this.#writeBack(file);
        this.#wake();
        this.#sent(error);
      }),
    );
  }

  #send(submit: () => void): void {
    this.#under += 1;
    submit();
  }

  #sent(error: Error | null): void {
    this.#under -= 1;
    if (error !== null && this.writes) {
      this.writes = false;
      this.#options.failed();
    }
    this.#look();
  }

  #wake(): void {
    const ready = this.#waiters.filter(({ file, version }) => (this.#stored[file] ?? 0) >= version);
    this.#waiters = this.#waiters.filter((waiter) => !ready.includes(waiter));
    for (const { done } of ready) done();
  }

  #look(): void {
    if (this.#unmounting === null || this.#under > 0 || (this.writes && this.#dirty.size > 0)) return;
    const done = this.#unmounting;
    this.#unmounting = null;
    this.mounted = false;
    this.writes = false;
    done();
  }
}
