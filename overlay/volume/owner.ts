/**
 * Performs what the owner's state machine (owner-core.ts) decides: its locks through the lock manager's client, mounting and
 * releasing through callbacks of the composition root. Events are handled one by one, in the order in which they came.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { type ClusterInfo, type GoneClient, type Lock, LockFlag, type LockStatus, type Lockspace } from "../../dlmd/client/api.ts";
import { WITHDRAW_AGAIN_MS } from "../lower/server/disk-fault.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { OwnerBlock } from "./owner-block.ts";
import { OwnerCore } from "./owner-core.ts";
import type { Claim, OwnerEffect, OwnerEvent, OwnerLock, OwnerRole } from "./owner-event.ts";
import type { ClaimingProcess, OwnerRecord } from "./owner-record.ts";
import type { ProveGoneAnywhere } from "./prove-elsewhere.ts";

/** When a mount that has no proof asks for one again, if nothing changes before: an ended process leaves its device a moment later. */
export const PROOF_RETRY_MS = 500;
/** When a node that could not read or mount the device looks at it again: at first, and at most; the time doubles. */
export const REACH_AGAIN_MIN_MS = 1000;
export const REACH_AGAIN_MAX_MS = 60_000;

/** The lockspace of a volume: its inodes' locks and the owner's. */
export function volumeLockspace(uuid: string): string {
  return `vol-${uuid}`;
}

export interface ServedLower {
  /** LowerMount.epoch */
  readonly epoch: number;
  /** Where the lower server listens, for the other nodes. */
  readonly address: string;
  readonly port: number;
}

export interface OwnerCallbacks {
  /** What the volume says of its owner, read from the device; null: a directory, which has no block. */
  readonly readOwnerBlock: () => Promise<OwnerBlock | null>;
  readonly proveGone: ProveGoneAnywhere;
  /** Mount the lower (mountLower) and start its server. A failure: another node may try, so everything must be undone. */
  readonly mountLower: (epochAbove: number, claim: Claim) => Promise<ServedLower>;
  /** Finish what runs, stop the server, close every descriptor, LowerMount.release(). A failure keeps the volume from everybody else. */
  readonly releaseLower: () => Promise<void>;
  /** An owner of the volume has withdrawn, now. */
  readonly withdrawalSeen?: () => void;
  /** This node goes through that owner from now on. */
  readonly ownerFound: (owner: OwnerRecord) => void;
  /** Operations wait from now on; what was sent and not answered is repeated to the next owner. */
  readonly ownerLost: (reason: string) => void;
  /** The lower mounted by mountLower is the volume's, and the others know. */
  readonly becomeOwner: (owner: OwnerRecord) => void;
  /** The end. `error`: why, unless `leave` was called. Locks go with the client's close(). */
  readonly left: (error: Error | null) => void;
}

export interface VolumeOwnerOptions {
  readonly info: ClusterInfo;
  /** client.lockspace(volumeLockspace(uuid)) */
  readonly lockspace: Lockspace;
  /** This process, with the device: for the record that it claims with. */
  readonly process: ClaimingProcess;
  /** This node has the device or directory. */
  readonly reachesLower: boolean;
  readonly callbacks: OwnerCallbacks;
  readonly log: Log;
}

export class VolumeOwner {
  readonly #core: OwnerCore;
  readonly #options: VolumeOwnerOptions;
  readonly #locks = new Map<OwnerLock, Lock>();
  readonly #events: OwnerEvent[] = [];
  #handling = false;
  #leaveDone: (() => void)[] = [];
  #hasLeft = false;
  #leftWith: Error | null = null;
  #retry: NodeJS.Timeout | undefined;
  #reach: NodeJS.Timeout | undefined;

  constructor(options: VolumeOwnerOptions) {
    const { nodeid, incarnation, clientId, nodes } = options.info;
    this.#options = options;
    this.#core = new OwnerCore({ nodeid, incarnation, clientId, nodes, process: options.process, reachesLower: options.reachesLower });
  }

  get role(): OwnerRole {
    return this.#core.role;
  }

  get owner(): OwnerRecord | null {
    return this.#core.owner;
  }

  get reachesDevice(): boolean {
    return this.#core.reachesDevice;
  }

  /** One line for people: what this mount is, or waits for. */
  get why(): string {
    return this.#core.why;
  }

  start(): void {
    this.#step({ kind: "start" });
  }

