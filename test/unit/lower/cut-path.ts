/** Between callers and their owner: is cut at any byte, and keeps answers back. */
import { connect, createServer, type Server, type Socket } from "node:net";
import type { OwnerAddress } from "../../../overlay/lower/remote/connection.ts";
import type { Random } from "../../seeded-random.ts";

/** Some of what comes passes so much later, at most. */
const LATE_MS = 6;

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
}

export class CutPath {
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  readonly #random: Random;
  readonly #to: OwnerAddress;
  #port = 0;
  /** So many bytes still pass, in either direction; then all is cut. */
  #left: number | null = null;
  #held = false;
  readonly #cut: () => void;

  /** `cut`: connections were cut. */
  constructor(to: OwnerAddress, random: Random, cut: () => void) {
    this.#to = to;
    this.#random = random;
    this.#cut = cut;
    this.#server = createServer((near) => this.#accept(near));
  }

  get address(): OwnerAddress {
    return { ...this.#to, port: this.#port };
  }

  #accept(near: Socket): void {
    const far = connect(this.#to.port, this.#to.host);
    const pair = { near, far };
    this.#pairs.add(pair);
    for (const [from, into] of [
      [near, far],
      [far, near],
    ] as const) {
      const late: Buffer[] = [];
      from.on("data", (chunk: Buffer) => {
        if (late.length === 0 && this.#random.below(8) > 0) return this.#pass(chunk, into);
        if (late.push(chunk) > 1) return;
        setTimeout(() => {
          for (const one of late.splice(0)) this.#pass(one, into);
        }, this.#random.below(LATE_MS));
      });
      from.on("error", () => undefined);
      from.on("close", () => {
        this.#pairs.delete(pair);
        into.destroy();
      });
    }
    if (this.#held) far.pause();
  }

  #pass(chunk: Buffer, into: Socket): void {
    if (this.#left === null) return void into.write(chunk);
    const some = chunk.subarray(0, this.#left);
    this.#left -= some.length;
    if (some.length > 0) into.write(some);
    if (this.#left > 0) return;
    this.#left = null;
    this.#cut();
    for (const { near, far } of this.#pairs) {
      // What has left arrives, or not.
      const arrives = this.#random.below(2) === 0;
      for (const end of [near, far]) {
        if (arrives) end.end();
        else end.destroy();
      }
    }
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, this.#to.host, resolve));
    this.#port = (this.#server.address() as { port: number }).port;
  }

  cut(): void {
    this.#held = false;
    this.#left = null;
    this.#cut();
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  cutAfter(bytes: number): void {
    this.#left = bytes;
  }

  /** Of the owner's, and of connections that are held: as far as they have come here. */
  get heldBytes(): number {
    return [...this.#pairs].reduce((sum, { far }) => sum + far.readableLength, 0);
  }

  holdAnswers(): void {
    this.#held = true;
    for (const { far } of this.#pairs) far.pause();
  }

  letGo(): void {
    this.#held = false;
    this.#left = null;
    for (const { far } of this.#pairs) far.resume();
  }

  async close(): Promise<void> {
    this.cut();
    if (this.#server.listening) await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
