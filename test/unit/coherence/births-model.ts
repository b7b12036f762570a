/**
 * A model of several nodes that make inodes and look for inodes by their numbers, to run the lock of births against under a seed: its master, with a FIFO channel
 * to and from each node, and the owner, which makes and finds at some moment between question and answer. Whoever has found an inode must not go on while
 * another node has it as its own, and no node may have it so afterwards (hazard F51).
 */
import type { Lock, LockHandlers } from "../../../dlmd/client/api.ts";
import { Mode, modesCompatible } from "../../../dlmd/wire/mode.ts";
import { BirthsLock } from "../../../overlay/coherence/births-lock.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { CoherenceState, type Effect } from "../../../overlay/coherence/effect.ts";
import { handleAst } from "../../../overlay/coherence/lock/lock-cache.ts";
import { enterUnregistered, mayBeBorn } from "../../../overlay/coherence/lock/new-inodes.ts";
import type { Since } from "../../../overlay/coherence/cover.ts";
import { ModelSteps, performAll } from "./model-steps.ts";
import { seeded } from "./seeded.ts";

export interface BirthsResult {
  readonly violation: string | null;
  readonly born: number;
  readonly told: number;
  readonly looks: number;
  readonly unfinished: number;
}

type Send = (step: () => void) => void;

interface MasterLock {
  readonly mode: Mode;
  readonly grant: () => void;
  readonly want: (mode: Mode) => void;
}

/** Of one resource, on which no lock is converted. */
class Master {
  readonly granted = new Set<MasterLock>();
  waiting: MasterLock[] = [];

  ask(lock: MasterLock): void {
    this.waiting.push(lock);
    this.#grant();
  }

  release(lock: MasterLock): void {
    this.granted.delete(lock);
    this.#grant();
  }

  #grant(): void {
    for (let next = this.waiting[0]; next !== undefined; next = this.waiting[0]) {
      const { mode } = next;
      const inTheWay = [...this.granted].filter((other) => !modesCompatible(other.mode, mode));
      for (const other of inTheWay) other.want(mode);
      if (inTheWay.length > 0) return;
      this.waiting.shift();
      this.granted.add(next);
      next.grant();
    }
  }
}

class ModelNode {
  readonly state = new CoherenceState();
  readonly births: BirthsLock;
  performing = false;
  readonly #steps: ModelSteps;
  readonly #toMaster: Send;
  readonly #toNode: Send;
  /** Of inodes. */
  readonly #registered: Send;

  constructor(steps: ModelSteps, master: Master) {
    this.#steps = steps;
    this.#toMaster = steps.channel();
    this.#toNode = steps.channel();
    this.#registered = steps.channel();
    const fail = (error: Error): never => {
      throw error;
    };
    const lockspace = {
      name: "model",
      createLock: this.#createLock.bind(this, master),
      batch: () => undefined,
      whenOver: () => () => undefined,
    };
    const run = (): void => this.run();
    this.births = new BirthsLock({ lockspace, now: () => steps.now, fail, run }, this.state);
  }

  #createLock(master: Master, resource: string, handlers: LockHandlers): Lock {
    const toMaster = this.#toMaster;
    const toNode = this.#toNode;
    const lock = { resource, mode: Mode.NL as Mode, exists: false, busy: false };
    const of = lock as unknown as Lock;
    const known = (mode: Mode): MasterLock => ({
      mode,
      grant: () =>
        toNode(() => {
          Object.assign(lock, { mode, exists: true, busy: false });
          handlers.ast(of, "granted");
        }),
      want: (wanted) =>
        toNode(() => {
          if (lock.exists && !lock.busy) handlers.bast(of, wanted);
        }),
    });
    let asked: MasterLock | null = null;
    const request = (mode: Mode): void => {
      if (lock.busy) throw new Error("a request is outstanding");
      lock.busy = true;
      const own = (asked = known(mode));
      toMaster(() => master.ask(own));
    };
    const unlock = (): void => {
      if (lock.busy || !lock.exists) throw new Error("nothing to unlock");
      Object.assign(lock, { mode: Mode.NL, busy: true });
      const own = asked as MasterLock;
      toMaster(() => master.release(own));
      this.#steps.free.push(() => {
        Object.assign(lock, { exists: false, busy: false });
        handlers.ast(of, "unlocked");
      });
    };
    return Object.assign(lock, { request, unlock, cancel: () => undefined }) as unknown as Lock;
  }

  run(): void {
    performAll(this, (effect) => this.#perform(effect));
  }

  #perform(effect: Effect): void {
    if (effect.do === "ask-births") effect.ask();
    else if (effect.do === "unlock-births") this.births.unlock();
    else if (effect.do === "request")
      this.#registered(() => {
        handleAst(this.state, effect.cover, "granted", effect.mode, this.#steps.now);
        this.run();
      });
  }
}

export async function runBirths(seed: number, nodes: number, stepsMax: number): Promise<BirthsResult> {
  const random = seeded(seed);
  const steps = new ModelSteps(random);
  const master = new Master();
  const all = Array.from({ length: nodes }, () => new ModelNode(steps, master));
  /** What the lower has, and who made it; and what somebody has found there, and was told that it is known. */
  const there: { readonly cover: Cover; readonly maker: ModelNode }[] = [];
  const found = new Set<Cover>();
  const counts = { born: 0, told: 0, looks: 0, unfinished: 0, violation: null as string | null };

  const later = (act: () => void): void => void steps.free.push(act);
  /** So many steps of its own later. */
  const muchLater = (act: () => void, hops: number): void => later(() => (hops === 0 ? act() : muchLater(act, hops - 1)));
  const make = (maker: ModelNode): void => {
    const since = maker.state.moment as Since;
    const cover = new Cover({ ino: there.length + 100, generation: 1 }, "file");
    later(() => {
      there.push({ cover, maker });
      const replied = (): void => {
        if (!mayBeBorn(maker.state, since)) {
          counts.told += 1;
          maker.births.want();
          return;
        }
        counts.born += 1;
        if (found.has(cover)) counts.violation ??= `${cover.key} is born after somebody has found it`;
        enterUnregistered(maker.state, cover, steps.now);
      };
      muchLater(replied, Math.floor(random() ** 3 * 40));
    });
  };
  const look = async (node: ModelNode, { cover, maker }: { readonly cover: Cover; readonly maker: ModelNode }): Promise<void> => {
    counts.unfinished += 1;
    await node.births.untilKnown({ interrupted: false, onInterrupt: null });
    counts.unfinished -= 1;
    counts.looks += 1;
    if (maker !== node) found.add(cover);
    if (maker !== node && (cover.unregistered || cover.registering))
      counts.violation ??= `${cover.key} is found, and its maker alone has it`;
  };
  const act = (): void => {
    const node = all[Math.floor(random() * nodes)] as ModelNode;
    const one = there[there.length - 1 - Math.floor(random() ** 3 * there.length)];
    if (random() < 0.8 || one === undefined) make(node);
    else later(() => void look(node, one));
  };
  for (let step = 0; step < stepsMax && counts.violation === null; step += 1) {
    if (steps.free.length < 8 && random() < 0.5) act();
    // A moment in which nothing is asked for.
    if (random() < 0.1) steps.now += 50;
    steps.take();
    await Promise.resolve();
  }
  while (counts.violation === null && steps.take()) await Promise.resolve();
  return counts;
}
