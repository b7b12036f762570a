/**
 * Which nodes are to be fenced, which node runs the agents against which, and which lives can write no more: the same at every member of a
 * quorate view that has heard all others in it. Changed by ordered messages and views alone (README.md of this room has the rules).
 * The model is fenced of cman and stonith-ng of Pacemaker, reduced to one ordered group.
 */
import { type FencedLife, shortened } from "../wire/fence-life.ts";
import {
  type FenceEndedMessage,
  type FenceOutcome,
  type FenceRecord,
  type FenceTableMessage,
  type FenceWantedMessage,
  MAX_RESULTS,
  MAX_WANTED_LIVES,
  MAX_WANTED_NODES,
  type OwnRun,
  type Proof,
  type Want,
  type WantedLife,
} from "../wire/fencing-group.ts";
import { hasMember, type Member, noIncarnation } from "../wire/view-id.ts";
import { byTime, merged, withinLimit, withoutDoubles } from "./results.ts";

/** What is kept on disk: who can write no more, and what was done. */
export interface KeptFencing {
  readonly proofs: readonly Proof[];
  readonly history: readonly FenceRecord[];
  /** Lives of nodes that were members, with their boots: a proof without one does not keep a node from its storage (hazard C3). */
  readonly boots: readonly FencedLife[];
}
export const noFencing: KeptFencing = { proofs: [], history: [], boots: [] };

/** Lives of one node whose boot is remembered; the oldest goes first. */
export const MAX_KNOWN_LIVES = 8;
/** Of all nodes. */
export const MAX_KNOWN_BOOTS = 256;

/** Agents run against a node. */
export interface Run {
  readonly executor: Member;
  /** Those that were asked for when it began: its result is theirs alone (hazard M2). */
  readonly lives: readonly WantedLife[];
  /** For people. */
  readonly step: string;
}

export function isSameBoot(a: string, b: string): boolean {
  return a === b || a === "" || b === "";
}

/** The incarnation is drawn at random: the boot id is a second look. */
function isSameLife(a: WantedLife, b: WantedLife): boolean {
  return a.incarnation === b.incarnation && isSameBoot(a.bootId, b.bootId);
}

/** Who asks without knowing the boot must not hide it: unfencing goes by the boot (hazard C3). An incarnation has one. */
function withBoots(lives: readonly WantedLife[], known: readonly WantedLife[]): readonly WantedLife[] {
  return lives.map((life) =>
    life.bootId === "" ? (known.find((one) => one.incarnation === life.incarnation && one.bootId !== "") ?? life) : life,
  );
}

/** What a person's order asks for if no life is known that could still write: whatever runs on that node now. Never proved, so never "known". */
const anyLife: WantedLife = { incarnation: noIncarnation, bootId: "" };

function isAnyLife({ incarnation }: WantedLife): boolean {
  return incarnation === noIncarnation;
}

function mergedLives(a: readonly WantedLife[], b: readonly WantedLife[]): readonly WantedLife[] {
  const added = b.filter((life) => !a.some((one) => isSameLife(one, life)));
  const all = [...withBoots(a, b), ...added];
  const named = all.filter((life) => !isAnyLife(life));
  return (named.length > 0 ? named : all).slice(-MAX_WANTED_LIVES);
}

export class FenceTable {
  #members: readonly Member[] = [];
  #wants: readonly Want[] = [];
  #proofs: readonly Proof[];
  #history: readonly FenceRecord[];
  readonly runs: Map<number, Run> = new Map();
  #boots: readonly FencedLife[];
  /** Members that have said in this view all that they know. */
  readonly #heard: Set<number> = new Set();
  /** Counts up with whatever is kept on disk. */
  changes = 0;

  constructor({ proofs, history, boots }: KeptFencing) {
    this.#proofs = proofs;
    this.#history = history;
    this.#boots = boots;
  }

