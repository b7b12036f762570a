/** Locks of dlmd through its client: remote, local, in batches, handed back and forth. Resources are chosen by their master. */
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import type { TestClient } from "../../e2e/dlmd/cluster.ts";
import { median } from "../stats.ts";

const SPACE = "test";
const WINDOW = 256;

/** Names that the given node masters. */
function* resourcesOf(nodes: number, master: number, prefix: string): Generator<string> {
  const members = Array.from({ length: nodes }, (_, at) => ({ nodeid: at + 1, incarnation: "" }));
  for (let i = 0; ; i++) {
    const name = `${prefix}${i}`;
    if (masterOf(members, SPACE, name) === master) yield name;
  }
}

function take(names: Generator<string>, count: number): string[] {
  return Array.from({ length: count }, () => names.next().value as string);
}

const since = (start: bigint): number => Number(process.hrtime.bigint() - start);

/** Median us from the request of a new lock to its grant, one after the other, on a resource that `master` masters. */
export async function freshLockUs(client: TestClient, nodes: number, master: number, count: number): Promise<number> {
  const trips: number[] = [];
  for (const name of take(resourcesOf(nodes, master, `fresh${master}-`), count)) {
    const lock = await client.lock(name);
    const start = process.hrtime.bigint();
    await lock.request(Mode.EX);
    trips.push(since(start) / 1000);
    await lock.unlock();
  }
  return median(trips);
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

/** Median us of one turn, when two nodes hand one EX lock back and forth; `master` masters it. */
export async function handoverUs(a: TestClient, b: TestClient, nodes: number, master: number, turns: number): Promise<number> {
  const name = resourcesOf(nodes, master, "turn").next().value as string;
  const times: number[] = [];
  const ends: (() => void)[] = [];
  let last = 0n;
  const over = new Promise<void>((resolve) => ends.push(resolve));
  const player = async (client: TestClient): Promise<() => void> => {
    const space = await client.client.lockspace(SPACE);
    const lock = space.createLock(name, {
      ast: (_, status) => {
        if (status !== "granted") throw new Error(`${name}: granted expected, found ${status}`);
        // Down: back to the end of the queue.
        if (lock.mode === Mode.NL) return times.length < turns ? lock.request(Mode.EX, 0) : undefined;
        const now = process.hrtime.bigint();
        if (last !== 0n) times.push(Number(now - last) / 1000);
        last = now;
        if (times.length >= turns) ends[0]?.();
      },
      bast: () => {
        if (times.length < turns && lock.mode === Mode.EX) lock.request(Mode.NL, 0);
      },
    });
    return () => lock.request(Mode.EX, 0);
  };
  const [startA, startB] = [await player(a), await player(b)];
  startA();
  startB();
  await over;
  return median(times);
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
