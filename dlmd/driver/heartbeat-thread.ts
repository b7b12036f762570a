/** The thread of the heartbeats: sockets, beater and timer. What it is told and tells: heartbeats.ts. */
import { parentPort, workerData } from "node:worker_threads";
import { OperatingError } from "../base/error.ts";
import { Heartbeater } from "../membership/heartbeater.ts";
import { createBootClock } from "./clock.ts";
import { type DatagramChannel, openDatagramChannel } from "./datagram-channel.ts";
import { leaseMarginMs } from "../membership/lease.ts";
import { type FromHeartbeats, type HeartbeatStart, Shared, type ToHeartbeats } from "./heartbeats.ts";
import { LeaseFile } from "./lease-file.ts";
import { createKeyring } from "../tls/keyring.ts";
import { DatagramSealer } from "./seal.ts";

const start = workerData as HeartbeatStart;

function post(message: FromHeartbeats): void {
  parentPort?.postMessage(message, []);
}

/** The main thread's clock: both count from one moment. */
function sharedClock(): () => number {
  const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6 - start.monotonicMs + start.nowMs;
  const clock = createBootClock(monotonicMs);
  const offsetMs = clock() - monotonicMs();
  return () => clock() - offsetMs;
}

async function run(): Promise<void> {
  const { self, cell, nodes, timeoutMs } = start;
  const nowMs = sharedClock();
  const beater = new Heartbeater(self, timeoutMs, nowMs());
  const lease = await LeaseFile.create(start.leaseFile, self.incarnation, leaseMarginMs(timeoutMs));
  const publish = (): void => lease.publish(beater.leaseEndMs);
  const warn = (fields: Readonly<Record<string, unknown>>, message: string): void => post({ kind: "log", fields, message });
  const channel: DatagramChannel = await openDatagramChannel({
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
    receive(message, viaMulticast) {
      if (message.kind !== "heartbeat") return;
      const beat = beater.receive(message, nowMs());
      publish();
      if (beat !== null) post({ kind: "heard", beat, viaMulticast });
    },
    sighted: () => undefined,
  });
  let timer: NodeJS.Timeout | null = null;
  let leaving = false;
  const beat = (): void => {
    const stopped = Atomics.load(cell, Shared.STOPPED) !== 0;
    const message = beater.beat(nowMs(), Atomics.load(cell, Shared.PROGRESS), stopped);
    if (message !== null) channel.send("all", message);
    if (timer !== null) clearTimeout(timer);
    timer = setTimeout(beat, Math.max(0, Math.ceil(beater.nextMs - nowMs())));
  };
  parentPort?.on("message", (message: ToHeartbeats) => {
    switch (message.kind) {
      case "end-lease":
        leaving = true;
        beater.tell(null, false);
        void lease.end().then(() => post({ kind: "lease-ended" }));
        return;
      case "tell":
        if (leaving) return;
        beater.tell(message.content, message.now);
        publish();
        if (message.now) beat();
        return;
      case "confirm":
        return channel.confirm(message.nodeid, message.key, message.counter);
      case "nodes":
        return channel.setNodes(message.nodes);
      case "close":
        if (timer !== null) clearTimeout(timer);
        parentPort?.close();
        void channel.close();
        void lease.close();
    }
  });
  beat();
  post({ kind: "ready" });
}

run().catch((error: unknown) => {
  if (!(error instanceof OperatingError)) throw error;
  post({ kind: "refused", message: error.message, code: error.code, hint: error.hint, exitStatus: error.exitStatus });
  parentPort?.close();
});