  /** From DlmClientHandlers.gone, after the lower server has closed the sessions of those clients. */
  receiveGone(clients: readonly GoneClient[]): void {
    this.#step({ kind: "gone", clients });
  }

  /** Hazard F44. This mount, which was made to wait for another owner, may be the owner from now on. */
  mayOwn(): void {
    this.#step({ kind: "reached", error: null });
  }

  /** From DlmClientHandlers.view: a node that came or went may make a proof. */
  receiveView(): void {
    this.#step({ kind: "ask-again" });
  }

  /** The disk has failed: gives the volume up (DiskGuardOptions.withdraw). */
  withdraw(why: string): void {
    this.#step({ kind: "withdraw", why });
  }

  /** Without a lease for so long (self-fence.ts): lets go of the disk without a lock. As often as it is told; once counts. */
  selfFence(why: string): void {
    this.#step({ kind: "self-fence", why });
  }

  /** Gives the volume to that node. What was executed is synced, and nothing runs any more. */
  handOver(heir: number): void {
    this.#step({ kind: "hand-over", heir });
  }

  /** Those of the other nodes that mount the volume and reach its device, in ascending order. */
  otherMounters(): Promise<number[]> {
    const { nodeid: self, nodes } = this.#options.info;
    const others = nodes.map(({ nodeid }) => nodeid).filter((nodeid) => nodeid !== self);
    return new Promise((resolve) => this.#probe(others, (held) => resolve(held.sort((a, b) => a - b))));
  }

  /** After `leave`: what was wrong with the release of the disk. */
  get leftWith(): Error | null {
    return this.#leftWith;
  }

  /** From DlmClientHandlers.disconnected. */
  receiveDisconnected(reason: Error): void {
    this.#step({ kind: "broken", error: reason });
  }

  /** Hands the volume over if this node owns it; resolves when that is done and `left` was called. */
  async leave(): Promise<void> {
    if (this.#hasLeft) return;
    const done = new Promise<void>((resolve) => this.#leaveDone.push(resolve));
    this.#step({ kind: "leave" });
    await done;
  }

  #step(event: OwnerEvent): void {
    this.#events.push(event);
    if (this.#handling) return;
    this.#handling = true;
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
        const effects = this.#core.step(next);
        this.#options.log.debug({ event: next.kind, effects: effects.map((effect) => effect.kind), why: this.#core.why }, "owner");
        this.#options.lockspace.batch(() => effects.forEach((effect) => this.#performLock(effect)));
        for (const effect of effects) this.#perform(effect);
      }
    } finally {
      this.#handling = false;
    }
  }

  #performLock(effect: OwnerEffect): void {
    if (effect.kind === "request") {
      const flags = effect.lock === "owner" || effect.lock === "anchor" ? LockFlag.VALBLK : 0;
      // CR is given up at once, whoever changes the record; for the rest others wait in line as long as there is an owner.
      const answer = effect.mode === Mode.CR ? LockFlag.PROMPT : LockFlag.MAYKEEP;
      this.#lock(effect.lock).request(effect.mode, flags | answer, effect.lvb);
    } else if (effect.kind === "unlock") {
      const flags = effect.invalidate === true ? LockFlag.IVVALBLK : effect.lvb === undefined ? 0 : LockFlag.VALBLK;
      this.#lock(effect.lock).unlock(flags, effect.lvb);
    }
  }

