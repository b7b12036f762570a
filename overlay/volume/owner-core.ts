/**
 * Who mounts the lower of a volume: a pure state machine, one for each mount of the volume, over four locks of dlmd. An owner announces
 * itself before it touches the device, and writes `released` only after the unmount was proved (hazard C2). The locks, and how an owner's
 * death shows: overlay/volume/README.md, "The election".
 */
import { assert, assertNever } from "../../dlmd/base/assert.ts";
import { WireError } from "../../dlmd/base/error.ts";
import type { GoneClient } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Proof } from "./life.ts";
import type { OwnerBlock } from "./owner-block.ts";
import { judgeBlock, stillOwned } from "./owner-claim.ts";
import type { Claim, OwnerEffect, OwnerEvent, OwnerIdentity, OwnerLock, OwnerRole } from "./owner-event.ts";
import { type OwnerRecord, compareOwnerRecords, decodeOwnerRecord, encodeOwnerRecord, isOver } from "./owner-record.ts";

/** How often the front of the line is left to a lower nodeid that ought to be in the line, before going on without it. */
export const MAX_YIELDS = 16;
/** How often a first mount asks for a proof before it fails: a process that was just killed leaves its device a moment later. */
export const MAX_FIRST_QUESTIONS = 3;

/** What a person can do about a withdrawn owner. */
const WITHDRAWN_HINT =
  "If it stays so: end the overlay of this node (SIGTERM; coverlay status there names its process); then a node that reaches the disk goes on.";

type Phase =
  /** No lock on `owner`. */
  | "idle"
  /** CR asked for. */
  | "reading"
  /** CR held: the record is known. */
  | "watching"
  /** CR being given up because the record is about to change. */
  | "stepping-down"
  /** CR -> EX, before the record is changed to `mounting`. */
  | "claiming"
  /** EX -> PW with `mounting`. */
  | "announcing"
  /** PW held, the lower is being mounted. */
  | "mounting"
  /** PW -> EX, before the record is changed to `ready`. */
  | "raising"
  /** EX -> PW with `ready`. */
  | "publishing"
  /** PW held, serving. */
  | "owning"
  /** PW -> EX, before the record is changed to `withdrawn`. */
  | "retreating"
  /** EX -> PW with `withdrawn`. */
  | "admitting"
  /** PW held, the lower of a failed disk is being released. */
  | "withdrawing"
  /** PW held: that could not be proved, and no other node may mount the device. */
  | "withdrawn"
  /** PW or EX held, as far as this node knows: the lower is being released, without asking the lock manager. */
  | "letting-go"
  /** PW -> EX, before the lower is released. */
  | "closing"
  /** EX held, the lower is being released. */
  | "releasing"
  /** `next` is given up. */
  | "passing-on"
  /** `owner` is given up with `released`. */
  | "retiring"
  | "left";

type Verdict = "vacant" | "mine" | "following" | "dead";

export class OwnerCore {
  readonly #self: OwnerIdentity;
  #phase: Phase = "idle";
  #next: "none" | "requested" | "held" | "unlocking" = "none";
  #mounter: "none" | "requested" | "held" | "unlocking" = "none";
  #reaches: boolean;
  /** How often the device could not be had since it was mounted here last. */
  #failures = 0;
  /** The latest record heard of, and whether its owner may still be there. */
  #last: OwnerRecord | null = null;
  #lastAlive = false;
  /** The owner that the mount was told of last. */
  #found: OwnerRecord | null = null;
  #wasServed = false;
  /** With `next` held: the answer that is waited for. */
  #awaited: "mounters" | "owner-block" | "proof" | null = null;
  /** The block as it was read under this hold of `next`. */
  #block: OwnerBlock | null = null;
  /** Why there is no proof that the life in the block is over; nobody asks before something changes. */
  #unproved: string | null = null;
  #asks = true;
  #questions = 0;
  #proof: Claim["proof"] = null;
  #yields = 0;
  #lowerMounted = false;
  #leaving = false;
  #mountError: Error | null = null;
  #error: Error | null = null;
  /** Why the disk is given up, in words; "": it is not. */
  #withdrawal = "";
  /** The disk failed while it was being mounted: this owner withdraws as soon as it is one. */
  #withdrawsAs: string | null = null;
  /** Why the disk could not be proved released. */
  #unreleased: Error | null = null;
  /** It was let go of, but not all is on it. */
  #letGo = false;
  /** The lower is released without the lock manager; `failed`: that could not be proved. */
  #selfFence: "none" | "under-way" | "done" | "failed" = "none";
  /** EX on `owner` came while it was under way. */
  #holdsEx = false;
  /** For whom this owner releases the volume; 0: for any. */
  #heir = 0;
  /** The epoch of an owner whose heir is not there any more. */
  #heirless = 0;
  #effects: OwnerEffect[] = [];

