/**
 * Ordered messages of the builtin engine: three processes on the loopback device, sealed datagrams by unicast. Prints the median of
 * a message of 64 bytes until its sender has it back ordered, how many a second all three deliver, the same with 1% of the datagrams lost,
 * and the UDP round trip between two of these processes. `ordered`, or as a child `ordered NODEID PORT LOSS`.
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import { openDatagramChannel } from "../../../dlmd/driver/datagram-channel.ts";
import { createKeyring } from "../../../dlmd/driver/keyring.ts";
import { DATAGRAM_KEY_BYTES, DatagramSealer } from "../../../dlmd/driver/seal.ts";
import { BuiltinEngine } from "../../../dlmd/engine/builtin/engine-core.ts";
import type { EngineEvent } from "../../../dlmd/engine/engine.ts";
import { Beater } from "../../../dlmd/membership/beater.ts";
import { median } from "../stats.ts";

const nodeids = [1, 2, 3];
const configs = nodeids.map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `127.0.0.${nodeid}`, votes: 1 }));
const timeoutMs = 3000;
const trips = 3000;
const floodMs = 5000;
/** Messages given in one turn: what a program does that has many to send. */
const burst = 500;

type Result = Readonly<Record<string, number>>;

async function child(nodeid: number, port: number, loss: number): Promise<void> {
  const self = { nodeid, incarnation: nodeid.toString(16).padStart(16, "0") };
  const keyOf = (of: number): Uint8Array => new Uint8Array(DATAGRAM_KEY_BYTES).fill(of);
  const nowMs = (): number => performance.now();
  const beater = new Beater(self, timeoutMs, nowMs());
  let told: (event: EngineEvent) => void = () => {};
  const channel = await openDatagramChannel({
    keyring: createKeyring([new Uint8Array(32)]),
    cluster: "bench",
    self: configs[nodeid - 1] as (typeof configs)[number],
    nodes: configs,
    multicast: { group: "none", port },
    timeoutMs,
    sealer: new DatagramSealer(nodeid, keyOf(nodeid)),
    nowMs,
    log: silentLog,
    metrics: createMetrics(),
    receive: (message) => {
      if (loss > 0 && message.kind !== "heartbeat" && Math.random() < loss) return;
      if (message.kind !== "heartbeat") return step(() => engine.datagram(message));
      const beat = beater.receive(message, nowMs());
      if (beat !== null) step(() => engine.heartbeat(beat));
    },
    sighted: () => {},
  });
  for (const other of nodeids) if (other !== nodeid) channel.confirm(other, keyOf(other), 0);
  const boot = { ...self, configVersion: 1, nodes: configs, timeoutMs, connections: false, promisedEpoch: 0, seed: nodeid, nowMs: nowMs() };
  const engine = new BuiltinEngine(boot, {
    datagram: (to, message) => channel.send(to, message),
    beat: (content, now) => beater.tell(content, now),
    persist: (epoch) => setImmediate(() => step(() => engine.membership.persisted(epoch, nowMs()))),
    stop: () => {},
    install: () => {},
    event: (event) => told(event),
    evicted: (reason) => process.stderr.write(`evicted: ${reason}\n`),
    left: () => {},
    log: () => {},
    protest: (_, message) => process.stderr.write(`${message}\n`),
  });
  let timer: NodeJS.Timeout | null = null;
  const step = (run: () => void): void => {
    engine.begin(nowMs());
    run();
    engine.end();
    if (timer !== null) clearTimeout(timer);
    timer = setTimeout(() => step(() => engine.tick()), Math.max(0, engine.nextDeadline() - nowMs()));
  };
  setInterval(() => {
    const message = beater.beat(nowMs(), engine.membership.progress);
    if (message !== null) channel.send("all", message);
  }, 100);
  step(() => engine.tick());

  let delivered = 0;
  let members = 0;
  let room = true;
  let flooding = (): void => {};
  const data = new Uint8Array(64);
  let back: (() => void) | null = null;
  told = (event) => {
    if (event.kind === "members") members = event.members.length;
    if (event.kind === "room") {
      room = true;
      setImmediate(flooding);
    }
    if (event.kind !== "message") return;
    delivered++;
    if (back !== null && event.from.nodeid === nodeid) setImmediate(back);
  };
  const say = (): boolean => engine.command({ kind: "multicast", group: "bench", clientId: 0, data }) === "accepted";
  const joined = (): Promise<void> =>
    new Promise((resolve) => {
      const poll = setInterval(() => {
        if (members < nodeids.length) return;
        clearInterval(poll);
        resolve();
      }, 20);
    });
  engine.command({ kind: "join", group: "bench", clientId: 0 });
  await joined();
  const latencies: number[] = [];
  const trip = (): Promise<void> =>
    new Promise((resolve) => {
      const start = performance.now();
      back = () => {
        latencies.push((performance.now() - start) * 1000);
        back = null;
        resolve();
      };
      step(() => void say());
    });
  process.on("message", (what) => {
    if (what === "trips") {
      void (async () => {
        for (let n = 0; n < trips; n++) await trip();
        process.send?.({ medianUs: median(latencies) });
      })();
    } else if (what === "flood") {
      const before = delivered;
      const end = performance.now() + floodMs;
      flooding = (): void => {
        if (performance.now() >= end) return;
        step(() => {
          for (let n = 0; n < burst && room; n++) room = say();
        });
        if (room) setImmediate(flooding);
      };
      flooding();
      setTimeout(() => process.send?.({ perSecond: Math.round(((delivered - before) / floodMs) * 1000) }), floodMs);
    } else process.exit(0);
  });
  process.send?.({ ready: 1 });
}

function answer(from: ChildProcess): Promise<Result> {
  return new Promise((resolve, reject) => {
    from.once("message", (message) => resolve(message as Result));
    from.once("exit", (status) => reject(new Error(`a bench process ended with ${status}`)));
  });
}

async function run(port: number, loss: number): Promise<{ medianUs: number; perSecond: number }> {
  const children = nodeids.map((nodeid) => fork(fileURLToPath(import.meta.url), [String(nodeid), String(port), String(loss)]));
  try {
    await Promise.all(children.map(answer));
    // Node 2 is not the sequencer: a submission, and the ordered message back.
    const second = children[1] as ChildProcess;
    const asked = answer(second);
    second.send("trips");
    const { medianUs = 0 } = await asked;
    const floods = children.map(answer);
    for (const each of children) each.send("flood");
    const rates = (await Promise.all(floods)).map(({ perSecond = 0 }) => perSecond);
    return { medianUs: Math.round(medianUs), perSecond: Math.min(...rates) };
  } finally {
    for (const each of children) each.kill("SIGKILL");
  }
}

const [, , nodeid, port, loss] = process.argv;
if (nodeid !== undefined) await child(Number(nodeid), Number(port), Number(loss));
else {
  const free = 41_000 + (process.pid % 10_000);
  const sound = await run(free, 0);
  const lossy = await run(free + 1, 0.01);
  process.stdout.write(
    `${JSON.stringify({ nodes: 3, bytes: 64, medianUs: sound.medianUs, perSecond: sound.perSecond, perSecondWith1PercentLoss: lossy.perSecond })}\n`,
  );
}
