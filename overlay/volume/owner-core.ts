/**
 * Who mounts the lower of a volume: a pure state machine, one for each mount of the volume. It works with four locks:
 *
 *   owner       Its value block is the owner's record (owner-record.ts). The owner holds PW, everybody else CR. Whoever is about to
 *               change the record converts to EX; the blocking AST is how all others learn that, so they give their CR up
 *               and ask for it again behind the EX. What they then read is the new record.
 *   next        EX is the right to change the record: the owner holds it for as long as it is the owner, the others wait
 *               in line. Only its holder ever asks for EX on `owner`, so there is never a second one.
 *   mounter.N   EX is held by node N while it mounts the volume and reaches the device: how the lowest nodeid is found.
 *
 *   anchor      NL on the resource of `owner`, for as long as the mount lives: a resource without locks forgets its value block, and
 *               while everybody steps down there would be none.
 *
 * An owner announces itself (`mounting`) before it touches the device, and writes `released` only after the unmount was proved
 * (hazard C2). So after a death the record names who may still write, and only that node may go on (no fencing yet): the others wait.
 * That an owner died shows in three ways, whichever comes first: the lock manager says that the client is gone; `next` is
 * granted although the record was not changed; the record comes back marked not valid.
 */
import { assert, assertNever } from "../../dlmd/base/assert.ts";
import { WireError } from "../../dlmd/base/error.ts";
import type { GoneClient } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/lock/mode.ts";
import type { OwnerEffect, OwnerEvent, OwnerIdentity, OwnerLock, OwnerRole } from "./owner-event.ts";
import { type OwnerRecord, compareOwnerRecords, decodeOwnerRecord, encodeOwnerRecord } from "./owner-record.ts";

