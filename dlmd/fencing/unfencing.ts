/**
 * The action "on" of this node's own devices: once in a life, where others know what is known of it, and not in a boot that was fenced (hazard C3).
 */
export interface UnfencingPort {
  /** It may run now: others know this node as a member, and begin no fence of it before its lease ends. */
  mayRun(): boolean;
  /** Of this boot, by a device. */
  wasFenced(): boolean;
  newRunId(): number;
  /** Not allowed: nothing is run, and the log says why. */
  start(runId: number, isAllowed: boolean): void;
  stop(runId: number): void;
}

export class Unfencing {
  readonly #port: UnfencingPort;
  #isDone = false;
  #runId: number | null = null;

  constructor(port: UnfencingPort) {
    this.#port = port;
  }

  /** An agent runs: it is to be stopped when the lease ends. */
  get isRunning(): boolean {
    return this.#runId !== null && !this.#isDone;
  }

  /** `serving`: this node knows what all members know. */
  advance(serving: boolean): void {
    if (!this.#port.mayRun() || this.#port.wasFenced()) this.stop();
    if (!serving || this.#isDone || this.#runId !== null) return;
    const isAllowed = !this.#port.wasFenced();
    if (isAllowed && !this.#port.mayRun()) return;
    this.#runId = this.#port.newRunId();
    this.#isDone = !isAllowed;
    this.#port.start(this.#runId, isAllowed);
  }

  /** It begins again when this node serves again. */
  stop(): void {
    if (this.#runId === null || this.#isDone) return;
    this.#port.stop(this.#runId);
    this.#runId = null;
  }

  ran(runId: number): void {
    if (runId === this.#runId) this.#isDone = true;
  }
}
