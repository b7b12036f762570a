/**
 * Clients whose connections broke, and whose locks and groups are kept for an heir for some time (hazard C12; dlmd/lock/README.md, "Heirs"). An heir is a
 * connection of the same user with the same owner key. Who is kept is gone for its program, and there for all others: nobody is asked to let go
 * of it. Here is who is kept and until when, and what an heir may ask of it.
 */
import { ProgramTime } from "../base/program-time.ts";
import type { Lkb } from "../lock/lkb.ts";
import { sameOwner } from "../lock/orphans.ts";
import {
  type HeirClientRequest,
  type HeirEvent,
  type HeirResult,
  type InheritedClient,
  type InheritedLock,
  MAX_INHERITED_ROWS,
} from "../wire/local-heir.ts";
import type { Client } from "./client.ts";

/** A client may ask to be kept for so long at most. */
export const MAX_KEEP_MS = 120_000;
/** Clients that are kept at a time: one more is gone at once. */
export const MAX_KEPT_CLIENTS = 256;
/** Heirs' questions that wait until nothing of the dead is outstanding: one more is answered "busy". */
export const MAX_INHERIT_ASKS = 64;

export interface KeptPort {
  clients(): Iterable<Client>;
  toClient(client: Client, event: HeirEvent): void;
  adjustPause(client: Client): void;
  /** Its time is over, or its heir has all that it wants. `released`: its locks are given up; what is asked for from then on comes behind that. */
  end(client: Client, why: string, released?: () => void): void;
}

interface Kept {
  /** In time that counts. */
  readonly untilMs: number;
  /** What it had asked for and has no answer yet. It asks for nothing more, so they only get fewer. */
  readonly outstanding: Set<Lkb>;
}

type Inherit = Extract<HeirClientRequest, { kind: "inherit" }>;

export class KeptClients {
  readonly time: ProgramTime = new ProgramTime();
  readonly #port: KeptPort;
  readonly #kept: Map<Client, Kept> = new Map();
  #asks: { readonly heir: Client; readonly request: Inherit }[] = [];
  #nextMs = Number.POSITIVE_INFINITY;

  constructor(port: KeptPort) {
    this.#port = port;
  }

  get all(): Iterable<Client> {
    return this.#kept.keys();
  }