  #perform(effect: OwnerEffect): void {
    const { callbacks } = this.#options;
    switch (effect.kind) {
      case "request":
      case "unlock":
        return;
      case "probe-mounters":
        return this.#probeMounters(effect.nodeids);
      case "read-owner-block":
        callbacks.readOwnerBlock().then(
          (block) => this.#step({ kind: "owner-block", block }),
          (error: unknown) => this.#step({ kind: "owner-block-failed", error: asError(error) }),
        );
        return;
      case "prove-gone":
        callbacks
          .proveGone(effect, (why) => this.#step({ kind: "proof-waits", why }))
          .then(
            (proof) => this.#step({ kind: "proved", proof }),
            (error: unknown) => this.#step({ kind: "proved", proof: { kind: "none", why: asError(error).message } }),
          );
        return;
      case "ask-later":
        clearTimeout(this.#retry);
        this.#retry = setTimeout(() => this.#step({ kind: "ask-again" }), PROOF_RETRY_MS);
        return;
      case "reach-later":
        clearTimeout(this.#reach);
        this.#reach = setTimeout(() => this.#look(), effect.after === "withdrawal" ? WITHDRAW_AGAIN_MS : reachAgainMs(effect.failures));
        return;
      case "mount-lower":
        callbacks.mountLower(effect.epochAbove, effect.claim).then(
          (served) => this.#step({ kind: "mounted", ...served }),
          (error: unknown) => this.#step({ kind: "mount-failed", error: asError(error) }),
        );
        return;
      case "release-lower":
        callbacks.releaseLower().then(
          () => this.#step({ kind: "released" }),
          (error: unknown) => this.#receiveReleaseFailed(asError(error)),
        );
        return;
      case "withdrawal-seen":
        return callbacks.withdrawalSeen?.();
      case "owner-found":
        return callbacks.ownerFound(effect.owner);
      case "owner-lost":
        return callbacks.ownerLost(effect.reason);
      case "become-owner":
        return callbacks.becomeOwner(effect.owner);
      case "left":
        this.#hasLeft = true;
        this.#leftWith = effect.error;
        clearTimeout(this.#retry);
        clearTimeout(this.#reach);
        callbacks.left(effect.error);
        for (const done of this.#leaveDone) done();
        this.#leaveDone = [];
        return;
    }
  }

  #receiveReleaseFailed(error: Error): void {
    const letGo = error instanceof OperatingError && error.code === "let-go";
    this.#options.log.error({ error: error.message, letGo }, letGo ? "the disk is let go of, and not clean" : "the disk is not released");
    this.#step({ kind: "release-failed", error, letGo });
  }

  /** Whether the device is reached: its owner's block can be read. */
  #look(): void {
    this.#options.callbacks.readOwnerBlock().then(
      () => this.#step({ kind: "reached", error: null }),
      (error: unknown) => this.#step({ kind: "reached", error: asError(error) }),
    );
  }

  #lock(name: OwnerLock): Lock {
    let lock = this.#locks.get(name);
    if (lock === undefined) {
      const resource = name === "anchor" ? "owner" : name === "mounter" ? mounterResource(this.#options.info.nodeid) : name;
      lock = this.#options.lockspace.createLock(resource, {
        ast: (held, status) => this.#receiveAst(name, held, status),
        bast: () => this.#step({ kind: "bast", lock: name }),
      });
      this.#locks.set(name, lock);
    }
    return lock;
  }

  #receiveAst(name: OwnerLock, lock: Lock, status: LockStatus): void {
    switch (status) {
      case "granted":
        return this.#step({ kind: "granted", lock: name, lvb: lock.lvb, lvbValid: lock.lvbValid });
      case "unlocked":
        this.#locks.delete(name);
        return this.#step({ kind: "unlocked", lock: name });
      case "again":
      case "canceled":
      case "deadlock":
      case "error":
        return this.#step({ kind: "broken", error: lock.error ?? unexpected(name, status) });
    }
  }

  /** Who of those nodes mounts the volume and reaches its lower: their `mounter` lock cannot be had. */
  #probeMounters(nodeids: readonly number[]): void {
    this.#probe(nodeids, (held) => this.#step({ kind: "mounters", nodeids: held }));
  }

  #probe(nodeids: readonly number[], done: (held: number[]) => void): void {
    const held: number[] = [];
    let open = nodeids.length;
    if (open === 0) return done(held);
    const finish = (): void => {
      open -= 1;
      if (open === 0) done(held);
    };
    this.#options.lockspace.batch(() => {
      for (const nodeid of nodeids) {
        const lock = this.#options.lockspace.createLock(mounterResource(nodeid), {
          ast: (probe, status) => {
            if (status === "granted") return probe.unlock(0);
            if (status === "again") held.push(nodeid);
            else if (status !== "unlocked") return this.#step({ kind: "broken", error: probe.error ?? unexpected("mounter", status) });
            finish();
          },
          bast: () => {}, // It is being given up already.
        });
        lock.request(Mode.PR, LockFlag.NOQUEUE);
      }
    });
  }
}

/** Exported for tests. `failures`: from 1 on. */
export function reachAgainMs(failures: number): number {
  return Math.min(REACH_AGAIN_MAX_MS, REACH_AGAIN_MIN_MS * 2 ** Math.min(failures - 1, 30));
}

export function mounterResource(nodeid: number): string {
  return `mounter.${nodeid}`;
}

function unexpected(lock: string, status: LockStatus): OperatingError {
  return new OperatingError(`the lock manager ended a request for "${lock}" with "${status}"`, {
    code: "lock-refused",
    hint: "See dmesg and the log of dlmd; mount the volume again.",
  });
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
