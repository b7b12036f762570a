/**
 * The beater (membership/heartbeater.ts) in a thread of its own, with its own sockets: UDP on the number of the peer port. A main thread that is
 * busy, or collecting garbage, misses no heartbeat for that. What must be known there at once is in shared memory: the main thread's
 * progress, and how often it has left a view, after which nothing is acked in that one any more (hazard C4).
 */
import { Worker } from "node:worker_threads";
import { OperatingError } from "../base/error.ts";
import { bootClock } from "./clock.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metric.ts";
import type { NodeConfig } from "../config/votes.ts";
import type { BeatContent, HeardBeat } from "../membership/heartbeater.ts";
import type { Member } from "../wire/view-id.ts";

/** Places in the shared cell. */
export const Shared = { PROGRESS: 0, STOPS: 1 } as const;

/** What each life starts with: plain data and shared memory. */
export interface HeartbeatStart {
  readonly self: Member;
  readonly cluster: string;
  readonly nodes: readonly NodeConfig[];
  readonly group: string;
  readonly port: number;
  readonly timeoutMs: number;
  readonly datagramKey: Uint8Array;
  readonly counter: BigInt64Array;
  readonly clusterKey: Uint8Array;
  readonly cell: Int32Array;
  /** Where the node's lease is kept for the programs of this node (lease-file.ts). */
  readonly leaseFile: string;
  /** The clock of the main thread, and CLOCK_BOOTTIME at that moment. */
  readonly nowMs: number;
  readonly bootMs: number;
}

export type ToHeartbeats =
  | { readonly kind: "begin"; readonly start: HeartbeatStart }
  | { readonly kind: "tell"; readonly content: BeatContent | null; readonly now: boolean }
  | { readonly kind: "confirm"; readonly nodeid: number; readonly key: Uint8Array; readonly counter: number }
  | { readonly kind: "nodes"; readonly nodes: readonly NodeConfig[] }
  | { readonly kind: "end-lease" }
  | { readonly kind: "close" };

/** An OperatingError: the class of an error does not come out of a thread. */
export interface ErrorWords {
  readonly message: string;
  readonly code: string;
  readonly hint: string;
  readonly exitStatus: number;
}

/** After "closed" and "refused" the thread waits for the next "begin". */
export type FromHeartbeats =
  | { readonly kind: "ready" }
  | { readonly kind: "lease-ended" }
  | { readonly kind: "closed" }
  | ({ readonly kind: "refused" } & ErrorWords)
  /** What it keeps for this node cannot be kept any more. */
  | ({ readonly kind: "failed" } & ErrorWords)
  | { readonly kind: "heard"; readonly beat: HeardBeat; readonly viaMulticast: boolean }
  /** It was told of that stop. All that it has acknowledged until then it has said before, as "heard". */
  | { readonly kind: "stopped"; readonly stops: number }
  | { readonly kind: "log"; readonly fields: Readonly<Record<string, unknown>>; readonly message: string }
  | { readonly kind: "count"; readonly name: string; readonly by: number };

export interface HeartbeatsOptions extends Omit<HeartbeatStart, "cell" | "nowMs" | "bootMs"> {
  readonly thread: HeartbeatThread;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly heard: (beat: HeardBeat) => void;
  /** As the event "acks-stopped" (node-api.ts). */
  readonly acksStopped: (stops: number) => void;
  /** Multicast of that node arrives here. */
  readonly heardMulticast: (nodeid: number) => void;
  /** The node cannot go on: its lease cannot be published. */
  readonly fatal: (error: OperatingError) => void;
}

export interface Heartbeats {
  tell(content: BeatContent | null, now: boolean): void;
  /** As DatagramChannel. */
  confirm(nodeid: number, key: Uint8Array, counter: number): void;
  setNodes(nodes: readonly NodeConfig[]): void;
  /** The main thread did something. */
  progressed(): void;
  /** No heartbeats any more, and programs may not act on their locks: resolves when they see that. */
  endLease(): Promise<void>;
  close(): Promise<void>;
}

/**
 * One thread for all lives of a dlmd. Its files are read at the first life, before dlmd is ready: those of a package that is installed meanwhile are of
 * another version (packaging/README.md, "What runs during an upgrade").
 */
export interface HeartbeatThread {
  /** What it says goes to the life that began last. */
  begin(start: HeartbeatStart, hear: (message: FromHeartbeats) => void): void;
  post(message: ToHeartbeats): void;
}

/** `fatal`: it ended. A node without heartbeats cannot go on. */
export function createHeartbeatThread(fatal: (error: Error) => void): HeartbeatThread {
  let worker: Worker | null = null;
  let hearing: (message: FromHeartbeats) => void = () => undefined;
  const started = (): Worker => {
    const thread = new Worker(new URL("./heartbeat-thread.js", import.meta.url), { name: "heartbeats" });
    thread.on("error", fatal);
    thread.on("exit", () => fatal(new Error("the thread of the heartbeats ended by itself")));
    thread.on("message", (message: FromHeartbeats) => hearing(message));
    return thread;
  };
  return {
    begin(start, hear) {
      hearing = hear;
      worker ??= started();
      worker.postMessage({ kind: "begin", start } satisfies ToHeartbeats, []);
    },
    post: (message) => worker?.postMessage(message, []),
  };
}

function errorOf({ message, code, hint, exitStatus }: ErrorWords): OperatingError {
  return new OperatingError(message, { code, hint, exitStatus });
}

/** Resolves when it listens. Rejects with OperatingError as openDatagramChannel. */
export async function startHeartbeats(options: HeartbeatsOptions): Promise<Heartbeats> {
  const { thread, nowMs, log, metrics, heard, acksStopped, heardMulticast, fatal, ...start } = options;
  const cell = new Int32Array(new SharedArrayBuffer(8));
  let closing = false;
  let leaseEnded: (() => void) | null = null;
  let closed: (() => void) | null = null;
  await new Promise<void>((resolve, reject) => {
    thread.begin({ ...start, cell, nowMs: nowMs(), bootMs: bootClock()() }, (message) => {
      switch (message.kind) {
        case "ready":
          return resolve();
        case "lease-ended":
          return leaseEnded?.();
        case "closed":
          return closed?.();
        case "refused":
          return reject(errorOf(message));
        case "failed":
          return fatal(errorOf(message));
        case "heard":
          if (closing) return;
          if (message.viaMulticast) heardMulticast(message.beat.message.from);
          return heard(message.beat);
        case "stopped":
          return closing ? undefined : acksStopped(message.stops);
        case "log":
          return log.warn(message.fields, message.message);
        case "count":
          return metrics.count(message.name, message.by);
      }
    });
  });
  const post = (message: ToHeartbeats): void => thread.post(message);
  return {
    tell(content, now) {
      // A number: a bit would be cleared for the next view before the thread has seen it.
      if (content !== null) Atomics.store(cell, Shared.STOPS, content.stops);
      post({ kind: "tell", content, now });
    },
    confirm: (nodeid, key, counter) => post({ kind: "confirm", nodeid, key, counter }),
    setNodes: (nodes) => post({ kind: "nodes", nodes }),
    progressed: () => void Atomics.add(cell, Shared.PROGRESS, 1),
    endLease: () =>
      new Promise((resolve) => {
        leaseEnded = resolve;
        post({ kind: "end-lease" });
      }),
    close() {
      closing = true;
      return new Promise((resolve) => {
        closed = resolve;
        post({ kind: "close" });
      });
    },
  };
}
