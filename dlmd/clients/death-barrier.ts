/**
 * Asks this node's clients to let go of clients that are gone, and knows when they have (hazard C7). An ask waits for the clients that have a
 * lockspace open in which the dead one was. Where a node died nothing is granted in those lockspaces meanwhile, on any node
 * (recovery/gone-gate.ts); all others go on.
 *
 * A client that does not answer within GONE_LIMIT_MS hangs. Its process is ended, and the end of it is its answer to all that it was asked.
 * Some processes cannot be ended: one that waits for a disk (`spared`), one that dlmd does not see. They are asked on, and once such a client
 * has answered everything it is a client as any other again.
 */
import type { GoneClient, ClientEvent } from "../wire/program.ts";
import type { Client } from "./client.ts";
import { ProgramTime } from "../base/program-time.ts";

/**
 * A client that has not answered "gone" for so long is ended. Counted always, but for a standstill of this node (base/program-time.ts). Long,
 * because an owner finishes the calls of the dead on its disk first, and nothing but that lockspace waits.
 */
export const GONE_LIMIT_MS = 30_000;
/**
 * A client that leaves so many asks unanswered is ended at once: far more than the clients of all nodes that may end together. It is asked
 * nothing more then, and only its end counts.
 */
export const MAX_UNANSWERED_GONE = 65_536;

/** A client that has not let go of the dead, and where. */
export interface GoneWait {
  readonly client: Client;
  readonly lockspaces: readonly string[];
  readonly sinceMs: number;
}

interface Ask {
  /** By client: the lockspaces for whose sake it must answer. */
  readonly waiting: Map<Client, readonly string[]>;
  /** A node is gone, not one client. */
  readonly ofNode: boolean;
  readonly sinceMs: number;
  /** In time that counts. */
  readonly untilMs: number;
  done: () => void;
}

/** A client that owes too many answers to be asked more, and the lockspaces that wait for its end because a node is gone. */
interface Untold {
  readonly lockspaces: Set<string>;
  readonly sinceMs: number;
}

export interface GonePort {
  tell(client: Client, event: ClientEvent): void;
  /** Its process has to end. */
  end(client: Client, reason: string): void;
  /** It could not be ended, has answered everything, and is a client as any other again. */
  believed(client: Client): void;
}

export interface GoneQuestion {
  readonly gone: readonly GoneClient[];
  /** A client that has none of these open is not asked. */
  readonly concerns: (lockspace: string) => boolean;
  readonly ofNode: boolean;
  /** Every client has answered, or ended: at once if there is none. */
  readonly done: () => void;
}

export class ClientDeathBarrier {
  readonly time: ProgramTime = new ProgramTime();
  readonly #port: GonePort;
  readonly #limitMs: number;
  /** The earliest first. */
  readonly #asks: Map<number, Ask> = new Map();
  /** Those whose processes were to end because they did not answer. */
  readonly #ended: Set<Client> = new Set();
  readonly #untold: Map<Client, Untold> = new Map();
  /** Those that could not be ended, each until it is to be ended again, in time that counts. */
  readonly #spared: Map<Client, number> = new Map();
  #nextGoneId = 1;
  #nextMs = Number.POSITIVE_INFINITY;
  #changed = false;

  constructor(limitMs: number, port: GonePort) {
    this.#limitMs = limitMs;
    this.#port = port;
  }

  ask(clients: Iterable<Client>, { gone, concerns, ofNode, done }: GoneQuestion, nowMs: number): void {
    const goneId = this.#nextGoneId;
    this.#nextGoneId = goneId === 0xffffffff ? 1 : goneId + 1;
    const untilMs = this.time.until(nowMs + this.#limitMs);
    const ask: Ask = { waiting: new Map(), ofNode, sinceMs: nowMs, untilMs, done };
    for (const client of clients) {
      if (client.gone) continue;
      const lockspaces = [...client.lockspaces.values()].map(({ name }) => name).filter(concerns);
      const isTold = !client.ending || client.asked <= MAX_UNANSWERED_GONE;
      if (lockspaces.length === 0) continue;
      if (isTold) this.#await(client, ask, lockspaces);
      if (isTold) this.#port.tell(client, { kind: "gone", goneId, clients: gone });
      else this.#awaitEnd(client, ask, lockspaces);
    }
    if (ask.waiting.size === 0) return done();
    this.#asks.set(goneId, ask);
    this.#nextMs = Math.min(this.#nextMs, untilMs);
  }

  #await(client: Client, ask: Ask, lockspaces: readonly string[]): void {
    this.#changed ||= ask.ofNode;
    ask.waiting.set(client, lockspaces);
    client.asked++;
    if (client.asked > MAX_UNANSWERED_GONE) this.#nextMs = Number.NEGATIVE_INFINITY;
  }

