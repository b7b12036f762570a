/** What happens to all in the simulation of callers and owners (remote-model.test.ts), and what was seen of it. */

export interface Muster {
  readonly all: Promise<void>;
  readonly go: () => void;
  /** Programs that wait. */
  ready: number;
}

interface Gate {
  readonly opened: Promise<void>;
  readonly open: () => void;
  passes: number;
}

/** What the world has seen. */
export class World {
  /** Of the present owner, or of the next one while there is none. */
  epoch = 1;
  /** Owners that lost something, and fsyncs that were made to fail. */
  deaths = 0;
  failedSyncs = 0;
  /** How often connections were cut. */
  cuts = 0;
  /** Nothing is made to fail any more. */
  ended = false;
  /** Programs come together before they go on, where it is not null. */
  muster: Muster | null = null;
  #gate: Gate | null = null;
  /** Programs that have not ended, and what they have done. */
  running = 0;
  steps = 0;
  failed: unknown = null;
  readonly counts: Map<string, number> = new Map();
  /** All that was done, and when. */
  readonly said: string[] = [];

  say(who: string, text: string): void {
    this.said.push(`${performance.now().toFixed(1)} ${who}: ${text}`);
  }

  /** Until `go`. */
  callTogether(): Muster {
    let leave = (): void => undefined;
    const all = new Promise<void>((resolve) => (leave = resolve));
    const go = (): void => {
      this.muster = null;
      leave();
    };
    this.muster = { all, ready: 0, go };
    return this.muster;
  }

  /** Of the owner's changes so many are made still, and the others once it is open. */
  shutGate(passes: number): Gate {
    let pass = (): void => undefined;
    const opened = new Promise<void>((resolve) => (pass = resolve));
    const open = (): void => {
      this.#gate = null;
      pass();
    };
    this.#gate = { opened, passes, open };
    return this.#gate;
  }

  /** For which such a call of the owner's is to wait; null: none. */
  gateOf(call: string): Promise<void> | null {
    const gate = this.#gate;
    if (gate === null || (call !== "write" && call !== "setattr")) return null;
    gate.passes -= 1;
    return gate.passes >= 0 ? null : gate.opened;
  }

  get goesOn(): boolean {
    return this.running > 0 && this.failed === null;
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }
}
