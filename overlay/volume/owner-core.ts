/**
 * Who mounts the lower of a volume: a pure state machine, one for each mount of the volume, over four locks of dlmd. An owner announces
 * itself before it touches the device, and writes `released` only after the unmount was proved (hazard C2). The locks, and how an owner's
 * death shows: overlay/volume/README.md, "The election". Its parts: owner-election.ts and owner-release.ts; here is the way from the claim to the owner.
 */
import { assert, assertNever } from "../../dlmd/base/assert.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { OwnerElection } from "./owner-election.ts";
import type { OwnerEffect, OwnerEvent, OwnerIdentity, OwnerLock, OwnerRole } from "./owner-event.ts";
import { type OwnerRecord, encodeOwnerRecord } from "./owner-record.ts";
import { OwnerRelease } from "./owner-release.ts";
import { OwnerState } from "./owner-state.ts";
import { describeRole } from "./owner-words.ts";

export class OwnerCore {
  readonly #state: OwnerState;
  readonly #election: OwnerElection;
  readonly #release: OwnerRelease;

  constructor(self: OwnerIdentity) {
    this.#state = new OwnerState(self);
    this.#election = new OwnerElection(this.#state);
    this.#release = new OwnerRelease(this.#state);
  }

  get role(): OwnerRole {
    if (this.#state.phase === "owning") return "owner";
    return this.#state.found === null ? "waiting" : "remote";
  }

  get owner(): OwnerRecord | null {
    return this.#state.phase === "owning" ? this.#state.last : this.#state.found;
  }

  /** As far as the others know, too: they would let this node be the owner. */
  get reachesDevice(): boolean {
    return this.#state.reaches && this.#state.mounter === "held";
  }

  /** One line for people: what this mount is, or waits for. */
  get why(): string {
    return describeRole(this.#state, {
      unproved: this.#election.unproved,
      unprovedNode: this.#election.unprovedNode,
      ...this.#release.shown,
    });
  }

