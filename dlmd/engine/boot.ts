/** What an engine of a node starts with: the node itself, the configuration, and what it has stored in former lives. */
import type { NodeConfig } from "../config/votes.ts";
import type { FencePlans } from "../config/fence-plan.ts";
import type { Counting, Lineage } from "../wire/view-id.ts";

export interface QuorumOptions {
  /** One of two nodes is enough: which of them, the fence decides. */
  readonly twoNode: boolean;
  /** Nothing is quorate before all nodes were in one view since they started, or one was in a quorate view. */
  readonly waitForAll: boolean;
  /** Who wins exactly half: the half with the lowest or highest nodeid, or with the first of a list that is configured. */
  readonly autoTieBreaker: "none" | "lowest" | "highest" | readonly number[];
  /** last_man_standing: nodes that are missing from a quorate view for so long do not count any more; null or not given: they do. */
  readonly lastManStandingMs?: number | null;
}

/** What votes are counted by, and who may be heard. */
export interface NodeConfiguration {
  readonly version: number;
  /** All nodes of the configuration, this one included; at most 31. */
  readonly nodes: readonly NodeConfig[];
  /** How votes are counted beyond "more than half". */
  readonly quorum?: QuorumOptions;
  /** How nodes are fenced; a node that is not in it has no device. Not given: none has. */
  readonly fencePlans?: FencePlans;
  /** Nodes of the configuration before, while the change is not decided: their votes must be enough as well (hazard C8). */
  readonly former?: readonly NodeConfig[];
  /** Who counted when that came to be, as far as this node was told; null or not given: it was told nothing (hazard C8). */
  readonly counting?: Counting | null;
  /** This node had it in force, or proposed, in a quorate view, or was given it by one that had. False: it is from a file (hazard C8). */
  readonly agreed?: boolean;
}

export interface EngineBoot extends Omit<NodeConfiguration, "version"> {
  readonly nodeid: number;
  /** 16 lower-case hex digits, drawn at random at every start (and after `evicted`): never used before by this node. */
  readonly incarnation: string;
  readonly configVersion: number;
  /** Silence after which a node is suspected; 3000 by default, 1500 at least outside tests. Heartbeats: every tenth of it. */
  readonly timeoutMs: number;
  /** What `persist` stored last; 0 on a node that has never run. */
  readonly promisedEpoch: number;
  /** What `persist` stored last; not given on a node that has never run. */
  readonly lineage?: Lineage;
  /** A random 32-bit number, for back-off after colliding proposals (hazard H14). */
  readonly seed: number;
  /** The clock at the start: no ack that a former incarnation of this node gave was given later (hazard C4). */
  readonly nowMs: number;
  /** False: an engine alone, whose nodes have no connections to each other; else members that have none for a time-out part. */
  readonly connections?: boolean;
}
