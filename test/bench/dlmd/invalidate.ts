/**
 * What it costs to take a lock from many readers, and how much of that is telling them: what one multicast datagram could save at most, where each is
 * sent a blocking AST of its own. All of it is processor time of the master's dlmd; on one machine the readers' own times say nothing.
 */
import { readFileSync } from "node:fs";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Lock } from "../../../dlmd/client/api.ts";
import type { TestClient } from "../../e2e/dlmd/cluster.ts";
import { formatValue, median } from "../stats.ts";
import { take, resourcesOf } from "./locks.ts";
import { note, type Row, withCluster } from "./row.ts";

const NODES = 8;
const SPACE = "test";

/** Time of a process's main thread on a processor, in us (Documentation/scheduler/sched-stats.rst): the others beat by the clock. */
function processorUs(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "latin1").split(" ")[0]) / 1000;
}

/** A lock whose requests can be awaited, and that is given up to whoever wants it. */
class Held {
  readonly #lock: Lock;
  #granted: () => void = () => {};
  #given: () => void = () => {};

  constructor(lock: (handlers: Parameters<Awaited<ReturnType<TestClient["client"]["lockspace"]>>["createLock"]>[1]) => Lock) {
    this.#lock = lock({
      ast: (_, status) => {
        if (status !== "granted") throw new Error(`granted expected, found ${status}`);
        const done = this.#lock.mode === Mode.NL ? this.#given : this.#granted;
        done();
      },
      bast: () => this.#lock.request(Mode.NL, 0),
    });
  }

  take(mode: Mode): Promise<void> {
    return new Promise((resolve) => {
      this.#granted = resolve;
      this.#lock.request(mode, 0);
    });
  }

  given(): Promise<void> {
    return new Promise((resolve) => (this.#given = resolve));
  }

  async give(): Promise<void> {
    const given = this.given();
    this.#lock.request(Mode.NL, 0);
    await given;
  }
}

/**
 * One kind of turn: so many readers, each on a node of its own and none on the master's, take PR; then a program of the master's node takes EX from them and
 * gives it back (`asked`), or they give it up by themselves before.
 */
class Scene {
  /** Of the master's dlmd, us for each turn: a figure for each block of turns. */
  readonly processor: number[] = [];
  /** Us from the request of EX to its grant. */
  readonly grants: number[] = [];
  readonly readers: number;
  readonly #asked: boolean;
  readonly #held: readonly Held[];
  readonly #writer: Held;

  private constructor(asked: boolean, held: readonly Held[], writer: Held) {
    this.readers = held.length;
    this.#asked = asked;
    this.#held = held;
    this.#writer = writer;
  }

  static async prepare(clients: readonly TestClient[], readers: number, asked: boolean): Promise<Scene> {
    const [name = ""] = take(resourcesOf(NODES, 1, `readers${readers}${String(asked)}-`), 1);
    const held = async (client: TestClient): Promise<Held> => {
      const space = await client.client.lockspace(SPACE);
      return new Held((handlers) => space.createLock(name, handlers));
    };
    const all = await Promise.all(clients.slice(1, 1 + readers).map(held));
    return new Scene(asked, all, await held(clients[0] as TestClient));
  }

  async play(turns: number, masterPid: number): Promise<void> {
    const before = processorUs(masterPid);
    for (let turn = 0; turn < turns; turn += 1) {
      await Promise.all(this.#held.map((reader) => reader.take(Mode.PR)));
      const given = Promise.all(this.#held.map((reader) => (this.#asked ? reader.given() : reader.give())));
      if (!this.#asked) await given;
      const start = process.hrtime.bigint();
      await this.#writer.take(Mode.EX);
      this.grants.push(Number(process.hrtime.bigint() - start) / 1000);
      await given;
      await this.#writer.give();
    }
    this.processor.push((processorUs(masterPid) - before) / turns);
  }
}

/** In turn, so that a machine that becomes slower does so for all; the first block is not counted: code is compiled while it runs. */
const BLOCKS = 11;

export async function measureInvalidate(turns: number): Promise<Row[]> {
  note(`EX against PR of up to ${NODES - 1} other nodes`);
  return withCluster(NODES, async (_, clients, pids) => {
    const most = NODES - 1;
    const prepare = (readers: number, asked: boolean): Promise<Scene> => Scene.prepare(clients, readers, asked);
    const asked = await Promise.all([1, 3, most].map((readers) => prepare(readers, true)));
    const unasked = await Promise.all([1, most].map((readers) => prepare(readers, false)));
    const each = Math.ceil(turns / (BLOCKS - 1));
    for (let block = 0; block < BLOCKS; block += 1) for (const scene of [...asked, ...unasked]) await scene.play(each, pids[0] as number);
    const perReader = (few: Scene | undefined, many: Scene | undefined): number => {
      const us = (scene: Scene | undefined): number => median(scene?.processor.slice(1) ?? []);
      return (us(many) - us(few)) / (most - 1);
    };
    const [told, untold] = [perReader(asked[0], asked.at(-1)), perReader(unasked[0], unasked[1])];
    const row = (name: string, us: number): Row => ({ name, found: `${formatValue(us)} us`, wanted: "", reached: null });
    return [
      ...asked.map(({ readers, grants }) =>
        row(`EX against PR of ${readers} other nodes, all on this machine: asked to granted`, median(grants.slice(each))),
      ),
      row("each reader more: processor time of the master, from his PR to his NL", told),
      row("the same if he goes without being told", untold),
    ];
  });
}
