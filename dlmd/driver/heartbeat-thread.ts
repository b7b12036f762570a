/** The thread of the heartbeats: sockets, beater and timer. What it is told and tells: heartbeats.ts. */
import { parentPort } from "node:worker_threads";
import { OperatingError } from "../base/error.ts";
import { Heartbeater } from "../membership/heartbeater.ts";
import { bootClock } from "./clock.ts";
import { type DatagramChannel, type DatagramChannelOptions, openDatagramChannel } from "./datagram-channel.ts";
import { leaseMarginMs } from "../membership/lease.ts";
import { type ErrorWords, type FromHeartbeats, type HeartbeatStart, Shared, type ToHeartbeats } from "./heartbeats.ts";
import { LeaseFile } from "./lease-file.ts";
import { createKeyring } from "../tls/keyring.ts";
import { DatagramSealer } from "./seal.ts";

function post(message: FromHeartbeats): void {
  parentPort?.postMessage(message, []);
}

/** The main thread's clock: both count from one moment. */
function sharedClock(start: HeartbeatStart): () => number {
  const bootMs = bootClock();
  const offsetMs = start.nowMs - start.bootMs;
  return () => bootMs() + offsetMs;
}

/** What one life of the node has here. */
interface Beating {
  handle(message: Exclude<ToHeartbeats, { kind: "begin" | "close" }>): void;
  close(): Promise<void>;
}

/** Rejects with OperatingError; nothing is open then. */
async function begin(start: HeartbeatStart): Promise<Beating> {
  const { self, cell, timeoutMs } = start;
  const nowMs = sharedClock(start);
  const beater = new Heartbeater(self, timeoutMs, nowMs());
  const unpublished = (error: OperatingError): void => post({ kind: "failed", ...wordsOf(error) });
  const lease = await LeaseFile.create(start.leaseFile, self.incarnation, leaseMarginMs(timeoutMs), unpublished);
  const publish = (): void => lease.publish(beater.leaseEndMs);
  const channel = await openChannel(start, nowMs, (message, viaMulticast) => {
    if (message.kind !== "heartbeat") return;
    const beat = beater.receive(message, nowMs());
    publish();
    if (beat !== null) post({ kind: "heard", beat, viaMulticast });
  }).catch(async (error: unknown) => {
    await lease.close();
    throw error;
  });
  let timer: NodeJS.Timeout | null = null;
  let leaving = false;
  const beat = (): void => {
    const message = beater.beat(nowMs(), Atomics.load(cell, Shared.PROGRESS), Atomics.load(cell, Shared.STOPS));
    if (message !== null) channel.send("all", message);
    if (timer !== null) clearTimeout(timer);
    timer = setTimeout(beat, Math.max(0, Math.ceil(beater.nextMs - nowMs())));
  };
  beat();
  return {
    handle(message) {
      switch (message.kind) {
        case "end-lease":
          leaving = true;
          beater.tell(null, false);
          void lease.end().then(() => post({ kind: "lease-ended" }), told);
          return;
        case "tell":
          if (leaving) return;
          beater.tell(message.content, message.now);
          publish();
          if (message.now) beat();
          if (message.content?.stopped === true) post({ kind: "stopped", stops: message.content.stops });
          return;
        case "confirm":
          return channel.confirm(message.nodeid, message.key, message.counter);
        case "nodes":
          return channel.setNodes(message.nodes);
      }
    },
    async close() {
      if (timer !== null) clearTimeout(timer);
      await Promise.all([channel.close(), lease.close().catch(told)]);
    },
  };
}

function openChannel(start: HeartbeatStart, nowMs: () => number, receive: DatagramChannelOptions["receive"]): Promise<DatagramChannel> {
  const { self, nodes, timeoutMs } = start;
  const warn = (fields: Readonly<Record<string, unknown>>, message: string): void => post({ kind: "log", fields, message });
  return openDatagramChannel({
    keyring: createKeyring([start.clusterKey]),
    cluster: start.cluster,
    self: nodes.find((node) => node.nodeid === self.nodeid) as (typeof nodes)[number],
    nodes,
    multicast: { group: start.group, port: start.port },
    timeoutMs,
    sealer: new DatagramSealer(self.nodeid, start.datagramKey, start.counter),
    nowMs,
    log: { debug() {}, info() {}, warn, error: warn },
    metrics: { count: (name, by = 1) => post({ kind: "count", name: `heartbeat_${name}`, by }), snapshot: () => ({}) },
    receive,
    sighted: () => undefined,
  });
}

/** A lease that cannot be ended: dlmd was told "failed", and ends. */
function told(error: unknown): void {
  if (!(error instanceof OperatingError)) throw error;
}

function wordsOf({ message, code, hint, exitStatus }: OperatingError): ErrorWords {
  return { message, code, hint, exitStatus };
}

function refused(error: unknown): FromHeartbeats {
  if (!(error instanceof OperatingError)) throw error;
  return { kind: "refused", ...wordsOf(error) };
}

/** Lives come one after the other: the main thread waits for "ready" or "refused", and in the end for "closed". */
let beating: Beating | null = null;

async function handle(message: ToHeartbeats): Promise<void> {
  switch (message.kind) {
    case "begin":
      try {
        beating = await begin(message.start);
      } catch (error) {
        return post(refused(error));
      }
      return post({ kind: "ready" });
    case "close": {
      const ending = beating;
      // What comes meanwhile is for nobody.
      beating = null;
      await ending?.close();
      return post({ kind: "closed" });
    }
    default:
      return beating?.handle(message);
  }
}

// An error that is none of these ends the thread, and so dlmd.
parentPort?.on("message", (message: ToHeartbeats) => void handle(message));
