/** The main thread's side of the heartbeats (driver/heartbeats.ts), with a thread that gets to what it is told when the test says so. */
import { expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import {
  type FromHeartbeats,
  type Heartbeats,
  type HeartbeatStart,
  Shared,
  startHeartbeats,
  type ToHeartbeats,
} from "../../../dlmd/driver/heartbeats.ts";
import { Detector, type OwnState } from "../../../dlmd/membership/detector.ts";
import { type BeatContent, Heartbeater } from "../../../dlmd/membership/heartbeater.ts";
import { noView, type ViewId } from "../../../dlmd/wire/view-id.ts";

const timeoutMs = 1000;
const self = { nodeid: 1, incarnation: "00000000000000a1" };
const other = { nodeid: 2, incarnation: "00000000000000a2" };
const viewOf = (epoch: number): ViewId => ({ epoch, proposer: 1, incarnation: self.incarnation });

const state = { promisedEpoch: 6, lineage: noView, configVersion: 1, running: true, broken: false, stored: true, leaving: false };

function content(epoch: number, stopped: boolean, stops: number): BeatContent {
  return { ...state, view: viewOf(epoch), stopped, stops, lease: null, peers: [{ ...other, tcpUp: true }] };
}

interface Bench {
  readonly heartbeats: Heartbeats;
  readonly start: HeartbeatStart;
  /** What the thread was told and has not looked at. */
  readonly told: ToHeartbeats[];
  readonly hear: (message: FromHeartbeats) => void;
  readonly acksStopped: number[];
  readonly fatal: Error[];
}

async function begun(): Promise<Bench> {
  const told: ToHeartbeats[] = [];
  const acksStopped: number[] = [];
  const fatal: Error[] = [];
  const begins: { start: HeartbeatStart; hear: (message: FromHeartbeats) => void }[] = [];
  const heartbeats = await startHeartbeats({
    thread: {
      begin: (start, hear) => {
        begins.push({ start, hear });
        hear({ kind: "ready" });
      },
      post: (message) => void told.push(message),
    },
    self,
    cluster: "c",
    nodes: [],
    group: "none",
    port: 1,
    timeoutMs,
    datagramKey: new Uint8Array(32),
    counter: new BigInt64Array(1),
    clusterKey: new Uint8Array(32),
    leaseFile: "",
    nowMs: () => 1000,
    log: silentLog,
    metrics: createMetrics(),
    heard: () => undefined,
    acksStopped: (stops) => void acksStopped.push(stops),
    heardMulticast: () => undefined,
    fatal: (error) => void fatal.push(error),
  });
  return { heartbeats, ...(begins[0] as (typeof begins)[number]), told, acksStopped, fatal };
}

it("what the main thread has stopped is acknowledged in no view of before, though the thread is told of the next view only later (C4)", async () => {
  const { heartbeats, start, told } = await begun();
  const beater = new Heartbeater(self, timeoutMs, 1000);
  const hear = (): void => {
    for (const message of told.splice(0)) if (message.kind === "tell") beater.tell(message.content, message.now);
  };
  const acknowledged = (nowMs: number): { epoch: number | undefined; seqs: number[] | undefined } => {
    const beat = beater.beat(nowMs, 1, Atomics.load(start.cell, Shared.STOPS));
    return { epoch: beat?.view.epoch, seqs: beat?.heard.map(({ seq }) => seq) };
  };

  heartbeats.tell(content(5, false, 0), true);
  hear();
  const says = { ...state, view: viewOf(5), stopped: false, progress: 1, padding: 0, heard: [] };
  beater.receive({ kind: "heartbeat", from: 2, incarnation: other.incarnation, seq: 7, ...says }, 1001);
  expect(acknowledged(1100)).toEqual({ epoch: 5, seqs: [7] });

  heartbeats.tell(content(5, true, 1), true);
  expect(acknowledged(1200)).toEqual({ epoch: 5, seqs: [0] });
  heartbeats.tell(content(6, false, 1), true);
  expect(acknowledged(1300)).toEqual({ epoch: 5, seqs: [0] });
  hear();
  expect(acknowledged(1400)).toEqual({ epoch: 6, seqs: [7] });
});

it("each view that a node leaves is counted once, also where the next one begins in the same step (C4)", () => {
  const boot = { ...self, configVersion: 1, nodes: [], timeoutMs, promisedEpoch: 0, seed: 1, nowMs: 0 };
  const detector = new Detector(boot);
  const stopsOf = (epoch: number | null, stopped: boolean): number | undefined => {
    const own: OwnState = { ...state, view: epoch === null ? null : { id: viewOf(epoch), members: [self] }, stopped, lease: null };
    return detector.content(own)?.stops;
  };
  expect([stopsOf(null, true), stopsOf(5, false), stopsOf(5, true), stopsOf(6, false), stopsOf(7, false)]).toEqual([0, 0, 1, 1, 2]);
});

it("the thread's answer to a stop is told to the life that stopped, and to none that ends (C4)", async () => {
  const { heartbeats, hear, told, acksStopped } = await begun();
  hear({ kind: "stopped", stops: 3 });
  expect(acksStopped).toEqual([3]);
  const closed = heartbeats.close();
  expect(told).toEqual([{ kind: "close" }]);
  hear({ kind: "stopped", stops: 4 });
  hear({ kind: "closed" });
  await closed;
  expect(acksStopped).toEqual([3]);
});

it("a lease that the thread cannot publish ends dlmd with the words and the status of that, also while its life ends", async () => {
  const { heartbeats, hear, fatal } = await begun();
  const words = { message: "the lease of this node cannot be kept", code: "unkept", hint: "See that disk.", exitStatus: 74 };
  hear({ kind: "failed", ...words });
  void heartbeats.close();
  hear({ kind: "failed", ...words });
  expect(fatal).toEqual([expect.objectContaining(words), expect.objectContaining(words)]);
  expect(fatal.every((error) => error instanceof OperatingError)).toBe(true);
});
