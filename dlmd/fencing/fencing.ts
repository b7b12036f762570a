/**
 * A node's part in fencing: it asks for fences, keeps the table that all members have (fence-table.ts), and runs rounds (fence-run.ts) where it
 * is the executor. Agents are the driver's (fence-agent/): "run" and "stop" go out, a result comes in. README.md of this room has the rules.
 */
import { assertNever } from "../base/assert.ts";
import { WireError } from "../base/error.ts";
import type { StepTime } from "../base/step-time.ts";
import type { EngineCommand, EngineEvent, EngineView } from "../engine/engine.ts";
import { type FenceAnswer, type FencedLife, type FenceQuestion, shortened } from "../wire/fence-life.ts";
import { decodeFencingMessage, encodeFencingMessage, FENCING_GROUP, type FencingMessage, type Want } from "../wire/fencing-group.ts";
import type { CommandResult } from "../wire/group.ts";
import { type Member, noIncarnation, noView, sameView, type ViewId } from "../wire/view-id.ts";
import type { FencePlan, FencePlans } from "../config/fence-plan.ts";
import { type AgentResult, FenceRun } from "./fence-run.ts";
import { FenceTable, type KeptFencing } from "./fence-table.ts";

// Hazard M2: one node at a time, with a lease; a result for the lives that were asked for.

/** After a round in which every level failed; doubled with each further one. */
export const FIRST_PAUSE_MS = 1000;
export const MAX_PAUSE_MS = 60_000;

export interface FencingPort {
  command(command: EngineCommand): CommandResult;
  /** Lock service runs here, in a quorate view. */
  serving(): boolean;
  quorum(): { readonly quorate: boolean; readonly reason: string };
  leaseEndMs(): number;
  /** Those nodes must not become members, or stay members. */
  bar(nodeids: readonly number[]): void;
  /** Ends in one `ran` of that run id, if `stop` does not come first. */
  run(runId: number, nodeid: number, device: string): void;
  /** Its agent must be gone at once. */
  stop(runId: number): void;
  keep(kept: KeptFencing): void;
  /**
   * This node may have its paths to storage back; ends in one `ran` of that run id, if `stop` does not come first. Not allowed if it was
   * fenced in this boot: it may still write what it had.
   */
  unfence(runId: number, isAllowed: boolean): void;
  /** That life can write no more: everybody delivers it at the same place. */
  proved(life: FencedLife): void;
  name(nodeid: number): string;
  log(level: "info" | "warn" | "error", message: string, fields: Readonly<Record<string, unknown>>): void;
  /** A peer sent what it cannot have meant. */
  protest(nodeid: number, message: string): void;
}

export interface FencingSelf extends Member {
  readonly bootId: string;
}

interface OwnRun {
  readonly runId: number;
  readonly run: FenceRun;
  told: string;
}

/** The daemon itself, as a member of a group. */
const daemon = 0;

export class Fencing {
  readonly table: FenceTable;
  readonly #self: FencingSelf;
  readonly #time: StepTime;
  readonly #wallMs: () => number;
  readonly #port: FencingPort;
  #plans: FencePlans;
  #viewId: ViewId = noView;
  /** There is a quorate view, and no later one is being agreed upon: messages are ordered. */
  #inView = false;
  #unsent: FencingMessage[] = [];
  /** Said in this view, and maybe not delivered yet. */
  readonly #said: Set<string> = new Set();
  /** By nodeid: rounds that this node runs. */
  readonly #own: Map<number, OwnRun> = new Map();
  /** By nodeid: not begun again before then. */
  readonly #pauses: Map<number, number> = new Map();
  #lastRunId = 0;
  /** The latest end of a lease: until then no view without this node serves (hazard C4), so its agents may run. */
  #leaseMs = Number.NEGATIVE_INFINITY;
  #keptChanges = 0;
  #isUnfenced = false;
  #isLeaving = false;
  /** Its "on" is under way. */
  #unfenceRun: number | null = null;
  #barred = "";
  /** The engine was given something to do. */
  touched = false;

  constructor(self: FencingSelf, time: StepTime, wallMs: () => number, kept: KeptFencing, plans: FencePlans, port: FencingPort) {
    this.#self = { nodeid: self.nodeid, incarnation: self.incarnation, bootId: self.bootId };
    this.#time = time;
    this.#wallMs = wallMs;
    this.#port = port;
    this.#plans = plans;
    this.table = new FenceTable(kept);
    port.command({ kind: "join", group: FENCING_GROUP, clientId: daemon });
  }

