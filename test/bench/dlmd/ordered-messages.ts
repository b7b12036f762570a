/** Ordered messages of real dlmds between programs of three nodes, beside the UDP round trip of the same namespaces. */
import { execFileSync } from "node:child_process";
import path from "node:path";
import type { TestCluster } from "../../e2e/dlmd/cluster.ts";
import { formatValue } from "../stats.ts";
import { placeNodes, type Placement } from "./placement.ts";
import { endProgram, roundTripUs, runInside, startProgram } from "./programs.ts";
import { note, type Row, withCluster } from "./row.ts";

const NODES = 3;
const MESSAGE_BYTES = 64;
const LOSS_PERCENT = 1;
const WANTED_TRIPS = 3;
const WANTED_PER_SECOND = 200_000;
/** Counted with the others: the median is that of a program whose code is compiled. */
const WARM_UP_TRIPS = 5000;

const here = (name: string): string => path.join(import.meta.dirname, name);

/** Each node loses that much of what arrives. */
function loseSome(cluster: TestCluster, percent: number): void {
  const rules = [
    "table inet bench {",
    "  chain input { type filter hook input priority 0; policy accept;",
    `    iifname "net0" numgen random mod 10000 < ${Math.round(percent * 100)} drop`,
    "  }",
    "}",
  ].join("\n");
  for (let nodeid = 1; nodeid <= NODES; nodeid++)
    execFileSync("ip", ["netns", "exec", cluster.namespace(nodeid), "nft", "-f", "-"], { input: rules, stdio: "pipe" });
}

function load(cluster: TestCluster, placement: Placement, nodeid: number, what: string, ...words: readonly number[]): string[] {
  const socketPath = path.join(cluster.runDir(nodeid), "dlmd.sock");
  return [...placement.prefix(nodeid), process.execPath, here("group-load.js"), what, socketPath, ...words.map(String)];
}

/** All nodes at once; how many a second all together, each delivered to a program of every node. */
async function flood(cluster: TestCluster, placement: Placement, messages: number): Promise<number> {
  const each = Math.ceil(messages / NODES);
  const nodeids = Array.from({ length: NODES }, (_, at) => at + 1);
  const ran = await Promise.all(
    nodeids.map((nodeid) => runInside(cluster.namespace(nodeid), load(cluster, placement, nodeid, "throughput", each, MESSAGE_BYTES))),
  );
  const ns = Math.max(...ran.map((values) => values["ns"] ?? Number.NaN));
  return (NODES * each * 1e9) / ns;
}

export async function measureOrdered(trips: number, messages: number): Promise<Row[]> {
  return withCluster(NODES, async (cluster, _, pids) => {
    const placement = placeNodes(NODES);
    pids.forEach((pid, at) => placement.place(pid, at + 1));
    note(`ordered messages; ${placement.words}`);
    const end = (nodeid: number): Parameters<typeof roundTripUs>[1] => ({
      namespace: cluster.namespace(nodeid),
      prefix: placement.prefix(nodeid),
    });
    const trip = (): Promise<number> => roundTripUs(here("udp-peer.js"), end(1), "10.77.0.1", end(2), WARM_UP_TRIPS + trips);
    // The machine is not as fast now as a moment ago: against the round trip before it and after it.
    const before = await trip();
    // Listeners on the others, as with corosync. Node 2 is not the sequencer: a submission, and the ordered message back.
    const listeners = await Promise.all(
      [1, 3].map((nodeid) => startProgram(cluster.namespace(nodeid), load(cluster, placement, nodeid, "listen"))),
    );
    const latency = await runInside(cluster.namespace(2), load(cluster, placement, 2, "latency", trips));
    for (const { child } of listeners) await endProgram(child);
    const medianUs = (latency["medianNs"] ?? Number.NaN) / 1000;
    const udpUs = (before + (await trip())) / 2;
    placement.release();
    for (const pid of pids) placement.release(pid);
    const whole = await flood(cluster, placement, messages);
    loseSome(cluster, LOSS_PERCENT);
    const lossy = await flood(cluster, placement, messages);
    return [
      { name: "UDP round trip, Node, 64 B", found: `${formatValue(udpUs)} us`, wanted: "", reached: null },
      {
        name: "ordered message of a program, 3 nodes, sent to delivered",
        found: `${formatValue(medianUs)} us, ${(medianUs / udpUs).toFixed(2)} UDP round trips`,
        wanted: `<= ${WANTED_TRIPS}`,
        reached: medianUs / udpUs <= WANTED_TRIPS,
      },
      {
        name: `ordered messages of ${MESSAGE_BYTES} B, all three nodes sending`,
        found: `${(whole / 1000).toFixed(1)}k/s`,
        wanted: `>= ${WANTED_PER_SECOND / 1000}k/s`,
        reached: whole >= WANTED_PER_SECOND,
      },
      {
        name: `the same with ${LOSS_PERCENT}% loss`,
        found: `${(lossy / 1000).toFixed(1)}k/s, ${(lossy / whole).toFixed(2)} of it`,
        wanted: ">= 0.5",
        reached: lossy / whole >= 0.5,
      },
    ];
  });
}
