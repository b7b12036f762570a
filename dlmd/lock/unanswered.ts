/**
 * Blocking ASTs that programs which promised to answer (ConnectOptions.bastLimitMs) have not answered (hazard H13): such a program hangs. An
 * answer is a conversion down or an unlock: the lock has another grant number then, or is gone. Time counts while lock service runs; after a
 * recovery masters tell anew.
 */
import type { Client } from "./client.ts";
import { MAYKEEP } from "./flag.ts";
import type { Lkb } from "./lkb.ts";
import { Mode, modeNames } from "./mode.ts";

interface Told {
  readonly untilMs: number;
  readonly grantNo: number;
  readonly wanted: Mode;
}

export interface Hanging {
  readonly client: Client;
  readonly reason: string;
}

export class UnansweredBasts {
  /** One entry for each lock at most, so no more than there are locks. */
  readonly #told: Map<Lkb, Told> = new Map();
  #nextMs = Number.POSITIVE_INFINITY;

  /** When `hanging` may have something to say; Infinity: never. */
  get nextMs(): number {
    return this.#nextMs;
  }

  told(lkb: Lkb, wanted: Mode, nowMs: number): void {
    const { bastLimitMs, gone } = lkb.client as Client;
    if (bastLimitMs === 0 || gone || (lkb.flags & MAYKEEP) !== 0 || this.#told.get(lkb)?.grantNo === lkb.grantNo) return;
    const untilMs = nowMs + bastLimitMs;
    this.#told.set(lkb, { untilMs, grantNo: lkb.grantNo, wanted });
    this.#nextMs = Math.min(this.#nextMs, untilMs);
  }

  answered(lkb: Lkb): void {
    if (this.#told.size > 0) this.#told.delete(lkb);
  }

  /** The client's limit is another from now on. */
  review(client: Client, nowMs: number): void {
    for (const lkb of client.locks.values()) {
      this.answered(lkb);
      if (lkb.granted !== null && lkb.bastMode !== Mode.NL) this.told(lkb, lkb.bastMode, nowMs);
    }
  }

  /** Lock service stops. */
  clear(): void {
    this.#told.clear();
    this.#nextMs = Number.POSITIVE_INFINITY;
  }

  /** It waits for others, and cannot give up what it has before it is answered. */
  #again(lkb: Lkb, told: Told): void {
    this.#told.set(lkb, told);
    this.#nextMs = Math.min(this.#nextMs, told.untilMs);
  }

  /** Programs whose time is over, each once. */
  hanging(nowMs: number): Hanging[] {
    if (nowMs < this.#nextMs) return [];
    this.#nextMs = Number.POSITIVE_INFINITY;
    const found: Hanging[] = [];
    for (const [lkb, { untilMs, grantNo, wanted }] of this.#told) {
      const client = lkb.client as Client;
      const answered = lkb.grantNo !== grantNo || client.locks.get(lkb.lockId) !== lkb;
      if (answered || client.gone || client.ending) this.#told.delete(lkb);
      else if (nowMs < untilMs) this.#nextMs = Math.min(this.#nextMs, untilMs);
      else if (lkb.requested !== null) this.#again(lkb, { untilMs: nowMs + client.bastLimitMs, grantNo, wanted });
      else {
        this.#told.delete(lkb);
        client.ending = true;
        const { name, lockspace } = lkb.resource;
        const what = `${lockspace.name} ${name} (${modeNames[wanted]} is wanted)`;
        found.push({ client, reason: `it has not answered a blocking AST for ${what} for ${client.bastLimitMs} ms` });
      }
    }
    return found;
  }
}
