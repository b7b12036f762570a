/**
 * File locks that are kept for a mount that is away, in dlmd's service (hazard F45): this node asks for them before all that wait, while that mount has them, and gets them
 * when it lets go.
 */
import type { FileLocks } from "../../dlmd/client/file-lock-api.ts";
import { lockFileOf, type LockOwner } from "../file-lock/api.ts";
import { masterHas } from "../file-lock/file-locks.ts";
import type { RequestOf } from "../lower/wire/call-types.ts";

type DepositedLock = RequestOf<"deposit">["sharedLocks"][number];

export class KeptFileLocks {
  readonly #service: FileLocks;
  /** Numbers of requests without an answer. */
  readonly #asked = new Set<number>();
  readonly #owners = new Map<string, { readonly file: string; readonly owner: LockOwner }>();
  readonly #ranges = new Set<string>();
  #over = false;

  get count(): number {
    return this.#ranges.size;
  }

  constructor(service: FileLocks) {
    this.#service = service;
  }

  /** The same again does no harm. `refused`: dlmd has refused one. */
  ask(locks: readonly DepositedLock[], refused: (error: unknown) => void): void {
    for (const { id, owner, range, heldMs } of locks) {
      if (this.#over) return;
      const file = lockFileOf(id);
      const name = `${file} ${owner.kind} ${owner.owner}`;
      const whole = `${name} ${range.type} ${range.start} ${range.end}`;
      if (this.#ranges.has(whole)) continue;
      this.#ranges.add(whole);
      this.#owners.set(name, { file, owner });
      let isAnswered = false;
      let number = -1;
      // Who asks here which process has it is not on its node.
      number = this.#service.start("lock", file, { ...owner, pid: 0 }, range, { wait: true, first: true, heldMs }, (result) => {
        isAnswered = true;
        this.#asked.delete(number);
        if (this.#over) return;
        if (result instanceof Error) refused(result);
        else if (result.status !== "granted") refused(new Error(`file locks of ${file}: ${result.status}`));
      });
      if (!isAnswered) this.#asked.add(number);
    }
  }

  /** Resolves when the masters of these files have taken all that was asked of them before. */
  async hasQueued(locks: readonly DepositedLock[]): Promise<void> {
    await masterHas(this.#service, [...new Set(locks.map(({ id }) => lockFileOf(id)))]);
  }

  /** `others`: what is kept for the same mount once more stays. */
  end(others: readonly KeptFileLocks[]): void {
    this.#over = true;
    for (const number of this.#asked) this.#service.cancel(number);
    for (const [name, { file, owner }] of this.#owners)
      if (!others.some((other) => other.#owners.has(name))) this.#service.release(file, owner);
    this.#owners.clear();
  }
}