  /** Its connection broke. True: it is kept from now on. */
  keep(client: Client, nowMs: number): boolean {
    if (client.keepMs === 0 || client.flooded || this.#kept.size >= MAX_KEPT_CLIENTS) return false;
    // This node has killed it. What its kernel has is dropped by who holds the connection, and only then its locks may go: until then it is kept, for nobody.
    if (client.keepHeld ? !this.#isHeld(client) : client.ending) return false;
    const outstanding = new Set([...client.locks.values()].filter(({ requested }) => requested !== null));
    const untilMs = this.time.until(nowMs + client.keepMs);
    this.#kept.set(client, { untilMs, outstanding });
    this.#nextMs = Math.min(this.#nextMs, untilMs);
    client.kept = true;
    return true;
  }

  /** Another connection of its owner is there. */
  #isHeld(kept: Client): boolean {
    for (const client of this.#port.clients()) if (client !== kept && !client.gone && sameOwner(kept, client)) return true;
    return false;
  }

  /** A connection ended: who is kept only as long as there is one of its owner may be kept no more. */
  connectionEnded(ended: Client): void {
    for (const client of this.#kept.keys())
      if (client.keepHeld && sameOwner(client, ended) && !this.#isHeld(client))
        this.#port.end(client, "no connection of its owner is left");
  }

  forget(client: Client): void {
    this.#kept.delete(client);
    client.kept = false;
  }

  /** The kept client with that id, if that one is its heir. */
  find(heir: Client, clientId: number): Client | null {
    for (const client of this.#kept.keys()) if (client.id === clientId && isHeir(heir, client)) return client;
    return null;
  }

  /** For people: how long it is kept, at most; null: it is not. */
  leftMs(client: Client, nowMs: number): number | null {
    const kept = this.#kept.get(client);
    return kept === undefined ? null : Math.max(0, Math.round(this.time.clockMs(kept.untilMs) - nowMs));
  }

  // ------------------------------------------------------------------------------------------------------- requests

  request(client: Client, request: HeirClientRequest): void {
    switch (request.kind) {
      case "keep-locks":
        return this.#answer(client, request.requestId, this.#wish(client, request.limitMs, request.held));
      case "end-kept": {
        const kept = this.find(client, request.clientId);
        if (kept === null) return this.#answer(client, request.requestId, "not-kept");
        this.#port.end(kept, "its heir wants nothing more of it", () => {
          if (!client.gone) this.#answer(client, request.requestId, "done");
        });
        return;
      }
      case "inherit":
        if (this.#asks.length >= MAX_INHERIT_ASKS) return this.#answer(client, request.requestId, "busy");
        this.#asks.push({ heir: client, request });
        // Who it waits for may not be read now, and its end would not be noticed.
        for (const earlier of this.#earlier(client)) this.#port.adjustPause(earlier);
    }
  }

  #answer(client: Client, requestId: number, result: HeirResult): void {
    this.#port.toClient(client, { kind: "heir-result", requestId, result });
  }

  #wish(client: Client, limitMs: number, held: boolean): HeirResult {
    if (limitMs > MAX_KEEP_MS) return "too-long";
    if (limitMs > 0 && client.owner === "") return "no-owner";
    client.keepMs = limitMs;
    client.keepHeld = held;
    return "done";
  }

  // -------------------------------------------------------------------------------------------------------- heirs

  /** Connections of the same owner before that one whose end would make it an heir of theirs. */
  *#earlier(heir: Client): Generator<Client> {
    for (const client of this.#port.clients()) {
      if (!client.gone && client.id < heir.id && client.keepMs > 0 && sameOwner(client, heir)) yield client;
    }
  }

  /** An heir waits until the connection of this one has ended: it is read in any case. */
  isAwaited(client: Client): boolean {
    return this.#asks.some(({ heir }) => client.keepMs > 0 && client.id < heir.id && sameOwner(client, heir));
  }

  /** Its questions are of no use any more. */
  forgetHeir(heir: Client): void {
    this.#asks = this.#asks.filter((ask) => ask.heir !== heir);
  }

  /** Answers heirs for whom nothing has to be waited for any more. */
  review(): void {
    if (this.#asks.length > 0) this.#asks = this.#asks.filter(({ heir, request }) => !this.#inherits(heir, request));
  }

  #inherits(heir: Client, { requestId, lockspace, fromClientId, skip }: Inherit): boolean {
    if (this.#earlier(heir).next().done !== true) return false;
    const mine = [...this.#kept.keys()].filter((client) => isHeir(heir, client)).sort((a, b) => a.id - b.id);
    if (mine.some((client) => this.#isOutstanding(client))) return false;
    const rest = mine.filter(({ id }) => id >= fromClientId);
    this.#port.toClient(heir, { kind: "inherited", requestId, ...inheritedFrom(rest, lockspace, fromClientId, skip) });
    return true;
  }

  #isOutstanding(client: Client): boolean {
    const outstanding = this.#kept.get(client)?.outstanding ?? new Set();
    for (const lkb of outstanding) if (lkb.requested === null || client.locks.get(lkb.lockId) !== lkb) outstanding.delete(lkb);
    return outstanding.size > 0;
  }

  // --------------------------------------------------------------------------------------------------------- time

  /** When `expire` may have something to do; Infinity: never. */
  get nextMs(): number {
    return this.time.clockMs(this.#nextMs);
  }

  /** Ends those whose heirs did not come in time. */
  expire(nowMs: number): void {
    if (!this.time.isOver(this.#nextMs, nowMs)) return;
    this.#nextMs = Number.POSITIVE_INFINITY;
    for (const [client, { untilMs }] of this.#kept) {
      if (this.time.isOver(untilMs, nowMs)) this.#port.end(client, `no heir has finished within ${client.keepMs} ms`);
      else this.#nextMs = Math.min(this.#nextMs, untilMs);
    }
  }

  /** The node leaves in good order. */
  endAll(why: string): void {
    for (const client of this.#kept.keys()) this.#port.end(client, why);
  }
}

/** One that this node has killed has no heir. */
function isHeir(heir: Client, kept: Client): boolean {
  return sameOwner(kept, heir) && !kept.ending;
}

/** As many granted locks as one message takes, from that place on. */
function inheritedFrom(
  kept: readonly Client[],
  lockspace: string,
  fromClientId: number,
  skip: number,
): Pick<Extract<HeirEvent, { kind: "inherited" }>, "clients" | "next"> {
  const clients: InheritedClient[] = [];
  let room = MAX_INHERITED_ROWS;
  for (const client of kept) {
    const locks: InheritedLock[] = [];
    const first = client.id === fromClientId ? skip : 0;
    let at = 0;
    clients.push({ clientId: client.id, locks });
    for (const { granted, resource } of client.locks.values()) {
      if (granted === null || resource.lockspace.name !== lockspace || at++ < first) continue;
      if (room-- === 0) return { clients, next: { fromClientId: client.id, skip: at - 1 } };
      locks.push({ resource: resource.name, mode: granted });
    }
  }
  return { clients, next: null };
}
