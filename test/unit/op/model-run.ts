/** A run of a model of several nodes: programs that go on until its steps are used up, and its clock where nothing else can happen. */
import type { ModelSteps } from "../coherence/model-steps.ts";
import type { ModelClock } from "../coherence/shell-model.ts";

/** Longer than any wait. */
const IDLE_MAX = 2000;
const IDLE_MS = 5;
/** What waits for its programs to end gets so many times the steps. */
const STEPS_FACTOR = 8;

export interface RunWorld {
  readonly steps: ModelSteps;
  readonly violation: string | null;
  turn(): Promise<void>;
  note(text: string): void;
}

const flushed = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class ModelRun {
  /** What its programs have done. */
  operations = 0;
  readonly #world: RunWorld;
  readonly #clock: ModelClock;
  readonly #steps: number;
  #left: number;
  #unfinished = 0;

  constructor(world: RunWorld, clock: ModelClock, steps: number) {
    this.#world = world;
    this.#clock = clock;
    this.#steps = steps;
    this.#left = steps;
  }

  /** Programs begin something new still. */
  get goesOn(): boolean {
    return this.#left > 0;
  }

  async program(node: number, of: { run(): Promise<void> }): Promise<void> {
    this.#unfinished += 1;
    while (this.goesOn) {
      await this.#world.turn();
      try {
        await of.run();
        this.operations += 1;
      } catch (error) {
        this.#world.note(`node ${node}: ${(error as Error).stack}`);
      }
    }
    this.#unfinished -= 1;
  }

  /** `before`: each step. */
  async take(before: () => Promise<void>): Promise<void> {
    const world = this.#world;
    let idle = 0;
    for (let taken = 0; taken < this.#steps * STEPS_FACTOR && world.violation === null; taken += 1) {
      this.#left -= 1;
      await before();
      if (world.steps.take()) idle = 0;
      else {
        if (this.#unfinished === 0) break;
        idle += 1;
        if (idle > IDLE_MAX) break;
        await this.#clock.advance(IDLE_MS);
      }
      await flushed();
    }
    if (this.#unfinished > 0) world.note(`${this.#unfinished} programs have not ended`);
  }
}