  get wants(): readonly Want[] {
    return this.#wants;
  }
  get kept(): KeptFencing {
    return { proofs: this.#proofs, history: this.#history, boots: this.#boots };
  }
  get members(): readonly Member[] {
    return this.#members;
  }

  /** Every member has said in this view all that it knows, so no run of another is unknown here. */
  get synced(): boolean {
    return this.#members.length > 0 && this.#members.every(({ nodeid }) => this.#heard.has(nodeid));
  }

  isMember(nodeid: number): boolean {
    return this.#members.some((member) => member.nodeid === nodeid);
  }

  want(nodeid: number): Want | undefined {
    return this.#wants.find((want) => want.nodeid === nodeid);
  }

  /** That life is asked for, with its boot if that is known. */
  hasAsked(life: FencedLife): boolean {
    const lives = this.want(life.nodeid)?.lives ?? [];
    return lives.some((one) => isSameLife(one, life) && (one.bootId !== "" || life.bootId === ""));
  }

  proof(life: FencedLife): Proof | undefined {
    return this.#proofs.find((proof) => proof.nodeid === life.nodeid && isSameLife(proof, life));
  }

  /** By a device, in that boot: a kernel that lost its disk may still have writes for it (hazard C3). */
  wasFenced({ nodeid, bootId }: FencedLife): boolean {
    if (bootId === "") return false;
    return this.#proofs.some((proof) => proof.nodeid === nodeid && (proof.bootId === "" ? this.bootOf(proof) : proof.bootId) === bootId);
  }

  /** Of a life that was a member once; "": not known. */
  bootOf({ nodeid, incarnation }: Member): string {
    return this.#boots.find((one) => one.nodeid === nodeid && one.incarnation === incarnation)?.bootId ?? "";
  }

  /** Of the last life of that node that was a member; null: none is known. */
  lastIncarnation(nodeid: number): string | null {
    return this.#boots.findLast((one) => one.nodeid === nodeid)?.incarnation ?? null;
  }

  #learnBoot(life: FencedLife): void {
    const { nodeid, incarnation, bootId } = life;
    if (bootId === "" || this.bootOf(life) === bootId) return;
    const others = this.#boots.filter((one) => one.nodeid !== nodeid || one.incarnation !== incarnation);
    const own = others.filter((one) => one.nodeid === nodeid);
    const oldest = own.length < MAX_KNOWN_LIVES ? undefined : own[0];
    this.#boots = [...others.filter((one) => one !== oldest), { nodeid, incarnation, bootId }].slice(-MAX_KNOWN_BOOTS);
    this.changes++;
  }

  /** Nodes that must not become members: an agent runs against them, or a person had them put out (hazard M2). */
  barred(): number[] {
    const evicted = this.#wants.filter(({ evict, rounds }) => evict && rounds === 0).map(({ nodeid }) => nodeid);
    return [...new Set([...this.runs.keys(), ...evicted])].sort((a, b) => a - b);
  }

  /** The lowest member that has not tried in vain since all have. The lowest of all, if the others that had not tried are gone. */
  executorOf({ nodeid, tried }: Want): number | null {
    const able = this.#members.filter((member) => member.nodeid !== nodeid);
    return (able.find((member) => !tried.includes(member.nodeid)) ?? able[0])?.nodeid ?? null;
  }

  // ---------------------------------------------------------------------------------------------------------- views

  /** A quorate view, in its place among the messages. */
  enterView(members: readonly Member[]): void {
    this.#members = members;
    this.#heard.clear();
    for (const [nodeid, { executor }] of this.runs) {
      // Its lease is over before this view serves, and its agents were ended with it.
      if (!hasMember(members, executor.nodeid, executor.incarnation) || this.isMember(nodeid)) this.runs.delete(nodeid);
    }
  }

