/**
 * What the owner's state machine (owner-core.ts) knows, and the small steps that its parts share: the election (owner-election.ts) and the ways in which
 * an owner gives the volume up (owner-release.ts).
 */
import { assert } from "../../dlmd/base/assert.ts";
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { OwnerBlock } from "./owner-block.ts";
import type { OwnerEffect, OwnerIdentity } from "./owner-event.ts";
import { type OwnerRecord, compareOwnerRecords, decodeOwnerRecord, isOver, isSameClaim } from "./owner-record.ts";

export type Phase =
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

/** What the record says of the volume's owner: none; this node, in this life or an earlier one; another one, which is there; or is gone. */
export type Verdict = "vacant" | "mine" | "following" | "dead";

/** Of a lock. */
export type Hold = "none" | "requested" | "held" | "unlocking";

export class OwnerState {
  readonly self: OwnerIdentity;
  phase: Phase = "idle";
  next: Hold = "none";
  mounter: Hold = "none";
  reaches: boolean;
  /** How often the device could not be had since it was mounted here last. */
  failures = 0;
  /** The latest record heard of, and whether its owner may still be there. */
  last: OwnerRecord | null = null;
  lastAlive = false;
  /** The owner that the mount was told of last. */
  found: OwnerRecord | null = null;
  wasServed = false;
  /** The block as it was read under this hold of `next`. */
  block: OwnerBlock | null = null;
  /** Of this node's last claim, as its block has it. */
  #claimEpoch = 0;
  lowerMounted = false;
  leaving = false;
  mountError: Error | null = null;
  error: Error | null = null;
  /** Why the disk is given up, in words; "": it is not. */
  withdrawal = "";
  #effects: OwnerEffect[] = [];

  constructor(self: OwnerIdentity) {
    this.self = self;
    this.reaches = self.reachesLower;
  }

  /** Those that were emitted since the last call. */
  takeEffects(): readonly OwnerEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  emit(effect: OwnerEffect): void {
    this.#effects.push(effect);
  }

  /**
   * Folds what the block said into what is known: an older record, or none, means that the later one was lost with its owner. False: it is of
   * another version, and this mount ends.
   */
  read(lvb: Uint8Array | null, lvbValid: boolean): boolean {
    let record: OwnerRecord | null;
    try {
      record = decodeOwnerRecord(lvb);
    } catch (error) {
      if (error instanceof OperatingError) {
        this.enterLeft(error);
        return false;
      }
      if (!(error instanceof WireError)) throw error;
      record = null;
    }
    const order = record === null ? -1 : this.last === null ? 1 : compareOwnerRecords(record, this.last);
    // Of the same time and not the same claim: the one that stands there now is to be judged.
    const isOther = order === 0 && record !== null && this.last !== null && !isSameClaim(record, this.last);
    if (order > 0 || isOther) {
      if (record?.state === "withdrawn" || record?.state === "let-go") this.emit({ kind: "withdrawal-seen" });
      this.last = record;
      this.lastAlive = lvbValid;
    } else if (order < 0 || !lvbValid) {
      this.lastAlive = false;
    }
    return true;
  }

  verdict(): Verdict {
    const last = this.last;
    if (last === null || isOver(last)) return "vacant";
    if (last.nodeid === this.self.nodeid) return "mine";
    return this.lastAlive ? "following" : "dead";
  }

  loseOwner(reason: string): void {
    if (this.found === null) return;
    this.found = null;
    this.emit({ kind: "owner-lost", reason });
  }

  dropNext(): void {
    this.next = "unlocking";
    this.emit({ kind: "unlock", lock: "next" });
  }

  /** Not while it is being given up: then it is asked for when that is done. */
  requestMounter(): void {
    if (!this.reaches || this.mounter !== "none") return;
    this.mounter = "requested";
    this.emit({ kind: "request", lock: "mounter", mode: Mode.EX });
  }

  dropMounter(): void {
    if (this.mounter !== "held") return;
    this.mounter = "unlocking";
    this.emit({ kind: "unlock", lock: "mounter" });
  }

  /** Out of the election, until the device can be read again. */
  loseDevice(after: "failure" | "withdrawal", error: Error): void {
    this.mountError = error;
    this.reaches = false;
    if (after === "failure") this.failures += 1;
    this.dropMounter();
    this.lookLater(after);
  }

  lookLater(after: "failure" | "withdrawal"): void {
    this.emit({ kind: "reach-later", after, failures: Math.max(1, this.failures) });
  }

  enterReading(): void {
    this.phase = "reading";
    this.emit({ kind: "request", lock: "owner", mode: Mode.CR });
  }

  announce(change: Pick<OwnerRecord, "state" | "epoch" | "address" | "port">, heir = 0): void {
    const { nodeid, incarnation, clientId, process } = this.self;
    if (change.state === "mounting") this.#claimEpoch = change.epoch;
    this.last = { nodeid, incarnation, clientId, process, claimEpoch: this.#claimEpoch, heir, ...change };
    this.lastAlive = true;
  }

  enterLeft(error: Error | null): void {
    this.loseOwner("left");
    this.phase = "left";
    this.error = error;
    this.emit({ kind: "left", error });
  }

  knownEpoch(): number {
    return Math.max(this.last?.epoch ?? 0, this.block?.epoch ?? 0);
  }

  mustLast(): OwnerRecord {
    assert(this.last !== null, "there is a record");
    return this.last;
  }

  nameOf(nodeid: number): string {
    return this.self.nodes.find((node) => node.nodeid === nodeid)?.name ?? `node ${nodeid}`;
  }
}
