/**
 * A program in a group, as the measure for ordered messages: what cpg-load.c is for corosync.
 *
 *   group-load latency SOCKET COUNT          own message, sent to delivered here: prints "medianNs N"
 *   group-load throughput SOCKET COUNT BYTES COUNT messages as fast as they are taken: prints "ops N" and "ns N"
 *   group-load listen SOCKET                 joins and reads until it is ended: prints "ready"
 */
import { connectDlm } from "../../../dlmd/client/client.ts";
import type { Group } from "../../../dlmd/client/group-api.ts";
import { median } from "../stats.ts";

/** Before those that count: a program that runs for long is compiled, and so is its dlmd. */
const WARM_UP = 3000;
const FLOOD_WARM_UP = 100_000;
/** Messages given at once, twice as many under way. */
const BURST = 256;
const LATENCY_BYTES = 8;

let delivered = 0;
let waiting: { readonly until: number; readonly resolve: () => void } | null = null;

function until(count: number): Promise<void> {
  if (delivered >= count) return Promise.resolve();
  return new Promise((resolve) => (waiting = { until: count, resolve }));
}

async function join(socketPath: string): Promise<Group> {
  const fail = (reason: Error): never => {
    throw reason;
  };
  const client = await connectDlm(socketPath, { view: () => {}, gone: async () => {}, disconnected: fail });
  return client.join("bench", {
    members: () => {},
    message({ own }) {
      if (!own) return;
      delivered++;
      if (waiting === null || delivered < waiting.until) return;
      const { resolve } = waiting;
      waiting = null;
      resolve();
    },
    ended: fail,
  });
}

async function measureLatency(group: Group, count: number): Promise<void> {
  const data = new Uint8Array(LATENCY_BYTES);
  const trips: number[] = [];
  for (let sent = 1; sent <= WARM_UP + count; sent++) {
    const start = process.hrtime.bigint();
    const accepted = group.multicast(data);
    await until(sent);
    trips.push(Number(process.hrtime.bigint() - start));
    await accepted;
  }
  process.stdout.write(`medianNs ${median(trips.slice(WARM_UP))}\n`);
}

/** Resolves when `count` more are delivered here. */
async function flood(group: Group, count: number, bytes: number): Promise<void> {
  const data = new Uint8Array(bytes);
  const all = delivered + count;
  let before: Promise<unknown> = Promise.resolve();
  for (let sent = 0; sent < count; ) {
    const burst = Math.min(BURST, count - sent);
    const accepted = Promise.all(Array.from({ length: burst }, () => group.multicast(data)));
    sent += burst;
    await before;
    before = accepted;
  }
  await until(all);
}

async function measureFlood(group: Group, count: number, bytes: number): Promise<void> {
  await flood(group, FLOOD_WARM_UP, bytes);
  const start = process.hrtime.bigint();
  await flood(group, count, bytes);
  process.stdout.write(`ops ${count}\nns ${process.hrtime.bigint() - start}\n`);
}

const [, , what, socketPath = "", count, bytes] = process.argv;
const group = await join(socketPath);
if (what === "latency") await measureLatency(group, Number(count));
else if (what === "throughput") await measureFlood(group, Number(count), Number(bytes));
else if (what === "listen") process.stdout.write("ready\n");
else throw new Error("group-load: expected latency SOCKET COUNT, throughput SOCKET COUNT BYTES, or listen SOCKET");
if (what !== "listen") process.exit();
