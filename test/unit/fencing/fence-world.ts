/** Node cores with fence devices, in the world of the scenarios: agents answer when a test lets them. */
import { expect } from "vitest";
import type { DevicePlan, FencePlans, UnfencePlan } from "../../../dlmd/config/fence-plan.ts";
import type { AgentResult } from "../../../dlmd/fencing/fence-run.ts";
import { type KeptFencing, noFencing } from "../../../dlmd/fencing/fence-table.ts";
import type { NodeCore } from "../../../dlmd/node.ts";
import type { NodeBoot } from "../../../dlmd/node-api.ts";
import type { StatusAnswer } from "../../../dlmd/query/answer.ts";
import type { FenceAnswer, FencedLife } from "../../../dlmd/wire/fence-life.ts";
import { World } from "../../scenario/world.ts";

export interface Agent {
  readonly executor: number;
  readonly runId: number;
  readonly nodeid: number;
  readonly device: string;
}

export const ok: AgentResult = { ok: true };
export const failed: AgentResult = { ok: false, unable: false, words: "no answer" };
export const missing: AgentResult = { ok: false, unable: true, words: "is not there" };

export function deviceOf(nodeid: number, more: Partial<DevicePlan> = {}): DevicePlan {
  return { device: `ipmi${nodeid}`, agent: "fence_ipmilan", delayMs: 0, retries: 0, settleMs: 0, ...more };
}

/** A device that takes that node's storage, and gives it back. */
export function storageOf(nodeid: number, more = ""): UnfencePlan {
  return { device: `scsi${nodeid}`, means: `scsi${nodeid}${more}` };
}

/** A device for each of those nodes. */
export function plansFor(nodeids: readonly number[], more: Partial<DevicePlan> = {}): FencePlans {
  return new Map(
    nodeids.map((nodeid) => [
      nodeid,
      { name: `node${nodeid}`, levels: [[deviceOf(nodeid, more)]], delayMs: 0, unfence: [storageOf(nodeid)] },
    ]),
  );
}

export class FenceWorld extends World {
  /** Agents that run. */
  readonly agents: Agent[];
  /** Every agent that was ever run, "executor>victim device". */
  readonly ran: string[];
  readonly kept: Map<number, KeptFencing>;
  readonly answers: (readonly [nodeid: number, refused: string])[];
  readonly unfenced: (readonly [nodeid: number, isAllowed: boolean])[];
  /** Their devices, in that order. */
  readonly unfencedBy: string[];

  /** The agents with "on" that run; they end at once, but for those of `hanging` nodes. */
  readonly unfencing: { readonly nodeid: number; readonly runId: number }[];
  readonly hanging: Set<number>;

  /** Their cores have ended: they are to be crashed, and started again. */
  readonly evicted: Set<number>;

