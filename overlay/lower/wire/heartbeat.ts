/**
 * The sign of life on a connection between two overlays (hazard H13). TCP does not tell of a peer whose host was cut off: nothing comes, not even a
 * reset, and what was sent waits for a quarter of an hour. So each end says that it lives when it has said nothing else, and ends a
 * connection on which it has heard nothing for long. No answer is asked for: an end that reads no calls for now can still speak.
 */
import { ByteReader } from "../../../dlmd/base/bytes.ts";

/** An end that has sent nothing for so long sends ALIVE; it looks so often. */
export const PING_MS = 2_000;
/** Nothing was heard for so long: the connection is ended. The caller makes another, and the session goes on. */
export const DEAD_MS = 10_000;

export interface HeartbeatEvents {
  readonly sendAlive: () => void;
  /** Once; nothing follows. */
  readonly dead: () => void;
  /** What comes is read at once. What is left unread says nothing of the peer. */
  readonly isListening: () => boolean;
}

export class Heartbeat {
  readonly #events: HeartbeatEvents;
  readonly #timer: NodeJS.Timeout;
  #heard = false;
  #sent = false;
  #silentLooks = 0;

  readonly #deadLooks: number;

  /** Both ends speak from now on. `deadMs`: the silence after which the other end is dead. */
  constructor(events: HeartbeatEvents, deadMs: number = DEAD_MS) {
    this.#events = events;
    this.#deadLooks = deadMs / PING_MS;
    this.#timer = setInterval(() => this.#look(), PING_MS).unref();
  }

  /** Bytes came. */
  heard(): void {
    this.#heard = true;
  }

  /** A frame was sent. */
  sent(): void {
    this.#sent = true;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Looks are counted, and not time: if this process stood still, one look follows, and what came meanwhile is read before the next. */
  #look(): void {
    this.#silentLooks = this.#heard || !this.#events.isListening() ? 0 : this.#silentLooks + 1;
    this.#heard = false;
    if (this.#silentLooks >= this.#deadLooks) {
      this.stop();
      this.#events.dead();
      return;
    }
    if (!this.#sent) this.#events.sendAlive();
    this.#sent = false;
  }
}

export function encodeAlive(): Uint8Array {
  return new Uint8Array(0);
}

/** Throws WireError if it says anything. */
export function decodeAlive(body: Uint8Array): void {
  new ByteReader(body).end();
}
