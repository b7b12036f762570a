/**
 * One cycle: a fresh directory, load on all nodes, faults, all of it whole again, and a census by every node. Waits are for events; each has a
 * limit, and what does not come by then is a violation.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Streams } from "../sim/random.ts";
import { must } from "../../overlay/lab/command.ts";
import { ownerOf } from "../../overlay/lab/observe.ts";
import type { NodePlace } from "../e2e/lab.ts";
import { existingLab } from "../../overlay/lab/state.ts";
import { begin, type Heal, type World } from "./breaker.ts";
import { checkCycle } from "./check.ts";
import { expectation, type FaultDraw, faultWords } from "./fault.ts";
import { checkLive, type FileSystem } from "./file-system.ts";
import type { Call, Interval } from "./history.ts";
import { type Load, startLoad } from "./load.ts";
import { Overdue, STARTS, untilReached, withStarts } from "./limits.ts";
import { drawLoad, objects, type Step } from "./load-plan.ts";
import { SETUP_PROGRAM } from "./load-program.ts";

/** Programs on a node from the beginning. */
const CLIENTS = 2;
/** Calls of a program before the first fault, and after the last one is over. */
const WARM_CALLS = 5;
const CALLS_AFTER = 3;
/** The second of a pair follows the first one's beginning, or comes so long after it was to begin. */
const BEGIN_MS = 2000;

export interface CycleOptions {
  readonly seed: number;
  readonly cycle: number;
  readonly faults: readonly FaultDraw[];
  readonly lower: FileSystem;
  /** The cluster can fence its nodes. */
  readonly fences: boolean;
  /** For plans and histories. */
  readonly dir: string;
}

export interface CycleReport {
  readonly cycle: number;
  readonly faults: readonly string[];
  readonly violations: readonly string[];
  readonly undecided: readonly string[];
  readonly calls: number;
  readonly errors: number;
  /** By node: the longest time between two answered calls, in ms. */
  readonly pausesMs: readonly number[];
  readonly seconds: number;
  /** Where the time went, in ms: until all are at work, the faults, until all go on, the end of the load, the census. */
  readonly phasesMs: readonly number[];
  /** Of the disk, so far in the run. */
  readonly lostWrites: number;
}

/** What every node saw in the end: the next cycle looks whether it still is so. */
export interface Census {
  readonly base: string;
  readonly seen: string;
}

function now(): number {
  return Number(process.hrtime.bigint());
}

export class Cycle {
  readonly #world: World;
  readonly #options: CycleOptions;
  readonly #dir: string;
  readonly #base: string;
  readonly #stop: string;
  readonly #loads: Load[] = [];
  readonly #victims: Set<number> = new Set();
  readonly #violations: string[] = [];
  readonly #begun = now();
  readonly #phases: number[] = [now()];
  #faultsBegin = Number.POSITIVE_INFINITY;
  #healed = Number.POSITIVE_INFINITY;

