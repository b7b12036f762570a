/**
 * `npm run bench:dlmd`: dlmd alone, beside raw round trips between the same namespaces and corosync's CPG, in one run. Ratios
 * count; the machine's own speed does not. Root; makes namespaces and takes them down again.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import yargs from "yargs";
import { type TestClient, type TestCluster, createCluster } from "../../e2e/dlmd/cluster.ts";
import { columns } from "../report.ts";
import { formatValue } from "../stats.ts";
import { measureCorosync } from "./corosync.ts";
import { bytesPerLock, freshLockUs, handoverUs, holdMany, localRate } from "./locks.ts";
import { placeNodes } from "./placement.ts";
import { roundTripUs, type TripEnd } from "./programs.ts";

interface Scale {
  readonly trips: number;
  readonly operations: number;
  readonly locks: number;
  readonly viewNodes: number;
  readonly viewLocks: number;
  readonly messages: number;
}
const FULL: Scale = { trips: 5000, operations: 1_000_000, locks: 1_000_000, viewNodes: 8, viewLocks: 100_000, messages: 200_000 };
const QUICK: Scale = { trips: 500, operations: 200_000, locks: 100_000, viewNodes: 8, viewLocks: 100_000, messages: 50_000 };
const MAX_FRESH = 2000;
/** Counted with the others: the median is that of a program whose code is compiled. */
const WARM_UP_TRIPS = 5000;

interface Row {
  readonly name: string;
  readonly found: string;
  readonly wanted: string;
  /** null: nothing was promised, or not measured. */
  readonly reached: boolean | null;
}