  configure(plans: FencePlans): void {
    this.#plans = plans;
  }

  hasDevice(nodeid: number): boolean {
    return this.#plans.has(nodeid);
  }

  // --------------------------------------------------------------------------------------------------------- sending

  /** Between two quorate views nothing is said: who asks asks again, and the table at the begin of the next one has the rest. */
  #say(message: FencingMessage): void {
    if (!this.#inView) return;
    this.touched = true;
    this.#unsent.push(message);
    this.#send();
  }

  #sayOnce(key: string, message: FencingMessage): void {
    if (!this.#inView || this.#said.has(key)) return;
    this.#said.add(key);
    this.#say(message);
  }

  #send(): void {
    for (let message = this.#unsent[0]; message !== undefined; message = this.#unsent[0]) {
      const data = encodeFencingMessage(message);
      if (this.#port.command({ kind: "multicast", group: FENCING_GROUP, clientId: daemon, data }) === "full") return;
      this.#unsent.shift();
    }
  }

  #sayTable(whole: boolean): void {
    this.#say(this.table.message(this.#self.bootId, this.#wallMs(), this.#own.keys(), whole));
  }

  // ---------------------------------------------------------------------------------------------------------- events

  /** Of the engine, in order; of messages and members, those of this group. */
  event(event: EngineEvent): void {
    switch (event.kind) {
      case "view":
        return event.view.quorum.quorate ? this.#enterView(event.view) : this.#loseQuorum();
      case "blocked":
        this.#inView = false;
        this.#unsent = [];
        return;
      case "members": {
        const others = event.joined.filter(({ nodeid }) => nodeid !== this.#self.nodeid);
        // What was said before it joined did not come to it.
        const first = event.members.find(({ nodeid }) => !others.some((one) => one.nodeid === nodeid));
        if (others.length > 0 && this.#inView) this.#sayTable(first?.nodeid === this.#self.nodeid);
        return;
      }
      case "message":
        if (event.from.clientId === daemon) this.#message(event.from, event.data);
        return;
      case "room":
        return this.#send();
      case "join-refused":
        return;
      default:
        assertNever(event, "engine event");
    }
  }

  #enterView(view: EngineView): void {
    const { id, members, together } = view;
    this.#viewId = id;
    this.#inView = true;
    this.#unsent = [];
    this.#said.clear();
    this.table.enterView(members);
    this.#sayTable(together.length < members.length);
  }

  #loseQuorum(): void {
    this.#inView = false;
    this.#unsent = [];
    this.table.loseQuorum(this.#own);
  }

  #message({ nodeid, incarnation }: Member, data: Uint8Array): void {
    const from = { nodeid, incarnation };
    if (!this.table.members.some((member) => member.nodeid === nodeid && member.incarnation === incarnation)) return;
    let message: FencingMessage;
    try {
      message = decodeFencingMessage(data);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return this.#port.protest(nodeid, `message about fences that cannot be read: ${error.message}`);
    }
    this.#receive(from, message);
  }

  #receive(from: Member, message: FencingMessage): void {
    const { table } = this;
    switch (message.kind) {
      case "fence-table":
        return table.receiveTable(from, message);
      case "fence-wanted":
        return this.#receiveWanted(from, message);
      case "fence-begun":
        return this.#receiveBegun(from, message.nodeid, message.view);
      case "fence-step":
        return table.receiveStep(from, message.nodeid, message.words);
      case "fence-ended":
        return this.#receiveEnded(from, message);
      case "fence-acked":
        return this.#proved(table.receiveAcked(message.nodeid, message.by, message.atMs), message.by);
      default:
        assertNever(message, "message about fences");
    }
  }

  #receiveWanted(from: Member, message: Extract<FencingMessage, { kind: "fence-wanted" }>): void {
    const { nodeid, why, by } = message;
    const before = this.table.want(nodeid);
    const refused = this.table.receiveWanted(from, message);
    if (refused !== "") this.#port.log("warn", `a fence is refused: ${refused}`, { nodeid, why, by });
    else if (before === undefined && this.table.want(nodeid) !== undefined)
      this.#port.log("warn", "a fence is asked for", { nodeid, why, by });
  }

  #receiveBegun(from: Member, nodeid: number, view: ViewId): void {
    // Nobody knows in a later view that it was asked for: its sender did not begin, and asks again.
    if (!sameView(view, this.#viewId) || !this.table.receiveBegun(from, nodeid)) return;
    const plan = this.#plans.get(nodeid);
    if (from.nodeid !== this.#self.nodeid || !this.#inView || !this.table.synced) return;
    if (plan === undefined) return this.#sayEnded(nodeid, "unable", "", "no fence device is configured any more");
    this.#own.set(nodeid, { runId: this.#newRunId(), run: new FenceRun(plan, this.#time.nowMs), told: "" });
    this.#port.log("warn", "fencing begins here", { nodeid });
  }

  #newRunId(): number {
    return (this.#lastRunId = (this.#lastRunId + 1) >>> 0);
  }

  #receiveEnded(from: Member, message: Extract<FencingMessage, { kind: "fence-ended" }>): void {
    const { nodeid, outcome, by, words } = message;
    const rounds = this.table.want(nodeid)?.rounds ?? 0;
    const proved = this.table.receiveEnded(from, message);
    this.#said.delete(`begun ${nodeid}`);
    const after = this.table.want(nodeid);
    if (after !== undefined && after.rounds > rounds) {
      const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (after.rounds - 1));
      this.#pauses.set(nodeid, this.#time.nowMs + pauseMs);
      this.#port.log("error", "a fence failed", { nodeid, words, executor: from.nodeid, againAfterMs: pauseMs });
    } else if (outcome === "unable") this.#port.log("error", "a node cannot run a fence agent", { nodeid, words, executor: from.nodeid });
    this.#proved(proved, by);
  }

  #proved(lives: readonly FencedLife[], by: string): void {
    for (const life of lives) {
      const { nodeid, incarnation, bootId } = life;
      this.#pauses.delete(nodeid);
      this.#port.log("warn", "a life can write no more", { nodeid, incarnation, bootId, by });
      this.#port.proved(life);
    }
  }

  // --------------------------------------------------------------------------------------------------------- rounds

  /** Goes on as far as possible. */
  advance(): void {
    const { nowMs } = this.#time;
    this.#leaseMs = Math.max(this.#leaseMs, this.#port.leaseEndMs());
    for (const [nodeid, own] of this.#own) this.#advanceOwn(nodeid, own, nowMs);
    if (!this.#mayUnfence(nowMs)) this.#stopUnfence();
    if (this.#inView && this.table.synced && this.#port.serving() && !this.#isLeaving) {
      for (const want of this.table.wants) this.#begin(want, nowMs);
      this.#unfence(nowMs);
    }
    const barred = this.table.barred();
    if (barred.join() !== this.#barred) {
      this.#barred = barred.join();
      this.#port.bar(barred);
    }
    if (this.table.changes === this.#keptChanges) return;
    this.#keptChanges = this.table.changes;
    this.#port.keep(this.table.kept);
  }

  /** Without a view or a lease others may fence this node: an "on" after their "off" would let it write over them (hazard C3). */
  #mayUnfence(nowMs: number): boolean {
    return this.#inView && nowMs < this.#leaseMs && !this.#isLeaving && !this.table.wasFenced(this.#self);
  }

  #unfence(nowMs: number): void {
    if (this.#isUnfenced || this.#unfenceRun !== null) return;
    const wasFenced = this.table.wasFenced(this.#self);
    if (!wasFenced && !this.#mayUnfence(nowMs)) return;
    this.#unfenceRun = this.#newRunId();
    this.#isUnfenced = wasFenced;
    this.#port.unfence(this.#unfenceRun, !wasFenced);
  }

  /** It begins again when this node serves again. */
  #stopUnfence(): void {
    if (this.#unfenceRun === null || this.#isUnfenced) return;
    this.#port.stop(this.#unfenceRun);
    this.#unfenceRun = null;
  }

  #advanceOwn(nodeid: number, own: OwnRun, nowMs: number): void {
    const run = this.table.runs.get(nodeid);
    const isMine = run?.executor.nodeid === this.#self.nodeid && run.executor.incarnation === this.#self.incarnation;
    // Without a lease others may have begun; who is proved dead, or is a member again, is not shot.
    const mayRun = isMine && nowMs < this.#leaseMs && !this.#isLeaving;
    if (!mayRun || this.table.want(nodeid) === undefined) return this.#stopOwn(nodeid, own);
    const device = own.run.advance(nowMs);
    if (device !== null) this.#port.run(own.runId, nodeid, device);
    const { end, words } = own.run;
    if (end !== null) {
      // Between two views it waits for the next one.
      if (!this.#inView) return;
      this.#own.delete(nodeid);
      return this.#sayEnded(nodeid, end.outcome, end.by, end.words);
    }
    if (words === own.told || !this.#inView) return;
    own.told = words;
    this.#say({ kind: "fence-step", nodeid, words: shortened(words) });
  }

  #stopOwn(nodeid: number, { runId }: OwnRun): void {
    this.#own.delete(nodeid);
    this.#port.stop(runId);
    // The others hear of it by the table that begins the next view.
    if (!this.#inView) return this.table.dropRun(nodeid, this.#self.nodeid);
    this.#sayEnded(nodeid, "stopped", "", "its executor had to stop");
  }

  #sayEnded(nodeid: number, outcome: "fenced" | "failed" | "unable" | "stopped", by: string, words: string): void {
    const atMs = this.#wallMs();
    this.#say({ kind: "fence-ended", nodeid, outcome, by: shortened(by), words: shortened(words), atMs });
  }

  #begin(want: Want, nowMs: number): void {
    const { nodeid } = want;
    if (!this.#plans.has(nodeid) || this.table.runs.has(nodeid) || this.table.isMember(nodeid)) return;
    if (this.table.executorOf(want) !== this.#self.nodeid || nowMs < (this.#pauses.get(nodeid) ?? nowMs)) return;
    this.#sayOnce(`begun ${nodeid}`, { kind: "fence-begun", nodeid, view: this.#viewId });
  }

  /** An agent has ended. */
  ran(runId: number, result: AgentResult): void {
    if (runId === this.#unfenceRun) this.#isUnfenced = true;
    for (const [nodeid, { run, runId: mine }] of this.#own) {
      if (mine !== runId) continue;
      run.ran(result, this.#time.nowMs);
      if (!result.ok) this.#port.log("error", "a fence agent failed", { nodeid, words: result.words });
    }
  }

  /** Nobody waits for the lease of a node that leaves, and another one begins: its agents end while it is a member. */
  leave(): void {
    this.#isLeaving = true;
  }

  /** This life of the node is over. */
  end(): void {
    for (const { runId } of this.#own.values()) this.#port.stop(runId);
    this.#own.clear();
    this.#stopUnfence();
  }

  get deadlineMs(): number {
    const isUnfencing = this.#unfenceRun !== null && !this.#isUnfenced;
    let deadline = isUnfencing ? this.#leaseMs : Number.POSITIVE_INFINITY;
    for (const { run } of this.#own.values()) deadline = Math.min(deadline, run.deadlineMs, this.#leaseMs);
    for (const [nodeid, pauseMs] of this.#pauses) {
      if (pauseMs > this.#time.nowMs && this.table.want(nodeid) !== undefined) deadline = Math.min(deadline, pauseMs);
    }
    return deadline;
  }

  // ------------------------------------------------------------------------------------------------------ questions

  #want(life: FencedLife, why: string, by: string, evict = false): void {
    const { nodeid, incarnation, bootId } = life;
    const key = `wanted ${nodeid} ${incarnation} ${bootId} ${evict}`;
    const message = { nodeid, incarnation, bootId, why: shortened(why), by: shortened(by), atMs: this.#wallMs(), evict };
    this.#sayOnce(key, { kind: "fence-wanted", ...message });
  }

  /** Answers a program, and begins what it asks for. It asks again as long as the answer is "running" or "failed". */
  ask(question: FenceQuestion): FenceAnswer {
    const { nodeid, incarnation, bootId, why } = question;
    const life = { nodeid, incarnation, bootId };
    const proof = this.table.proof(life);
    if (proof !== undefined) return { kind: "fenced", by: proof.by, atMs: proof.atMs };
    const refuse = (words: string): FenceAnswer => ({ kind: "refused", why: words });
    const { quorate, reason } = this.#port.quorum();
    if (!quorate) return refuse(`this node has no quorum (${reason})`);
    const name = this.#port.name(nodeid);
    if (this.table.isMember(nodeid)) return refuse(`${name} is a member of the view: its own dlmd says what became of that life`);
    this.#want(life, why, `a program of ${this.#port.name(this.#self.nodeid)}`);
    if (!this.#plans.has(nodeid)) {
      return refuse(`no fence device is configured for ${name}: when it is off for sure, \`coverlay fence ack ${name} --yes\``);
    }
    return this.#progress(nodeid, name);
  }

  #progress(nodeid: number, name: string): FenceAnswer {
    const want = this.table.want(nodeid);
    const sinceMs = want?.sinceMs ?? this.#wallMs();
    const pauseMs = (this.#pauses.get(nodeid) ?? 0) - this.#time.nowMs;
    if (want !== undefined && want.failure !== "" && pauseMs > 0 && !this.table.runs.has(nodeid)) {
      return { kind: "failed", why: want.failure, againAtMs: Math.round(this.#wallMs() + pauseMs) };
    }
    return { kind: "running", sinceMs, step: want === undefined ? `the fence of ${name} is about to begin` : this.step(want) };
  }

  /** In words, for people. */
  step({ nodeid, ...want }: Want): string {
    const run = this.table.runs.get(nodeid);
    const name = this.#port.name(nodeid);
    if (run !== undefined) return `${this.#port.name(run.executor.nodeid)} ${run.step === "" ? `begins to fence ${name}` : run.step}`;
    if (!this.#plans.has(nodeid)) return `no fence device is configured for ${name}: \`coverlay fence ack ${name} --yes\``;
    if (this.table.isMember(nodeid)) return `waits until the view is without ${name}`;
    const executor = this.table.executorOf({ nodeid, ...want });
    if (executor === null) return "no member can run its fence agents";
    return this.#port.serving() ? `${this.#port.name(executor)} is about to begin` : "waits until lock service runs";
  }

  /** Of those that are waited for; milliseconds until the next round, 0: one runs or may begin. */
  pauseMs(nodeid: number): number {
    return Math.max(0, Math.round((this.#pauses.get(nodeid) ?? 0) - this.#time.nowMs));
  }

  /** Nodes that lockspaces wait for (recovery/fence-gate.ts). Those that can write no more are told at once. */
  victims(open: readonly Member[]): void {
    for (const { nodeid, incarnation } of open) {
      const known = this.table.boots.get(nodeid);
      const life = { nodeid, incarnation, bootId: known?.incarnation === incarnation ? known.bootId : "" };
      if (this.table.proof(life) !== undefined) this.#port.proved(life);
      else if (this.#plans.has(nodeid) && this.#port.serving() && !this.table.isMember(nodeid)) {
        this.#want(life, "it went without a word", this.#port.name(this.#self.nodeid));
      }
    }
  }

  /** A person says that it is dead for sure. False: nothing waits for it here. */
  acknowledge(nodeid: number, by: string): boolean {
    if (this.table.want(nodeid) === undefined || this.table.isMember(nodeid) || !this.#inView) return false;
    this.#say({ kind: "fence-acked", nodeid, by: shortened(by), atMs: this.#wallMs() });
    return true;
  }

  /** A person asks for it, whether it is a member or not. "": it is asked for; else why not. `incarnation`: heard last, null: none was. */
  order(nodeid: number, by: string, incarnation: string | null): string {
    const name = this.#port.name(nodeid);
    const { quorate, reason } = this.#port.quorum();
    if (nodeid === this.#self.nodeid) return `${name} is this node: a node does not fence itself; ask another one`;
    if (!quorate || !this.#inView) return `this node has no quorum, or a view is being agreed upon (${reason})`;
    if (!this.#plans.has(nodeid)) return `no fence device is configured for ${name}`;
    if (this.table.want(this.#self.nodeid) !== undefined) return "this node is being fenced itself";
    const known = this.table.boots.get(nodeid);
    const bootId = known !== undefined && known.incarnation === (incarnation ?? known.incarnation) ? known.bootId : "";
    const life = { nodeid, incarnation: incarnation ?? known?.incarnation ?? noIncarnation, bootId };
    this.#want(life, "a person wants it", by, true);
    return "";
  }

  planOf(nodeid: number): FencePlan | undefined {
    return this.#plans.get(nodeid);
  }
}