/** How often the front of the line is left to a lower nodeid that ought to be in the line, before going on without it. */
export const MAX_YIELDS = 16;

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
  #mounterHeld = false;
  #reaches: boolean;
  /** The latest record heard of, and whether its owner may still be there. */
  #last: OwnerRecord | null = null;
  #lastAlive = false;
  /** The owner that the mount was told of last. */
  #found: OwnerRecord | null = null;
  #wasServed = false;
  #probing = false;
  #yields = 0;
  #lowerMounted = false;
  #leaving = false;
  #mountError: Error | null = null;
  #error: Error | null = null;
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
        if (this.#found !== null) return `through ${name}`;
        if (this.#verdict() === "dead") return `owner ${name} is gone: operations go on when ${name} mounts the volume again`;
        if (this.#verdict() === "following") return `${name} is mounting the volume`;
        return this.#next === "none" ? "no node that mounts the volume reaches its device" : "waiting for its turn to mount the volume";
      case "claiming":
      case "announcing":
      case "mounting":
      case "raising":
      case "publishing":
        return "mounting the volume";
      case "closing":
      case "releasing":
      case "passing-on":
      case "retiring":
        return "releasing the volume";
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
        if (this.#reaches) this.#emit({ kind: "request", lock: "mounter", mode: Mode.EX });
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
      case "mounted":
        return this.#receiveMounted(event.epoch, event.address, event.port);
      case "mount-failed":
        return this.#receiveMountFailed(event.error);
      case "released":
        this.#lowerMounted = false;
        if (this.#error !== null) return this.#enterLeft(this.#error);
        return this.#enterPassingOn();
      case "release-failed":
        return this.#receiveReleaseFailed(event.error);
      case "gone":
        return this.#receiveGone(event.clients);
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
      this.#mounterHeld = true;
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
        this.#emit({ kind: "mount-lower", epochAbove: this.#knownEpoch() - 1 });
        return;
      case "raising":
        this.#phase = "publishing";
        return this.#emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#mustLast()) });
      case "publishing":
        this.#phase = "owning";
        this.#wasServed = true;
        this.#emit({ kind: "become-owner", owner: this.#mustLast() });
        if (this.#leaving) this.#enterClosing();
        return;
      case "closing":
        this.#phase = "releasing";
        if (this.#lowerMounted) return this.#emit({ kind: "release-lower" });
        return this.#enterPassingOn();
      default:
        assert(false, `a grant of "owner" while ${this.#phase}`);
    }
  }

  #receiveUnlocked(lock: OwnerLock): void {
    if (lock === "mounter" || lock === "anchor") return;
    if (lock === "next") {
      this.#next = "none";
      if (this.#phase === "passing-on") return this.#enterRetiring();
      return this.#decide();
    }
    if (this.#phase === "stepping-down") return this.#enterReading();
    assert(this.#phase === "retiring", `an unlock of "owner" while ${this.#phase}`);
    if (this.#leaving || this.#error !== null) return this.#enterLeft(this.#error);
    if (this.#mountError !== null && !this.#wasServed) return this.#enterLeft(this.#mountError);
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
      this.#last = record;
      this.#lastAlive = lvbValid;
    } else if (order < 0 || !lvbValid) {
      this.#lastAlive = false;
    }
  }

  #verdict(): Verdict {
    const last = this.#last;
    if (last === null || last.state === "released") return "vacant";
    if (last.nodeid === this.#self.nodeid) return "mine";
    return this.#lastAlive ? "following" : "dead";
  }

  /** With CR held: what the record and the place in the line ask for. */
  #decide(): void {
    if (this.#phase !== "watching" || this.#probing) return;
    // `next` comes to us only from a holder that changed the record first (then we would not hold CR), or that died.
    if (this.#next === "held" && this.#verdict() === "following") this.#lastAlive = false;
    const verdict = this.#verdict();
    this.#tellOwner(verdict);
    switch (this.#next) {
      case "none":
        if (this.#mounterHeld && verdict !== "dead") {
          this.#next = "requested";
          this.#emit({ kind: "request", lock: "next", mode: Mode.EX });
        }
        return;
      case "held":
        if (verdict === "dead" || !this.#mounterHeld) return this.#dropNext();
        if (verdict === "mine") return this.#enterClaiming();
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

  #dropMounter(): void {
    if (!this.#mounterHeld) return;
    this.#mounterHeld = false;
    this.#emit({ kind: "unlock", lock: "mounter" });
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

  /** The lowest nodeid that reaches the device goes first. */
  #enterProbing(): void {
    const lower = this.#self.nodes.map((node) => node.nodeid).filter((nodeid) => nodeid < this.#self.nodeid);
    if (lower.length === 0 || this.#yields >= MAX_YIELDS) return this.#enterClaiming();
    this.#probing = true;
    this.#emit({ kind: "probe-mounters", nodeids: lower });
  }

  #receiveMounters(nodeids: readonly number[]): void {
    this.#probing = false;
    if (this.#phase !== "watching" || this.#next !== "held" || this.#verdict() !== "vacant") return this.#decide();
    if (nodeids.length === 0) return this.#enterClaiming();
    // To the end of the line: it is asked for again as soon as it was given up.
    this.#yields += 1;
    this.#dropNext();
  }

  #enterClaiming(): void {
    this.#phase = "claiming";
    this.#yields = 0;
    this.#emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  /** EX on the record: nobody can read it, so nobody follows anybody. */
  #enterAnnouncing(): void {
    const verdict = this.#verdict();
    assert(verdict === "vacant" || verdict === "mine", `the record changed under its only writer: ${verdict}`);
    this.#phase = "announcing";
    this.#announce({ state: "mounting", epoch: this.#knownEpoch() + 1, address: "", port: 0 });
    this.#emit({ kind: "request", lock: "owner", mode: Mode.PW, lvb: encodeOwnerRecord(this.#mustLast()) });
  }

  #announce(change: Pick<OwnerRecord, "state" | "epoch" | "address" | "port">): void {
    const { nodeid, incarnation, clientId } = this.#self;
    this.#last = { nodeid, incarnation, clientId, ...change };
    this.#lastAlive = true;
  }

  #receiveMounted(epoch: number, address: string, port: number): void {
    assert(this.#phase === "mounting", `mounted while ${this.#phase}`);
    assert(epoch >= this.#knownEpoch(), `epoch ${epoch} after ${this.#knownEpoch()}`);
    this.#lowerMounted = true;
    if (this.#error !== null) return this.#emit({ kind: "release-lower" });
    this.#announce({ state: "ready", epoch, address, port });
    this.#phase = "raising";
    this.#emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  #receiveMountFailed(error: Error): void {
    if (this.#error !== null) return this.#enterLeft(this.#error);
    this.#mountError = error;
    this.#reaches = false;
    this.#dropMounter();
    this.#enterClosing();
  }

  #enterClosing(): void {
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
    this.#announce({ state: "released", epoch: this.#knownEpoch(), address: "", port: 0 });
    this.#emit({ kind: "unlock", lock: "owner", lvb: encodeOwnerRecord(this.#mustLast()) });
  }

  /** What could not be proved released must not be given away: the record is marked not valid and still names us (hazard C3). */
  #receiveReleaseFailed(error: Error): void {
    this.#error ??= error;
    if (this.#phase !== "releasing") return this.#enterLeft(this.#error);
    this.#phase = "retiring";
    this.#emit({ kind: "unlock", lock: "owner", invalidate: true });
  }

  #receiveGone(clients: readonly GoneClient[]): void {
    const last = this.#last;
    if (last === null || last.state === "released" || !clients.some((client) => isSameClient(client, last))) return;
    this.#lastAlive = false;
    this.#decide();
  }

  #receiveLeave(): void {
    this.#leaving = true;
    switch (this.#phase) {
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
    if (this.#phase === "mounting" || this.#phase === "releasing") return; // Its answer ends it.
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
    return this.#last?.epoch ?? 0;
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
