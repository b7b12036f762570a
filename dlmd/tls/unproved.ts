/**
 * Connections whose other end has not proved that it has a cluster key. A stranger may have a few of them, each for a short time: the nodes
 * of the configuration keep room of their own, which no other address can take.
 *
 * Something at a node's own address, which has no key, cannot keep that node out with connections that stay: the newest takes the place of
 * the oldest. It would have to open MAX_UNPROVED_OF_NODE within each handshake of the node (about 2 ms), and the node dials again.
 */
import type { Socket } from "node:net";

/** From the first SYN to the end of the handshake, also for an end that says one byte now and then: the connection is closed then. */
export const HANDSHAKE_TIMEOUT_MS = 2000;
/** A connection is looked at so often; the time is counted in looks. */
export const HANDSHAKE_LOOK_MS = 500;
/** From one address of a configured node. One more ends the oldest of them. */
export const MAX_UNPROVED_OF_NODE = 32;
/** From all other addresses together. Further ones are reset. */
export const MAX_UNPROVED_OF_STRANGERS = 32;

export interface UnprovedOptions {
  /** The address is one of the configured nodes. */
  readonly isNode: (address: string) => boolean;
}

interface Unproved {
  readonly address: string;
  readonly end: (reason: string) => void;
}

export class UnprovedConnections {
  readonly #options: UnprovedOptions;
  /** The oldest first. */
  readonly #accepted = new Map<Socket, Unproved>();
  readonly #own = new Set<Socket>();

  constructor(options: UnprovedOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#accepted.size + this.#own.size;
  }

  /** For one more from that address. False: there is none, and it is not to be added. */
  makeRoom(address: string): boolean {
    const { isNode } = this.#options;
    if (isNode(address)) {
      const before = [...this.#accepted.values()].filter((other) => other.address === address);
      if (before.length >= MAX_UNPROVED_OF_NODE) before[0]?.end(`too many newer connections: at most ${MAX_UNPROVED_OF_NODE} at one time`);
      return true;
    }
    let count = 0;
    for (const { address: other } of this.#accepted.values()) if (!isNode(other)) count++;
    return count < MAX_UNPROVED_OF_STRANGERS;
  }

  /**
   * `raw` was accepted, and counts until the function that is given back is called, or it closes. `refused` is called with a reason if its time
   * is over, or if it has to make room; it is destroyed then.
   */
  add(raw: Socket, address: string, refused: (reason: string) => void): () => void {
    const end = (reason: string): void => {
      this.#accepted.delete(raw);
      refused(reason);
      raw.destroy();
    };
    this.#accepted.set(raw, { address, end });
    return this.#watch(raw, end, () => this.#accepted.delete(raw));
  }

  /** As `add`, of a connection that this node opened: nobody else's makes it end. */
  addOwn(raw: Socket, refused: (reason: string) => void): () => void {
    const end = (reason: string): void => {
      refused(reason);
      raw.destroy();
    };
    this.#own.add(raw);
    return this.#watch(raw, end, () => this.#own.delete(raw));
  }

  /**
   * Looks are counted, and not time, each after what has arrived was read: in a loop whose turns are long the timers come before it, and a
   * connection would end whose handshake lies in the socket.
   */
  #watch(raw: Socket, end: (reason: string) => void, forget: () => void): () => void {
    let looks = 0;
    let timer: NodeJS.Timeout;
    let afterReads: NodeJS.Immediate | undefined;
    const look = (): void => {
      looks += 1;
      if (looks < HANDSHAKE_TIMEOUT_MS / HANDSHAKE_LOOK_MS) return next();
      end(`no handshake within ${HANDSHAKE_TIMEOUT_MS} ms`);
    };
    const next = (): void => {
      timer = setTimeout(() => {
        afterReads = setImmediate(look);
      }, HANDSHAKE_LOOK_MS);
    };
    next();
    const proved = (): void => {
      clearTimeout(timer);
      clearImmediate(afterReads);
      forget();
    };
    raw.once("close", proved);
    return proved;
  }

  /** For the log's limiter: strangers are one, and what they say in the reason (behind the colon) does not count. */
  refusalKey(address: string, reason: string): string {
    const kind = reason.split(":", 1)[0] ?? "";
    return `${this.#options.isNode(address) ? address : "a stranger"} ${kind}`;
  }

  destroyAll(): void {
    for (const raw of [...this.#accepted.keys(), ...this.#own]) raw.destroy();
  }
}
