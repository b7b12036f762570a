/**
 * One round of one node's fence, at the node that runs it: levels in order, the devices of a level one after the other, each with its delay and
 * its retries. A level whose devices have all succeeded ends the round after the longest of their settle times. Pure: time comes in.
 */
import { assert } from "../base/assert.ts";
import type { RunOutcome } from "../wire/fencing-group.ts";
import type { DevicePlan, FencePlan } from "../config/fence-plan.ts";

/** How one run of an agent ended. `unable`: it was not even started, as for an agent that is not there. */
export type AgentResult = { readonly ok: true } | { readonly ok: false; readonly unable: boolean; readonly words: string };

export interface RunEnd {
  readonly outcome: Extract<RunOutcome, "fenced" | "failed" | "unable">;
  /** Devices, for "fenced". */
  readonly by: string;
  readonly words: string;
}

export class FenceRun {
  readonly #plan: FencePlan;
  #level = 0;
  #at = 0;
  #tries = 0;
  /** An agent runs: nothing is due before its result. */
  #running = false;
  #dueMs: number;
  #settling = false;
  readonly #failures: string[] = [];
  #allUnable = true;
  end: RunEnd | null = null;

  constructor(plan: FencePlan, nowMs: number) {
    assert(
      plan.levels.length > 0 && plan.levels.every((level) => level.length > 0),
      "a plan of at least one level, of at least one device",
    );
    this.#plan = plan;
    this.#dueMs = nowMs + plan.delayMs + this.#device.delayMs;
  }

  get #devices(): readonly DevicePlan[] {
    return this.#plan.levels[this.#level] as readonly DevicePlan[];
  }
  get #device(): DevicePlan {
    return this.#devices[this.#at] as DevicePlan;
  }

  /** No device of this level has been used with success, and none is being used now. */
  get isUndone(): boolean {
    return !this.#running && !this.#settling && this.#at === 0 && this.end === null;
  }

  /** When `advance` is to be called at the latest. */
  get deadlineMs(): number {
    return this.#running || this.end !== null ? Number.POSITIVE_INFINITY : this.#dueMs;
  }

  /** What it does now, for people. */
  get words(): string {
    if (this.end !== null) return this.end.words;
    if (this.#settling) return "waits until the disks have settled";
    const { agent, device } = this.#device;
    const what = `${agent} ${device}${this.#tries > 1 ? `, try ${this.#tries}` : ""}`;
    return this.#running ? `runs ${what}` : `is about to run ${what}`;
  }

  /** The device whose agent is to be run now; null: nothing is, `deadlineMs` and `end` say more. */
  advance(nowMs: number): string | null {
    if (this.#running || this.end !== null || nowMs < this.#dueMs) return null;
    if (this.#settling) {
      const by = this.#devices.map(({ device }) => device).join(" and ");
      this.end = { outcome: "fenced", by, words: `fenced by ${by}` };
      return null;
    }
    this.#running = true;
    this.#tries++;
    return this.#device.device;
  }

  /** The agent that `advance` asked for has ended. */
  ran(result: AgentResult, nowMs: number): void {
    assert(this.#running, "the result of an agent that was not run");
    this.#running = false;
    this.#dueMs = nowMs;
    if (result.ok) return this.#succeeded(nowMs);
    const { device, retries } = this.#device;
    this.#allUnable &&= result.unable;
    // What cannot be started does not get better by trying again.
    if (!result.unable && this.#tries <= retries) return;
    this.#failures.push(`${device}: ${result.words}`);
    if (this.#level + 1 < this.#plan.levels.length) return this.#enter(this.#level + 1, 0, nowMs);
    this.end = { outcome: this.#allUnable ? "unable" : "failed", by: "", words: this.#failures.join("; ") };
  }

  #succeeded(nowMs: number): void {
    this.#allUnable = false;
    if (this.#at + 1 < this.#devices.length) return this.#enter(this.#level, this.#at + 1, nowMs);
    this.#settling = true;
    this.#dueMs = nowMs + Math.max(...this.#devices.map(({ settleMs }) => settleMs));
  }

  #enter(level: number, at: number, nowMs: number): void {
    this.#level = level;
    this.#at = at;
    this.#tries = 0;
    this.#dueMs = nowMs + this.#device.delayMs;
  }
}
