/**
 * A node's part in fencing: it asks for fences, keeps the table that all members have (fence-table.ts), and runs rounds (fence-run.ts) where it
 * is the executor. Agents are the driver's (fence-agent/): "run" and "stop" go out, a result comes in. README.md of this room has the rules.
 */
import { assertNever } from "../base/assert.ts";
import { WireError } from "../base/error.ts";
import type { StepTime } from "../base/step-time.ts";
import { DaemonGroup, type GroupMembers } from "../engine/daemon-group.ts";
import type { EngineCommand, EngineEvent, EngineView } from "../engine/engine.ts";
import { type FencedLife, shortened } from "../wire/fence-life.ts";
import { decodeFencingMessage, encodeFencingMessage, FENCING_GROUP, type FencingMessage, type Want } from "../wire/fencing-group.ts";
import type { CommandResult } from "../wire/group.ts";
import { hasMember, type Member, noView, sameView, type ViewId } from "../wire/view-id.ts";
import type { FencePlans } from "../config/fence-plan.ts";
import { type AgentResult, FenceRun } from "./fence-run.ts";
import { FenceTable, type KeptFencing } from "./fence-table.ts";
import { pauseAfterMs } from "./pause.ts";
import { FenceRequests, wantedKey } from "./requests.ts";
import { Returning } from "./returning.ts";
import { type FailedOn, Unfencing } from "./unfencing.ts";

// Hazard M2: one node at a time, with a lease; a result for the lives that were asked for.

/** A life that the table did not take, or let go of, is asked for again so much later. */
export const WANT_AGAIN_MS = 1000;

export interface FencingPort {
  command(command: EngineCommand): CommandResult;
  /** Lock service runs here, in a quorate view. */
  serving(): boolean;
  quorum(): { readonly quorate: boolean; readonly reason: string };
  /** Never further off than a lease that was acknowledged just now. */
  leaseEndMs(): number;
  /** The life of that node that is heard now; null: none is. */
  readonly heard: (nodeid: number) => string | null;
  /** After which a node without a word counts as gone. */
  readonly timeoutMs: number;
  /** Those nodes must not become members, or stay members. */
  bar(nodeids: readonly number[]): void;
  /** Ends in one `ran` of that run id, if `stop` does not come first. */
  run(runId: number, nodeid: number, device: string): void;
  /** Its agent must be gone at once. */
  stop(runId: number): void;
  keep(kept: KeptFencing): void;
  /**
   * This node may have its path to that storage back; ends in one `ran` of that run id, if `stop` does not come first. Not allowed if it was
   * fenced in this boot: it may still write what it had.
   */
  unfence(runId: number, device: string, isAllowed: boolean): void;
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

export class Fencing {
  readonly table: FenceTable;
  readonly #self: FencingSelf;
  readonly #time: StepTime;
  readonly #wallMs: () => number;
  readonly #port: FencingPort;
  #plans: FencePlans;
  #viewId: ViewId = noView;
  readonly #group: DaemonGroup<FencingMessage>;
  /** Said in this view, by when it may be said again; Infinity: not before it is delivered. */
  readonly #said: Map<string, number> = new Map();
  /** By nodeid: rounds that this node runs. */
  readonly #own: Map<number, OwnRun> = new Map();
  /** By nodeid: not begun again before then. */
  readonly #pauses: Map<number, number> = new Map();
  #lastRunId = 0;
  /** The latest end of a lease: until then no view without this node serves (hazard C4), so its agents may run. */
  #leaseMs = Number.NEGATIVE_INFINITY;
  #keptChanges = 0;
  #isLeaving = false;
  /** Since when there is one, in all views since then; null: there is none. */
  #quorumSinceMs: number | null = null;
  #barred = "";
  readonly #returning: Returning;
  /** Nodes that lockspaces wait for. */
  #gated: ReadonlySet<number> = new Set();
  readonly #unfencing: Unfencing;
  /** What programs and people ask. */
  readonly requests: FenceRequests;

