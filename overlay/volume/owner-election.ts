/**
 * Who is to be the next owner, and whether it may: the part of the owner's state machine (owner-core.ts) from "there is no owner" to the claim. The line is
 * the lock `next`; who goes first in it; the owner's block, and the proof that the life in it is over.
 */
import { assertNever } from "../../dlmd/base/assert.ts";
import type { GoneClient } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Life, Proof } from "./life.ts";
import type { OwnerBlock } from "./owner-block.ts";
import { judgeBlock, stillOwned } from "./owner-claim.ts";
import type { Claim } from "./owner-event.ts";
import { type OwnerRecord, compareOwnerRecords, isOver, isSameClaim } from "./owner-record.ts";
import type { OwnerState, Phase, Verdict } from "./owner-state.ts";

/** How often the front of the line is left to a lower nodeid that ought to be in the line, before going on without it. */
export const MAX_YIELDS = 16;
/** How often a first mount asks for a proof before it fails: a process that was just killed leaves its device a moment later. */
export const MAX_FIRST_QUESTIONS = 3;

/** On the way out, where what a mount has failed with is yet to be judged. */
function isLeaving(phase: Phase): boolean {
  return phase === "closing" || phase === "releasing" || phase === "passing-on" || phase === "retiring";
}

export class OwnerElection {
  readonly #state: OwnerState;
  /** With `next` held: the answer that is waited for. */
  #awaited: "mounters" | "owner-block" | "proof" | null = null;
  /** Why there is no proof that the life in the block is over; nobody asks before something changes. */
  #unproved: string | null = null;
  #asks = true;
  #questions = 0;
  #proof: Claim["proof"] = null;
  /** Not proved over yet: the first one is asked for. */
  #lives: readonly Life[] = [];
  /** The record that was judged together with the block. */
  #judged: OwnerRecord | null = null;
  #yields = 0;
  /** The epoch of an owner whose heir is not there any more. */
  #heirless = 0;

  constructor(state: OwnerState) {
    this.#state = state;
  }

