/** What recovery is given: the parts that it rebuilds, its limits, and the node around it. */
import type { ClientDeathBarrier } from "../clients/death-barrier.ts";
import type { Engine } from "../engine/engine.ts";
import type { LockClient } from "../lock/lkb.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import type { TransportPort } from "../transport/peer-channels.ts";
import type { PeerMessage } from "../wire/peer-message.ts";
import type { PlockAnswerMessage } from "../wire/peer-plock.ts";
import type { Member } from "../wire/view-id.ts";
import type { KeptFences } from "./fence-gate.ts";

export type Phase = "none" | "blocked" | "mark" | "rebuild" | "wait" | "settle" | "run";

/** File locks, rebuilt beside the others (plock/service.ts). */
export interface RebuiltFiles {
  /** They are to be named to their masters of that view. */
  startRebuild(members: readonly Member[]): void;
  /** So many of them. True: all are. */
  name(budget: number): boolean;
  /** Everything was named by everybody: of those that can be granted so many are. True: all are. */
  settle(budget: number): boolean;
  /** Of the lockspaces in which nothing was granted (`blocks`) some go on. */
  unblock(): void;
  /** An answer of the last view to a request of this node. */
  receiveLate(message: PlockAnswerMessage): void;
}

export interface RecoveryParts {
  readonly engine: Engine;
  readonly locks: LockManager;
  readonly files: RebuiltFiles;
  readonly deaths: ClientDeathBarrier;
}

export interface RecoveryPort extends Omit<TransportPort, "broken"> {
  /** To be stored, and answered by `fencesKept`. */
  keep(fences: KeptFences): void;
  clients(): Iterable<LockClient>;
  /** What that life of a node had open; null: not known, which counts as all. */
  openedBy(member: Member): ReadonlySet<string> | null;
  /** A message of a running view that is not about locks, or of the rebuild of file locks; in any phase those of no view (`isOfNoView`). */
  receive(from: number, message: PeerMessage): void;
  /** It sent what it cannot have meant: the view is rebuilt. */
  protest(nodeid: number, message: string): void;
  log(level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>): void;
}

export interface RecoveryOptions {
  /** Messages of one peer that wait. */
  readonly heldLimit: number;
  /** Messages of the last view, of all peers, that wait for the next one (late-messages.ts). */
  readonly lateLimit: number;
  /** Resources and locks that one turn rebuilds. */
  readonly stepsPerTurn: number;
  readonly fencedLockspaces: readonly string[];
  readonly fences: KeptFences;
}
