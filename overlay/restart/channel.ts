/**
 * What the two processes of a mount say to each other: JSON, one object on a line, over a pair of Unix sockets that the new one inherits. README.md has the order.
 */
import type { Duplex } from "node:stream";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";

/** The descriptors of the new process: this channel, and /dev/fuse. */
export const CHANNEL_FD = 4;
export const FUSE_FD = 5;

export type Message =
  /** The new one: it has joined, and knows states of these versions. */
  | { say: "hello"; versions: number[]; pid: number }
  /** The old one, which is no client of dlmd any more: dlmd serves. */
  | { say: "dlmd" }
  /** The old one: it has stopped. In base64. */
  | { say: "state"; state: string }
  /** The new one: all is open at the owner, and the write tokens are queued for. */
  | { say: "ready" }
  /** The old one: it has let go. */
  | { say: "go" }
  /** The new one: dlmd has not granted all that the old one has let go of. It waits, and says so again. */
  | { say: "waiting" }
  /** The new one: it answers. */
  | { say: "serving" }
  /** The new one: it ends. */
  | { say: "failed"; why: string; final?: boolean | undefined };

const message: z.ZodType<Message> = z.discriminatedUnion("say", [
  z.object({ say: z.literal("hello"), versions: z.array(z.number()), pid: z.number() }),
  z.object({ say: z.literal("dlmd") }),
  z.object({ say: z.literal("state"), state: z.string() }),
  z.object({ say: z.literal("ready") }),
  z.object({ say: z.literal("go") }),
  z.object({ say: z.literal("waiting") }),
  z.object({ say: z.literal("serving") }),
  // Final: another process of this mount would fail as well.
  z.object({ say: z.literal("failed"), why: z.string(), final: z.boolean().optional() }),
]);

/** A longer line is not one: a million inodes take some 160 MB, and a string of Node.js has 512 MiB at most. */
export const LINE_BYTES_MAX: number = 384 * 1024 * 1024;

/** Code of an error with which every process that is to go on with this state would end. */
export const FINAL = "restart-final";

function unexpected(found: Message, expected: string): OperatingError {
  return new OperatingError(found.say === "failed" ? found.why : `${expected} expected, the other process said "${found.say}"`, {
    code: found.say === "failed" && found.final === true ? FINAL : "restart-failed",
    hint: "The log of the overlay says more.",
  });
}

export class Channel {
  readonly #stream: Duplex;
  readonly #bytesMax: number;
  #chunks: Buffer[] = [];
  #bytes = 0;
  readonly #messages: Message[] = [];
  #waiting: { readonly resolve: (message: Message) => void; readonly reject: (error: Error) => void } | null = null;
  #ended: Error | null = null;
  /** It broke, or the other process is gone. */
  readonly closed: Promise<void>;

  /** `bytesMax`: but in tests, LINE_BYTES_MAX. */
  constructor(stream: Duplex, bytesMax: number = LINE_BYTES_MAX) {
    this.#stream = stream;
    this.#bytesMax = bytesMax;
    let close: () => void = () => {};
    this.closed = new Promise((resolve) => {
      close = resolve;
    });
    const end = (why: string): void => {
      this.#fail(new OperatingError(why, { code: "restart-cut-off", hint: "The log of the overlay says what happened." }));
      close();
    };
    stream.on("error", (error) => end(`the channel between the two processes broke: ${error.message}`));
    stream.on("close", () => end("the other process has ended"));
    stream.on("end", () => end("the other process has ended"));
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
  }

  /** Throws if it is longer than the other end takes. */
  say(one: Message): void {
    const line = `${JSON.stringify(one)}\n`;
    if (line.length > this.#bytesMax)
      throw new OperatingError(`a message of at most ${this.#bytesMax} bytes expected, it has ${line.length}`, {
        code: "restart-too-large",
        hint: "The kernel knows too many files of this mount: unmount it, and mount it again.",
      });
    if (this.#ended === null) this.#stream.write(line);
  }

  /** The next message, which must be of that kind. Throws what went wrong, or that it took longer. `waits`: at each "waiting", after which the time begins anew. */
  async expect<K extends Message["say"]>(kind: K, limitMs: number, waits?: () => void): Promise<Extract<Message, { say: K }>> {
    const found = await this.#next(kind, limitMs);
    if (found.say === "waiting" && waits !== undefined) {
      waits();
      return this.expect(kind, limitMs, waits);
    }
    if (found.say === kind) return found as Extract<Message, { say: K }>;
    throw unexpected(found, `"${kind}"`);
  }

  /** The other process has said nothing more, and is there, as far as that can be known now. Throws what it said, or that it has ended. */
  async silent(): Promise<void> {
    // In the turn of its last message the kernel may have more of it, or its end: that is read in the next one.
    for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    const found = this.#messages.shift();
    if (found !== undefined) throw unexpected(found, "nothing");
    if (this.#ended !== null) throw this.#ended;
  }

  close(): void {
    this.#stream.destroy();
  }

  /** All that was said has left. */
  flushed(): Promise<void> {
    return new Promise((resolve) => this.#stream.write("", () => resolve()));
  }

  #next(kind: string, limitMs: number): Promise<Message> {
    const ready = this.#messages.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#ended !== null) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const late = (): void => {
        if (this.#waiting !== waiting) return;
        this.#waiting = null;
        reject(
          new OperatingError(`the other process has not said "${kind}" in ${limitMs / 1000} s`, {
            code: "restart-late",
            hint: "Try again.",
          }),
        );
      };
      // It may have said so while this process stood still: what it has said is read before.
      const timer = setTimeout(() => setImmediate(late), limitMs);
      const waiting = {
        resolve: (one: Message): void => {
          clearTimeout(timer);
          resolve(one);
        },
        reject: (error: Error): void => {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.#waiting = waiting;
    });
  }

  #receive(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes > this.#bytesMax) return void this.#stream.destroy(new Error(`more than ${this.#bytesMax} bytes without a line end`));
    if (!chunk.includes(0x0a)) return;
    const lines = Buffer.concat(this.#chunks).toString("utf8").split("\n");
    const rest = Buffer.from(lines.pop() ?? "");
    this.#chunks = [rest];
    this.#bytes = rest.length;
    for (const line of lines) this.#take(line);
  }

  #take(line: string): void {
    if (line === "") return;
    let one: Message;
    try {
      one = message.parse(JSON.parse(line));
    } catch (error) {
      this.#stream.destroy(new Error(`not a message: ${String(error).slice(0, 200)}`));
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) this.#messages.push(one);
    else waiting.resolve(one);
  }

  #fail(error: Error): void {
    this.#ended ??= error;
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.reject(this.#ended);
  }
}
