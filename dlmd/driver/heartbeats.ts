/**
 * The beater (membership/heartbeater.ts) in a thread of its own, with its own sockets: UDP on the number of the peer port. A main thread that is
 * busy, or collecting garbage, misses no heartbeat for that. What must be known there at once is in shared memory: the main thread's
 * progress, and that it promised a later view, after which nothing is acked any more (hazard C4).
 */
import { Worker } from "node:worker_threads";
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metric.ts";
import type { NodeConfig } from "../config/votes.ts";
import type { BeatContent, HeardBeat } from "../membership/heartbeater.ts";
import type { Member } from "../wire/view-id.ts";

/** Places in the shared cell. */
export const Shared = { PROGRESS: 0, STOPPED: 1 } as const;

/** What the thread starts with: plain data and shared memory. */
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
  /** The clock of the main thread, and CLOCK_MONOTONIC at that moment. */
  readonly nowMs: number;
  readonly monotonicMs: number;
}

export type ToHeartbeats =
  | { readonly kind: "tell"; readonly content: BeatContent | null; readonly now: boolean }
  | { readonly kind: "confirm"; readonly nodeid: number; readonly key: Uint8Array; readonly counter: number }
  | { readonly kind: "nodes"; readonly nodes: readonly NodeConfig[] }
  | { readonly kind: "end-lease" }
  | { readonly kind: "close" };

export type FromHeartbeats =
  | { readonly kind: "ready" }
  | { readonly kind: "lease-ended" }
  | { readonly kind: "refused"; readonly message: string; readonly code: string; readonly hint: string; readonly exitStatus: number }
  | { readonly kind: "heard"; readonly beat: HeardBeat; readonly viaMulticast: boolean }
  | { readonly kind: "log"; readonly fields: Readonly<Record<string, unknown>>; readonly message: string }
  | { readonly kind: "count"; readonly name: string; readonly by: number };

export interface HeartbeatsOptions extends Omit<HeartbeatStart, "cell" | "nowMs" | "monotonicMs"> {
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly heard: (beat: HeardBeat) => void;
  /** Multicast of that node arrives here. */
  readonly heardMulticast: (nodeid: number) => void;
  /** Without heartbeats the node cannot go on. */
  readonly fatal: (error: Error) => void;
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

/** Resolves when it listens. Rejects with OperatingError as openDatagramChannel. */
export async function startHeartbeats(options: HeartbeatsOptions): Promise<Heartbeats> {
  const { nowMs, log, metrics, heard, heardMulticast, fatal, ...start } = options;
  const cell = new Int32Array(new SharedArrayBuffer(8));
  const workerData: HeartbeatStart = { ...start, cell, nowMs: nowMs(), monotonicMs: Number(process.hrtime.bigint()) / 1e6 };
  const worker = new Worker(new URL("./heartbeat-thread.js", import.meta.url), { workerData, name: "heartbeats" });
  let ready = false;
  let closing = false;
  let leaseEnded: (() => void) | null = null;
  const exited = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
  const post = (message: ToHeartbeats): void => worker.postMessage(message, []);
  await new Promise<void>((resolve, reject) => {
    worker.on("error", (error) => (ready ? fatal(error) : reject(error)));
    worker.on("message", (message: FromHeartbeats) => {
      switch (message.kind) {
        case "ready":
          ready = true;
          return resolve();
        case "lease-ended":
          return leaseEnded?.();
        case "refused": {
          const { code, hint, exitStatus } = message;
          return reject(new OperatingError(message.message, { code, hint, exitStatus }));
        }
        case "heard":
          if (closing) return;
          if (message.viaMulticast) heardMulticast(message.beat.message.from);
          return heard(message.beat);
        case "log":
          return log.warn(message.fields, message.message);
        case "count":
          return metrics.count(message.name, message.by);
      }
    });
  });
  worker.on("exit", () => {
    if (!closing) fatal(new Error("the thread of the heartbeats ended by itself"));
  });
  return {
    tell(content, now) {
      Atomics.store(cell, Shared.STOPPED, content?.stopped === true ? 1 : 0);
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
    async close() {
      closing = true;
      post({ kind: "close" });
      await exited;
    },
  };
}
