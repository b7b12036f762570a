/**
 * What the owner's role asks of the volume's disk before, at and after a mount: each is a step with a name, on a thread of a pool or in a process
 * of its own, so that a disk that hangs keeps neither the mount's answers nor those to the lock manager.
 */
import { OperatingError } from "../../dlmd/base/error.ts";

/** A question that the disk has not answered by then is given up. */
export const DISK_ANSWER_LIMIT_MS = 5000;

interface Step {
  readonly what: string;
  readonly sinceMs: number;
  /** Of a question; else it may take long although the disk is well. */
  readonly limited: boolean;
  /** Why it takes so long, as far as it has said. */
  why: string;
}

export class DiskSteps {
  readonly #device: string;
  readonly #nowMs: () => number;
  readonly #running = new Set<Step>();
  /** Given up, and not back: it keeps a thread. */
  readonly #lost = new Set<Step>();

  constructor(device: string, nowMs: () => number = () => performance.now()) {
    this.#device = device;
    this.#nowMs = nowMs;
  }

  /** The longest step of those that are later than the limit, in words; null: the disk answers. */
  get silence(): string | null {
    const [oldest] = [...this.#running, ...this.#lost].sort((a, b) => a.sinceMs - b.sinceMs);
    if (oldest === undefined) return null;
    const ms = this.#nowMs() - oldest.sinceMs;
    if (ms < DISK_ANSWER_LIMIT_MS) return null;
    const seconds = Math.floor(ms / 1000);
    if (!oldest.limited) return `${this.#device}: ${oldest.what} has taken ${seconds} s so far${oldest.why}`;
    return `${this.#device} has not answered for ${seconds} s (${oldest.what})`;
  }

  /**
   * A question, which changes nothing. Throws OperatingError "device-silent" at the limit; its work then ends unheard. Until it
   * has ended no other one is asked: it could only wait, and keep one more thread.
   */
  async ask<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.#lost.size > 0) throw this.#silent(what);
    const step = this.#begin(what, true);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.#lost.add(step);
        reject(this.#silent(what));
      }, DISK_ANSWER_LIMIT_MS);
    });
    const answer = work().finally(() => this.#end(step));
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * A change, which is never given up: it could come to the disk later, when another node has it. Or a question to a tool, which has a limit
   * of its own. `report`: why it takes so long, for `silence`.
   */
  async carryOut<T>(what: string, work: (report: (why: string) => void) => Promise<T>): Promise<T> {
    const step = this.#begin(what, false);
    try {
      return await work((why) => void (step.why = `: ${why}`));
    } finally {
      this.#end(step);
    }
  }

  #begin(what: string, limited: boolean): Step {
    const step: Step = { what, sinceMs: this.#nowMs(), limited, why: "" };
    this.#running.add(step);
    return step;
  }

  #end(step: Step): void {
    this.#running.delete(step);
    this.#lost.delete(step);
  }

  #silent(what: string): OperatingError {
    return new OperatingError(`${this.silence ?? `${this.#device} does not answer`}; given up: ${what}`, {
      code: "device-silent",
      hint: "Look at the path to the disk (dmesg). It is asked again by itself.",
      exitStatus: 32,
    });
  }
}
