/**
 * Fences among nodes that crash, start again and are cut off at random, with fake agents that take their time, fail, or cannot be started. After
 * each step: no two agents run against one node, no serving view has a node against which one runs in it, and a life is called fenced by a
 * device only if an agent has succeeded that began after it was asked for. A life that is called so is over. When the faults end, all serve.
 */
import assert from "node:assert/strict";
import { expect, test } from "vitest";
import type { FencedLife } from "../../../dlmd/wire/fence-life.ts";
import { type Random, seededRandom } from "../../seeded-random.ts";
import { type Agent, FenceWorld, failed, missing, ok, plansFor } from "./fence-world.ts";

const nodeids = [1, 2, 3, 4, 5];

class Faults {
  readonly world = new FenceWorld(5, plansFor(nodeids));
  readonly #random: Random;
  readonly #asked = new Map<string, { readonly life: FencedLife; readonly atMs: number }>();
  readonly #successes: { readonly nodeid: number; readonly beganMs: number }[] = [];
  readonly #began = new WeakMap<Agent, number>();
  readonly #cut: [number, number][] = [];
  fenced = 0;
  barred = 0;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    this.world.together();
  }

  #pick<T>(all: readonly T[]): T {
    return all[Math.floor((this.#random.below(1000) / 1000) * all.length)] as T;
  }

  #isAlive(nodeid: number): boolean {
    return this.world.nodes.get(nodeid)?.alive === true;
  }

  #fault(): void {
    const { world } = this;
    const draw = this.#random.below(1000) / 1000;
    const nodeid = this.#pick(nodeids);
    const alive = nodeids.filter((one) => this.#isAlive(one));
    if (draw < 0.2 && alive.length > 2 && this.#isAlive(nodeid)) {
      const life = world.life(nodeid);
      world.crash(nodeid);
      this.#asked.set(JSON.stringify(life), { life, atMs: Number.POSITIVE_INFINITY });
    } else if (draw < 0.45 && !this.#isAlive(nodeid)) world.restart(nodeid);
    else if (draw < 0.55) {
      const pair: [number, number] = [nodeid, (nodeid % 5) + 1];
      world.cut(...pair);
      this.#cut.push(pair);
    } else if (draw < 0.7) for (const pair of this.#cut.splice(0)) world.heal(...pair);
    else if (world.agents.length > 0) this.#endAgent();
  }

  #endAgent(): void {
    const { world } = this;
    const agent = this.#pick(world.agents);
    const result = this.#pick([ok, ok, failed, missing]);
    if (result.ok) {
      if (this.#isAlive(agent.nodeid)) world.crash(agent.nodeid);
      if (!world.agents.includes(agent)) return;
      this.#successes.push({ nodeid: agent.nodeid, beganMs: this.#began.get(agent) ?? 0 });
    }
    world.end(result, agent.nodeid);
  }

  #ask(): void {
    const { world } = this;
    for (const [key, { life, atMs }] of this.#asked) {
      const asker = this.#pick(nodeids.filter((one) => this.#isAlive(one)));
      const answer = world.fence(asker, life);
      if (answer.kind === "running" || answer.kind === "failed") this.#asked.set(key, { life, atMs: Math.min(atMs, world.nowMs) });
      if (answer.kind !== "fenced") continue;
      this.fenced++;
      this.#asked.delete(key);
      const succeeded = this.#successes.some(({ nodeid, beganMs }) => nodeid === life.nodeid && beganMs >= atMs);
      assert(succeeded, `"fenced" for ${key}, and no agent that began after ${atMs} has succeeded`);
      const lives = this.#isAlive(life.nodeid) && world.incarnation(life.nodeid) === life.incarnation;
      assert(!lives, `"fenced" for ${key}, which runs still`);
    }
  }

  #check(): void {
    const { world } = this;
    // Run ids begin anew with each life of a node.
    for (const agent of world.agents) if (!this.#began.has(agent)) this.#began.set(agent, world.nowMs);
    const victims = world.agents.map(({ nodeid }) => nodeid);
    assert.equal(new Set(victims).size, victims.length, `two agents run against one of ${victims.join(" ")}`);
    this.barred += victims.filter((nodeid) => this.#isAlive(nodeid)).length;
    for (const nodeid of nodeids.filter((one) => this.#isAlive(one) && world.core(one).servesAt(world.nowMs))) {
      const members = world.core(nodeid).recovery.view?.members.map((member) => member.nodeid) ?? [];
      const shot = world.agents.filter(({ executor, nodeid: victim }) => members.includes(executor) && members.includes(victim));
      assert.deepEqual(shot, [], `an agent runs against a member of the view of node ${nodeid}`);
    }
  }

  step(): void {
    this.#fault();
    this.world.pass(50 + (this.#random.below(1000) / 1000) * 700, () => {
      this.#check();
      return this.world.evicted.size > 0;
    });
    this.#restartEvicted();
    this.#ask();
    this.#check();
  }

  #restartEvicted(): void {
    for (const nodeid of this.world.evicted) {
      this.world.evicted.delete(nodeid);
      if (!this.#isAlive(nodeid)) continue;
      this.world.crash(nodeid);
      this.world.restart(nodeid);
    }
  }

  /** No more faults: every node runs and hears the others, and agents come to an end. */
  heal(): void {
    const { world } = this;
    for (const pair of this.#cut.splice(0)) world.heal(...pair);
    for (const nodeid of nodeids) if (!this.#isAlive(nodeid)) world.restart(nodeid);
    for (let turn = 0; turn < 100 && !world.serving(); turn++) {
      while (world.agents.length > 0) world.end(failed);
      world.pass(500, () => {
        this.#check();
        return world.evicted.size > 0 || world.serving();
      });
      this.#restartEvicted();
    }
    assert(world.serving(), "without faults all serve in one view");
  }
}

test("random faults: one agent for a node at a time, no join meanwhile, no proof without a success, and in the end all serve", () => {
  let [fenced, barred] = [0, 0];
  for (let seed = 1; seed <= 6; seed++) {
    const faults = new Faults(seed);
    for (let step = 0; step < 60; step++) faults.step();
    faults.heal();
    fenced += faults.fenced;
    barred += faults.barred;
  }
  // Both were reached: lives that were fenced, and nodes that were back while an agent ran against them.
  expect([fenced > 10, barred > 10]).toEqual([true, true]);
}, 120_000);
