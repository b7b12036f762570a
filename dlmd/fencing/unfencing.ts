/**
 * The action "on" of this node's own devices: of each once in a life, where others know what is known of it, and not in a boot that was fenced
 * (hazard C3). A device that the configuration brings later, or says otherwise, has its own "on". One that failed is run again after a pause:
 * the disk may not have been there yet.
 */
import type { UnfencePlan } from "../config/fence-plan.ts";
import type { AgentResult } from "./fence-run.ts";
import { pauseAfterMs } from "./pause.ts";

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

/** What is shown of one that failed. */
export interface FailedOn {
  readonly device: string;
  /** Times that it has failed, each with the retries of its device, and how the last one ended. */
  readonly rounds: number;
  readonly failure: string;
  /** 0: it runs, or waits for something else. */
  readonly againAfterMs: number;
}

interface Failure {
  readonly rounds: number;
  readonly words: string;
  /** Not before then. */
  readonly againMs: number;
}

export class Unfencing {
  readonly #port: UnfencingPort;
  #devices: readonly UnfencePlan[];
  /** By what they mean. */
  #done: ReadonlySet<string> = new Set();
  /** By what they mean: of those that are not done. */
  readonly #failures: Map<string, Failure> = new Map();
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
    for (const means of this.#failures.keys()) if (!isKnown(means)) this.#failures.delete(means);
    if (this.#run !== null && !isKnown(this.#run.means)) this.stop();
  }

  /** `serving`: this node knows what all members know. */
  advance(serving: boolean, nowMs: number): void {
    const wasFenced = this.#port.wasFenced();
    if (!this.#port.mayRun() || wasFenced) this.stop();
    if (!serving || this.#run !== null) return;
    const open = this.#devices.filter(({ means }) => !this.#done.has(means));
    if (wasFenced) for (const { device, means } of open) this.#refuse(device, means);
    const next = open.find(({ means }) => nowMs >= (this.#failures.get(means)?.againMs ?? nowMs));
    if (wasFenced || next === undefined || !this.#port.mayRun()) return;
    this.#run = { runId: this.#port.newRunId(), means: next.means };
    this.#port.start(this.#run.runId, next.device, true);
  }

  #refuse(device: string, means: string): void {
    this.#end(means);
    this.#port.start(this.#port.newRunId(), device, false);
  }

  #end(means: string): void {
    this.#done = new Set([...this.#done, means]);
    this.#failures.delete(means);
  }

  /** It begins again when this node serves again. */
  stop(): void {
    if (this.#run === null) return;
    this.#port.stop(this.#run.runId);
    this.#run = null;
  }

  ran(runId: number, result: AgentResult, nowMs: number): void {
    if (this.#run?.runId !== runId) return;
    const { means } = this.#run;
    this.#run = null;
    if (result.ok) return this.#end(means);
    const rounds = (this.#failures.get(means)?.rounds ?? 0) + 1;
    this.#failures.set(means, { rounds, words: result.words, againMs: nowMs + pauseAfterMs(rounds) });
  }

  /** When the next pause ends; one that has ended waits for something else. */
  againMs(nowMs: number): number {
    return Math.min(...[...this.#failures.values()].map(({ againMs }) => (againMs > nowMs ? againMs : Number.POSITIVE_INFINITY)));
  }

  failed(nowMs: number): FailedOn[] {
    return this.#devices.flatMap(({ device, means }) => {
      const failure = this.#failures.get(means);
      if (failure === undefined) return [];
      const { rounds, words, againMs } = failure;
      return [{ device, rounds, failure: words, againAfterMs: Math.max(0, Math.round(againMs - nowMs)) }];
    });
  }
}
