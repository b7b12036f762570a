/**
 * `npm run bench:dlmd`: dlmd alone, beside raw round trips between the same namespaces and corosync's CPG, in one run. Ratios
 * count; the machine's own speed does not. Root; makes namespaces and takes them down again.
 */
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import yargs from "yargs";
import type { TestClient } from "../../e2e/dlmd/cluster.ts";
import { columns } from "../report.ts";
import { formatValue } from "../stats.ts";
import { measureCorosync } from "./corosync.ts";
import { measureDetection, measureViewChange } from "./failures.ts";
import { measureInvalidate } from "./invalidate.ts";
import { bytesPerLock, freshLockUs, handoverUs, localRate } from "./locks.ts";
import { measureOrdered } from "./ordered-messages.ts";
import { placeNodes } from "./placement.ts";
import { roundTripUs, type TripEnd } from "./programs.ts";
import { note, type Row, rssOf, withCluster } from "./row.ts";
import { measureSoak } from "./soak.ts";

interface Scale {
  readonly trips: number;
  readonly operations: number;
  readonly locks: number;
  readonly viewNodes: number;
  readonly viewLocks: number;
  readonly messages: number;
  readonly kills: number;
  readonly soakSeconds: number;
}
const FULL: Scale = {
  trips: 5000,
  operations: 1_000_000,
  locks: 1_000_000,
  viewNodes: 8,
  viewLocks: 100_000,
  messages: 600_000,
  kills: 6,
  soakSeconds: 600,
};
const QUICK: Scale = {
  trips: 500,
  operations: 200_000,
  locks: 100_000,
  viewNodes: 8,
  viewLocks: 100_000,
  messages: 150_000,
  kills: 3,
  soakSeconds: 60,
};
const MAX_FRESH = 2000;
/** Counted with the others: the median is that of a program whose code is compiled. */
const WARM_UP_TRIPS = 5000;

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
    // The machine is not as fast now as a moment ago: against the round trip before it and after it.
    const trips = async (measure: () => Promise<number>, most: number, name: string): Promise<Row> => {
      const before = await trip(peer("../tcp-peer.js"));
      const us = await measure();
      const near = (before + (await trip(peer("../tcp-peer.js")))) / 2;
      return {
        name,
        found: `${formatValue(us)} us, ${(us / near).toFixed(2)} TCP round trips`,
        wanted: `<= ${most}`,
        reached: us / near <= most,
      };
    };
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
      await trips(() => freshLockUs(one, nodes, 2, fresh), 1.6, "remote lock on a fresh resource"),
      await trips(() => handoverUs(players, nodes, 1, scale.trips), 3, "EX handed over, mastered by one of the two"),
      await trips(() => handoverUs(players, nodes, 3, scale.trips), 3, "EX handed over, mastered by a third"),
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

const STEPS = {
  locks: measureLocks,
  ordered: ({ trips, messages }: Scale) => measureOrdered(trips, messages),
  corosync: measureCpg,
  invalidate: ({ trips }: Scale) => measureInvalidate(trips),
  "view-change": ({ viewNodes, viewLocks }: Scale) => measureViewChange(viewNodes, viewLocks),
  detection: ({ kills }: Scale) => measureDetection(kills),
  soak: ({ soakSeconds }: Scale) => measureSoak(soakSeconds),
} as const;
type StepName = keyof typeof STEPS;
/** Ten minutes of every processor: only when it is asked for. */
const ASKED_FOR: ReadonlySet<StepName> = new Set(["soak"]);

async function main(): Promise<number> {
  const names = Object.keys(STEPS) as StepName[];
  const args = await yargs(process.argv.slice(2))
    .scriptName("npm run bench:dlmd --")
    .usage("$0 [--quick] [--only STEP...] [--view-locks N] [--soak-seconds N] [--json]")
    .option("quick", { type: "boolean", default: false, describe: "a tenth of the work" })
    .option("only", { choices: names, array: true, describe: "these steps alone [all but soak]" })
    .option("view-locks", { type: "number", requiresArg: true, describe: "locks held in the view change [100000]" })
    .option("soak-seconds", { type: "number", requiresArg: true, describe: "how long the soak takes [600, quick 60]" })
    .option("json", { type: "boolean", default: false, describe: "rows as JSON" })
    .example("$0 --quick --only locks", "round trips, locks and memory in half a minute")
    .example("$0 --only soak", "ten minutes beside as many busy loops as there are processors: nobody may be suspected")
    .strict()
    .parse();
  const usual = args.quick ? QUICK : FULL;
  const { viewLocks = usual.viewLocks, soakSeconds = usual.soakSeconds } = args;
  const rows: Row[] = [];
  for (const name of args.only ?? names.filter((name) => !ASKED_FOR.has(name)))
    rows.push(...(await STEPS[name]({ ...usual, viewLocks, soakSeconds })));
  const word = (reached: boolean | null): string => (reached === null ? "" : reached ? "met" : "MISSED");
  const table = rows.map((row) => [row.name, row.found, row.wanted, word(row.reached)]);
  process.stdout.write(args.json ? `${JSON.stringify(rows)}\n` : `${columns([["", "found", "wanted", ""], ...table])}\n`);
  return 0;
}

process.exitCode = await main();