  constructor(self: OwnerIdentity) {
    this.#self = self;
    this.#reaches = self.reachesLower;
  }

  get role(): OwnerRole {
    if (this.#phase === "owning") return "owner";
    return this.#found === null ? "waiting" : "remote";
  }

  get owner(): OwnerRecord | null {
    return this.#phase === "owning" ? this.#last : this.#found;
  }

  /** One line for people: what this mount is, or waits for. */
  get why(): string {
    const name = this.#last === null ? "" : this.#nameOf(this.#last.nodeid);
    switch (this.#phase) {
      case "owning":
        return "this node has the volume mounted";
      case "watching":
        return `${this.#found === null ? this.#whyWatching(name) : `through ${name}`}${this.#whyUnreached()}`;
      case "claiming":
      case "announcing":
      case "mounting":
      case "raising":
      case "publishing":
        return "mounting the volume";
      case "retreating":
      case "admitting":
      case "withdrawing":
        return `withdrawing: ${this.#withdrawal}; calls wait until the disk is released`;
      case "withdrawn":
        return `withdrawn: ${this.#withdrawal}; the disk could not be proved released: ${this.#unreleased?.message ?? "?"}. Calls wait on every node. ${WITHDRAWN_HINT}`;
      case "letting-go":
        return `${this.#withdrawal}: this node lets go of the disk, so that another one may mount it; calls wait. If that takes long it waits to be fenced`;
      case "closing":
      case "releasing":
      case "passing-on":
      case "retiring":
        if (this.#selfFence === "done")
          return `${this.#withdrawal}: this node has let go of the disk. Calls wait until it is back in the cluster`;
        if (this.#heir !== 0) return `handing the volume over to ${this.#nameOf(this.#heir)}`;
        if (this.#withdrawal === "") return "releasing the volume";
        return `withdrawing: ${this.#withdrawal}; the disk is ${this.#letGo ? "let go of" : "released"}`;
      case "idle":
      case "reading":
      case "stepping-down":
        return "the owner is changing";
      case "left":
        return this.#error === null ? "left" : `left: ${this.#error.message}`;
      default:
        return assertNever(this.#phase, "phase");
    }
  }

  #whyWatching(name: string): string {
    const verdict = this.#verdict();
    if (verdict === "following" && this.#last?.state === "withdrawn") {
      return `owner ${name} has withdrawn: its disk has failed. Calls wait until the disk is released (coverlay status on ${name} says why). ${WITHDRAWN_HINT.replace("this node", name)}`;
    }
    if (verdict === "following") return `${name} is mounting the volume`;
    const unproved = this.#unproved === null ? "" : `; no other node may: ${this.#unproved}`;
    if (verdict === "dead") return `owner ${name} is gone: operations go on when ${name} mounts the volume again${unproved}`;
    if (this.#unproved !== null && this.#block?.life != null) {
      return `${this.#nameOf(this.#block.life.nodeid)} may have the volume mounted still: ${this.#unproved}`;
    }
    return this.#next === "none" ? "no node that mounts the volume reaches its device" : "waiting for its turn to mount the volume";
  }

  #whyUnreached(): string {
    if (this.#reaches || this.#mountError === null) return "";
    return `; this node does not reach the device, and looks again: ${this.#mountError.message}`;
  }

  /** The effects are to be performed in order; their answers come as events, never from inside. */
  step(event: OwnerEvent): readonly OwnerEffect[] {
    this.#effects = [];
    if (this.#phase !== "left") this.#handle(event);
    return this.#effects;
  }

  #handle(event: OwnerEvent): void {
    switch (event.kind) {
      case "start":
        assert(this.#phase === "idle", "started once");
        this.#emit({ kind: "request", lock: "anchor", mode: Mode.NL });
        this.#requestMounter();
        return this.#enterReading();
      case "granted":
        return this.#receiveGrant(event.lock, event.lvb, event.lvbValid);
      case "unlocked":
        return this.#receiveUnlocked(event.lock);
      case "bast":
        if (event.lock === "owner" && this.#phase === "watching") this.#enterSteppingDown();
        return;
      case "mounters":
        return this.#receiveMounters(event.nodeids);
      case "owner-block":
        return this.#receiveOwnerBlock(event.block);
      case "owner-block-failed":
        return this.#receiveOwnerBlockFailed(event.error);
      case "proof-waits":
        if (this.#awaited === "proof") this.#unproved = event.why;
        return;
      case "proved":
        return this.#receiveProof(event.proof);
      case "reached":
        return this.#receiveReached(event.error);
      case "ask-again":
        return this.#askAgain();
      case "mounted":
        return this.#receiveMounted(event.epoch, event.address, event.port);
      case "mount-failed":
        return this.#receiveMountFailed(event.error);
      case "released":
        return this.#receiveReleased();
      case "release-failed":
        return this.#receiveReleaseFailed(event.error, event.letGo);
      case "gone":
        return this.#receiveGone(event.clients);
      case "withdraw":
        return this.#receiveWithdraw(event.why);
      case "self-fence":
        return this.#receiveSelfFence(event.why);
      case "hand-over":
        return this.#receiveHandOver(event.heir);
      case "leave":
        return this.#receiveLeave();
      case "broken":
        return this.#receiveBroken(event.error);
      default:
        return assertNever(event, "owner event");
    }
  }

  #emit(effect: OwnerEffect): void {
    this.#effects.push(effect);
  }

  #receiveGrant(lock: OwnerLock, lvb: Uint8Array | null, lvbValid: boolean): void {
    if (this.#error !== null) return; // Broken: only the lower is still to be released.
    if (lock === "anchor") return;
    if (lock === "mounter") {
      this.#mounter = "held";
      if (!this.#reaches) this.#dropMounter();
      return this.#decide();
    }
    if (lock === "next") {
      this.#next = "held";
      return this.#decide();
    }
    switch (this.#phase) {
      case "reading":
        this.#read(lvb, lvbValid);
        this.#phase = "watching";
        return this.#decide();
      case "claiming":
        this.#read(lvb, lvbValid);
        return this.#enterAnnouncing();
      case "announcing":
        if (this.#leaving) return this.#enterClosing();
        this.#phase = "mounting";
        this.#withdrawsAs = null;
        this.#emit({
          kind: "mount-lower",
          epochAbove: this.#knownEpoch() - 1,
          claim: { block: this.#block, proof: this.#proof },
        });
        return;
      case "raising":
        if (this.#selfFence !== "none") return this.#afterSelfFence(true);
        this.#phase = "publishing";
        return this.#emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#mustLast()) });
      case "publishing":
        if (this.#selfFence !== "none") return this.#afterSelfFence();
        this.#phase = "owning";
        this.#wasServed = true;
        this.#emit({ kind: "become-owner", owner: this.#mustLast() });
        if (this.#leaving) this.#enterClosing();
        else if (this.#withdrawsAs !== null) this.#receiveWithdraw(this.#withdrawsAs);
        return;
      case "retreating":
        if (this.#selfFence !== "none") return this.#afterSelfFence(true);
        this.#phase = "admitting";
        this.#announce({ state: "withdrawn", epoch: this.#knownEpoch(), address: "", port: 0 });
        return this.#emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#mustLast()) });
      case "admitting":
        if (this.#selfFence !== "none") return this.#afterSelfFence();
        this.#phase = "withdrawing";
        return this.#emit({ kind: "release-lower" });
      case "closing":
        if (this.#selfFence === "under-way" || this.#selfFence === "failed") return this.#afterSelfFence(true);
        this.#phase = "releasing";
        if (this.#lowerMounted) return this.#emit({ kind: "release-lower" });
        return this.#enterPassingOn();
      default:
        assert(false, `a grant of "owner" while ${this.#phase}`);
    }
  }

  #receiveUnlocked(lock: OwnerLock): void {
    if (lock === "anchor") return;
    if (lock === "mounter") {
      this.#mounter = "none";
      return this.#requestMounter();
    }
    if (lock === "next") {
      this.#next = "none";
      if (this.#phase === "passing-on") return this.#enterRetiring();
      return this.#decide();
    }
    if (this.#phase === "stepping-down") return this.#enterReading();
    assert(this.#phase === "retiring", `an unlock of "owner" while ${this.#phase}`);
    if (this.#leaving || this.#error !== null) return this.#enterLeft(this.#error ?? this.#unreleased);
    this.#unreleased = null;
    if (this.#mountError !== null && !this.#wasServed) return this.#enterLeft(this.#mountError);
    this.#withdrawal = "";
    this.#selfFence = "none";
    this.#enterReading();
  }

  /** Folds what the block said into what is known: an older record, or none, means that the later one was lost with its owner. */
  #read(lvb: Uint8Array | null, lvbValid: boolean): void {
    let record: OwnerRecord | null;
    try {
      record = decodeOwnerRecord(lvb);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      record = null;
    }
    const order = record === null ? -1 : this.#last === null ? 1 : compareOwnerRecords(record, this.#last);
    if (order > 0) {
      if (record?.state === "withdrawn" || record?.state === "let-go") this.#emit({ kind: "withdrawal-seen" });
      this.#last = record;
      this.#lastAlive = lvbValid;
    } else if (order < 0 || !lvbValid) {
      this.#lastAlive = false;
    }
  }

  #verdict(): Verdict {
    const last = this.#last;
    if (last === null || isOver(last)) return "vacant";
    if (last.nodeid === this.#self.nodeid) return "mine";
    return this.#lastAlive ? "following" : "dead";
  }

  /** With CR held: what the record and the place in the line ask for. */
  #decide(): void {
    if (this.#phase !== "watching" || this.#awaited !== null) return;
    // `next` comes to us only from a holder that changed the record first (then we would not hold CR), or that died.
    if (this.#next === "held" && this.#verdict() === "following") this.#lastAlive = false;
    const verdict = this.#verdict();
    this.#tellOwner(verdict);
    if (verdict === "following") this.#forgetUnproved();
    switch (this.#next) {
      case "none":
        if (this.#mounter === "held" && this.#asks) {
          this.#next = "requested";
          this.#emit({ kind: "request", lock: "next", mode: Mode.EX });
        }
        return;
      case "held":
        if (this.#mounter !== "held" || !this.#asks) return this.#dropNext();
        // After a death nobody makes way for a lower nodeid, which may have asked in vain: the first with a proof goes on.
        if (verdict === "mine" || verdict === "dead") return this.#enterReadingBlock();
        return this.#enterProbing();
      case "requested":
      case "unlocking":
        return;
      default:
        assertNever(this.#next, "place in the line");
    }
  }

  #tellOwner(verdict: Verdict): void {
    const owner = verdict === "following" && this.#last?.state === "ready" ? this.#last : null;
    if (owner !== null && (this.#found === null || compareOwnerRecords(owner, this.#found) !== 0)) {
      this.#found = owner;
      this.#wasServed = true;
      this.#yields = 0;
      this.#emit({ kind: "owner-found", owner });
    } else if (owner === null) {
      this.#loseOwner(verdict === "dead" ? `owner ${this.#nameOf(this.#mustLast().nodeid)} is gone` : "there is no owner");
    }
  }

  #loseOwner(reason: string): void {
    if (this.#found === null) return;
    this.#found = null;
    this.#emit({ kind: "owner-lost", reason });
  }

  #dropNext(): void {
    this.#next = "unlocking";
    this.#emit({ kind: "unlock", lock: "next" });
  }

  /** Not while it is being given up: then it is asked for when that is done. */
  #requestMounter(): void {
    if (!this.#reaches || this.#mounter !== "none") return;
    this.#mounter = "requested";
    this.#emit({ kind: "request", lock: "mounter", mode: Mode.EX });
  }

  #dropMounter(): void {
    if (this.#mounter !== "held") return;
    this.#mounter = "unlocking";
    this.#emit({ kind: "unlock", lock: "mounter" });
  }

  /** Out of the election, until the device can be read again. */
  #loseDevice(after: "failure" | "withdrawal", error: Error): void {
    this.#mountError = error;
    this.#reaches = false;
    if (after === "failure") this.#failures += 1;
    this.#dropMounter();
    this.#emit({ kind: "reach-later", after, failures: this.#failures });
  }

  #receiveReached(error: Error | null): void {
    if (this.#error !== null || this.#reaches) return;
    // A disk that is being given up, or could not be, is nobody's: not even this node's.
    const failed = error ?? (this.#withdrawal === "" ? null : this.#mountError);
    if (failed !== null) return this.#loseDevice(error === null ? "withdrawal" : "failure", failed);
    this.#mountError = null;
    this.#reaches = true;
    this.#requestMounter();
  }

  #enterReading(): void {
    this.#phase = "reading";
    this.#emit({ kind: "request", lock: "owner", mode: Mode.CR });
  }

  #enterSteppingDown(): void {
    this.#phase = "stepping-down";
    this.#loseOwner("the owner is changing");
    this.#emit({ kind: "unlock", lock: "owner" });
  }

  /** Who goes first: the node that the volume was handed over to, else the lowest nodeid that reaches the device. */
  #enterProbing(): void {
    const heir = this.#heirNow();
    const lower = this.#self.nodes.map((node) => node.nodeid).filter((nodeid) => nodeid < this.#self.nodeid);
    const first = heir === 0 ? lower : heir === this.#self.nodeid ? [] : [heir];
    if (first.length === 0 || this.#yields >= MAX_YIELDS) return this.#enterReadingBlock();
    this.#awaited = "mounters";
    this.#emit({ kind: "probe-mounters", nodeids: first });
  }

  #heirNow(): number {
    return this.#last === null || !isOver(this.#last) || this.#last.epoch === this.#heirless ? 0 : this.#last.heir;
  }

  #receiveMounters(nodeids: readonly number[]): void {
    this.#awaited = null;
    if (!this.#mayClaim()) return this.#decide();
    if (nodeids.length === 0) {
      if (this.#heirNow() === 0) return this.#enterReadingBlock();
      this.#heirless = this.#mustLast().epoch;
      return this.#enterProbing();
    }
    // To the end of the line: it is asked for again as soon as it was given up.
    this.#yields += 1;
    this.#dropNext();
  }

  /** Nothing changed while an answer was on its way. */
  #mayClaim(): boolean {
    return this.#phase === "watching" && this.#next === "held" && this.#mounter === "held" && this.#verdict() !== "following";
  }

  #enterReadingBlock(): void {
    this.#awaited = "owner-block";
    this.#emit({ kind: "read-owner-block" });
  }

  #receiveOwnerBlock(block: OwnerBlock | null): void {
    this.#awaited = null;
    if (!this.#mayClaim()) return this.#decide();
    this.#block = block;
    this.#proof = null;
    if (block === null && this.#verdict() === "dead") return this.#enterUnproved("only that node has the directory");
    const verdict = judgeBlock(block, this.#last);
    switch (verdict.kind) {
      case "free":
        return this.#enterClaiming();
      case "proved":
        this.#proof = verdict.proof;
        return this.#enterClaiming();
      case "refuse":
        return this.#enterUnproved(verdict.why);
      case "prove":
        this.#awaited = "proof";
        return this.#emit({ kind: "prove-gone", life: verdict.life, first: this.#isFirst });
      default:
        return assertNever(verdict, "claim verdict");
    }
  }

  /** As a mount that failed: a first one ends, another one leaves it to the others. */
  #receiveOwnerBlockFailed(error: Error): void {
    this.#awaited = null;
    if (this.#error !== null) return;
    if (!this.#wasServed) return this.#enterLeft(error);
    this.#loseDevice("failure", error);
    if (this.#phase === "watching" && this.#next === "held") this.#dropNext();
  }

  #receiveProof(proof: Proof): void {
    this.#awaited = null;
    if (!this.#mayClaim()) return this.#decide();
    if (proof.kind === "none") return this.#enterUnproved(proof.why, proof.underWay === true);
    this.#proof = proof;
    this.#enterClaiming();
  }

  /** A mount that was never served, and nothing but the block tells of an owner. */
  get #isFirst(): boolean {
    return !this.#wasServed && this.#verdict() !== "dead";
  }

  /** The life in the block may still write. The line is left to others: the node that it names may come back. */
  #enterUnproved(why: string, underWay = false): void {
    if (!underWay) this.#questions += 1;
    const { life = null, atMs = 0 } = this.#block ?? {};
    if (this.#isFirst && this.#questions >= MAX_FIRST_QUESTIONS && life !== null) {
      return this.#enterLeft(stillOwned(life, atMs, this.#nameOf(life.nodeid), why));
    }
    this.#unproved = why;
    this.#asks = false;
    this.#emit({ kind: "ask-later" });
    this.#dropNext();
  }

  #forgetUnproved(): void {
    this.#unproved = null;
    this.#asks = true;
    this.#questions = 0;
  }

  #askAgain(): void {
    this.#asks = true;
    this.#decide();
  }

  #enterClaiming(): void {
    this.#phase = "claiming";
    this.#yields = 0;
    this.#forgetUnproved();
    this.#emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  /** EX on the record: nobody can read it, so nobody follows anybody. */
  #enterAnnouncing(): void {
    assert(this.#verdict() !== "following", "the record changed under its only writer");
    this.#phase = "announcing";
    this.#announce({ state: "mounting", epoch: this.#knownEpoch() + 1, address: "", port: 0 });
    this.#emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#mustLast()) });
  }

  #announce(change: Pick<OwnerRecord, "state" | "epoch" | "address" | "port">, heir = 0): void {
    const { nodeid, incarnation, clientId } = this.#self;
    this.#last = { nodeid, incarnation, clientId, heir, ...change };
    this.#lastAlive = true;
  }

  #receiveMounted(epoch: number, address: string, port: number): void {
    assert(this.#phase === "mounting", `mounted while ${this.#phase}`);
    assert(epoch >= this.#knownEpoch(), `epoch ${epoch} after ${this.#knownEpoch()}`);
    this.#lowerMounted = true;
    this.#failures = 0;
    if (this.#error !== null) return this.#emit({ kind: "release-lower" });
    this.#announce({ state: "ready", epoch, address, port });
    this.#phase = "raising";
    this.#emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  #receiveMountFailed(error: Error): void {
    if (this.#error !== null) return this.#enterLeft(this.#error);
    this.#loseDevice("failure", error);
    this.#enterClosing();
  }

  #enterClosing(): void {
    if (this.#holdsEx) {
      this.#holdsEx = false;
      return this.#enterPassingOn();
    }
    this.#phase = "closing";
    this.#emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  #enterPassingOn(): void {
    this.#phase = "passing-on";
    this.#dropNext();
  }

  /** The last step, so that whoever reads `released` finds `next` free. */
  #enterRetiring(): void {
    this.#phase = "retiring";
    this.#announce({ state: this.#letGo ? "let-go" : "released", epoch: this.#knownEpoch(), address: "", port: 0 }, this.#heir);
    this.#letGo = false;
    this.#heir = 0;
    this.#emit({ kind: "unlock", lock: "owner", lvb: encodeOwnerRecord(this.#mustLast()) });
  }

  #receiveReleased(): void {
    this.#lowerMounted = false;
    if (this.#selfFence === "under-way") this.#selfFence = "done";
    if (this.#error !== null) return this.#enterLeft(this.#error);
    // The block says it; the record is read as that of a node that is gone.
    if (this.#leaving && this.#selfFence === "done") return this.#enterLeft(null);
    switch (this.#phase) {
      case "withdrawing":
      case "letting-go":
        return this.#enterClosing();
      case "releasing":
        return this.#enterPassingOn();
      default:
        // Let go of while a lock is waited for: its grant goes on from there.
        assert(this.#selfFence === "done", `released while ${this.#phase}`);
    }
  }

  /** What could not be proved released must not be given away: the record is marked not valid and still names us (hazard C3). */
  #receiveReleaseFailed(error: Error, letGo: boolean): void {
    this.#lowerMounted = false; // Not known: nothing can be done about it here any more.
    if (this.#selfFence === "under-way" && this.#error === null) {
      this.#unreleased = error;
      this.#letGo = letGo;
      this.#selfFence = letGo ? "done" : "failed";
      if (this.#phase === "letting-go") this.#afterSelfFence();
      return;
    }
    if (this.#phase === "withdrawing" && this.#error === null) {
      this.#letGo = letGo;
      this.#unreleased = error;
      if (letGo) return this.#enterClosing();
      this.#phase = "withdrawn";
      if (this.#leaving) this.#enterLeft(error);
      return;
    }
    this.#error ??= error;
    if (this.#phase !== "releasing") return this.#enterLeft(this.#error);
    this.#phase = "retiring";
    this.#emit({ kind: "unlock", lock: "owner", invalidate: true });
  }

  #receiveGone(clients: readonly GoneClient[]): void {
    const last = this.#last;
    if (last === null || isOver(last) || !clients.some((client) => isSameClient(client, last))) return;
    this.#lastAlive = false;
    this.#askAgain();
  }

  /** Nobody is told of the failed disk: the record says so, the lower is released, and another node may mount it if that is proved. */
  #receiveWithdraw(why: string): void {
    if (this.#phase === "mounting" || this.#phase === "raising" || this.#phase === "publishing") this.#withdrawsAs = why;
    if (this.#phase !== "owning") return; // On its way out already, or once it is the owner.
    this.#withdrawal = why;
    this.#loseDevice("withdrawal", new Error(`it was given up: ${why}`));
    this.#phase = "retreating";
    this.#emit({ kind: "withdrawal-seen" });
    this.#emit({ kind: "owner-lost", reason: `this node withdraws: ${why}` });
    this.#emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  /**
   * Nobody has to be asked for that: what is given up is this node's own, the block says `released` only after the unmount was proved, and no
   * other node touches the device before. What the record says is put right when the lock manager serves again.
   */
  #receiveSelfFence(why: string): void {
    // The disk was given back before, or not touched yet: it only waits for locks, which cannot come.
    const waits = !this.#lowerMounted && ["announcing", "closing", "passing-on", "retiring"].includes(this.#phase);
    if (waits && this.#leaving && this.#error === null) return this.#enterLeft(this.#unreleased);
    if (!this.#lowerMounted || this.#selfFence !== "none" || this.#error !== null) return;
    // Being released already: that needs no lock any more.
    if (this.#phase === "releasing" || this.#phase === "withdrawing") return;
    this.#selfFence = "under-way";
    this.#withdrawal = why;
    if (this.#phase === "owning") {
      this.#phase = "letting-go";
      this.#emit({ kind: "owner-lost", reason: why });
    }
    this.#emit({ kind: "release-lower" });
  }

  /** A lock that was asked for before has come, and the disk is being let go of, or was. */
  #afterSelfFence(holdsEx = false): void {
    this.#holdsEx ||= holdsEx;
    switch (this.#selfFence) {
      case "under-way":
        this.#phase = "letting-go";
        return;
      case "failed":
        this.#phase = "withdrawn";
        if (this.#leaving) this.#enterLeft(this.#unreleased);
        return;
      case "done":
        return this.#enterClosing();
      case "none":
        return assert(false, "nothing was let go of");
      default:
        assertNever(this.#selfFence, "self-fence");
    }
  }

  /** As an owner that leaves, but it stays, and takes the volume back if the heir is gone. */
  #receiveHandOver(heir: number): void {
    if (this.#phase !== "owning") return;
    this.#heir = heir;
    this.#emit({ kind: "owner-lost", reason: `this node hands the volume over to ${this.#nameOf(heir)}` });
    this.#enterClosing();
  }

  #receiveLeave(): void {
    this.#leaving = true;
    // The locks that it waits for cannot come without a quorum, and nobody needs them: the block says who has the disk.
    if (this.#selfFence === "done" && !this.#lowerMounted) return this.#enterLeft(this.#unreleased);
    switch (this.#phase) {
      // The record goes on naming this node: the next owner needs a proof that it has ended.
      case "withdrawn":
        return this.#enterLeft(this.#unreleased);
      case "idle":
      case "reading":
      case "watching":
      case "stepping-down":
      case "claiming":
        // Nothing was announced: the locks may go with the connection.
        return this.#enterLeft(null);
      case "owning":
        return this.#enterClosing();
      default:
        return; // On its way to owning, or out: it goes on from there.
    }
  }

  #receiveBroken(error: Error): void {
    if (this.#error !== null) return;
    this.#error = error;
    this.#loseOwner(error.message);
    // Its answer ends it.
    if (["mounting", "releasing", "withdrawing"].includes(this.#phase) || this.#selfFence === "under-way") return;
    if (this.#lowerMounted) return this.#emit({ kind: "release-lower" });
    this.#enterLeft(error);
  }

  #enterLeft(error: Error | null): void {
    this.#loseOwner("left");
    this.#phase = "left";
    this.#error = error;
    this.#emit({ kind: "left", error });
  }

  #knownEpoch(): number {
    return Math.max(this.#last?.epoch ?? 0, this.#block?.epoch ?? 0);
  }

  #mustLast(): OwnerRecord {
    assert(this.#last !== null, "there is a record");
    return this.#last;
  }

  #nameOf(nodeid: number): string {
    return this.#self.nodes.find((node) => node.nodeid === nodeid)?.name ?? `node ${nodeid}`;
  }
}

function isSameClient(client: GoneClient, record: OwnerRecord): boolean {
  return (
    client.nodeid === record.nodeid &&
    client.incarnation === record.incarnation &&
    (client.clientId === null || client.clientId === record.clientId)
  );
}