  /**
   * Until the next quorate view, which serves only after every lease of before: the runs of others say nothing here, and nobody is put out. A
   * node that is barred for them could be the one that the quorum needs. `own`: runs of this node that go on.
   */
  loseQuorum(own: ReadonlyMap<number, unknown>): void {
    for (const nodeid of this.runs.keys()) if (!own.has(nodeid)) this.runs.delete(nodeid);
    this.#wants = this.#wants.flatMap((want) => {
      if (!want.evict) return [want];
      const lives = want.lives.filter((life) => !isAnyLife(life));
      return lives.length === 0 ? [] : [{ ...want, lives, evict: false }];
    });
  }

  /** Its agents were ended where nobody can be told. */
  dropRun(nodeid: number, executor: number): void {
    if (this.runs.get(nodeid)?.executor.nodeid === executor) this.runs.delete(nodeid);
  }

  // ------------------------------------------------------------------------------------------------------- messages

  /** Of a member. */
  receiveTable(from: Member, message: FenceTableMessage): void {
    this.#heard.add(from.nodeid);
    this.#learnBoot({ nodeid: from.nodeid, incarnation: from.incarnation, bootId: message.bootId });
    this.#learnTable(message);
    for (const want of message.wants) this.#merge(want);
    this.#receiveRuns(from, message.runs);
    this.#endReturned(from, message.bootId, message.atMs);
  }

  /** It runs those and no others. */
  #receiveRuns(from: Member, said: readonly OwnRun[]): void {
    for (const [nodeid, { executor }] of this.runs) {
      if (executor.nodeid === from.nodeid && !said.some((run) => run.nodeid === nodeid)) this.runs.delete(nodeid);
    }
    for (const { nodeid, lives } of said) {
      if (!this.runs.has(nodeid)) this.runs.set(nodeid, { executor: from, lives, step: "" });
    }
  }

  /** Of another member's table. */
  #learnTable({ proofs, history }: Pick<KeptFencing, "proofs" | "history">): void {
    const rows = merged(this.#history, history);
    if (rows !== this.#history) {
      this.#history = byTime(rows).slice(-MAX_RESULTS);
      this.changes++;
    }
    this.#learn(proofs, byTime);
  }

  #learn(proofs: readonly Proof[], inOrder = (all: readonly Proof[]): readonly Proof[] => all): void {
    const learnt = merged(this.#proofs, proofs);
    if (learnt !== this.#proofs) {
      // Doubles first: a row that goes anyway takes nobody's place.
      this.#proofs = withinLimit(inOrder(withoutDoubles(learnt)));
      this.changes++;
    }
    this.#wants = this.#wants.flatMap((want) => {
      const lives = this.#openLives(want);
      return lives.length === 0 ? [] : [{ ...want, lives }];
    });
  }

  /** Those that may write still. A person's order goes on without one: what is known need not be of the life that runs now. */
  #openLives({ nodeid, lives, evict }: Want): readonly WantedLife[] {
    const open = lives.filter((life) => this.proof({ nodeid, ...life }) === undefined);
    return open.length === 0 && evict ? [anyLife] : open;
  }

  #merge(want: Want): void {
    // It has ended here already: the sender did not know yet that the node is back.
    if (this.#hasReturned(want)) return;
    const lives = this.#openLives(want);
    if (lives.length === 0) return;
    const before = this.want(want.nodeid);
    if (before === undefined) {
      if (this.#wants.length < MAX_WANTED_NODES) this.#wants = [...this.#wants, { ...want, lives }];
      return;
    }
    const isNewer = want.rounds > before.rounds;
    const { tried, rounds, failure } = isNewer ? want : before;
    const evict = before.evict || want.evict;
    this.#replace({ ...before, lives: mergedLives(before.lives, lives), evict, tried, rounds, failure });
  }

  #replace(want: Want): void {
    this.#wants = this.#wants.map((one) => (one.nodeid === want.nodeid ? want : one));
  }

  #remove(nodeid: number): void {
    this.#wants = this.#wants.filter((want) => want.nodeid !== nodeid);
  }

  #hasReturned({ nodeid, lives, evict, rounds }: Want): boolean {
    const member = this.#members.find((one) => one.nodeid === nodeid);
    if (member === undefined || !this.#heard.has(nodeid)) return false;
    // A member that a person has put out goes with the next view.
    return !evict || rounds > 0 || !lives.some((life) => life.incarnation === member.incarnation || isAnyLife(life));
  }

  /** It is back: whatever was to be fenced of it is told by itself from now on (askLife). */
  #endReturned({ nodeid }: Member, bootId: string, atMs: number): void {
    const want = this.want(nodeid);
    if (want === undefined || !this.#hasReturned(want)) return;
    this.#remove(nodeid);
    this.runs.delete(nodeid);
    for (const life of want.lives) {
      const outcome: FenceOutcome = life.bootId !== "" && bootId !== "" && life.bootId !== bootId ? "rebooted" : "returned";
      this.#record({ nodeid, ...life, outcome, by: "", words: "it is a member of the view again", atMs });
    }
  }

  /** Why it is not taken up; "": it is, or was before. */
  receiveWanted(from: Member, message: FenceWantedMessage): string {
    const { nodeid, incarnation, bootId, why, by, atMs, evict } = message;
    const life = { incarnation, bootId };
    const proof = this.proof({ nodeid, ...life });
    if (proof !== undefined) {
      // One that knows the boot asks after it was proved without.
      if (proof.bootId === "" && bootId !== "") this.#learn([{ ...proof, bootId }]);
      if (!evict) return "";
    }
    const refuse = (words: string): string => {
      if (evict) this.#record({ nodeid, ...life, outcome: "refused", by, words, atMs });
      return words;
    };
    if (from.nodeid === nodeid) return refuse("a node does not fence itself");
    // Two that fence each other: the order decides.
    if (this.want(from.nodeid)?.evict === true) return refuse(`node ${from.nodeid}, which asks for it, is being fenced itself`);
    if (!evict && this.isMember(nodeid)) return refuse(`node ${nodeid} is a member of the view`);
    this.#merge({ nodeid, lives: [life], why, by, sinceMs: atMs, evict, tried: [], rounds: 0, failure: "" });
    return "";
  }

  /** True: that node runs the agents from now on. Of the view in which it was asked for. */
  receiveBegun(from: Member, nodeid: number): boolean {
    const want = this.want(nodeid);
    if (want === undefined || this.runs.has(nodeid) || this.isMember(nodeid) || from.nodeid === nodeid) return false;
    this.runs.set(nodeid, { executor: from, lives: want.lives, step: "" });
    return true;
  }

  receiveStep(from: Member, nodeid: number, step: string): void {
    const run = this.runs.get(nodeid);
    if (run?.executor.nodeid === from.nodeid) this.runs.set(nodeid, { ...run, step });
  }

  /** Lives that can write no more from now on. */
  receiveEnded(from: Member, { nodeid, outcome, by, words, atMs }: FenceEndedMessage): readonly FencedLife[] {
    const run = this.runs.get(nodeid);
    const want = this.want(nodeid);
    if (run === undefined || run.executor.nodeid !== from.nodeid || run.executor.incarnation !== from.incarnation) return [];
    this.runs.delete(nodeid);
    if (want === undefined) return [];
    if (outcome === "fenced") return this.#prove(nodeid, withBoots(run.lives, want.lives), { outcome: "fenced", by, words, atMs });
    const tried = outcome === "stopped" ? want.tried : [...want.tried, from.nodeid].slice(-MAX_WANTED_NODES);
    const all = this.#members.every((member) => tried.includes(member.nodeid));
    const failed = outcome === "failed" || all;
    const rounds = failed ? want.rounds + 1 : want.rounds;
    this.#replace({ ...want, tried: all ? [] : tried, rounds, failure: outcome === "stopped" ? want.failure : words });
    if (outcome === "stopped") return [];
    for (const life of run.lives) this.#record({ nodeid, ...life, outcome: "failed", by, words, atMs });
    return [];
  }

  /** A person's word, for all that is asked for of that node. Nothing if it is a member (hazard C11). */
  receiveAcked(nodeid: number, by: string, atMs: number): readonly FencedLife[] {
    const want = this.want(nodeid);
    if (want === undefined || this.isMember(nodeid)) return [];
    // A run goes on until its executor says that its agents have ended.
    return this.#prove(nodeid, want.lives, { outcome: "acknowledged", by, words: "a person says that it is off", atMs });
  }

  #prove(
    nodeid: number,
    lives: readonly WantedLife[],
    { outcome, by, words, atMs }: Pick<FenceRecord, "outcome" | "by" | "words" | "atMs">,
  ): readonly FencedLife[] {
    const proved = lives.map((life) => ({ nodeid, ...life }));
    for (const life of proved) this.#record({ ...life, outcome, by, words, atMs });
    this.#answer(nodeid, lives);
    this.#learn(proved.filter((life) => !isAnyLife(life)).map((life) => ({ ...life, by, atMs })));
    return proved;
  }

  /** Those are asked for no more, and ordered no more. */
  #answer(nodeid: number, answered: readonly WantedLife[]): void {
    const want = this.want(nodeid);
    if (want === undefined) return;
    const lives = want.lives.filter((life) => !answered.some((one) => isSameLife(one, life)));
    if (lives.length === 0) this.#remove(nodeid);
    else this.#replace({ ...want, lives });
  }

  #record(row: FenceRecord): void {
    const rows = merged(this.#history, [{ ...row, by: shortened(row.by), words: shortened(row.words) }]);
    this.#history = rows.slice(-MAX_RESULTS);
    this.changes++;
  }

  /** What this node says to all when a view begins, or another daemon joins the group. `runs`: of its own, those that go on. */
  message(bootId: string, atMs: number, runs: Iterable<number>, whole: boolean): FenceTableMessage {
    const said = [...runs].map((nodeid) => ({ nodeid, lives: this.runs.get(nodeid)?.lives ?? [] }));
    const { proofs, history } = whole ? this.kept : noFencing;
    return { kind: "fence-table", bootId, atMs, wants: this.#wants, runs: said, proofs, history };
  }
}
