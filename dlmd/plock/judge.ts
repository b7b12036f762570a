/**
 * One node of a view, the lowest, judges the cycles that all searches found, one after another: it asks the masters whether every edge has been
 * there since it was seen. If so there was a moment, after the search and before the question, at which the cycle was whole. Then
 * one request of it is ended (or may overtake), and the next cycle is looked at only when that is done: so a cycle has one
 * victim, however many searches found it, and one that broke in the meantime, by a cancel, an unlock or another victim, has none.
 */
import type { PlockCycleMessage, PlockEdge, PlockMessage } from "../wire/peer-plock.ts";

interface Case {
  readonly from: number;
  readonly cycle: PlockCycleMessage;
}

interface Trial {
  readonly id: number;
  readonly case: Case;
  /** The question is asked, then the sentence is carried out. */
  stage: "verify" | "sentence";
  missing: number;
  whole: boolean;
}

export class Judge {
  readonly #send: (nodeid: number, message: PlockMessage) => void;
  /** One for each search that runs anywhere, at most. */
  #cases: Case[] = [];
  #trial: Trial | null = null;
  #nextId = 1;

  constructor(send: (nodeid: number, message: PlockMessage) => void) {
    this.#send = send;
  }

  reset(): void {
    this.#cases = [];
    this.#trial = null;
  }

  accused(from: number, cycle: PlockCycleMessage): void {
    this.#cases.push({ from, cycle });
    if (this.#trial === null) this.#next();
  }

  #next(): void {
    const next = this.#cases.shift();
    this.#trial = null;
    if (next === undefined) return;
    const masters = new Map<number, PlockEdge[]>();
    for (const edge of next.cycle.edges) {
      const edges = masters.get(edge.masterNodeid);
      if (edges === undefined) masters.set(edge.masterNodeid, [edge]);
      else edges.push(edge);
    }
    const trial: Trial = { id: this.#nextId++, case: next, stage: "verify", missing: masters.size, whole: true };
    this.#trial = trial;
    for (const [nodeid, edges] of masters) this.#send(nodeid, { kind: "plock-verify", caseId: trial.id, edges });
  }

  verdict(caseId: number, yes: boolean): void {
    const trial = this.#trial;
    if (trial === null || trial.id !== caseId) return;
    if (!yes) trial.whole = false;
    if (--trial.missing > 0) return;
    const { from, cycle } = trial.case;
    if (trial.stage === "verify" && trial.whole) {
      const { masterNodeid, request } = cycle.edges[cycle.at] as PlockEdge;
      trial.stage = "sentence";
      trial.missing = 1;
      this.#send(masterNodeid, { kind: "plock-sentence", caseId, request, sentence: cycle.sentence });
      return;
    }
    this.#send(from, { kind: "plock-judged", searchId: cycle.searchId });
    this.#next();
  }
}
