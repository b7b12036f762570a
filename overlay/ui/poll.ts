/** Looks at the nodes again and again, once for all viewers, and only while somebody looks. */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { NodeFacts } from "../status/facts.ts";
import { Rates } from "./rates.ts";
import { rateKey, type Snapshot, snapshotOf, type SourceSeen } from "./snapshot.ts";

/** Between the beginnings of two turns. */
export const TURN_EVERY_MS = 1000;
/** A turn shows what has answered by then, and beside it what others said before. */
export const TURN_LIMIT_MS = 1500;

export interface Source {
  readonly name: string;
  /** Rejects with OperatingError if its files cannot be read. */
  readonly look: () => Promise<NodeFacts>;
}

export interface PollOptions {
  readonly sources: readonly Source[];
  /** "": the name of the cluster. */
  readonly title: string;
  /** A defect of coverlay: nothing is shown any more. */
  readonly failed: (error: unknown) => void;
}

type Viewer = (snapshot: Snapshot) => void;

interface Asked {
  readonly source: Source;
  facts: NodeFacts | null;
  failure: NodeFacts["error"];
  /** Of performance.now(). */
  atMs: number;
  underWay: Promise<void> | null;
}

export class LivePoll {
  readonly #options: PollOptions;
  readonly #asked: readonly Asked[];
  readonly #rates = new Rates();
  readonly #viewers = new Set<Viewer>();
  #latest: { readonly snapshot: Snapshot; readonly atMs: number } | null = null;
  #turn: Promise<Snapshot> | null = null;
  #running = false;
  /** Ends the pause between two turns. */
  #wake: () => void = () => undefined;

  constructor(options: PollOptions) {
    this.#options = options;
    this.#asked = options.sources.map((source) => ({ source, facts: null, failure: null, atMs: performance.now(), underWay: null }));
  }

  /** Turns so far: for tests that nobody is asked in vain. */
  turns = 0;

  get viewers(): number {
    return this.#viewers.size;
  }

  /** Calls it with each snapshot from now on; what it returns ends that. */
  watch(viewer: Viewer): () => void {
    this.#viewers.add(viewer);
    if (!this.#running) void this.#run().catch(this.#options.failed);
    return () => {
      this.#viewers.delete(viewer);
      if (this.#viewers.size === 0) this.#wake();
    };
  }

  /** For one who looks once: the latest, if it is of this second. */
  async once(): Promise<Snapshot> {
    const { atMs, snapshot } = this.#latest ?? { atMs: Number.NEGATIVE_INFINITY, snapshot: null };
    return snapshot !== null && performance.now() - atMs < TURN_EVERY_MS ? snapshot : this.#takeTurn();
  }

  async #run(): Promise<void> {
    this.#running = true;
    try {
      while (this.#viewers.size > 0) {
        const fromMs = performance.now();
        const snapshot = await this.#takeTurn();
        for (const viewer of this.#viewers) viewer(snapshot);
        await this.#pause(Math.max(0, TURN_EVERY_MS - (performance.now() - fromMs)));
      }
    } finally {
      this.#running = false;
    }
  }

  #pause(ms: number): Promise<void> {
    if (this.#viewers.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** One at a time. */
  #takeTurn(): Promise<Snapshot> {
    this.#turn ??= this.#look().finally(() => (this.#turn = null));
    return this.#turn;
  }

  async #look(): Promise<Snapshot> {
    this.turns += 1;
    const looks = this.#asked.map((one) => (one.underWay ??= this.#ask(one).finally(() => (one.underWay = null))));
    await withinLimit(Promise.all(looks));
    const nowMs = performance.now();
    const seen = this.#asked.map(({ source, facts, failure, atMs }): SourceSeen => {
      return { name: source.name, facts, failure, ageMs: nowMs - atMs };
    });
    this.#count();
    const snapshot = snapshotOf(seen, this.#rates, this.#options.title, Date.now());
    this.#latest = { snapshot, atMs: nowMs };
    return snapshot;
  }

  /** A defect is told also if it comes between two turns. */
  async #ask(one: Asked): Promise<void> {
    try {
      await ask(one);
    } catch (error) {
      this.#options.failed(error);
      throw error;
    }
  }

  #count(): void {
    const keys = new Set<string>();
    for (const { source, facts, atMs } of this.#asked) {
      for (const mount of facts?.mounts ?? []) {
        const key = rateKey(source.name, mount);
        keys.add(key);
        this.#rates.take(key, atMs, mount.figures);
      }
    }
    this.#rates.keepOnly(keys);
  }
}

async function ask(one: Asked): Promise<void> {
  try {
    one.facts = await one.source.look();
    one.failure = null;
  } catch (error) {
    if (!(error instanceof OperatingError)) throw error;
    one.facts = null;
    one.failure = { error: error.message, code: error.code, hint: error.hint };
  }
  one.atMs = performance.now();
}

async function withinLimit(looks: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  try {
    await Promise.race([looks, new Promise((resolve) => (timer = setTimeout(resolve, TURN_LIMIT_MS)))]);
  } finally {
    clearTimeout(timer);
  }
}
