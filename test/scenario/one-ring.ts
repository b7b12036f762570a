/**
 * corosync as the lock managers of a scenario see it: one ring of all nodes that live, since no command of a scenario splits it. Rings that split
 * are in test/compliance/cpg-sim.ts.
 */
import type { CorosyncEvent } from "../../dlmd/engine/corosync/corosync-api.ts";
import type { Seat } from "../../dlmd/engine/corosync/message.ts";

export class OneRing {
  /** When the ring without those that died is there; null: none has died. */
  formsAtMs: number | null = null;
  readonly #size: number;
  readonly #tokenMs: number;
  readonly #tell: (nodeid: number, event: CorosyncEvent) => void;
  readonly #there: Set<number> = new Set();
  /** Sent since the token was lost. */
  readonly #unordered: { readonly from: Seat; readonly data: Uint8Array }[] = [];
  #seq = 0;

  /** `tokenMs`: from a death to the next ring. */
  constructor(size: number, tokenMs: number, tell: (nodeid: number, event: CorosyncEvent) => void) {
    this.#size = size;
    this.#tokenMs = tokenMs;
    this.#tell = tell;
  }

  seatOf(nodeid: number): Seat {
    return { nodeid, pid: 100 + nodeid };
  }

  join(nodeid: number): void {
    this.#there.add(nodeid);
    this.#form();
  }

  lose(nodeid: number, nowMs: number): void {
    this.#there.delete(nodeid);
    this.formsAtMs = nowMs + this.#tokenMs;
  }

  multicast(from: number, data: Uint8Array): void {
    const message = { from: this.seatOf(from), data };
    if (this.formsAtMs === null) this.#deliver(message);
    else this.#unordered.push(message);
  }

  pass(nowMs: number): void {
    if (this.formsAtMs !== null && nowMs >= this.formsAtMs) this.#form();
  }

  #form(): void {
    this.formsAtMs = null;
    this.#seq += 4;
    const there = [...this.#there].toSorted((a, b) => a - b);
    const seats = there.map((nodeid) => this.seatOf(nodeid));
    const ring = { nodeid: there[0] ?? 0, seq: this.#seq };
    for (const nodeid of there) {
      this.#tell(nodeid, { kind: "seats", seats });
      this.#tell(nodeid, { kind: "ring", ring });
      this.#tell(nodeid, { kind: "quorum", ring, quorate: there.length * 2 > this.#size });
    }
    for (const message of this.#unordered.splice(0)) this.#deliver(message);
  }

  #deliver({ from, data }: { readonly from: Seat; readonly data: Uint8Array }): void {
    for (const nodeid of this.#there) this.#tell(nodeid, { kind: "message", from, data: data.slice() });
  }
}
