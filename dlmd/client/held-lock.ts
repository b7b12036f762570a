/**
 * Locks for `await`: what most programs want of dlmd, on top of the callbacks of api.ts (which servers use that have
 * thousands of requests under way).
 *
 *     const client = await connectDlm("/run/coverlay/dlmd.sock", { view() {}, gone: async () => {}, disconnected });
 *     const space = await client.lockspace("my-program");
 *     const lock = await takeLock(space, "job", Mode.EX, { onBast: () => finishSoon() });
 *     ...
 *     await lock.unlock();
 */
import { OperatingError } from "../base/error.ts";
import type { Mode } from "../wire/mode.ts";
import { type Lock, LockFlag, type LockStatus, type Lockspace, type RequestOptions } from "./api.ts";

export interface TakeOptions extends RequestOptions {
  /** Bits of LockFlag. */
  readonly flags?: number;
  /** The value block takes part in every request of this lock (LockFlag.VALBLK). */
  readonly lvb?: boolean;
  /** Takes the request back when it fires: the promise is rejected with "lock-canceled", unless the lock came first. */
  readonly signal?: AbortSignal;
  /** Somebody waits for a mode that this lock blocks; may repeat. Nothing has to be done, but then they wait. */
  readonly onBast?: (lock: HeldLock, wanted: Mode) => void;
}

export interface ConvertOptions extends RequestOptions {
  readonly flags?: number;
  readonly signal?: AbortSignal;
  /** What a conversion down from EX or PW writes; only with `lvb: true`. */
  readonly value?: Uint8Array;
}

export interface HeldLock {
  readonly resource: string;
  readonly mode: Mode;
  /** The value block as of the last request that read it; null: never written, or `lvb` was not asked for. */
  readonly value: Uint8Array | null;
  /** False: who wrote it may have died over it. What it says may be old. */
  readonly valueValid: boolean;
  /** To another mode. Rejected as `takeLock` is; the mode is then what it was. One request at a time. */
  convert(mode: Mode, options?: ConvertOptions): Promise<void>;
  /** Gives it up. From EX or PW `value` is written to the value block. */
  unlock(value?: Uint8Array): Promise<void>;
}

/** Code, what happened, what to do. */
const codes: Readonly<Record<Exclude<LockStatus, "granted" | "unlocked" | "error">, readonly [string, string, string]>> = {
  again: ["lock-busy", "somebody has it, and NOQUEUE was asked for", "Try again later, or wait for it without NOQUEUE."],
  canceled: ["lock-canceled", "the request was taken back", "Ask again."],
  deadlock: ["lock-deadlock", "whoever waits for it would wait for itself", "Give up what you hold and begin again."],
  timeout: ["lock-timeout", "it did not come in the time allowed", "`coverlay why` says who has it."],
};

function failure(lock: Lock, status: LockStatus): Error {
  if (status === "error" && lock.error !== null) return lock.error;
  const [code, why, hint] = codes[status as keyof typeof codes] ?? ["lock-failed", `it ended with "${status}"`, "Ask again."];
  return new OperatingError(`lock ${lock.resource}: ${why}`, { code, hint });
}

function over(lock: Lock, cause: Error): Error {
  const message = `lock ${lock.resource}: nobody answers any more: ${cause.message}`;
  return new OperatingError(message, { code: "lock-over", hint: "Connect anew: what this connection held is held no more.", cause });
}

class AwaitedLock implements HeldLock {
  readonly #space: Lockspace;
  readonly #lock: Lock;
  readonly #lvbFlag: number;
  #settle: ((status: LockStatus) => void) | null = null;
  /** The connection has ended, and this lock has heard of it. */
  #over: Error | null = null;

  constructor(space: Lockspace, resource: string, options: TakeOptions) {
    this.#space = space;
    this.#lvbFlag = options.lvb === true ? LockFlag.VALBLK : 0;
    this.#lock = space.createLock(resource, {
      ast: (_, status) => this.#settle?.(status),
      bast: (_, wanted) => options.onBast?.(this, wanted),
    });
  }

  get resource(): string {
    return this.#lock.resource;
  }
  get mode(): Mode {
    return this.#lock.mode;
  }
  get value(): Uint8Array | null {
    return this.#lock.lvb;
  }
  get valueValid(): boolean {
    return this.#lock.lvbValid;
  }

  #request(wanted: LockStatus, signal: AbortSignal | undefined, make: () => void): Promise<void> {
    if (this.#settle !== null) {
      const hint = "Wait for its promise before the next one.";
      return Promise.reject(new OperatingError(`lock ${this.resource}: a request is outstanding`, { code: "EBUSY", hint }));
    }
    if (this.#over !== null) return Promise.reject(this.#over);
    if (signal?.aborted === true) return Promise.reject(failure(this.#lock, "canceled"));
    return new Promise((resolve, reject) => {
      const cancel = (): void => this.#lock.cancel();
      const end = (settle: () => void): void => {
        signal?.removeEventListener("abort", cancel);
        hearNot();
        this.#settle = null;
        settle();
      };
      const hearNot = this.#space.whenOver((cause) => {
        this.#over = over(this.#lock, cause);
        end(() => reject(this.#over));
      });
      signal?.addEventListener("abort", cancel);
      this.#settle = (status) => end(() => (status === wanted ? resolve() : reject(failure(this.#lock, status))));
      try {
        make();
      } catch (error) {
        end(() => reject(error));
      }
    });
  }

  /** Of one that is there. */
  #requestHeld(wanted: LockStatus, signal: AbortSignal | undefined, make: () => void): Promise<void> {
    if (this.#settle !== null || this.#lock.exists) return this.#request(wanted, signal, make);
    const hint = "Take it again: takeLock().";
    return Promise.reject(new OperatingError(`lock ${this.resource}: it is given up`, { code: "ENOENT", hint }));
  }

  take(mode: Mode, { flags = 0, signal, ...times }: TakeOptions): Promise<void> {
    return this.#request("granted", signal, () => this.#lock.request(mode, flags | this.#lvbFlag, undefined, times));
  }

  convert(mode: Mode, { flags = 0, signal, value, ...times }: ConvertOptions = {}): Promise<void> {
    return this.#requestHeld("granted", signal, () => this.#lock.request(mode, flags | this.#lvbFlag, value, times));
  }

  unlock(value?: Uint8Array): Promise<void> {
    return this.#requestHeld("unlocked", undefined, () => this.#lock.unlock(value === undefined ? 0 : this.#lvbFlag, value));
  }
}

/**
 * Resolves when the lock is granted. Rejected with an OperatingError: "lock-busy" (NOQUEUE), "lock-canceled" (signal), "lock-timeout",
 * "lock-deadlock", "lock-over" (the connection has ended), or what dlmd refused it with (EINVAL, ENOLCK ...).
 */
export async function takeLock(space: Lockspace, resource: string, mode: Mode, options: TakeOptions = {}): Promise<HeldLock> {
  const lock = new AwaitedLock(space, resource, options);
  const { lvb: _lvb, onBast: _onBast, ...request } = options;
  await lock.take(mode, request);
  return lock;
}
