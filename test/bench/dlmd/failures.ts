/** What a dead node costs: how long until it is noticed, how long until locks are served again. */
import type { TestClient } from "../../e2e/dlmd/cluster.ts";
import { TIMEOUT_MS } from "../../e2e/dlmd/cluster.ts";
import { holdMany } from "./locks.ts";
import { note, type Row, rssOf, withCluster } from "./row.ts";

const msSince = (start: bigint): number => Number(process.hrtime.bigint() - start) / 1e6;

function detected(clients: readonly TestClient[]): Promise<void> {
  return Promise.race(clients.map((client) => client.views.until(() => !client.client.view.running)));
}

/** From SIGKILL to the first view change that a client of another node is told of; the longest of `kills`, of changing nodes. */
export async function measureDetection(kills: number): Promise<Row[]> {
  const nodes = 3;
  const all = Array.from({ length: nodes }, (_, at) => at + 1);
  note(`${kills} times a node dies`);
  const found = await withCluster(nodes, async (cluster, clients) => {
    const times: number[] = [];
    for (let kill = 0; kill < kills; kill++) {
      const victim = (kill % nodes) + 1;
      const others = clients.filter((_, at) => at + 1 !== victim);
      const start = process.hrtime.bigint();
      await cluster.kill(victim, "SIGKILL");
      await detected(others);
      times.push(msSince(start));
      await Promise.all(others.map((client) => client.seen(all.filter((nodeid) => nodeid !== victim))));
      await cluster.start(victim);
      clients[victim - 1] = await cluster.connect(victim);
      await Promise.all(clients.map((client) => client.seen(all)));
    }
    return times;
  });
  const most = 1.1 * TIMEOUT_MS;
  const longest = Math.max(...found);
  return [
    {
      name: `a node dies, time-out ${TIMEOUT_MS} ms: noticed after (${kills} times)`,
      found: `${Math.min(...found).toFixed(0)} to ${longest.toFixed(0)} ms`,
      wanted: `<= ${most.toFixed(0)} ms`,
      reached: longest <= most,
    },
  ];
}

/** From the first client event that says "not running" (detection) to "running" again everywhere that is left. */
export async function measureViewChange(nodes: number, locks: number): Promise<Row[]> {
  note(`a view change among ${nodes} nodes with ${locks} locks`);
  return withCluster(nodes, async (cluster, clients, pids) => {
    const left = clients.slice(0, -1);
    await Promise.all(left.map((client, at) => holdMany(client, Math.floor(locks / left.length), `view${at}`)));
    const members = left.map((_, at) => at + 1);
    const killed = process.hrtime.bigint();
    await cluster.kill(nodes, "SIGKILL");
    await detected(left);
    const detectedMs = msSince(killed);
    const start = process.hrtime.bigint();
    await Promise.all(left.map((client) => client.seen(members)));
    const ms = msSince(start);
    const promised = locks <= 100_000;
    const most = Math.max(...pids.slice(0, -1).map(rssOf)) / 1024 / 1024;
    return [
      {
        name: `${nodes} nodes, ${locks} locks: a member dies, detected to running`,
        found: `${ms.toFixed(0)} ms (detected after ${detectedMs.toFixed(0)} ms; the largest dlmd has ${most.toFixed(0)} MiB)`,
        wanted: promised ? "<= 1000 ms" : "",
        reached: promised ? ms <= 1000 : null,
      },
    ];
  });
}
