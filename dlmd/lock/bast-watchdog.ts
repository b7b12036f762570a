/**
 * Blocking ASTs that programs which promised to answer (ConnectOptions.bastLimitMs) have not answered (hazard H13): such a program hangs. An
 * answer is a conversion down or an unlock: the lock has another grant number then, or is gone. Time counts while lock service runs and this
 * node hears its programs (base/program-time.ts); after a recovery masters tell anew. A program that is not read, since too much waits already, is
 * not judged.
 */
import { MAYKEEP, PROMPT } from "../wire/flag.ts";
import type { Lkb, LockClient } from "./lkb.ts";
import { Mode, modeNames } from "../wire/mode.ts";
import { ProgramTime } from "../base/program-time.ts";

interface Told {
  /** In time that counts, as `#nextMs`. */
  untilMs: number;
  readonly grantNo: number;
  readonly wanted: Mode;
}

export interface Hanging {
  readonly client: LockClient;
  readonly reason: string;
}

/** 0: it needs no answer. */
function limitMsOf({ client, flags }: Lkb): number {
  if ((flags & MAYKEEP) !== 0) return 0;
  const { bastLimitMs, promptLimitMs } = client as LockClient;
  return (flags & PROMPT) !== 0 ? promptLimitMs : bastLimitMs;
}

export class BastWatchdog {
  /** One entry for each lock at most, so no more than there are locks. */
  readonly #told: Map<Lkb, Told> = new Map();
  #nextMs = Number.POSITIVE_INFINITY;
  readonly time: ProgramTime = new ProgramTime();

  /** When `hanging` may have something to say; Infinity: never. */
  get nextMs(): number {
    return this.time.clockMs(this.#nextMs);
  }

  told(lkb: Lkb, wanted: Mode, nowMs: number): void {
    const { gone } = lkb.client as LockClient;
    const limitMs = limitMsOf(lkb);
    if (limitMs === 0 || gone || this.#told.get(lkb)?.grantNo === lkb.grantNo) return;
    const untilMs = this.time.until(nowMs + limitMs);
    this.#told.set(lkb, { untilMs, grantNo: lkb.grantNo, wanted });
    this.#nextMs = Math.min(this.#nextMs, untilMs);
  }

  answered(lkb: Lkb): void {
    if (this.#told.size > 0) this.#told.delete(lkb);
  }

  /** The client's limit is another from now on. */
  review(client: LockClient, nowMs: number): void {
    for (const lkb of client.locks.values()) {
      this.answered(lkb);
      if (lkb.granted !== null && lkb.bastMode !== Mode.NL) this.told(lkb, lkb.bastMode, nowMs);
    }
  }

  /** The client is read again. */
  resumed(client: LockClient, nowMs: number): void {
    for (const [lkb, told] of this.#told) if (lkb.client === client) told.untilMs = Math.max(told.untilMs, this.time.until(nowMs));
  }

  /** Lock service stops. */
  clear(): void {
    this.#told.clear();
    this.#nextMs = Number.POSITIVE_INFINITY;
  }

  #again(lkb: Lkb, told: Told): void {
    this.#told.set(lkb, told);
    this.#nextMs = Math.min(this.#nextMs, told.untilMs);
  }

  /** Programs whose time is over, each once. */
  hanging(nowMs: number): Hanging[] {
    if (!this.time.isOver(this.#nextMs, nowMs)) return [];
    this.#nextMs = Number.POSITIVE_INFINITY;
    const found: Hanging[] = [];
    for (const [lkb, { untilMs, grantNo, wanted }] of this.#told) {
      const client = lkb.client as LockClient;
      const answered = lkb.grantNo !== grantNo || client.locks.get(lkb.lockId) !== lkb;
      if (answered || client.gone || client.ending) this.#told.delete(lkb);
      else if (!this.time.isOver(untilMs, nowMs)) this.#nextMs = Math.min(this.#nextMs, untilMs);
      // It waits for others, and cannot give up what it has before it is answered.
      else if (lkb.requested !== null) this.#again(lkb, { untilMs: this.time.until(nowMs + limitMsOf(lkb)), grantNo, wanted });
      else if (client.paused) this.#nextMs = Math.min(this.#nextMs, this.time.until(nowMs));
      else {
        this.#told.delete(lkb);
        client.ending = true;
        const { name, lockspace } = lkb.resource;
        const what = `${lockspace.name} ${name} (${modeNames[wanted]} is wanted)`;
        found.push({ client, reason: `it has not answered a blocking AST for ${what} for ${limitMsOf(lkb)} ms` });
      }
    }
    return found;
  }
}
