/**
 * The action "on" of this node's own devices: of each once in a life, where others know what is known of it, and not in a boot that was fenced
 * (hazard C3). A device that the configuration brings later, or says otherwise, has its own "on".
 */
import type { UnfencePlan } from "../config/fence-plan.ts";

export interface UnfencingPort {
  /** It may run now: others know this node as a member, and begin no fence of it before its lease ends. */
  mayRun(): boolean;
  /** Of this boot, by a device. */
  wasFenced(): boolean;
  newRunId(): number;
  /** Not allowed: nothing is run, and the log says why. */
  start(runId: number, device: string, isAllowed: boolean): void;
  stop(runId: number): void;
}

export class Unfencing {
  readonly #port: UnfencingPort;
  #devices: readonly UnfencePlan[];
  /** By what they mean. */
  #done: ReadonlySet<string> = new Set();
  #run: { readonly runId: number; readonly means: string } | null = null;

  constructor(devices: readonly UnfencePlan[], port: UnfencingPort) {
    this.#devices = devices;
    this.#port = port;
  }

  /** An agent runs: it is to be stopped when the lease ends. */
  get isRunning(): boolean {
    return this.#run !== null;
  }

  /** Of one that goes and comes again nobody knows what became of it meanwhile. */
  configure(devices: readonly UnfencePlan[]): void {
    this.#devices = devices;
    const isKnown = (means: string): boolean => devices.some((one) => one.means === means);
    this.#done = new Set([...this.#done].filter(isKnown));
    if (this.#run !== null && !isKnown(this.#run.means)) this.stop();
  }

  /** `serving`: this node knows what all members know. */
  advance(serving: boolean): void {
    const wasFenced = this.#port.wasFenced();
    if (!this.#port.mayRun() || wasFenced) this.stop();
    if (!serving || this.#run !== null) return;
    const open = this.#devices.filter(({ means }) => !this.#done.has(means));
    if (wasFenced) for (const { device, means } of open) this.#refuse(device, means);
    const [next] = open;
    if (wasFenced || next === undefined || !this.#port.mayRun()) return;
    this.#run = { runId: this.#port.newRunId(), means: next.means };
    this.#port.start(this.#run.runId, next.device, true);
  }

  #refuse(device: string, means: string): void {
    this.#done = new Set([...this.#done, means]);
    this.#port.start(this.#port.newRunId(), device, false);
  }

  /** It begins again when this node serves again. */
  stop(): void {
    if (this.#run === null) return;
    this.#port.stop(this.#run.runId);
    this.#run = null;
  }

  ran(runId: number): void {
    if (this.#run?.runId !== runId) return;
    this.#done = new Set([...this.#done, this.#run.means]);
    this.#run = null;
  }
}
