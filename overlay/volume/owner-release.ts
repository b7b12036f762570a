/**
 * The ways in which an owner gives the volume up: the part of the owner's state machine (owner-core.ts) from the owner to a record that says so. It leaves,
 * hands over, withdraws because its disk failed, or lets go because it has no quorum. Its record says `released` only after the unmount was proved.
 */
import { assert, assertNever } from "../../dlmd/base/assert.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { encodeOwnerRecord } from "./owner-record.ts";
import type { OwnerState } from "./owner-state.ts";

export class OwnerRelease {
  readonly #state: OwnerState;
  /** The disk failed while it was being mounted: this owner withdraws as soon as it is one. */
  withdrawsAs: string | null = null;
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

  constructor(state: OwnerState) {
    this.#state = state;
  }

  /** The lower is released without the lock manager, or was: a lock that comes leads out of the role. */
  get isSelfFenced(): boolean {
    return this.#selfFence !== "none";
  }

  /** For words. */
  get shown(): { readonly unreleased: Error | null; readonly letGo: boolean; readonly selfFenced: boolean; readonly heir: number } {
    return { unreleased: this.#unreleased, letGo: this.#letGo, selfFenced: this.#selfFence === "done", heir: this.#heir };
  }

  enterClosing(): void {
    if (this.#holdsEx) {
      this.#holdsEx = false;
      return this.enterPassingOn();
    }
    this.#state.phase = "closing";
    this.#state.emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  enterPassingOn(): void {
    this.#state.phase = "passing-on";
    this.#state.dropNext();
  }

  /** The last step, so that whoever reads `released` finds `next` free. */
  enterRetiring(): void {
    this.#state.phase = "retiring";
    this.#state.announce({ state: this.#letGo ? "let-go" : "released", epoch: this.#state.knownEpoch(), address: "", port: 0 }, this.#heir);
    this.#letGo = false;
    this.#heir = 0;
    this.#state.emit({ kind: "unlock", lock: "owner", lvb: encodeOwnerRecord(this.#state.mustLast()) });
  }

  /** EX on `owner` has come: nobody follows this node any more. */
  receiveClosed(): void {
    if (this.#selfFence === "under-way" || this.#selfFence === "failed") return this.afterSelfFence(true);
    this.#state.phase = "releasing";
    if (this.#state.lowerMounted) return this.#state.emit({ kind: "release-lower" });
    return this.enterPassingOn();
  }

  /** `owner` was given up. */
  receiveRetired(): void {
    const { leaving, error, mountError, wasServed } = this.#state;
    if (leaving || error !== null) return this.#state.enterLeft(error ?? this.#unreleased);
    this.#unreleased = null;
    if (mountError !== null && !wasServed) return this.#state.enterLeft(mountError);
    this.#state.withdrawal = "";
    this.#selfFence = "none";
    this.#state.enterReading();
  }

  receiveReleased(): void {
    this.#state.lowerMounted = false;
    if (this.#selfFence === "under-way") this.#selfFence = "done";
    if (this.#state.error !== null) return this.#state.enterLeft(this.#state.error);
    // The block says it; the record is read as that of a node that is gone.
    if (this.#state.leaving && this.#selfFence === "done") return this.#state.enterLeft(null);
    switch (this.#state.phase) {
      case "withdrawing":
      case "letting-go":
        return this.enterClosing();
      case "releasing":
        return this.enterPassingOn();
      default:
        // Let go of while a lock is waited for: its grant goes on from there.
        assert(this.#selfFence === "done", `released while ${this.#state.phase}`);
    }
  }

  /** What could not be proved released must not be given away: the record is marked not valid and still names us (hazard C3). */
  receiveReleaseFailed(error: Error, letGo: boolean): void {
    this.#state.lowerMounted = false; // Not known: nothing can be done about it here any more.
    if (this.#selfFence === "under-way" && this.#state.error === null) {
      this.#unreleased = error;
      this.#letGo = letGo;
      this.#selfFence = letGo ? "done" : "failed";
      if (this.#state.phase === "letting-go") this.afterSelfFence();
      return;
    }
    if (this.#state.phase === "withdrawing" && this.#state.error === null) {
      this.#letGo = letGo;
      this.#unreleased = error;
      if (letGo) return this.enterClosing();
      this.#state.phase = "withdrawn";
      if (this.#state.leaving) this.#state.enterLeft(error);
      return;
    }
    // A lock manager that is gone gives nothing up any more, and says nothing of it.
    const isOver = this.#state.error !== null;
    this.#state.error ??= error;
    if (isOver || this.#state.phase !== "releasing") return this.#state.enterLeft(this.#state.error);
    this.#state.phase = "retiring";
    this.#state.emit({ kind: "unlock", lock: "owner", invalidate: true });
  }

  /** Nobody is told of the failed disk: the record says so, the lower is released, and another node may mount it if that is proved. */
  receiveWithdraw(why: string): void {
    if (this.#state.phase === "mounting" || this.#state.phase === "raising" || this.#state.phase === "publishing") this.withdrawsAs = why;
    if (this.#state.phase !== "owning") return; // On its way out already, or once it is the owner.
    this.#state.withdrawal = why;
    this.#state.loseDevice("withdrawal", new Error(`it was given up: ${why}`));
    this.#state.phase = "retreating";
    this.#state.emit({ kind: "withdrawal-seen" });
    this.#state.emit({ kind: "owner-lost", reason: `this node withdraws: ${why}` });
    this.#state.emit({ kind: "request", lock: "owner", mode: Mode.EX });
  }

  /**
   * Nobody has to be asked for that: what is given up is this node's own, the block says `released` only after the unmount was proved, and no
   * other node touches the device before. What the record says is put right when the lock manager serves again.
   */
  receiveSelfFence(why: string): void {
    // The disk was given back before, or not touched yet: it only waits for locks, which cannot come.
    const waits = !this.#state.lowerMounted && ["announcing", "closing", "passing-on", "retiring"].includes(this.#state.phase);
    if (waits && this.#state.leaving && this.#state.error === null) return this.#state.enterLeft(this.#unreleased);
    if (!this.#state.lowerMounted || this.#selfFence !== "none" || this.#state.error !== null) return;
    // Being released already: that needs no lock any more.
    if (this.#state.phase === "releasing" || this.#state.phase === "withdrawing") return;
    this.#selfFence = "under-way";
    this.#state.withdrawal = why;
    if (this.#state.phase === "owning") {
      this.#state.phase = "letting-go";
      this.#state.emit({ kind: "owner-lost", reason: why });
    }
    this.#state.emit({ kind: "release-lower" });
  }

  /** A lock that was asked for before has come, and the disk is being let go of, or was. */
  afterSelfFence(holdsEx = false): void {
    this.#holdsEx ||= holdsEx;
    switch (this.#selfFence) {
      case "under-way":
        this.#state.phase = "letting-go";
        return;
      case "failed":
        this.#state.phase = "withdrawn";
        if (this.#state.leaving) this.#state.enterLeft(this.#unreleased);
        return;
      case "done":
        return this.enterClosing();
      case "none":
        return assert(false, "nothing was let go of");
      default:
        assertNever(this.#selfFence, "self-fence");
    }
  }

  /** As an owner that leaves, but it stays, and takes the volume back if the heir is gone. */
  receiveHandOver(heir: number): void {
    if (this.#state.phase !== "owning") return;
    this.#heir = heir;
    this.#state.emit({ kind: "owner-lost", reason: `this node hands the volume over to ${this.#state.nameOf(heir)}` });
    this.enterClosing();
  }

  receiveLeave(): void {
    this.#state.leaving = true;
    // The locks that it waits for cannot come without a quorum, and nobody needs them: the block says who has the disk.
    if (this.#selfFence === "done" && !this.#state.lowerMounted) return this.#state.enterLeft(this.#unreleased);
    switch (this.#state.phase) {
      // The record goes on naming this node: the next owner needs a proof that it has ended.
      case "withdrawn":
        return this.#state.enterLeft(this.#unreleased);
      case "idle":
      case "reading":
      case "watching":
      case "stepping-down":
      case "claiming":
        // Nothing was announced: the locks may go with the connection.
        return this.#state.enterLeft(null);
      case "owning":
        return this.enterClosing();
      default:
        return; // On its way to owning, or out: it goes on from there.
    }
  }

  receiveBroken(error: Error): void {
    if (this.#state.error !== null) return;
    this.#state.error = error;
    this.#state.loseOwner(error.message);
    // Its answer ends it.
    if (["mounting", "releasing", "withdrawing"].includes(this.#state.phase) || this.#selfFence === "under-way") return;
    if (this.#state.lowerMounted) return this.#state.emit({ kind: "release-lower" });
    this.#state.enterLeft(error);
  }
}
