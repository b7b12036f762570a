/**
 * What may be done to the size of one file at the same time. Calls that change it ("changes"), answers that tell it ("tellers"), and the system
 * calls of our own that have the kernel take it over ("refreshes", threads.ts) keep out of each other's way:
 *
 * - A teller goes on when no change is under way; changes that come meanwhile wait for it, so it gets its turn. A truncation does not: it holds
 *   write-backs up, and a change whose caller was killed may wait for these, as it may for the pages of one that holds some (hazard F11). No other call of the file
 *   runs beside it, so a teller's turn comes. One that met a wrong size comes again after the changes that wait by then, since the kernel may take no size before.
 * - A change begins when the refreshes are over: the kernel truncates its page cache at their end, and would have cut what the change
 *   put there. One that may hold pages locked in the kernel does not wait for them, since they may wait for its pages.
 * - The answer to a refresh goes out when no change is under way, because pages of the old end may not be dropped yet; or, of one that
 *   holds pages, when it is made, because the refresh may be what lets it hold them.
 */
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { Cover } from "../cover.ts";
import type { Asking } from "./kernel-sizes.ts";

/** Whose change it is. */
type Changer = Pick<Asking, "interrupted">;

interface Waiting {
  readonly may: () => boolean;
  readonly go: () => void;
  readonly isChange: boolean;
  entered: boolean;
}

export class SizeGate {
  /** Begun and not answered: those that hold no pages, and those that may; of these, not made yet. */
  #direct = 0;
  #holding = 0;
  #making = 0;
  readonly #changers: Changer[] = [];
  /** Inside, and waiting to come in. */
  #telling = 0;
  #toTell = 0;
  #refreshing = 0;
  /** Those of them that a program's own thread does (caller-repair.ts): where nobody here fills pages. */
  #byCallers = 0;
  #stale = false;
  #waiting: Waiting[] = [];

  get changing(): boolean {
    return this.#direct + this.#holding > 0;
  }

  get refreshing(): boolean {
    return this.#refreshing > 0;
  }

  /** A refresh is under way, and the file was changed since it began: what it truncates may be data by now. */
  get stale(): boolean {
    return this.#stale;
  }

  get idle(): boolean {
    return this.#direct + this.#holding + this.#telling + this.#refreshing + this.#waiting.length === 0;
  }

  begin(holdsPages: boolean, changer: Changer, truncates = false): MaybePromise<void> {
    const passes = (): boolean => this.#toTell === 0 || truncates || (holdsPages && this.#changers.some(({ interrupted }) => interrupted));
    const may = (): boolean => this.#telling === 0 && passes() && (holdsPages || this.#refreshing === 0);
    return this.#enter(
      may,
      () => {
        this.#changers.push(changer);
        if (!holdsPages) this.#direct += 1;
        else {
          this.#holding += 1;
          this.#making += 1;
        }
      },
      true,
    );
  }

  /** To be called once for each change that holds pages, before `end`. */
  made(): void {
    this.#making -= 1;
    if (this.#refreshing > this.#byCallers) this.#stale = true;
    this.#goOn();
  }

  end(holdsPages: boolean, changer: Changer): void {
    this.#changers.splice(this.#changers.indexOf(changer), 1);
    if (holdsPages) this.#holding -= 1;
    else this.#direct -= 1;
    this.#goOn();
  }

  tell(): MaybePromise<void> {
    this.#toTell += 1;
    return this.#enter(
      () => !this.changing,
      () => {
        this.#toTell -= 1;
        this.#telling += 1;
      },
    );
  }

  /** For a teller before it comes again: until the changes that wait now have begun. Two tellers that take turns would keep them out. */
  lettingIn(): MaybePromise<void> {
    const changes = this.#waiting.filter(({ isChange }) => isChange);
    return this.#enter(
      () => changes.every(({ entered }) => entered),
      () => {},
    );
  }

  /** For the answer to a refresh. */
  tellRefresh(): MaybePromise<void> {
    return this.#enter(
      () => this.#direct + this.#making === 0,
      () => (this.#telling += 1),
    );
  }

  told(): void {
    this.#telling -= 1;
    this.#goOn();
  }

  refresh(byCaller = false): void {
    this.#refreshing += 1;
    if (byCaller) this.#byCallers += 1;
  }

  refreshed(byCaller = false): void {
    this.#refreshing -= 1;
    if (byCaller) this.#byCallers -= 1;
    if (this.#refreshing === 0) this.#stale = false;
    this.#goOn();
  }

  /** Until no refresh is under way. */
  quiet(): MaybePromise<void> {
    return this.#enter(
      () => this.#refreshing === 0,
      () => {},
    );
  }

  #enter(may: () => boolean, enter: () => void, isChange = false): MaybePromise<void> {
    if (may()) {
      enter();
      return undefined;
    }
    return new Promise((resolve) => {
      const waiting: Waiting = {
        may,
        go: () => {
          enter();
          waiting.entered = true;
          resolve();
        },
        isChange,
        entered: false,
      };
      this.#waiting.push(waiting);
    });
  }

  #goOn(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const one of waiting) {
      if (one.may()) one.go();
      else this.#waiting.push(one);
    }
  }
}

/** Those of files with something under way. */
export class SizeGates {
  readonly #gates = new Map<Cover, SizeGate>();

  /** undefined: nothing is under way. */
  get(cover: Cover): SizeGate | undefined {
    return this.#gates.get(cover);
  }

  /** For whoever is about to pass it; `release` when that is over. */
  take(cover: Cover): SizeGate {
    let gate = this.#gates.get(cover);
    if (gate === undefined) {
      gate = new SizeGate();
      this.#gates.set(cover, gate);
    }
    return gate;
  }

  release(cover: Cover, gate: SizeGate): void {
    if (gate.idle && this.#gates.get(cover) === gate) this.#gates.delete(cover);
  }
}
