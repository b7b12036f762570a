/** What programs and people ask of fencing, and what they are told: questions become ordered messages, answers come of the table (README.md). */
import { nodeWord } from "../base/node-word.ts";
import { type FenceAnswer, type FencedLife, type FenceQuestion, shortened } from "../wire/fence-life.ts";
import type { FencingMessage, Want } from "../wire/fencing-group.ts";
import { type Member, noIncarnation } from "../wire/view-id.ts";
import type { FenceTable } from "./fence-table.ts";

export interface FenceRequestsPort {
  quorum(): { readonly quorate: boolean; readonly reason: string };
  /** Messages are ordered. */
  inView(): boolean;
  serving(): boolean;
  name(nodeid: number): string;
  hasDevice(nodeid: number): boolean;
  /** Until the next round of that node, 0: one runs or may begin. */
  pauseMs(nodeid: number): number;
  /** How long its fence waits, because it is heard in another life. */
  holdMs(want: Want): number;
  say(message: FencingMessage): void;
  /** Not while it is under way, nor soon after. */
  sayOnce(key: string, message: FencingMessage): void;
}

/** One request that is not a person's. */
export function wantedKey({ nodeid, incarnation, bootId }: FencedLife): string {
  return `wanted ${nodeid} ${incarnation} ${bootId}`;
}

export class FenceRequests {
  readonly #self: Member;
  readonly #wallMs: () => number;
  readonly #table: FenceTable;
  readonly #port: FenceRequestsPort;

  constructor(self: Member, wallMs: () => number, table: FenceTable, port: FenceRequestsPort) {
    this.#self = self;
    this.#wallMs = wallMs;
    this.#table = table;
    this.#port = port;
  }

  #wanted({ nodeid, incarnation, bootId }: FencedLife, why: string, by: string, evict: boolean): FencingMessage {
    const words = { why: shortened(why), by: shortened(by) };
    return { kind: "fence-wanted", nodeid, incarnation, bootId, ...words, atMs: this.#wallMs(), evict };
  }

  /** That life is to be fenced: by what this node knows, not by a person. Said again if the table had no room, or has let go of it since. */
  want(life: FencedLife, why: string, by: string): void {
    if (!this.#table.hasAsked(life)) this.#port.sayOnce(wantedKey(life), this.#wanted(life, why, by, false));
  }

  /** A program may ask without the boot, which unfencing goes by (hazard C3): the members that know it say it. */
  tellBoots(): void {
    for (const { nodeid, lives, why, by } of this.#table.wants) {
      for (const { incarnation, bootId } of lives) {
        const known = bootId === "" ? this.#table.bootOf({ nodeid, incarnation }) : "";
        if (known !== "") this.want({ nodeid, incarnation, bootId: known }, why, by);
      }
    }
  }

  /** Answers a program, and begins what it asks for. It asks again as long as the answer is "running" or "failed". */
  ask(question: FenceQuestion): FenceAnswer {
    const { nodeid, incarnation, bootId, why } = question;
    const life = { nodeid, incarnation, bootId };
    const proof = this.#table.proof(life);
    if (proof !== undefined) return { kind: "fenced", by: proof.by, atMs: proof.atMs };
    const refuse = (words: string): FenceAnswer => ({ kind: "refused", why: words });
    const { quorate, reason } = this.#port.quorum();
    if (!quorate) return refuse(`this node has no quorum (${reason})`);
    const name = this.#port.name(nodeid);
    if (this.#table.isMember(nodeid)) return refuse(`${name} is a member of the view: its own dlmd says what became of that life`);
    this.want(life, why, `a program of ${this.#port.name(this.#self.nodeid)}`);
    if (!this.#port.hasDevice(nodeid)) {
      return refuse(`no fence device is configured for ${name}: when it is off for sure, \`coverlay fence ack ${nodeWord(name)} --yes\``);
    }
    return this.#progress(nodeid, name);
  }

  #progress(nodeid: number, name: string): FenceAnswer {
    const want = this.#table.want(nodeid);
    const sinceMs = want?.sinceMs ?? this.#wallMs();
    const pauseMs = this.#port.pauseMs(nodeid);
    if (want !== undefined && want.failure !== "" && pauseMs > 0 && !this.#table.runs.has(nodeid)) {
      return { kind: "failed", why: want.failure, againAtMs: Math.round(this.#wallMs() + pauseMs) };
    }
    return { kind: "running", sinceMs, step: want === undefined ? `the fence of ${name} is about to begin` : this.step(want) };
  }

  /** In words, for people. */
  step(want: Want): string {
    const { nodeid } = want;
    const run = this.#table.runs.get(nodeid);
    const name = this.#port.name(nodeid);
    if (run !== undefined) return `${this.#port.name(run.executor.nodeid)} ${run.step === "" ? `begins to fence ${name}` : run.step}`;
    if (!this.#port.hasDevice(nodeid)) return `no fence device is configured for ${name}: \`coverlay fence ack ${nodeWord(name)} --yes\``;
    if (this.#table.isMember(nodeid)) return `waits until the view is without ${name}`;
    const executor = this.#table.executorOf(want);
    if (executor === null) return "no member can run its fence agents";
    if (!this.#port.serving()) return "waits until lock service runs";
    const holdMs = this.#port.holdMs(want);
    if (holdMs > 0) {
      return `${name} is heard in another life: it is asked when it has joined, and fenced if it has not within ${(holdMs / 1000).toFixed(1)} s. \`coverlay fence ${name} --yes\` fences it now`;
    }
    return `${this.#port.name(executor)} is about to begin`;
  }

  /** A person says that it is dead for sure. False: nothing waits for it here. */
  acknowledge(nodeid: number, by: string): boolean {
    if (this.#table.want(nodeid) === undefined || this.#table.isMember(nodeid) || !this.#port.inView()) return false;
    this.#port.say({ kind: "fence-acked", nodeid, by: shortened(by), atMs: this.#wallMs() });
    return true;
  }

  /**
   * A person asks for it, whether it is a member or not. "": it is asked for, and a row of the history says how it ended; else why not.
   * `incarnation`: heard last, null: none was.
   */
  order(nodeid: number, by: string, incarnation: string | null): string {
    const name = this.#port.name(nodeid);
    const { quorate, reason } = this.#port.quorum();
    if (nodeid === this.#self.nodeid) return `${name} is this node: a node does not fence itself; ask another one`;
    if (!quorate || !this.#port.inView()) return `this node has no quorum, or a view is being agreed upon (${reason})`;
    if (!this.#port.hasDevice(nodeid)) return `no fence device is configured for ${name}`;
    if (this.#table.want(this.#self.nodeid) !== undefined) return "this node is being fenced itself";
    const life = { nodeid, incarnation: incarnation ?? this.#table.lastIncarnation(nodeid) ?? noIncarnation };
    // Each order is said: a person who asks twice is answered twice.
    this.#port.say(this.#wanted({ ...life, bootId: this.#table.bootOf(life) }, "a person wants it", by, true));
    return "";
  }
}
