/** Asking this node's clients to let go of clients that are gone, and knowing when all have (hazard C7). */
import type { GoneClient } from "../client/api.ts";
import type { ClientEvent } from "../node-api.ts";
import type { Client } from "./client.ts";

interface Ask {
  readonly waiting: Set<number>;
  readonly forRecovery: boolean;
  readonly done: () => void;
}

export class GoneAsks {
  readonly #tell: (client: Client, event: ClientEvent) => void;
  readonly #asks: Map<number, Ask> = new Map();
  #nextGoneId = 1;
  #recoveryAsks = 0;
  #changed = false;

  constructor(tell: (client: Client, event: ClientEvent) => void) {
    this.#tell = tell;
  }

  /** Recovery must not go on yet. */
  get recoveryBusy(): boolean {
    return this.#recoveryAsks > 0;
  }

  /** Whether the last recovery ask was answered since this was asked. */
  changed(): boolean {
    const changed = this.#changed;
    this.#changed = false;
    return changed;
  }

  /** `done` runs when every client asked has answered or is gone itself: at once if there is none. */
  ask(clients: Iterable<Client>, gone: readonly GoneClient[], forRecovery: boolean, done: () => void): void {
    const goneId = this.#nextGoneId;
    this.#nextGoneId = goneId === 0xffffffff ? 1 : goneId + 1;
    const waiting = new Set<number>();
    for (const client of clients) {
      if (client.gone) continue;
      waiting.add(client.id);
      client.asked++;
      this.#tell(client, { kind: "gone", goneId, clients: gone });
    }
    if (waiting.size === 0) return done();
    if (forRecovery) this.#recoveryAsks++;
    this.#asks.set(goneId, { waiting, forRecovery, done });
  }

  /** An answer to nothing that is asked is ignored: the client may answer twice. */
  answered(client: Client, goneId: number): void {
    const ask = this.#asks.get(goneId);
    if (ask === undefined || !ask.waiting.delete(client.id)) return;
    client.asked--;
    if (ask.waiting.size > 0) return;
    this.#asks.delete(goneId);
    if (ask.forRecovery) {
      this.#recoveryAsks--;
      this.#changed = true;
    }
    ask.done();
  }

  /** It will answer no more, and serves nobody. */
  forgetClient(client: Client): void {
    for (const goneId of this.#asks.keys()) this.answered(client, goneId);
  }
}
