/** A line of the report of `npm run bench:dlmd`, and the cluster that most of its steps use. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { createCluster, type TestClient, type TestCluster } from "../../e2e/dlmd/cluster.ts";

export interface Row {
  readonly name: string;
  readonly found: string;
  readonly wanted: string;
  /** null: nothing was promised, or not measured. */
  readonly reached: boolean | null;
}

export const note = (line: string): void => void process.stderr.write(`${line}\n`);

export const rssOf = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/status`, "utf8").match(/^VmRSS:\s+(\d+) kB/m)?.[1] ?? Number.NaN) * 1024;

/** Real dlmds in namespaces, all in one view, with a client each. */
export async function withCluster<T>(
  nodes: number,
  use: (cluster: TestCluster, clients: TestClient[], pids: number[]) => Promise<T>,
): Promise<T> {
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
