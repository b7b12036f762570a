/**
 * A soak: three dlmds that serve locks on a machine whose processors are all busy with other things, each in a session of its own as real
 * programs are. Nobody may be suspected, and service may not stop for a moment.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { availableParallelism, loadavg } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type TestClient, type TestCluster, TIMEOUT_MS } from "../../e2e/dlmd/cluster.ts";
import { note, type Row, withCluster } from "./row.ts";

const NODES = 3;
const SAMPLE_MS = 100;
/** Lines of the log that say that somebody was suspected, or that service stopped. */
const ALARMS: ReadonlySet<string> = new Set(["proposing a view", "evicted"]);

interface Watched {
  silentMs: number;
  slowestMs: number;
  locks: number;
  interruptions: number;
}

/** As much as any one program can take of a processor. */
function startBusyLoops(count: number): ChildProcess[] {
  return Array.from({ length: count }, () => spawn("sh", ["-c", "while :; do :; done"], { stdio: "ignore", detached: true }));
}

async function endBusyLoops(loops: readonly ChildProcess[]): Promise<void> {
  const ended = loops.map((loop) => new Promise<void>((resolve) => loop.once("close", () => resolve())));
  for (const loop of loops) loop.kill("SIGKILL");
  await Promise.all(ended);
}

function alarms(cluster: TestCluster): string[] {
  return Array.from({ length: NODES }, (_, at) => at + 1).flatMap((nodeid) =>
    cluster
      .log(nodeid)
      .filter(({ msg }) => ALARMS.has(String(msg)))
      .map((line) => `node${nodeid} ${JSON.stringify(line)}`),
  );
}

/** Takes and gives up one lock after the other, mastered anywhere, and asks who was heard when. */
async function use(client: TestClient, nodeid: number, isOver: () => boolean, watched: Watched): Promise<void> {
  client.views
    .until(() => !client.client.view.running)
    .then(
      () => watched.interruptions++,
      () => undefined,
    );
  for (let turn = 0; !isOver(); turn++) {
    const start = process.hrtime.bigint();
    const lock = await client.lock(`soak-${nodeid}-${turn % 1000}`);
    await lock.request(Mode.EX);
    await lock.unlock();
    watched.slowestMs = Math.max(watched.slowestMs, Number(process.hrtime.bigint() - start) / 1e6);
    watched.locks++;
    const nodes = (await client.client.query("nodes")) as readonly { readonly heardAgoMs: number | null }[];
    for (const { heardAgoMs } of nodes) watched.silentMs = Math.max(watched.silentMs, heardAgoMs ?? 0);
    await sleep(SAMPLE_MS);
  }
}

export async function measureSoak(seconds: number): Promise<Row[]> {
  const cores = availableParallelism();
  note(`a soak of ${seconds} s beside ${cores} busy loops; load before ${loadavg()[0]?.toFixed(1)}`);
  return withCluster(NODES, async (cluster, clients) => {
    const before = alarms(cluster).length;
    const watched: Watched = { silentMs: 0, slowestMs: 0, locks: 0, interruptions: 0 };
    const end = performance.now() + seconds * 1000;
    const loops = startBusyLoops(cores);
    try {
      await Promise.all(clients.map((client, at) => use(client, at + 1, () => performance.now() > end, watched)));
    } finally {
      await endBusyLoops(loops);
    }
    const raised = alarms(cluster).slice(before);
    for (const alarm of raised) note(alarm);
    const { silentMs, slowestMs, locks, interruptions } = watched;
    return [
      {
        name: `${seconds} s at 100% CPU on all ${cores} cores, load ${loadavg()[0]?.toFixed(1)}: false suspicions`,
        found: `${raised.length}, service stopped ${interruptions} times`,
        wanted: "0",
        reached: raised.length === 0 && interruptions === 0,
      },
      { name: `the longest silence seen, of ${TIMEOUT_MS} ms`, found: `${silentMs.toFixed(0)} ms`, wanted: "", reached: null },
      { name: `the slowest lock and unlock of ${locks}`, found: `${slowestMs.toFixed(0)} ms`, wanted: "", reached: null },
    ];
  });
}