  constructor(self: FencingSelf, time: StepTime, wallMs: () => number, kept: KeptFencing, plans: FencePlans, port: FencingPort) {
    this.#self = { nodeid: self.nodeid, incarnation: self.incarnation, bootId: self.bootId };
    this.#time = time;
    this.#wallMs = wallMs;
    this.#port = port;
    this.#plans = plans;
    this.#returning = new Returning(port.timeoutMs);
    this.table = new FenceTable(kept);
    this.#group = new DaemonGroup(FENCING_GROUP, {
      command: (command) => port.command(command),
      encode: encodeFencingMessage,
      enterView: (view) => this.#enterView(view),
      loseQuorum: () => {
        this.#quorumSinceMs = null;
        this.table.loseQuorum(this.#own);
      },
      membersChanged: (event) => this.#membersChanged(event),
      receive: (from, data) => this.#message(from, data),
    });
    this.#unfencing = new Unfencing(plans.get(self.nodeid)?.unfence ?? [], {
      mayRun: () => this.#group.inView && this.#time.nowMs < this.#leaseMs && !this.#isLeaving,
      wasFenced: () => this.table.wasFenced(this.#self),
      newRunId: () => this.#newRunId(),
      start: (runId, device, isAllowed) => port.unfence(runId, device, isAllowed),
      stop: (runId) => port.stop(runId),
    });
    this.requests = new FenceRequests(this.#self, wallMs, this.table, {
      quorum: () => port.quorum(),
      inView: () => this.#group.inView,
      serving: () => port.serving(),
      name: (nodeid) => port.name(nodeid),
      hasDevice: (nodeid) => this.#plans.has(nodeid),
      pauseMs: (nodeid) => this.pauseMs(nodeid),
      holdMs: (want) => this.#holdMs(want),
      say: (message) => this.#group.say(message),
      sayOnce: (key, message) => this.#sayOnce(key, message),
    });
  }

  /** The engine was given something to do. */
  get touched(): boolean {
    return this.#group.touched;
  }
  set touched(touched: boolean) {
    this.#group.touched = touched;
  }

  configure(plans: FencePlans): void {
    this.#plans = plans;
    this.#unfencing.configure(plans.get(this.#self.nodeid)?.unfence ?? []);
  }

  hasDevice(nodeid: number): boolean {
    return this.#plans.has(nodeid);
  }

  /** Milliseconds; null: there is none. */
  get quorumForMs(): number | null {
    return this.#quorumSinceMs === null ? null : this.#time.nowMs - this.#quorumSinceMs;
  }

  // --------------------------------------------------------------------------------------------------------- sending

  /** What is under way in this view is not said again; a view that ends before may lose it, and its sender asks again. */
  #sayOnce(key: string, message: FencingMessage): void {
    if (!this.#group.inView || this.#time.nowMs < (this.#said.get(key) ?? Number.NEGATIVE_INFINITY)) return;
    this.#said.set(key, Number.POSITIVE_INFINITY);
    this.#group.say(message);
  }

  /** Its own word has come back: what it asks for may be dropped by the table, now or later. */
  #heardOwn(key: string): void {
    const { nowMs } = this.#time;
    for (const [other, againMs] of this.#said) if (againMs <= nowMs) this.#said.delete(other);
    if (this.#said.has(key)) this.#said.set(key, nowMs + WANT_AGAIN_MS);
  }

  #sayTable(whole: boolean): void {
    this.#group.say(this.table.message(this.#self.bootId, this.#wallMs(), this.#own.keys(), whole));
  }

  // ---------------------------------------------------------------------------------------------------------- events

  /** Of the engine, in order; of messages and members, those of this group. */
  event(event: EngineEvent): void {
    this.#group.event(event);
  }

  #membersChanged({ members, joined }: GroupMembers): void {
    const others = joined.filter(({ nodeid }) => nodeid !== this.#self.nodeid);
    // What was said before it joined did not come to it.
    const first = members.find(({ nodeid }) => !others.some((one) => one.nodeid === nodeid));
    if (others.length > 0) this.#sayTable(first?.nodeid === this.#self.nodeid);
  }

  #enterView(view: EngineView): void {
    const { id, members, together } = view;
    this.#viewId = id;
    this.#quorumSinceMs ??= this.#time.nowMs;
    this.#said.clear();
    this.table.enterView(members);
    this.#sayTable(together.length < members.length);
  }

  #message(from: Member, data: Uint8Array): void {
    if (!hasMember(this.table.members, from.nodeid, from.incarnation)) return;
    let message: FencingMessage;
    try {
      message = decodeFencingMessage(data);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return this.#port.protest(from.nodeid, `message about fences that cannot be read: ${error.message}`);
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
    const { nodeid, why, by, evict } = message;
    if (from.nodeid === this.#self.nodeid) this.#heardOwn(wantedKey(message));
    const before = this.table.want(nodeid);
    const refused = this.table.receiveWanted(from, message);
    // A person does not wait for what another request left.
    if (refused === "" && evict) this.#pauses.delete(nodeid);
    if (refused !== "") this.#port.log("warn", `a fence is refused: ${refused}`, { nodeid, why, by });
    else if (before === undefined && this.table.want(nodeid) !== undefined)
      this.#port.log("warn", "a fence is asked for", { nodeid, why, by });
  }

  #receiveBegun(from: Member, nodeid: number, view: ViewId): void {
    // It may begin again in this view, whatever becomes of this one.
    if (from.nodeid === this.#self.nodeid) this.#said.delete(`begun ${nodeid}`);
    // Nobody knows in a later view that it was asked for: its sender did not begin, and asks again.
    if (!sameView(view, this.#viewId) || !this.table.receiveBegun(from, nodeid)) return;
    const plan = this.#plans.get(nodeid);
    if (from.nodeid !== this.#self.nodeid || !this.#group.inView || !this.table.synced) return;
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
    const after = this.table.want(nodeid);
    if (after !== undefined && after.rounds > rounds) {
      const pauseMs = pauseAfterMs(after.rounds);
      this.#pauses.set(nodeid, this.#time.nowMs + pauseMs);
      this.#port.log("error", "a fence failed", { nodeid, words, executor: from.nodeid, againAfterMs: pauseMs });
    } else if (outcome === "unable") this.#port.log("error", "a node cannot run a fence agent", { nodeid, words, executor: from.nodeid });
    this.#proved(proved, by);
  }

  #proved(lives: readonly FencedLife[], by: string): void {
    for (const life of lives) {
      const { nodeid, incarnation, bootId } = life;
      this.#pauses.delete(nodeid);
      this.#returning.ended(nodeid);
      this.#port.log("warn", "a life can write no more", { nodeid, incarnation, bootId, by });
      this.#port.proved(life);
    }
  }

  // --------------------------------------------------------------------------------------------------------- rounds

  /** Goes on as far as possible. */
  advance(): void {
    const { nowMs } = this.#time;
    this.#leaseMs = Math.max(this.#leaseMs, this.#port.leaseEndMs());
    this.#returning.look(this.table.wants, this.#port.heard, nowMs);
    for (const [nodeid, own] of this.#own) this.#advanceOwn(nodeid, own, nowMs);
    for (const nodeid of this.#pauses.keys()) if (this.table.want(nodeid) === undefined) this.#pauses.delete(nodeid);
    const mayBegin = this.#group.inView && this.table.synced && this.#port.serving() && !this.#isLeaving;
    if (mayBegin) for (const want of this.table.wants) this.#begin(want, nowMs);
    if (mayBegin) this.requests.tellBoots();
    if (this.#port.serving()) for (const { nodeid } of this.table.members) this.#returning.ended(nodeid);
    this.#unfencing.advance(mayBegin, nowMs);
    const barred = this.table.barred();
    if (barred.join() !== this.#barred) {
      this.#barred = barred.join();
      this.#port.bar(barred);
    }
    if (this.table.changes === this.#keptChanges) return;
    this.#keptChanges = this.table.changes;
    this.#port.keep(this.table.kept);
  }

  #advanceOwn(nodeid: number, own: OwnRun, nowMs: number): void {
    const run = this.table.runs.get(nodeid);
    const isMine = run?.executor.nodeid === this.#self.nodeid && run.executor.incarnation === this.#self.incarnation;
    // Without a lease others may have begun; who is proved dead, or is a member again, is not shot.
    const mayRun = isMine && nowMs < this.#leaseMs && !this.#isLeaving;
    const want = this.table.want(nodeid);
    if (!mayRun || want === undefined) return this.#stopOwn(nodeid, own, "its executor had to stop");
    // Before a device of this level was used, and between two tries: a fence would end a life that was not asked for.
    if (own.run.isUndone && this.#holdMs(want) > 0) return this.#stopOwn(nodeid, own, "it is heard in another life");
    const device = own.run.advance(nowMs);
    if (device !== null) this.#port.run(own.runId, nodeid, device);
    const { end, words } = own.run;
    if (end !== null) {
      // Between two views it waits for the next one.
      if (!this.#group.inView) return;
      this.#own.delete(nodeid);
      return this.#sayEnded(nodeid, end.outcome, end.by, end.words);
    }
    if (words === own.told || !this.#group.inView) return;
    own.told = words;
    this.#group.say({ kind: "fence-step", nodeid, words: shortened(words) });
  }

  #stopOwn(nodeid: number, { runId }: OwnRun, why: string): void {
    this.#own.delete(nodeid);
    this.#port.stop(runId);
    // The others hear of it by the table that begins the next view.
    if (!this.#group.inView) return this.table.dropRun(nodeid, this.#self.nodeid);
    this.#sayEnded(nodeid, "stopped", "", why);
  }

  #sayEnded(nodeid: number, outcome: "fenced" | "failed" | "unable" | "stopped", by: string, words: string): void {
    const atMs = this.#wallMs();
    this.#group.say({ kind: "fence-ended", nodeid, outcome, by: shortened(by), words: shortened(words), atMs });
  }

  #begin(want: Want, nowMs: number): void {
    const { nodeid } = want;
    if (!this.#plans.has(nodeid) || this.table.runs.has(nodeid) || this.table.isMember(nodeid)) return;
    if (this.table.executorOf(want) !== this.#self.nodeid || nowMs < (this.#pauses.get(nodeid) ?? nowMs)) return;
    if (this.#holdMs(want) > 0) return;
    this.#sayOnce(`begun ${nodeid}`, { kind: "fence-begun", nodeid, view: this.#viewId });
  }

  /**
   * How long its fence waits, because it is heard in another life. Not by a person's order; and not where lockspaces wait for it, since a
   * member that is back does not prove for them that its former life is over.
   */
  #holdMs(want: Want): number {
    if (want.evict || this.#gated.has(want.nodeid)) return 0;
    return this.#returning.leftMs(want, this.#port.heard(want.nodeid));
  }

  /** An agent has ended. */
  ran(runId: number, result: AgentResult): void {
    this.#unfencing.ran(runId, result, this.#time.nowMs);
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
    this.#unfencing.stop();
  }

  get deadlineMs(): number {
    let deadline = this.#unfencing.isRunning ? this.#leaseMs : this.#unfencing.againMs(this.#time.nowMs);
    for (const { run } of this.#own.values()) deadline = Math.min(deadline, run.deadlineMs, this.#leaseMs);
    for (const [nodeid, pauseMs] of this.#pauses) {
      if (pauseMs > this.#time.nowMs && this.table.want(nodeid) !== undefined) deadline = Math.min(deadline, pauseMs);
    }
    return deadline;
  }

  /** Of those that are waited for; milliseconds until the next round, 0: one runs or may begin. */
  pauseMs(nodeid: number): number {
    return Math.max(0, Math.round((this.#pauses.get(nodeid) ?? 0) - this.#time.nowMs));
  }

  /** Devices that have not given this node its storage back, and are tried again. */
  get failedOns(): readonly FailedOn[] {
    return this.#unfencing.failed(this.#time.nowMs);
  }

  /** Nodes that lockspaces wait for (recovery/fence-gate.ts). Those that can write no more are told at once. */
  victims(open: readonly Member[]): void {
    this.#gated = new Set(open.map(({ nodeid }) => nodeid));
    for (const { nodeid, incarnation } of open) {
      const life = { nodeid, incarnation, bootId: this.table.bootOf({ nodeid, incarnation }) };
      if (this.table.proof(life) !== undefined) this.#port.proved(life);
      else if (this.#plans.has(nodeid) && this.#port.serving() && !this.table.isMember(nodeid)) {
        this.requests.want(life, "it went without a word", this.#port.name(this.#self.nodeid));
      }
    }
  }
}
