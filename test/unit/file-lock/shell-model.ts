/** One run of the model of file locks (shell-programs.ts): programs do something, messages come, and processes of the mounts are followed by others. */
import { vi } from "vitest";
import type { FileLockRow } from "../../../overlay/file-lock/api.ts";
import { seeded } from "../coherence/seeded.ts";
import { counts, KernelNode } from "./shell-programs.ts";
import { BYTES, type Program, ShellModel } from "./shell-told.ts";
import { type ShellProcess, ShellWorld } from "./shell-world.ts";

const STEPS = 300;
const STEPS_TO_REST_MAX = 3000;
const FILES = ["1.1", "2.1"];
const KINDS = ["process", "open file", "open file", "flock"] as const;

/** All that waits for nothing of the model has happened: as between two requests of the kernel. */
function promisesDrained(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A process that is to be followed by another one. */
interface Following {
  readonly kernel: KernelNode;
  readonly old: ShellProcess;
  next: ShellProcess | null;
  /** The masters know what the next one wants. */
  hasAsked: boolean;
  hasLetGo: boolean;
}

export class ShellRun {
  readonly #below: (limit: number) => number;
  readonly #world: ShellWorld;
  readonly #model = new ShellModel();
  readonly #kernels: readonly KernelNode[];
  #following: Following | null = null;
  /** In some seeds. */
  readonly #gates: boolean;

  constructor(seed: number) {
    const random = seeded(seed);
    this.#below = (limit) => Math.floor(random() * limit);
    const files = FILES.map((file) => `f${file}`);
    this.#world = new ShellWorld(this.#below, files);
    this.#gates = this.#below(3) === 0;
    this.#kernels = [0, 1, 2]
      .slice(0, 2 + this.#below(2))
      .map((node) => new KernelNode(this.#model, node, this.#world.start(node), this.#below(2) === 0));
  }

  #pick<T>(from: Iterable<T>): T | undefined {
    const all = [...from];
    return all[this.#below(all.length)];
  }

  async #turn(): Promise<void> {
    await promisesDrained();
    for (const work of this.#model.later.splice(0)) {
      work();
      await promisesDrained();
    }
  }

  // --- programs

  #act(): void {
    const kernel = this.#pick(this.#kernels) as KernelNode;
    const living = [...kernel.programs].filter(({ killed }) => !killed);
    const program = this.#pick(living);
    const what = this.#below(100);
    if (program === undefined || (what < 3 && living.length < 4)) return this.#begin(kernel, program ?? null);
    const open = this.#pick(program.open);
    if (open === undefined || what < 7) {
      if (program.open.size < 3) kernel.open(program, this.#pick(FILES) as string, this.#below(2) === 0);
    } else if (what < 11) kernel.close(program, open);
    else if (what < 16) kernel.kill(program);
    else if (what < 20 && kernel.unreleased.size > 0) kernel.release(this.#pick(kernel.unreleased) ?? open);
    else this.#lock(kernel, program, what < 40);
  }

  #begin(kernel: KernelNode, parent: Program | null): void {
    const born = kernel.start(this.#below(3) === 0 ? null : parent);
    if (born.open.size > 0) counts.forks += 1;
    else kernel.open(born, this.#pick(FILES) as string, this.#below(2) === 0);
  }

  #lock(kernel: KernelNode, program: Program, signals: boolean): void {
    const below = this.#below;
    const [thread, open] = [this.#pick(program.threads), this.#pick(program.open)];
    if (thread === undefined || open === undefined) return;
    if (thread.pending !== null) {
      if (signals && thread.pending.request.wait) kernel.signal(thread.pending);
      return;
    }
    const first = below(BYTES);
    const last = below(3) === 0 ? BYTES - 1 : Math.min(BYTES - 1, first + below(4));
    const [op, type] = [below(5) < 2 ? "unlock" : "lock", below(2) === 0 ? "read" : "write"] as const;
    kernel.ask(thread, open, this.#pick(KINDS) ?? "flock", { op, type, first, last, wait: below(3) > 0 });
  }

  // --- another process goes on

  #follow(): void {
    const following = this.#following;
    if (following === null) {
      if (this.#below(40) === 0) this.#end();
    } else if (following.next === null) this.#rest(following);
    else if (this.#below(4) === 0) this.#serve(following, following.next);
  }

  /** It comes to rest from now on, or is dead. */
  #end(): void {
    const kernel = this.#pick(this.#kernels) as KernelNode;
    const old = kernel.process;
    kernel.serves = false;
    const following: Following = { kernel, old, next: null, hasAsked: false, hasLetGo: false };
    this.#following = following;
    if (this.#below(2) === 0) return;
    old.over = old.crashed = true;
    counts.crashes += 1;
    this.#model.history.push(`the process of node ${kernel.node} crashes`);
    kernel.crashed();
    this.#takeOver(following, [...old.rows.values()]);
  }

  #rest(following: Following): void {
    const { kernel, old } = following;
    kernel.yield();
    if (kernel.isBusy || !old.locks.rest()) return;
    counts.restarts += 1;
    this.#model.history.push(`the process of node ${kernel.node} is restarted`);
    this.#takeOver(following, old.locks.rows());
  }

  #takeOver(following: Following, rows: readonly FileLockRow[]): void {
    const { kernel, old } = following;
    const next = this.#world.start(kernel.node);
    following.next = next;
    kernel.process = next;
    next.locks.inherit(rows, old.crashed);
    void next.locks.hasAsked().then(() => (following.hasAsked = true));
  }

  #serve(following: Following, next: ShellProcess): void {
    const { kernel, old, hasAsked, hasLetGo } = following;
    if (!hasAsked) return;
    if (!hasLetGo) {
      if (!old.crashed) old.locks.letGo();
      old.over = true;
      this.#world.forget(old);
      following.hasLetGo = true;
    }
    if (!next.locks.hasInherited) return;
    this.#model.history.push(`the next process of node ${kernel.node} serves`);
    kernel.goOn();
    if (old.crashed) next.locks.restEnds();
    this.#following = null;
  }

  // --- the run

  async #settle(): Promise<void> {
    this.#world.blocked = false;
    for (let idle = 0, steps = 0; idle < 30; steps += 1) {
      if (steps > STEPS_TO_REST_MAX) return void this.#model.broken.push("it never comes to rest");
      const delivered = this.#world.deliver();
      this.#follow();
      await this.#turn();
      idle = delivered || this.#following !== null || this.#model.later.length > 0 ? 0 : idle + 1;
      if (!delivered) vi.advanceTimersByTime(100);
    }
    counts.rests += 1;
    this.#model.judgeRest(this.#kernels);
  }

  /** What is wrong, and what happened; empty: nothing is. */
  async result(): Promise<readonly string[]> {
    const { broken, history } = this.#model;
    for (let step = 0; step < STEPS && broken.length === 0; step += 1) await this.#step();
    if (broken.length === 0) await this.#closeAll();
    return broken.length > 0 ? [...broken, ...history] : [];
  }

  async #step(): Promise<void> {
    const below = this.#below;
    this.#act();
    await promisesDrained();
    this.#follow();
    for (let left = below(4); left > 0; left -= 1) {
      this.#world.deliver();
      if (below(3) > 0) await this.#turn();
    }
    await this.#turn();
    this.#elsewhere();
    if (below(8) === 0) vi.advanceTimersByTime(below(60));
    if (below(60) === 0) vi.advanceTimersByTime(2000);
    if (below(50) === 0) await this.#settle();
  }

  /** What no program asks for. */
  #elsewhere(): void {
    const below = this.#below;
    const kernel = this.#pick(this.#kernels) as KernelNode;
    const file = `f${this.#pick(FILES)}`;
    if (below(30) === 0) this.#world.sentence();
    if (this.#gates && below(this.#world.blocked ? 10 : 30) === 0) {
      this.#world.blocked = !this.#world.blocked;
      if (this.#world.blocked) counts.gates += 1;
    }
    if (!kernel.serves) return;
    if (below(30) === 0) void kernel.process.locks.gather([file]);
    if (below(20) === 0) kernel.process.locks.forgotten(file);
  }

  async #closeAll(): Promise<void> {
    const { broken } = this.#model;
    await this.#settle();
    for (const kernel of this.#kernels) for (const program of kernel.programs) if (!program.killed) kernel.kill(program);
    await this.#settle();
    for (const kernel of this.#kernels) for (const open of kernel.unreleased) kernel.release(open);
    await this.#settle();
    for (const { process, programs, waiting, node } of this.#kernels) {
      if (programs.size + waiting.size > 0) broken.push(`node ${node}: ${programs.size} programs and ${waiting.size} requests do not end`);
      const left = process.locks.describe().files;
      if (left.length > 0) broken.push(`node ${node}: ${JSON.stringify(left)} is left`);
      for (const file of FILES) process.locks.forgotten(`f${file}`);
    }
    await this.#settle();
    for (const { process, node } of this.#kernels) if (process.locks.inUse) broken.push(`node ${node}: file locks are in use for ever`);
    if (this.#world.inService() > 0) broken.push(`${this.#world.inService()} locks or requests are left in the service`);
  }
}
