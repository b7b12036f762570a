/**
 * Blocking ASTs that programs which promised to answer (ConnectOptions.bastLimitMs) have not answered (hazard H13): such a program hangs. An
 * answer is a conversion down or an unlock: the lock has another grant number then, or is gone. Time counts while lock service runs and this
 * node hears its programs; after a recovery masters tell anew.
 *
 * What a program has said may lie in its socket, unread because this process stood still. So of a standstill no more counts than
 * `hearingMs`, and twice that is added to every limit: who had not run out of his time when it began has that much left after it, and is
 * heard by then. A program that is not read, since too much waits already, is not judged either.
 */
import type { Client } from "./client.ts";
import { MAYKEEP } from "./flag.ts";
import type { Lkb } from "./lkb.ts";
import { Mode, modeNames } from "./mode.ts";

interface Told {
  /** In time that counts, as `#nextMs`. */
  untilMs: number;
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
  /** All the time that did not count. */
  #lostMs = 0;
  /** That long a node that runs need not hear anything, not even a tick. Set by the node. */
  hearingMs = 0;

  /** When `hanging` may have something to say; Infinity: never. */
  get nextMs(): number {
    return this.#nextMs + this.#lostMs;
  }

  /** As `nextMs` says it, to the last bit. */
  #isDue(untilMs: number, nowMs: number): boolean {
    return nowMs >= untilMs + this.#lostMs;
  }

  #heardBy(ms: number): number {
    return ms - this.#lostMs + 2 * this.hearingMs;
  }

  /** Before anything else in a step: since the last one so much time has passed. */
  passed(ms: number, serving: boolean): void {
    this.#lostMs += serving ? Math.max(0, ms - this.hearingMs) : ms;
  }

  told(lkb: Lkb, wanted: Mode, nowMs: number): void {
    const { bastLimitMs, gone } = lkb.client as Client;
    if (bastLimitMs === 0 || gone || (lkb.flags & MAYKEEP) !== 0 || this.#told.get(lkb)?.grantNo === lkb.grantNo) return;
    const untilMs = this.#heardBy(nowMs + bastLimitMs);
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

  /** The client is read again. */
  resumed(client: Client, nowMs: number): void {
    for (const [lkb, told] of this.#told) if (lkb.client === client) told.untilMs = Math.max(told.untilMs, this.#heardBy(nowMs));
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
    if (!this.#isDue(this.#nextMs, nowMs)) return [];
    this.#nextMs = Number.POSITIVE_INFINITY;
    const found: Hanging[] = [];
    for (const [lkb, { untilMs, grantNo, wanted }] of this.#told) {
      const client = lkb.client as Client;
      const answered = lkb.grantNo !== grantNo || client.locks.get(lkb.lockId) !== lkb;
      if (answered || client.gone || client.ending) this.#told.delete(lkb);
      else if (!this.#isDue(untilMs, nowMs)) this.#nextMs = Math.min(this.#nextMs, untilMs);
      // It waits for others, and cannot give up what it has before it is answered.
      else if (lkb.requested !== null) this.#again(lkb, { untilMs: this.#heardBy(nowMs + client.bastLimitMs), grantNo, wanted });
      else if (client.paused) this.#nextMs = Math.min(this.#nextMs, this.#heardBy(nowMs));
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