const note = (line: string): void => void process.stderr.write(`${line}\n`);
const rssOf = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/status`, "utf8").match(/^VmRSS:\s+(\d+) kB/m)?.[1] ?? Number.NaN) * 1024;

async function withCluster<T>(nodes: number, use: (cluster: TestCluster, clients: TestClient[], pids: number[]) => Promise<T>): Promise<T> {
  const cluster = createCluster({ nodes, namespaces: true, program: path.resolve(import.meta.dirname, "../../../dlmd/main.js") });
  try {
    const started = await Promise.all(Array.from({ length: nodes }, (_, at) => cluster.start(at + 1)));
    const clients = await Promise.all(started.map((_, at) => cluster.connect(at + 1)));
    const all = started.map((_, at) => at + 1);
    await Promise.all(clients.map((client) => client.seen(all)));
    return await use(
      cluster,
      clients,
      started.map(({ child }) => child.pid as number),
    );
  } finally {
    await cluster.close();
  }
}

async function measureLocks(scale: Scale): Promise<Row[]> {
  const nodes = 3;
  return withCluster(nodes, async (cluster, clients, pids) => {
    const one = clients[0] as TestClient;
    const peer = (name: string): string => path.join(import.meta.dirname, name);
    const placement = placeNodes(nodes);
    pids.forEach((pid, at) => placement.place(pid, at + 1));
    // This program is a client of node 1.
    placement.place(process.pid, 1);
    const end = (nodeid: number): TripEnd => ({ namespace: cluster.namespace(nodeid), prefix: placement.prefix(nodeid) });
    const trip = (program: string): Promise<number> => roundTripUs(program, end(2), "10.77.0.2", end(1), WARM_UP_TRIPS + scale.trips);
    const players = (resource: string, turns: number): string[][] =>
      [1, 2].map((nodeid) => {
        const socketPath = path.join(cluster.runDir(nodeid), "dlmd.sock");
        return [...placement.prefix(nodeid), process.execPath, peer("player.js"), socketPath, resource, String(turns)];
      });
    note(placement.words);
    note("round trips");
    const tcpUs = await trip(peer("../tcp-peer.js"));
    const udpUs = await trip(peer("udp-peer.js"));
    note("locks");
    const trips = (us: number, most: number, name: string): Row => ({
      name,
      found: `${formatValue(us)} us, ${(us / tcpUs).toFixed(2)} TCP round trips`,
      wanted: `<= ${most}`,
      reached: us / tcpUs <= most,
    });
    const rate = (perSecond: number, least: number, name: string): Row => ({
      name,
      found: `${Math.round(perSecond / 1000)}k/s`,
      wanted: `>= ${least / 1000}k/s`,
      reached: perSecond >= least,
    });
    const fresh = Math.min(scale.trips, MAX_FRESH);
    const rows: Row[] = [
      { name: "TCP round trip, Node, 64 B", found: `${formatValue(tcpUs)} us`, wanted: "", reached: null },
      { name: "UDP round trip, Node, 64 B", found: `${formatValue(udpUs)} us`, wanted: "", reached: null },
      {
        name: "local lock on a fresh resource: program, dlmd and back",
        found: `${formatValue(await freshLockUs(one, nodes, 1, fresh))} us`,
        wanted: "",
        reached: null,
      },
      trips(await freshLockUs(one, nodes, 2, fresh), 1.6, "remote lock on a fresh resource"),
      trips(await handoverUs(players, nodes, 1, scale.trips), 3, "EX handed over, mastered by one of the two"),
      trips(await handoverUs(players, nodes, 3, scale.trips), 3, "EX handed over, mastered by a third"),
      rate(await localRate(one, nodes, scale.operations, false), 150_000, "local conversions on the master, 256 open"),
      rate(await localRate(one, nodes, scale.operations, true), 400_000, "the same in batches of 256"),
    ];
    placement.release();
    note(`${scale.locks} locks`);
    const bytes = await bytesPerLock(one, nodes, scale.locks, () => rssOf(pids[0] as number));
    rows.push({
      name: `memory of ${scale.locks} locks on their master`,
      found: `${bytes.toFixed(0)} B each`,
      wanted: "<= 800 B",
      reached: bytes <= 800,
    });
    return rows;
  });
}

/** From the first client event that says "not running" (detection) to "running" again everywhere that is left. */
async function measureViewChange(scale: Scale): Promise<Row[]> {
  note(`a view change among ${scale.viewNodes} nodes with ${scale.viewLocks} locks`);
  return withCluster(scale.viewNodes, async (cluster, clients) => {
    const left = clients.slice(0, -1);
    await Promise.all(left.map((client, at) => holdMany(client, Math.floor(scale.viewLocks / left.length), `view${at}`)));
    const members = left.map((_, at) => at + 1);
    const killed = process.hrtime.bigint();
    await cluster.kill(scale.viewNodes, "SIGKILL");
    await Promise.race(left.map((client) => client.views.until(() => !client.client.view.running)));
    const detected = process.hrtime.bigint();
    await Promise.all(left.map((client) => client.seen(members)));
    const ms = Number(process.hrtime.bigint() - detected) / 1e6;
    return [
      {
        name: `${scale.viewNodes} nodes, ${scale.viewLocks} locks: a member dies, detected to running`,
        found: `${ms.toFixed(0)} ms (detected after ${(Number(detected - killed) / 1e6).toFixed(0)} ms)`,
        wanted: "<= 1000 ms",
        reached: ms <= 1000,
      },
    ];
  });
}

async function measureCpg(scale: Scale): Promise<Row[]> {
  note("corosync");
  const scratch = mkdtempSync(path.join(os.tmpdir(), "coverlay-cpg-"));
  try {
    const figures = await measureCorosync(scratch, 3, scale.messages);
    if (figures === null) return [{ name: "corosync CPG", found: "not installed (corosync, libcpg-dev)", wanted: "", reached: null }];
    return [
      {
        name: `corosync ${figures.version}: CPG message, 3 nodes`,
        found: `${formatValue(figures.medianUs)} us`,
        wanted: "",
        reached: null,
      },
      { name: "corosync: CPG messages of 64 B", found: `${(figures.perSecond / 1000).toFixed(1)}k/s`, wanted: "", reached: null },
    ];
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const STEPS = { locks: measureLocks, "view-change": measureViewChange, corosync: measureCpg } as const;
type StepName = keyof typeof STEPS;

async function main(): Promise<number> {
  const names = Object.keys(STEPS) as StepName[];
  const args = await yargs(process.argv.slice(2))
    .scriptName("npm run bench:dlmd --")
    .usage("$0 [--quick] [--only STEP...] [--json]")
    .option("quick", { type: "boolean", default: false, describe: "a tenth of the work" })
    .option("only", { choices: names, array: true, describe: "these steps alone" })
    .option("json", { type: "boolean", default: false, describe: "rows as JSON" })
    .example("$0 --quick --only locks", "round trips, locks and memory in half a minute")
    .strict()
    .parse();
  const rows: Row[] = [];
  for (const name of args.only ?? names) rows.push(...(await STEPS[name](args.quick ? QUICK : FULL)));
  const word = (reached: boolean | null): string => (reached === null ? "" : reached ? "met" : "MISSED");
  const table = rows.map((row) => [row.name, row.found, row.wanted, word(row.reached)]);
  process.stdout.write(args.json ? `${JSON.stringify(rows)}\n` : `${columns([["", "found", "wanted", ""], ...table])}\n`);
  return 0;
}

process.exitCode = await main();