  /** What the next mount of the lower rests on. */
  get claim(): Claim {
    return { block: this.#state.block, proof: this.#proof };
  }

  /** No other record came since it was judged. */
  get isJudged(): boolean {
    return this.#judged === this.#state.last;
  }

  /** Why there is no proof, in words; null: none is missing, as far as is known. */
  get unproved(): string | null {
    return this.#unproved;
  }

  /** That node's life is to be proved over next; null: none is. */
  get unprovedNode(): number | null {
    return this.#lives[0]?.nodeid ?? null;
  }

  proofWaits(why: string): void {
    if (this.#awaited === "proof") this.#unproved = why;
  }

  /** With CR held: what the record and the place in the line ask for. */
  decide(): void {
    if (this.#state.phase !== "watching" || this.#awaited !== null) return;
    // `next` comes to us only from a holder that changed the record first (then we would not hold CR), or that died.
    if (this.#state.next === "held" && this.#state.verdict() === "following") this.#state.lastAlive = false;
    const verdict = this.#state.verdict();
    this.#tellOwner(verdict);
    if (verdict === "following") this.#forgetUnproved();
    switch (this.#state.next) {
      case "none":
        if (this.#state.mounter === "held" && this.#asks) {
          this.#state.next = "requested";
          this.#state.emit({ kind: "request", lock: "next", mode: Mode.EX });
        }
        return;
      case "held":
        if (this.#state.mounter !== "held" || !this.#asks) return this.#state.dropNext();
        // After a death nobody makes way for a lower nodeid, which may have asked in vain: the first with a proof goes on.
        if (verdict === "mine" || verdict === "dead") return this.#enterReadingBlock();
        return this.#enterProbing();
      case "requested":
      case "unlocking":
        return;
      default:
        assertNever(this.#state.next, "place in the line");
    }
  }

  #tellOwner(verdict: Verdict): void {
    const owner = verdict === "following" && this.#state.last?.state === "ready" ? this.#state.last : null;
    if (
      owner !== null &&
      (this.#state.found === null || compareOwnerRecords(owner, this.#state.found) !== 0 || !isSameClaim(owner, this.#state.found))
    ) {
      this.#state.found = owner;
      this.#state.wasServed = true;
      this.#yields = 0;
      this.#state.emit({ kind: "owner-found", owner });
    } else if (owner === null) {
      this.#state.loseOwner(
        verdict === "dead" ? `owner ${this.#state.nameOf(this.#state.mustLast().nodeid)} is gone` : "there is no owner",
      );
    }
  }

  receiveReached(error: Error | null): void {
    if (this.#state.error !== null || this.#state.reaches) return;
    // Too early: nothing else would ever look at the device again.
    if (isLeaving(this.#state.phase)) return this.#state.lookLater(this.#state.withdrawal === "" ? "failure" : "withdrawal");
    // A disk that is being given up, or could not be, is nobody's: not even this node's.
    const failed = error ?? (this.#state.withdrawal === "" ? null : this.#state.mountError);
    if (failed !== null) return this.#state.loseDevice(error === null ? "withdrawal" : "failure", failed);
    this.#state.mountError = null;
    this.#state.reaches = true;
    this.#state.requestMounter();
  }

  enterSteppingDown(): void {
    this.#state.phase = "stepping-down";
    this.#state.loseOwner("the owner is changing");
    this.#state.emit({ kind: "unlock", lock: "owner" });
  }

  /** Who goes first: the node that the volume was handed over to, else the lowest nodeid that reaches the device. */
  #enterProbing(): void {
    const heir = this.#heirNow();
    const lower = this.#state.self.nodes.map((node) => node.nodeid).filter((nodeid) => nodeid < this.#state.self.nodeid);
    const first = heir === 0 ? lower : heir === this.#state.self.nodeid ? [] : [heir];
    if (first.length === 0 || this.#yields >= MAX_YIELDS) return this.#enterReadingBlock();
    this.#awaited = "mounters";
    this.#state.emit({ kind: "probe-mounters", nodeids: first });
  }

  #heirNow(): number {
    return this.#state.last === null || !isOver(this.#state.last) || this.#state.last.epoch === this.#heirless ? 0 : this.#state.last.heir;
  }

  receiveMounters(nodeids: readonly number[]): void {
    this.#awaited = null;
    if (!this.#mayClaim()) return this.decide();
    if (nodeids.length === 0) {
      if (this.#heirNow() === 0) return this.#enterReadingBlock();
      this.#heirless = this.#state.mustLast().epoch;
      return this.#enterProbing();
    }
    // To the end of the line: it is asked for again as soon as it was given up.
    this.#yields += 1;
    this.#state.dropNext();
  }

  /** Nothing changed while an answer was on its way. */
  #mayClaim(): boolean {
    return (
      this.#state.phase === "watching" &&
      this.#state.next === "held" &&
      this.#state.mounter === "held" &&
      this.#state.verdict() !== "following"
    );
  }

  /** Hazard R5: the record may be forgotten, or may never have been heard; the block names each life that may have the device mounted. */
  #enterReadingBlock(): void {
    this.#awaited = "owner-block";
    this.#state.emit({ kind: "read-owner-block" });
  }

  receiveOwnerBlock(block: OwnerBlock | null): void {
    this.#awaited = null;
    if (!this.#mayClaim()) return this.decide();
    this.#state.block = block;
    if (block === null && this.#state.verdict() === "dead") return this.#enterUnproved("only that node has the directory");
    const { lives, letGo } = judgeBlock(block, this.#state.last);
    this.#judged = this.#state.last;
    this.#proof = letGo ? { kind: "let-go" } : null;
    this.#lives = lives;
    this.#proveNext();
  }

  /** One after the other: an end that was proved stays one. */
  #proveNext(): void {
    const [life] = this.#lives;
    if (life === undefined) return this.#enterClaiming();
    this.#awaited = "proof";
    this.#state.emit({ kind: "prove-gone", life, first: this.#isFirst, block: this.#state.block });
  }

  /** As a mount that failed: a first one ends, another one leaves it to the others. */
  receiveOwnerBlockFailed(error: Error): void {
    this.#awaited = null;
    if (this.#state.error !== null) return;
    if (!this.#state.wasServed) return this.#state.enterLeft(error);
    this.#state.loseDevice("failure", error);
    if (this.#state.phase === "watching" && this.#state.next === "held") this.#state.dropNext();
  }

  receiveProof(proof: Proof): void {
    this.#awaited = null;
    if (!this.#mayClaim()) return this.decide();
    if (proof.kind === "none" && proof.changed === true) return this.#enterReadingBlock();
    if (proof.kind === "none") return this.#enterUnproved(proof.why, proof.underWay === true);
    const [life, ...others] = this.#lives;
    if (life === this.#state.block?.life) this.#proof = proof;
    this.#lives = others;
    this.#proveNext();
  }

  /** A mount that was never served, and nothing but the block tells of an owner. */
  get #isFirst(): boolean {
    return !this.#state.wasServed && this.#state.verdict() !== "dead";
  }

  /** The life in the block may still write. The line is left to others: the node that it names may come back. */
  #enterUnproved(why: string, underWay = false): void {
    if (!underWay) this.#questions += 1;
    const { block } = this.#state;
    const [life] = this.#lives;
    if (this.#isFirst && this.#questions >= MAX_FIRST_QUESTIONS && life !== undefined && block !== null) {
      return this.#state.enterLeft(stillOwned(life, life === block.life ? block.atMs : null, this.#state.nameOf(life.nodeid), why));
    }
    this.#unproved = why;
    this.#asks = false;
    this.#state.emit({ kind: "ask-later" });
    this.#state.dropNext();
  }

  #forgetUnproved(): void {
    this.#unproved = null;
    this.#asks = true;
    this.#questions = 0;
  }

  askAgain(): void {
    this.#asks = true;
    this.decide();
  }

  #enterClaiming(): void {
    this.#state.phase = "claiming";
    this.#yields = 0;
    this.#forgetUnproved();
    this.#state.emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  receiveGone(clients: readonly GoneClient[]): void {
    const last = this.#state.last;
    if (last === null || isOver(last) || !clients.some((client) => isSameClient(client, last))) return;
    this.#state.lastAlive = false;
    this.askAgain();
  }
}

function isSameClient(client: GoneClient, record: OwnerRecord): boolean {
  return (
    client.nodeid === record.nodeid &&
    client.incarnation === record.incarnation &&
    (client.clientId === null || client.clientId === record.clientId)
  );
}
