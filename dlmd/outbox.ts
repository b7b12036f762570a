/** Gathers the effects of one step: what goes to one client, or in one view to one peer, is one effect, in order. */
import type { Effect } from "./node-api.ts";
import type { ViewId } from "./wire/view-id.ts";
import type { ClientEvent } from "./wire/program.ts";
import type { PeerMessage } from "./wire/peer.ts";

export class Outbox {
  #effects: Effect[] = [];
  readonly #clients: Map<number, ClientEvent[]> = new Map();
  readonly #peers: Map<number, { view: ViewId; messages: PeerMessage[] }> = new Map();
  // The commonest step by far answers one client: no search for it.
  #lastClientId = 0;
  #lastEvents: ClientEvent[] | null = null;

  push(effect: Effect): void {
    this.#effects.push(effect);
  }

  client(clientId: number, event: ClientEvent): void {
    if (clientId === this.#lastClientId && this.#lastEvents !== null) {
      this.#lastEvents.push(event);
      return;
    }
    let events = this.#clients.get(clientId);
    if (events === undefined) {
      events = [];
      this.#clients.set(clientId, events);
      this.#effects.push({ kind: "client-events", clientId, events });
    }
    events.push(event);
    this.#lastClientId = clientId;
    this.#lastEvents = events;
  }

  peer(nodeid: number, view: ViewId, message: PeerMessage): void {
    const open = this.#peers.get(nodeid);
    if (open !== undefined && open.view === view) {
      open.messages.push(message);
      return;
    }
    const messages = [message];
    this.#peers.set(nodeid, { view, messages });
    this.#effects.push({ kind: "peer-frame", nodeid, view, messages });
  }

  take(): Effect[] {
    const effects = this.#effects;
    if (effects.length === 0) return effects;
    this.#effects = [];
    if (this.#clients.size > 0) this.#clients.clear();
    if (this.#peers.size > 0) this.#peers.clear();
    this.#lastEvents = null;
    return effects;
  }
}