  /** The effects are to be performed in order; their answers come as events, never from inside. */
  step(event: OwnerEvent): readonly OwnerEffect[] {
    if (this.#state.phase !== "left") this.#handle(event);
    return this.#state.takeEffects();
  }

  #handle(event: OwnerEvent): void {
    switch (event.kind) {
      case "start":
        assert(this.#state.phase === "idle", "started once");
        this.#state.emit({ kind: "request", lock: "anchor", mode: Mode.NL });
        this.#state.requestMounter();
        return this.#state.enterReading();
      case "granted":
        return this.#receiveGrant(event.lock, event.lvb, event.lvbValid);
      case "unlocked":
        return this.#receiveUnlocked(event.lock);
      case "bast":
        if (event.lock === "owner" && this.#state.phase === "watching") this.#election.enterSteppingDown();
        return;
      case "mounters":
        return this.#election.receiveMounters(event.nodeids);
      case "owner-block":
        return this.#election.receiveOwnerBlock(event.block);
      case "owner-block-failed":
        return this.#election.receiveOwnerBlockFailed(event.error);
      case "proof-waits":
        return this.#election.proofWaits(event.why);
      case "proved":
        return this.#election.receiveProof(event.proof);
      case "reached":
        return this.#election.receiveReached(event.error);
      case "ask-again":
        return this.#election.askAgain();
      case "mounted":
        return this.#receiveMounted(event.epoch, event.address, event.port);
      case "mount-failed":
        return this.#receiveMountFailed(event.error);
      case "released":
        return this.#release.receiveReleased();
      case "release-failed":
        return this.#release.receiveReleaseFailed(event.error, event.letGo);
      case "gone":
        return this.#election.receiveGone(event.clients);
      case "withdraw":
        return this.#release.receiveWithdraw(event.why);
      case "self-fence":
        return this.#release.receiveSelfFence(event.why);
      case "hand-over":
        return this.#release.receiveHandOver(event.heir);
      case "leave":
        return this.#release.receiveLeave();
      case "broken":
        return this.#release.receiveBroken(event.error);
      default:
        return assertNever(event, "owner event");
    }
  }

  #receiveGrant(lock: OwnerLock, lvb: Uint8Array | null, lvbValid: boolean): void {
    if (this.#state.error !== null) return; // Broken: only the lower is still to be released.
    if (lock === "anchor") return;
    if (lock === "mounter") {
      this.#state.mounter = "held";
      if (!this.#state.reaches) this.#state.dropMounter();
      return this.#election.decide();
    }
    if (lock === "next") {
      this.#state.next = "held";
      return this.#election.decide();
    }
    this.#receiveOwnerGrant(lvb, lvbValid);
  }

  #receiveOwnerGrant(lvb: Uint8Array | null, lvbValid: boolean): void {
    switch (this.#state.phase) {
      case "reading":
        if (!this.#state.read(lvb, lvbValid)) return;
        this.#state.phase = "watching";
        return this.#election.decide();
      case "claiming":
        if (!this.#state.read(lvb, lvbValid)) return;
        // Another record than the one whose life was proved over: it is judged with the block again.
        if (!this.#election.isJudged) return this.#election.enterSteppingDown();
        return this.#enterAnnouncing();
      case "announcing":
        if (this.#state.leaving) return this.#release.enterClosing();
        this.#state.phase = "mounting";
        this.#release.withdrawsAs = null;
        this.#state.emit({
          kind: "mount-lower",
          epochAbove: this.#state.knownEpoch() - 1,
          claim: this.#election.claim,
        });
        return;
      case "raising":
        if (this.#release.isSelfFenced) return this.#release.afterSelfFence(true);
        this.#state.phase = "publishing";
        return this.#state.emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#state.mustLast()) });
      case "publishing":
        if (this.#release.isSelfFenced) return this.#release.afterSelfFence();
        this.#state.phase = "owning";
        this.#state.wasServed = true;
        this.#state.emit({ kind: "become-owner", owner: this.#state.mustLast() });
        if (this.#state.leaving) this.#release.enterClosing();
        else if (this.#release.withdrawsAs !== null) this.#release.receiveWithdraw(this.#release.withdrawsAs);
        return;
      case "retreating":
        if (this.#release.isSelfFenced) return this.#release.afterSelfFence(true);
        this.#state.phase = "admitting";
        this.#state.announce({ state: "withdrawn", epoch: this.#state.knownEpoch(), address: "", port: 0 });
        return this.#state.emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#state.mustLast()) });
      case "admitting":
        if (this.#release.isSelfFenced) return this.#release.afterSelfFence();
        this.#state.phase = "withdrawing";
        return this.#state.emit({ kind: "release-lower" });
      case "closing":
        return this.#release.receiveClosed();
      default:
        assert(false, `a grant of "owner" while ${this.#state.phase}`);
    }
  }

  #receiveUnlocked(lock: OwnerLock): void {
    if (lock === "anchor") return;
    if (lock === "mounter") {
      this.#state.mounter = "none";
      return this.#state.requestMounter();
    }
    if (lock === "next") {
      this.#state.next = "none";
      if (this.#state.phase === "passing-on") return this.#release.enterRetiring();
      return this.#election.decide();
    }
    if (this.#state.phase === "stepping-down") return this.#state.enterReading();
    assert(this.#state.phase === "retiring", `an unlock of "owner" while ${this.#state.phase}`);
    this.#release.receiveRetired();
  }

  /** EX on the record: nobody can read it, so nobody follows anybody. */
  #enterAnnouncing(): void {
    assert(this.#state.verdict() !== "following", "the record changed under its only writer");
    this.#state.phase = "announcing";
    this.#state.announce({ state: "mounting", epoch: this.#state.knownEpoch() + 1, address: "", port: 0 });
    this.#state.emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#state.mustLast()) });
  }

  #receiveMounted(epoch: number, address: string, port: number): void {
    assert(this.#state.phase === "mounting", `mounted while ${this.#state.phase}`);
    assert(epoch >= this.#state.knownEpoch(), `epoch ${epoch} after ${this.#state.knownEpoch()}`);
    this.#state.lowerMounted = true;
    this.#state.failures = 0;
    if (this.#state.error !== null) return this.#state.emit({ kind: "release-lower" });
    this.#state.announce({ state: "ready", epoch, address, port });
    this.#state.phase = "raising";
    this.#state.emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  #receiveMountFailed(error: Error): void {
    if (this.#state.error !== null) return this.#state.enterLeft(this.#state.error);
    this.#state.loseDevice("failure", error);
    this.#release.enterClosing();
  }
}