  /** However many nodes are gone from now on, that is one entry. */
  #awaitEnd(client: Client, ask: Ask, lockspaces: readonly string[]): void {
    const known = this.#untold.get(client) ?? { lockspaces: new Set(), sinceMs: ask.sinceMs };
    this.#untold.set(client, known);
    this.#changed ||= ask.ofNode;
    if (ask.ofNode) for (const name of lockspaces) known.lockspaces.add(name);
    else {
      ask.waiting.set(client, lockspaces);
      client.asked++;
    }
  }

  /** An answer to nothing that is asked is ignored: the client may answer twice. */
  answered(client: Client, goneId: number): void {
    const ask = this.#asks.get(goneId);
    if (ask !== undefined) this.#settle(client, goneId, ask);
    if (client.asked > 0 || this.#mustEnd(client) || !this.#ended.delete(client)) return;
    client.ending = false;
    this.#changed = true;
    this.#port.believed(client);
  }

  #settle(client: Client, goneId: number, ask: Ask): void {
    if (!ask.waiting.delete(client)) return;
    client.asked = Math.max(0, client.asked - 1);
    if (client.asked === 0 && !this.#mustEnd(client)) this.#spared.delete(client);
    this.#changed ||= ask.ofNode;
    if (ask.waiting.size > 0) return;
    this.#asks.delete(goneId);
    ask.done();
  }

  /** Not all was told it, or not all was heard that it asked for: answers are not enough any more. */
  #mustEnd(client: Client): boolean {
    return client.flooded || client.asked > MAX_UNANSWERED_GONE || this.#untold.has(client);
  }

  /** It cannot be ended now: after as long again it is to end, if it has not answered by then. False: only its end counts. */
  spared(client: Client, nowMs: number): boolean {
    const mustEnd = this.#mustEnd(client);
    if (client.asked > 0 || mustEnd) {
      const untilMs = this.time.until(nowMs + this.#limitMs);
      this.#spared.set(client, untilMs);
      this.#nextMs = Math.min(this.#nextMs, untilMs);
    }
    if (mustEnd) return false;
    if (this.#ended.delete(client)) this.#changed = true;
    return true;
  }

  /** It will answer no more, and serves nobody. */
  forgetClient(client: Client): void {
    this.#ended.delete(client);
    this.#spared.delete(client);
    if (this.#untold.delete(client)) this.#changed = true;
    for (const [goneId, ask] of this.#asks) this.#settle(client, goneId, ask);
  }

  /** A view ends, and with it what single clients that died were asked about for. The time of those asked goes on. */
  stop(): void {
    for (const [goneId, ask] of this.#asks) {
      if (ask.ofNode) continue;
      ask.done = () => {};
      for (const client of ask.waiting.keys()) if (client.ending) this.#settle(client, goneId, ask);
    }
  }

  /** When `expire` may have something to do; Infinity: never. */
  get nextMs(): number {
    return this.time.clockMs(this.#nextMs);
  }

  /** Ends clients whose time is over. */
  expire(nowMs: number): void {
    if (!this.time.isOver(this.#nextMs, nowMs)) return;
    this.#nextMs = Number.POSITIVE_INFINITY;
    for (const [client, untilMs] of this.#spared) this.#expireSpared(client, untilMs, nowMs);
    for (const ask of this.#asks.values()) {
      const isOver = this.time.isOver(ask.untilMs, nowMs);
      for (const client of ask.waiting.keys()) {
        if (client.ending || this.#spared.has(client)) continue;
        if (isOver || client.asked > MAX_UNANSWERED_GONE) this.#end(client, ask);
        else this.#nextMs = Math.min(this.#nextMs, ask.untilMs);
      }
    }
  }

  #expireSpared(client: Client, untilMs: number, nowMs: number): void {
    if (!this.time.isOver(untilMs, nowMs)) {
      this.#nextMs = Math.min(this.#nextMs, untilMs);
      return;
    }
    this.#spared.delete(client);
    if (client.ending && this.#mustEnd(client))
      this.#port.end(client, "it could not be ended before, and its answers are not enough any more");
  }

  #end(client: Client, { waiting }: Ask): void {
    const names = (waiting.get(client) as readonly string[]).join(" ");
    client.ending = true;
    this.#ended.add(client);
    this.#changed = true;
    this.#port.end(client, `it has not answered for ${this.#limitMs} ms that it has let go of clients that are gone (lockspaces ${names})`);
  }

  /** Whether it is another answer that `ofNodes` gives than when this was asked last. */
  changed(): boolean {
    const changed = this.#changed;
    this.#changed = false;
    return changed;
  }

  /** Clients that have not let go of nodes that are gone, those that were asked first at the head. */
  ofNodes(): GoneWait[] {
    return this.#waits((ask) => ask.ofNode, this.#untold);
  }

  /** The same of single clients that are gone. */
  ofClients(): GoneWait[] {
    return this.#waits((ask) => !ask.ofNode, new Map());
  }

  #waits(isWanted: (ask: Ask) => boolean, untold: ReadonlyMap<Client, Untold>): GoneWait[] {
    const found = new Map<Client, Untold>();
    const add = (client: Client, lockspaces: Iterable<string>, sinceMs: number): void => {
      const known = found.get(client) ?? { lockspaces: new Set(), sinceMs };
      for (const name of lockspaces) known.lockspaces.add(name);
      found.set(client, known);
    };
    for (const ask of this.#asks.values()) {
      if (isWanted(ask)) for (const [client, lockspaces] of ask.waiting) add(client, lockspaces, ask.sinceMs);
    }
    for (const [client, { lockspaces, sinceMs }] of untold) if (lockspaces.size > 0) add(client, lockspaces, sinceMs);
    return [...found].map(([client, { lockspaces, sinceMs }]) => ({ client, lockspaces: [...lockspaces], sinceMs }));
  }
}
