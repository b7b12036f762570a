/** Locks of dlmd through its client: remote, local, in batches, handed back and forth. Resources are chosen by their master. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { TestClient } from "../../e2e/dlmd/cluster.ts";
import { median } from "../stats.ts";

const SPACE = "test";
const WINDOW = 256;
/** As many operations before those that count: a dlmd runs for months, and its code is compiled while it runs. */
const WARM_UP = 3000;

/** Names that the given node masters. */
export function* resourcesOf(nodes: number, master: number, prefix: string): Generator<string> {
  const members = Array.from({ length: nodes }, (_, at) => ({ nodeid: at + 1, incarnation: "" }));
  for (let i = 0; ; i++) {
    const name = `${prefix}${i}`;
    if (masterOf(members, SPACE, name) === master) yield name;
  }
}

export function take(names: Generator<string>, count: number): string[] {
  return Array.from({ length: count }, () => names.next().value as string);
}

const since = (start: bigint): number => Number(process.hrtime.bigint() - start);

/** Median us from the request of a new lock to its grant, one after the other, each on a resource that `master` masters. */
export async function freshLockUs(client: TestClient, nodes: number, master: number, count: number): Promise<number> {
  const trips: number[] = [];
  for (const name of take(resourcesOf(nodes, master, `fresh${master}-`), WARM_UP + count)) {
    const lock = await client.lock(name);
    const start = process.hrtime.bigint();
    await lock.request(Mode.EX);
    trips.push(since(start) / 1000);
    await lock.unlock();
  }
  return median(trips.slice(WARM_UP));
}

/**
 * Operations a second on locks of this node's own: each lock goes NL -> EX -> NL -> EX ..., WINDOW of them at a time; every
 * conversion counts as one. `batch`: all of a turn's requests in one call of `batch`.
 */
export async function localRate(client: TestClient, nodes: number, operations: number, batch: boolean): Promise<number> {
  const space = await client.client.lockspace(SPACE);
  const names = take(resourcesOf(nodes, client.client.info.nodeid, batch ? "batch" : "single"), WINDOW);
  let left = operations;
  let running = 0;
  let done: () => void = () => {};
  const finished = new Promise<void>((resolve) => (done = resolve));
  const next: (() => void)[] = [];
  const flush = (): void => space.batch(() => next.splice(0).forEach((make) => make()));
  const locks = names.map((name) => {
    const lock = space.createLock(name, {
      ast: (_, status) => {
        if (status !== "granted") throw new Error(`${name}: granted expected, found ${status}`);
        running--;
        step();
      },
      bast: () => {},
    });
    const step = (): void => {
      if (left-- <= 0) {
        if (running === 0) done();
        else if (next.length === running) flush();
        return;
      }
      running++;
      const make = (): void => lock.request(lock.mode === Mode.EX ? Mode.NL : Mode.EX, 0);
      if (!batch) return make();
      next.push(make);
      if (next.length === WINDOW || next.length === running) flush();
    };
    return { lock, step };
  });
  const start = process.hrtime.bigint();
  for (const { step } of locks) step();
  if (batch) flush();
  await finished;
  return (operations * 1e9) / since(start);
}

/** Two programs (player.ts), each a command in its words, hand one EX lock back and forth, `turns` each; `master` masters it. Median us of a turn. */
export async function handoverUs(
  commandOf: (resource: string, turns: number) => readonly (readonly string[])[],
  nodes: number,
  master: number,
  turns: number,
): Promise<number> {
  const name = resourcesOf(nodes, master, "turn").next().value as string;
  const players = commandOf(name, WARM_UP + turns).map(([program = "", ...words]) =>
    spawn(program, words, { stdio: ["pipe", "pipe", "inherit"] }),
  );
  try {
    const lines = players.map(({ stdout }) => createInterface({ input: stdout })[Symbol.asyncIterator]());
    await Promise.all(lines.map((each) => each.next()));
    for (const { stdin } of players) stdin.write("go\n");
    const said = await Promise.all(lines.map((each) => each.next()));
    const grants = said.map(({ value }, player) =>
      String(value)
        .split(" ")
        .map((ns) => ({ ns: BigInt(ns), player })),
    );
    return median(turnsOf(grants.flat()).slice(WARM_UP));
  } finally {
    for (const player of players) player.kill("SIGKILL");
  }
}

/** Us from each grant to the next, where it is the other's. */
function turnsOf(grants: { readonly ns: bigint; readonly player: number }[]): number[] {
  grants.sort((a, b) => Number(a.ns - b.ns));
  const times: number[] = [];
  grants.forEach(({ ns, player }, at) => {
    const before = grants[at - 1];
    if (before !== undefined && before.player !== player) times.push(Number(ns - before.ns) / 1000);
  });
  return times;
}

/** Holds `count` locks of this node's own; gives dlmd's growth in bytes for each. */
export async function bytesPerLock(client: TestClient, nodes: number, count: number, rss: () => number): Promise<number> {
  const space = await client.client.lockspace(SPACE);
  const names = resourcesOf(nodes, client.client.info.nodeid, "many");
  const before = rss();
  for (let made = 0; made < count; ) {
    const chunk = Math.min(10_000, count - made);
    let open = chunk;
    await new Promise<void>((resolve) => {
      space.batch(() => {
        for (let i = 0; i < chunk; i++) {
          const lock = space.createLock(names.next().value as string, {
            ast: () => {
              if (--open === 0) resolve();
            },
            bast: () => {},
          });
          lock.request(Mode.PR, 0);
        }
      });
    });
    made += chunk;
  }
  return (rss() - before) / count;
}

/** One lock on each of `count` names, wherever they are mastered: state for a view change. */
export async function holdMany(client: TestClient, count: number, prefix: string): Promise<void> {
  const space = await client.client.lockspace(SPACE);
  let open = count;
  await new Promise<void>((resolve) => {
    space.batch(() => {
      for (let i = 0; i < count; i++) {
        const lock = space.createLock(`${prefix}-${i}`, {
          ast: () => {
            if (--open === 0) resolve();
          },
          bast: () => {},
        });
        lock.request(Mode.PR, 0);
      }
    });
  });
}
