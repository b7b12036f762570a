/**
 * What a life of a node has of corosync: a connection, or the attempt to get one. Where corosync does not run yet, or is started again, it is tried
 * again and again; what does not fit cluster.yaml is an error of the start.
 */
import type { OperatingError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Voter } from "../../config/votes.ts";
import type { CorosyncEvent } from "../../engine/corosync/corosync-api.ts";
import { connectCorosync, type CorosyncConnection } from "./connection.ts";

const RETRY_MS = 500;
/** The same failure is logged once in that time. */
const LOG_INTERVAL_MS = 10_000;

export interface CorosyncLinkOptions {
  readonly cluster: string;
  readonly nodeid: number;
  readonly nodes: readonly Voter[];
  readonly event: (event: CorosyncEvent) => void;
  readonly log: Log;
  /** Programs of this node that have a lockspace open, by name and pid. */
  readonly programs: () => readonly string[];
  /** Not as an error of the start any more. */
  readonly fatal: (error: Error) => void;
  /** Another one in tests. */
  readonly connect?: typeof connectCorosync;
}

export class CorosyncLink {
  readonly #options: CorosyncLinkOptions;
  #connection: CorosyncConnection | null = null;
  #timer: NodeJS.Timeout | null = null;
  #trying: Promise<void> = Promise.resolve();
  #closed = false;
  #loggedMs = Number.NEGATIVE_INFINITY;

  constructor(options: CorosyncLinkOptions) {
    this.#options = options;
  }

  /** Rejects with OperatingError if corosync is there and cannot be used, or its libraries are not. */
  async open(): Promise<void> {
    const { cluster, nodeid, nodes, event, connect = connectCorosync } = this.#options;
    try {
      const shutdown = (): string | null => this.#answerShutdown();
      const connection = await connect({ group: `coverlay:${cluster}`, nodeid, nodes, event, dispatched: () => undefined, shutdown });
      if (this.#closed) connection.close();
      else this.#connection = connection;
    } catch (error) {
      if ((error as Partial<OperatingError>).code !== "corosync-failed") throw error;
      this.#tryLater(error as OperatingError);
    }
  }

  /** As dlm_controld does: not while there are lockspaces. Without one the cluster loses nothing with this node. */
  #answerShutdown(): string | null {
    const { programs, log } = this.#options;
    const users = programs().join(", ");
    if (users === "") {
      log.info({}, "corosync is asked to end on this node: nothing is open here, so it may");
      return null;
    }
    const hint = "Unmount the volumes of this node first, or end these programs; corosync-cfgtool -H --force ends corosync all the same.";
    log.warn({ programs: users, hint }, "corosync is asked to end on this node: refused, lockspaces are open here");
    return users;
  }

  #tryLater({ message, hint }: OperatingError): void {
    const { log, fatal } = this.#options;
    if (this.#closed) return;
    const nowMs = performance.now();
    if (nowMs - this.#loggedMs >= LOG_INTERVAL_MS) {
      this.#loggedMs = nowMs;
      log.warn({ error: message, hint }, "waiting for corosync");
    }
    this.#timer = setTimeout(() => {
      this.#trying = this.open().catch((error: unknown) => (this.#closed ? undefined : fatal(error as Error)));
    }, RETRY_MS);
  }

  /** Before there is a connection nothing is sent: no process of the group would wait for it. */
  send(data: Uint8Array): void {
    this.#connection?.send(data);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#connection?.close();
    await this.#trying;
  }
}