  constructor(count: number, plans: FencePlans, boot: (nodeid: number) => Partial<NodeBoot> = () => ({}), fenced: readonly string[] = []) {
    const agents: Agent[] = [];
    const ran: string[] = [];
    const kept = new Map<number, KeptFencing>();
    const answers: (readonly [number, string])[] = [];
    const boots = new Map<number, number>();
    const unfenced: (readonly [number, boolean])[] = [];
    const unfencedBy: string[] = [];
    const evicted = new Set<number>();
    const unfencing: { readonly nodeid: number; readonly runId: number }[] = [];
    const hanging = new Set<number>();
    let unfenceEnded: (nodeid: number, runId: number) => void = () => undefined;
    super(count, {}, fenced, 0, {
      boot: (nodeid) => {
        boots.set(nodeid, (boots.get(nodeid) ?? 0) + 1);
        const bootId = `boot${boots.get(nodeid)}of${nodeid}`;
        return { fencePlans: plans, bootId, wallMs: 1_000_000, fencing: kept.get(nodeid) ?? noFencing, ...boot(nodeid) };
      },
      effect: (executor, effect) => {
        if (effect.kind === "run-fence") {
          const { runId, nodeid, device } = effect;
          agents.push({ executor, runId, nodeid, device });
          ran.push(`${executor}>${nodeid} ${device}`);
        } else if (effect.kind === "stop-fence") {
          const at = agents.findIndex((agent) => agent.executor === executor && agent.runId === effect.runId);
          if (at >= 0) agents.splice(at, 1);
          const on = unfencing.findIndex(({ nodeid, runId }) => nodeid === executor && runId === effect.runId);
          if (on >= 0) unfencing.splice(on, 1);
        } else if (effect.kind === "keep-fencing") kept.set(executor, effect.fencing);
        else if (effect.kind === "evicted") evicted.add(executor);
        else if (effect.kind === "unfence") {
          unfenced.push([executor, effect.isAllowed]);
          unfencedBy.push(effect.device);
          if (effect.isAllowed && hanging.has(executor)) unfencing.push({ nodeid: executor, runId: effect.runId });
          else unfenceEnded(executor, effect.runId);
        } else if (effect.kind === "fence-answer") answers.push([executor, effect.refused]);
      },
    });
    this.agents = agents;
    this.ran = ran;
    this.kept = kept;
    this.answers = answers;
    this.unfenced = unfenced;
    this.unfencedBy = unfencedBy;
    this.evicted = evicted;
    this.unfencing = unfencing;
    this.hanging = hanging;
    unfenceEnded = (nodeid, runId) => this.input(nodeid, { kind: "fence-ran", runId, result: ok });
  }

  core(nodeid: number): NodeCore {
    return (this.nodes.get(nodeid) as { core: NodeCore }).core;
  }

  life(nodeid: number): FencedLife {
    return { nodeid, incarnation: this.incarnation(nodeid), bootId: this.core(nodeid).boot.bootId as string };
  }

  /** As a program of that node would. */
  fence(nodeid: number, life: FencedLife): FenceAnswer {
    let answer: FenceAnswer | null = null;
    const core = this.core(nodeid);
    this.input(nodeid, { kind: "tick" });
    this.settle();
    answer = core.fencing.requests.ask({ ...life, why: "a test" });
    this.input(nodeid, { kind: "tick" });
    this.settle();
    return answer;
  }

  /** The agent that runs ends so. */
  end(result: AgentResult, nodeid?: number): void {
    const at = this.agents.findIndex((agent) => nodeid === undefined || agent.nodeid === nodeid);
    const [agent] = this.agents.splice(at, 1);
    if (agent === undefined) throw new Error("no agent runs");
    if (this.nodes.get(agent.executor)?.alive !== true) throw new Error("the agent's node is dead");
    this.input(agent.executor, { kind: "fence-ran", runId: agent.runId, result });
    this.settle();
  }

  override crash(nodeid: number): void {
    super.crash(nodeid);
    // With its machine its agents end.
    for (let at = this.agents.length - 1; at >= 0; at--) if (this.agents[at]?.executor === nodeid) this.agents.splice(at, 1);
  }

  status(nodeid: number): StatusAnswer {
    return this.core(nodeid).query("status", this.nowMs) as StatusAnswer;
  }

  /** All that live serve in one view of them. */
  together(): void {
    if (!this.pass(20_000, () => this.serving())) throw new Error("they do not come together");
  }

  until(what: string, isSo: () => boolean, forMs = 20_000): void {
    if (!this.pass(forMs, isSo)) throw new Error(`it did not come to this: ${what}`);
  }
}

/** Node 3 is dead, and an agent runs against it at node 1, if there is a device. */
export function running(
  plans: FencePlans = plansFor([1, 2, 3, 4, 5]),
  count = 3,
  hasDevice = true,
): { world: FenceWorld; life: FencedLife } {
  const world = new FenceWorld(count, plans);
  world.together();
  const life = world.life(3);
  world.crash(3);
  world.together();
  expect(world.fence(2, life)).toMatchObject({ kind: hasDevice ? "running" : "refused" });
  if (!hasDevice) {
    world.until("it is asked for", () => world.status(1).fencing.wanted.length === 1);
    return { world, life };
  }
  world.until("an agent runs", () => world.agents.length === 1);
  expect(world.ran).toEqual(["1>3 ipmi3"]);
  return { world, life };
}
