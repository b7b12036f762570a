/**
 * Dials one peer whenever there is no connection to it: again and again with a growing pause, and at once when it was heard. After a connection
 * that lasted for less than a time-out it keeps to the pause: an end of one that cannot read the other comes again each time (hazard H13).
 */
import { type Socket, createConnection } from "node:net";
import type { NodeConfig } from "../config/votes.ts";

const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 1000;

export interface DialerOptions {
  readonly node: NodeConfig;
  readonly port: number;
  readonly localAddress: string;
  readonly timeoutMs: number;
  /** A connection that lasted for so long was a good one. */
  readonly lastingMs: number;
  readonly nowMs: () => number;
  readonly isConnected: () => boolean;
  /** TCP is up; `ended` is to be called when the attempt, or the connection, is over. */
  readonly connected: (socket: Socket, ended: () => void) => void;
  readonly unreached: (error: Error) => void;
}

export class PeerDialer {
  readonly #options: DialerOptions;
  #backoffMs = FIRST_BACKOFF_MS;
  #timer: NodeJS.Timeout | null = null;
  #dialing = false;
  #dialedAt = Number.NEGATIVE_INFINITY;
  #establishedAt = Number.NEGATIVE_INFINITY;
  /** The last connection was none that lasted, and the peer is there. */
  #brief = false;
  #over = false;

  constructor(options: DialerOptions) {
    this.#options = options;
    this.#dial();
  }

  /** The peer was heard: not at the next time, but now. */
  hurry(): void {
    if (this.#timer === null || this.#brief || this.#options.nowMs() - this.#dialedAt < FIRST_BACKOFF_MS) return;
    clearTimeout(this.#timer);
    this.#dial();
  }

  /** The handshake is done. */
  established(): void {
    this.#establishedAt = this.#options.nowMs();
  }

  /** That connection is over: after one that lasted the next attempts are quick again. */
  ended(unreadable: boolean): void {
    const brief = unreadable || this.#options.nowMs() - this.#establishedAt < this.#options.lastingMs;
    if (!brief || !this.#brief) this.#backoffMs = FIRST_BACKOFF_MS;
    this.#brief = brief;
  }

  close(): void {
    this.#over = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #dial(): void {
    const { node, port, localAddress, timeoutMs, nowMs, isConnected, connected, unreached } = this.#options;
    this.#timer = null;
    if (this.#over || this.#dialing || isConnected()) return;
    this.#dialing = true;
    this.#dialedAt = nowMs();
    const socket = createConnection({ host: node.address, port, localAddress });
    const timer = setTimeout(() => socket.destroy(new Error("no answer")), timeoutMs);
    let over = false;
    const failed = (error: Error): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      this.#brief = false;
      unreached(error);
      this.#again();
    };
    socket.on("error", failed);
    socket.once("connect", () => {
      clearTimeout(timer);
      over = true;
      if (this.#over) socket.destroy();
      else connected(socket, () => this.#again());
    });
  }

  #again(): void {
    this.#dialing = false;
    if (this.#over || this.#timer !== null || this.#options.isConnected()) return;
    this.#timer = setTimeout(() => this.#dial(), this.#backoffMs);
    this.#backoffMs = Math.min(this.#backoffMs * 2, MAX_BACKOFF_MS);
  }
}
