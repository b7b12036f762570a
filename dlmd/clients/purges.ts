/**
 * Purging orphans by the name of a dead process (Linux dlm_user_purge, send_purge): on this node or, by message, on another one.
 * Who is not root purges what processes of its own user left behind.
 */
import type { ClientEvent, ClientRequest } from "../wire/program.ts";
import type { PeerMessage, PurgedMessage, PurgeMessage } from "../wire/peer-message.ts";
import type { Member } from "../wire/view-id.ts";
import type { Client } from "./client.ts";

export interface PurgePort {
  toClient(client: Client, event: ClientEvent): void;
  send(nodeid: number, message: PeerMessage): void;
  /** Begins to release them; returns how many. */
  release(lockspace: string, pid: number, uid: number): number;
}

interface Asked {
  readonly client: Client;
  readonly purgeId: number;
  readonly nodeid: number;
}

type PurgeRequest = Extract<ClientRequest, { kind: "purge" }>;

export class Purges {
  readonly #self: number;
  readonly #port: PurgePort;
  readonly #asked: Map<number, Asked> = new Map();
  #lastId = 0;

  constructor(self: number, port: PurgePort) {
    this.#self = self;
    this.#port = port;
  }

  ask(client: Client, { purgeId, lockspaceId, nodeid, pid }: PurgeRequest, members: readonly Member[]): void {
    const lockspace = client.lockspaces.get(lockspaceId)?.name;
    const { uid } = client;
    if (lockspace === undefined) return this.#answer(client, purgeId, 0, `lockspace ${lockspaceId} is not open`);
    if (!members.some((member) => member.nodeid === nodeid)) {
      return this.#answer(client, purgeId, 0, `node ${nodeid} is not in the view: what it left behind is gone with it`);
    }
    if (nodeid === this.#self) return this.#answer(client, purgeId, this.#port.release(lockspace, pid, uid), "");
    this.#lastId = (this.#lastId + 1) >>> 0;
    this.#asked.set(this.#lastId, { client, purgeId, nodeid });
    this.#port.send(nodeid, { kind: "purge", purgeId: this.#lastId, lockspace, pid, uid });
  }

  #answer(client: Client, purgeId: number, locks: number, error: string): void {
    this.#port.toClient(client, { kind: "purged", purgeId, locks, error });
  }

  receive(from: number, message: PurgeMessage | PurgedMessage): void {
    if (message.kind === "purge") {
      const { purgeId, lockspace, pid, uid } = message;
      return this.#port.send(from, { kind: "purged", purgeId, locks: this.#port.release(lockspace, pid, uid) });
    }
    const asked = this.#asked.get(message.purgeId);
    if (asked === undefined || asked.nodeid !== from) return;
    this.#asked.delete(message.purgeId);
    this.#answer(asked.client, asked.purgeId, message.locks, "");
  }

  /** The view ends, and with it what was asked in it. */
  stop(): void {
    for (const { client, purgeId } of this.#asked.values()) this.#answer(client, purgeId, 0, "the view changed meanwhile: ask again");
    this.#asked.clear();
  }

  forget(client: Client): void {
    for (const [id, asked] of this.#asked) if (asked.client === client) this.#asked.delete(id);
  }
}