  constructor(world: Omit<World, "endLoad">, options: CycleOptions) {
    this.#world = { ...world, endLoad: (nodeid) => this.#endLoad(nodeid) };
    this.#options = options;
    this.#dir = path.join(options.dir, `cycle-${options.cycle}`);
    this.#base = `cycle-${options.cycle}`;
    this.#stop = path.join(this.#dir, "stop");
    mkdirSync(this.#dir);
  }

  async run(before: Census | null): Promise<{ report: CycleReport; census: Census | null }> {
    const drawn = this.#options.faults;
    let census: Census | null = null;
    try {
      await this.#underLoad(drawn);
      census = await this.#census(this.#base, "census");
      if (before !== null) await this.#compare(before);
      this.#violations.push(...(await checkLive(this.#options.lower, this.#world.disk, this.#dir)));
      this.#phases.push(now());
    } catch (error) {
      if (!(error instanceof Overdue)) throw error;
      this.#violations.push(error.message);
      await this.#stopLoad().catch((more: unknown) => this.#violations.push(String(more)));
    }
    return { report: await this.#report(drawn), census };
  }

  /* Load and faults --------------------------------------------------------------------------------------------- */

  async #underLoad(drawn: readonly FaultDraw[]): Promise<void> {
    const { lab } = this.#world;
    const first = lab.nodes[0];
    if (first === undefined) throw new Error("a lab has nodes");
    await must("python3", ["-c", SETUP_PROGRAM, path.join(first.mount, this.#base), JSON.stringify(objects)]);
    for (const { nodeid } of lab.nodes) this.#startClients(nodeid, 0, CLIENTS);
    await this.#until("all programs are at work", () =>
      this.#loads.every((load) => load.answeredSince(0).every((count) => count >= WARM_CALLS)),
    );
    this.#phases.push(now());
    await this.#faults(drawn);
    this.#phases.push(now());
    await this.#startAgain();
    this.#phases.push(now());
    await this.#stopLoad();
    this.#phases.push(now());
  }

  #startClients(nodeid: number, from: number, count: number): void {
    const { seed, cycle } = this.#options;
    const { lab } = this.#world;
    const all = lab.nodes.length * (CLIENTS + STARTS);
    const plans = Array.from({ length: count }, (_, at) => {
      const number = (nodeid - 1) * (CLIENTS + STARTS) + from + at;
      return { client: `client${number}`, steps: drawLoad(new Streams(seed).of(`load ${cycle} ${number}`), number, all) };
    });
    this.#loads.push(startLoad(lab.dir, nodeid, this.#base, this.#dir, this.#stop, plans));
  }

  async #faults(drawn: readonly FaultDraw[]): Promise<void> {
    const { lab } = this.#world;
    const owner = Number(ownerOf(existingLab(lab.dir))?.replace(/^node/, ""));
    if (!Number.isInteger(owner)) throw new Overdue("no node owns the volume before the faults");
    this.#faultsBegin = now();
    const others = lab.nodes.map(({ nodeid }) => nodeid).filter((nodeid) => nodeid !== owner);
    const victimOf = ({ role, which }: FaultDraw): number => (role === "owner" ? owner : (others[which % others.length] ?? owner));
    const healing: Promise<void>[] = [];
    for (const draw of drawn) {
      await sleep(draw.delayMs);
      const victim = victimOf(draw);
      this.#victims.add(victim);
      const begun = begin(this.#world, victim, draw);
      const healed = begun.then((heal) => this.#hold(drawn, draw, heal));
      healed.catch(() => undefined); // Told below, when the others are whole again, too.
      healing.push(healed);
      // One that takes its time waits for its own end alone: a node that is stopped may wait for one that stands still.
      await Promise.race([begun.catch(() => undefined), sleep(BEGIN_MS)]);
    }
    for (const result of await Promise.allSettled(healing)) if (result.status === "rejected") throw result.reason;
  }

  /** As long as is drawn, or longer: until the others go on, if they must. */
  async #hold(drawn: readonly FaultDraw[], draw: FaultDraw, heal: Heal): Promise<void> {
    const since = now();
    const at = since + draw.holdMs * 1e6;
    const { othersGoOn } = expectation(drawn, this.#options.fences);
    try {
      if (othersGoOn) await this.#until("the other nodes go on by themselves", () => this.#goOn(since, this.#victims, 1));
    } finally {
      await sleep(Math.max(0, (at - now()) / 1e6));
      await heal();
    }
  }

  /** What has ended is started, until each node answers. */
  async #startAgain(): Promise<void> {
    const { lab } = this.#world;
    let down = lab.nodes.map(({ nodeid }) => nodeid);
    await withStarts(async (start) => {
      await this.#startNodes();
      const from = this.#loads.length;
      for (const nodeid of down) this.#startClients(nodeid, CLIENTS + start, 1);
      const later = this.#loads.slice(from);
      await this.#until("each node answers calls that begin after the faults", () =>
        [...later, ...this.#loads].every(
          (load) => load.isOver() || load.answeredSince(this.#healed).every((count) => count >= CALLS_AFTER),
        ),
      );
      down = later.filter((load) => load.isOver()).map(({ nodeid }) => nodeid);
      if (down.length === 0) return null;
      return `the mounts of ${down.map((nodeid) => `node${nodeid}`).join(", ")} have died after ${STARTS} starts`;
    });
  }

  /** A node that comes back while it is being fenced dies again: then once more. */
  async #startNodes(): Promise<void> {
    const all = this.#world.lab.nodes.map(({ node }) => node).join(",");
    await withStarts(async () => {
      const problem = await this.#command("start", all);
      this.#healed = now();
      return problem === null ? null : `lab start fails ${STARTS} times: ${problem}`;
    });
  }

  /** Null, or what went wrong. */
  async #command(...words: string[]): Promise<string | null> {
    try {
      await this.#world.lab.lab(...words);
      return null;
    } catch (error) {
      return String(error);
    }
  }

