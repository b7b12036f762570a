/**
 * Dials one peer whenever there is no connection to it: again and again with a growing pause, and at once when it was heard.
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
  #over = false;

  constructor(options: DialerOptions) {
    this.#options = options;
    this.#dial();
  }

  /** The peer was heard: not at the next time, but now. */
  hurry(): void {
    if (this.#timer === null || this.#options.nowMs() - this.#dialedAt < FIRST_BACKOFF_MS) return;
    clearTimeout(this.#timer);
    this.#dial();
  }

  /** The peer is there: the next attempts are quick again. */
  reset(): void {
    this.#backoffMs = FIRST_BACKOFF_MS;
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
