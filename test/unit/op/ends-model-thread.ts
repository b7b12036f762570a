/** A thread of a program of the model of ends (ends-model.ts). */
import { E } from "../../../dlmd/base/errno.ts";
import { PAGE_BYTES } from "../../../overlay/coherence/page-range.ts";
import type { EndsNode } from "./ends-model-node.ts";

/** What the programs keep the file to, more or less. */
export const SIZE_MAX: number = 3 * PAGE_BYTES;

export class EndsThread {
  readonly node: EndsNode;
  pid: number;
  readonly #holes: boolean;

  /** `holes`: it stays in one page, mostly. */
  constructor(node: EndsNode, pid: number, holes: boolean) {
    this.node = node;
    this.pid = pid;
    this.#holes = holes;
  }

  below(limit: number): number {
    return Math.floor(this.node.world.random() * limit);
  }

  place(): number {
    return this.below(this.#holes ? 300 : this.node.world.bytes.length + 1);
  }

  /** Also behind the end. */
  anywhere(): number {
    return this.#holes ? this.place() : this.below(SIZE_MAX);
  }

  say(text: string): void {
    this.node.world.say(`node ${this.node.id} pid ${this.pid}: ${text} (K ${this.node.kernel.size})`);
  }

  data(): Buffer {
    return Buffer.alloc(1 + this.below(this.node.world.random() < 0.5 ? 60 : PAGE_BYTES + 500), 1 + this.below(250));
  }

  get isDead(): boolean {
    return this.node.ended.has(this.pid);
  }

  /** As fuse_write_update_attr does where nothing was written. */
  failed(what: string, errno: number): void {
    this.node.kernel.written(0);
    if (errno !== E.EINTR || !this.isDead) this.node.world.note(`${what} ended with ${errno}`);
  }

  /** The kernel marks nothing then. */
  unmade(what: string, errno: number): void {
    if (errno === E.ENOSPC && what === "fallocate") return;
    if (errno !== E.EINTR || !this.isDead) this.node.world.note(`${what} ended with ${errno}`);
  }

  checkSize(begin: number, size: number, what: string): void {
    const sizes = this.node.world.since(begin).map(({ bytes }) => bytes.length);
    if (!sizes.includes(size)) this.node.world.note(`node ${this.node.id}: ${what} gave ${size}, and the file had ${sizes.join(", ")}`);
  }
}