  /** Each program that runs has so many answers to calls that began after that, but for those of some nodes. */
  #goOn(since: number, but: ReadonlySet<number>, calls: number): boolean {
    const running = this.#loads.filter((load) => !load.isOver() && !but.has(load.nodeid));
    return running.length > 0 && running.every((load) => load.answeredSince(since).every((count) => count >= calls));
  }

  async #endLoad(nodeid: number): Promise<void> {
    for (const load of this.#loads.filter((one) => one.nodeid === nodeid)) {
      if (!load.isOver()) process.kill(-load.pid, "SIGTERM");
      await load.ended;
    }
  }

  async #stopLoad(): Promise<void> {
    writeFileSync(this.#stop, "");
    await this.#until("all programs have ended", () => this.#loads.every((load) => load.isOver()));
  }

  #until(what: string, reached: () => boolean): Promise<void> {
    return untilReached(what, reached, () => this.#waiting());
  }

  /** The last call of each program that runs. */
  #waiting(): string {
    return this.#loads
      .filter((load) => !load.isOver())
      .flatMap((load) => {
        const last = new Map(load.calls().map((call) => [call.client, call]));
        return [...last.values()].map(({ client, nodeid, object, action, end }) => {
          const state = end === Number.POSITIVE_INFINITY ? "waits in" : "is after";
          return `  ${client} on node${nodeid} ${state} ${action.kind} of ${object}`;
        });
      })
      .join("\n");
  }

  /* Afterwards -------------------------------------------------------------------------------------------------- */

  /** One node syncs, then all look. */
  async #census(base: string, name: string, nodes: readonly NodePlace[] = this.#world.lab.nodes): Promise<Census> {
    const look: readonly Step[] = objects
      .filter((object) => !object.startsWith("l"))
      .map((object) => ({
        object,
        action: { kind: object.startsWith("r") ? "read" : object.startsWith("a") ? "readAll" : "list" },
        pauseUs: 0,
      }));
    const sync = look.map((step): Step => ({ ...step, action: { kind: "sync" } }));
    const seen: string[] = [];
    for (const { nodeid } of nodes) {
      const steps = seen.length === 0 ? [...sync, ...look] : look;
      const load = await this.#look(base, nodeid, name, steps, 1);
      if (name === "census") this.#loads.push(load);
      const calls = load.calls().filter(({ action }) => action.kind !== "sync");
      const bad = calls.filter(({ error }) => error !== null).map(({ object, error }) => `${object}: ${error}`);
      if (bad.length > 0) this.#violations.push(`node${nodeid}: the census failed: ${bad.join(", ")}`);
      seen.push(JSON.stringify(calls.map(({ object, value }) => [object, sortedValue(value)])));
    }
    if (new Set(seen).size > 1) this.#violations.push(`the nodes do not agree on ${base}:\n${seen.join("\n")}`);
    return { base, seen: seen[0] ?? "" };
  }

  /** A victim's mount may die late; it is started again then. */
  async #look(base: string, nodeid: number, name: string, steps: readonly Step[], time: number): Promise<Load> {
    const client = `${name}${nodeid}${"+".repeat(time - 1)}`;
    const load = startLoad(this.#world.lab.dir, nodeid, base, this.#dir, null, [{ client, steps }]);
    await this.#until(`node${nodeid} answers a census`, () => load.isOver());
    const problem = await load.ended;
    if (problem === null) return load;
    if (!this.#victims.has(nodeid) || time === STARTS) throw new Overdue(`node${nodeid}: the census failed: ${problem}`);
    await this.#startNodes();
    return this.#look(base, nodeid, name, steps, time + 1);
  }

  /** What was synced at the end of the cycle before is there as it was. */
  async #compare({ base, seen }: Census): Promise<void> {
    const again = await this.#census(base, "again", this.#world.lab.nodes.slice(-1));
    if (again.seen !== seen) this.#violations.push(`what was synced in ${base} has changed: it was\n${seen}\nand is\n${again.seen}`);
  }

  async #report(drawn: readonly FaultDraw[]): Promise<CycleReport> {
    const { cycle, fences } = this.#options;
    const { losses, sufferers, losesLocks } = expectation(drawn, fences);
    const calls = this.#loads.flatMap((load) => load.calls());
    const loss: Interval | null = losses === 0 ? null : { begin: this.#faultsBegin, end: this.#healed };
    const outOf = losesLocks ? [...this.#victims].map((nodeid) => [nodeid, this.#faultsBegin] as const) : [];
    const mayFail = (nodeid: number, call: Call): boolean =>
      call.end > this.#faultsBegin &&
      (sufferers === "all" || (this.#victims.has(nodeid) && (sufferers === "victim" || call.end === Number.POSITIVE_INFINITY)));
    const result = checkCycle({ calls, loss, losses, outOf: new Map(outOf), mayFail });
    writeFileSync(path.join(this.#dir, "history.json"), JSON.stringify({ drawn, loss, victims: [...this.#victims], calls }));
    const { lostWrites } = await this.#world.disk.command({ do: "figures" });
    return {
      cycle,
      faults: drawn.map(faultWords),
      violations: [...this.#violations, ...result.violations],
      undecided: result.undecided,
      calls: calls.length,
      errors: calls.filter(({ error }) => error !== null && !["EEXIST", "ENOENT", "EISDIR", "ENOTDIR", "EPERM"].includes(error)).length,
      pausesMs: this.#world.lab.nodes.map(({ nodeid }) => longestPauseMs(calls.filter((call) => call.nodeid === nodeid))),
      seconds: Math.round((now() - this.#begun) / 1e8) / 10,
      phasesMs: this.#phases.slice(1).map((at, index) => Math.round((at - (this.#phases[index] ?? at)) / 1e6)),
      lostWrites,
    };
  }
}

function sortedValue(value: unknown): unknown {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** Between two answered calls of a node. */
function longestPauseMs(calls: readonly Call[]): number {
  const ends = calls
    .filter(({ end, error, client }) => end !== Number.POSITIVE_INFINITY && error !== "ENOTCONN" && client.startsWith("client"))
    .map(({ end }) => end)
    .toSorted((a, b) => a - b);
  return Math.round(ends.reduce((most, end, at) => Math.max(most, end - (ends[at - 1] ?? end)), 0) / 1e6);
}
