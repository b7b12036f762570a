/** Programs that count under file locks, from several nodes at a time: what they counted must be right. The quick tests take a row of each, the long ones the rest. */
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type Actor, until } from "../actor.ts";
import { type HazardLab, scale } from "../hazards/hazard-lab.ts";
import { PYTHON_LOCKS } from "./python-locks.ts";

export type LockKind = "posix" | "ofd" | "flock";

export interface Rows {
  /** Nodes, and options of ping_pong. */
  readonly pingPong: readonly (readonly [number, readonly string[]])[];
  readonly counters: readonly LockKind[];
  /** Journal modes of SQLite. */
  readonly journals: readonly string[];
}

/** A program on that node with the file open as `fd`. */
export async function opened(cluster: HazardLab, nodeid: number, name: string): Promise<Actor> {
  const actor = cluster.actor(nodeid);
  await actor.run(`${PYTHON_LOCKS}\nfd = os.open(name, os.O_RDWR | os.O_CREAT)`, { name });
  return actor;
}

export function countingSuite(cluster: HazardLab, { pingPong, counters, journals }: Rows): void {
  describe("ping_pong of ctdb", () => {
    const running: ChildProcess[] = [];
    afterEach(() => {
      for (const child of running.splice(0)) child.kill("SIGKILL");
    });

    /** Starts one for each of these nodes; gives what each has printed so far. */
    function start(nodeids: readonly number[], file: string, options: readonly string[]): string[][] {
      return nodeids.map((nodeid) => {
        const words: string[] = [];
        const child = spawn("ping_pong", [...options, path.join(cluster.mount(nodeid), file), String(nodeids.length + 1)]);
        running.push(child);
        child.stdout.on("data", (chunk: Buffer) =>
          words.push(
            ...chunk
              .toString("utf8")
              .split(/[\r\n]+/)
              .filter((line) => line.trim() !== ""),
          ),
        );
        return words;
      });
    }

    it.each(pingPong)("on %i nodes, with %j: all make progress, and each sees the increments of all", async (count, options) => {
      const nodeids = [1, 2, 3].slice(0, count);
      const said = start(nodeids, `ping-pong-${count}${options.join("")}`, options);
      const all = `data increment = ${count}`;
      const isDone = (words: readonly string[]): boolean => {
        const from = options.length === 0 ? 0 : words.lastIndexOf(all);
        return from >= 0 && words.slice(from).filter((line) => /[1-9]\d* locks\/sec/.test(line)).length >= 2;
      };
      await until(
        `${count} programs make progress`,
        () => said.every(isDone),
        () => JSON.stringify(said),
      );
      if (options.length === 0) return;
      for (const words of said) {
        const increments = words.filter((line) => line.startsWith("data increment"));
        expect(increments.at(-1)).toBe(all);
        for (const line of increments) expect(Number(line.split("= ")[1])).toBeLessThanOrEqual(count);
      }
    });
  });

  describe("a counter", () => {
    it.each(counters)("under %s, two programs on each of three nodes: every increment counts", async (kind) => {
      const rounds = 40 * scale;
      const actors = await Promise.all([1, 1, 2, 2, 3, 3].map((nodeid) => opened(cluster, nodeid, `counter-${kind}`)));
      const step = `
for _ in range(rounds):
    if lock(fd, kind, "write", 0, 0, True) != "ok": raise RuntimeError("no lock")
    value = int(os.pread(fd, 20, 0) or b"0")
    os.pwrite(fd, b"%d" % (value + 1), 0)
    lock(fd, kind, "unlock")`;
      await Promise.all(actors.map((actor) => actor.run(step, { kind, rounds }, 120_000)));
      for (const actor of actors) expect(await actor.run(`result = int(os.pread(fd, 20, 0))`)).toBe(6 * rounds);
    });
  });

  describe("SQLite", () => {
    it.each(journals)("in %s mode from three nodes: every acknowledged transaction is there, and nothing is damaged", async (mode) => {
      const rounds = 20 * scale;
      const actors = [1, 2, 3].map((nodeid) => cluster.actor(nodeid));
      const name = `sqlite-${mode}.db`;
      await actors[0]?.run(
        `
db = sqlite3.connect(name, isolation_level=None, timeout=100)
db.execute("pragma journal_mode=" + mode)
db.execute("create table t (node integer, n integer, primary key (node, n))")
db.close()`,
        { name, mode },
      );
      const step = `
db = sqlite3.connect(name, isolation_level=None, timeout=100)
db.execute("pragma journal_mode=" + mode)
for n in range(rounds):
    db.execute("begin immediate")
    db.execute("insert into t values (?, ?)", (node, n))
    db.execute("commit")
result = rounds`;
      await Promise.all(actors.map((actor, node) => actor.run(step, { name, mode, node, rounds }, 200_000)));
      for (const actor of actors) {
        const seen = await actor.run(
          `result = [db.execute("select count(*) from t").fetchone()[0], db.execute("pragma integrity_check").fetchone()[0]]`,
        );
        expect(seen).toEqual([3 * rounds, "ok"]);
      }
    });
  });
}
