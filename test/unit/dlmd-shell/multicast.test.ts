/** Unicast is chosen by itself where multicast does not arrive: datagram channels on the loopback device, whose groups nobody joins. */
import { createSocket, type Socket, type SocketOptions } from "node:dgram";
import { afterEach, expect, test } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics, type Metrics } from "../../../dlmd/base/metric.ts";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { type DatagramChannel, openDatagramChannel } from "../../../dlmd/driver/datagram-channel.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";
import { DatagramSealer } from "../../../dlmd/driver/seal.ts";
import { noView } from "../../../dlmd/wire/view-id.ts";

const nodes: readonly NodeConfig[] = [1, 2].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `127.79.0.${nodeid}`, votes: 1 }));
const port = 21_000 + (process.pid % 11_000);
const timeoutMs = 3000;
const keyOf = (nodeid: number): Buffer => Buffer.alloc(32, nodeid);
/** As on a network that carries no multicast: the group is joined, and nothing of it comes. */
const deafSocket = ((options: SocketOptions): Socket =>
  Object.assign(createSocket(options), { addMembership() {}, setMulticastInterface() {} })) as typeof createSocket;

const open: DatagramChannel[] = [];
afterEach(async () => {
  for (const channel of open.splice(0)) await channel.close();
});

let nowMs = 0;
async function channelOf(nodeid: number, heard: (viaMulticast: boolean) => void): Promise<{ channel: DatagramChannel; metrics: Metrics }> {
  const metrics = createMetrics();
  const channel = await openDatagramChannel({
    keyring: createKeyring([Buffer.alloc(32, 7)]),
    cluster: "lab",
    self: nodes[nodeid - 1] as NodeConfig,
    nodes,
    multicast: { group: "239.192.79.1", port },
    timeoutMs,
    sealer: new DatagramSealer(nodeid, keyOf(nodeid)),
    nowMs: () => nowMs,
    log: silentLog,
    metrics,
    receive: (_, viaMulticast) => heard(viaMulticast),
    sighted: () => undefined,
    openSocket: deafSocket,
  });
  open.push(channel);
  return { channel, metrics };
}

const leave = { kind: "leave", from: 1, incarnation: "00000000000000aa", view: noView, kept: false } as const;

test("every datagram to all arrives, by unicast", async () => {
  const heard: boolean[] = [];
  let wanted = 0;
  let all = (): void => undefined;
  const two = await channelOf(2, (viaMulticast) => {
    heard.push(viaMulticast);
    if (heard.length === wanted) all();
  });
  two.channel.confirm(1, keyOf(1), 0);
  const one = await channelOf(1, () => undefined);
  for (wanted = 1; wanted <= 5; wanted++) {
    const arrived = new Promise<void>((resolve) => {
      all = resolve;
    });
    nowMs += 10;
    one.channel.send("all", leave);
    await arrived;
  }
  expect(heard).toEqual([false, false, false, false, false]);
});

test("while multicast of a node arrives it is sent nothing else, but now and then, and again when none came for a third of the time-out", async () => {
  const one = await channelOf(1, () => undefined);
  const datagrams = (): number => one.metrics.snapshot()["datagrams_sent"] ?? 0;
  const sent = (): number => {
    const before = datagrams();
    one.channel.send("all", leave);
    return datagrams() - before;
  };
  const [group, both] = [1, 2];
  expect(sent()).toBe(both);
  nowMs += 10;
  expect(sent()).toBe(both);
  one.channel.heardMulticast(2);
  expect(sent()).toBe(group);
  // Now and then, since a network may carry multicast one way only.
  nowMs += timeoutMs / 3 - 10;
  one.channel.heardMulticast(2);
  expect([sent(), sent()]).toEqual([both, group]);
  nowMs += timeoutMs / 3 - 1;
  expect(sent()).toBe(group);
  nowMs += 1;
  expect([sent(), sent()]).toEqual([both, both]);
});
