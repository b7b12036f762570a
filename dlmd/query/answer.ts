/** What a node answers to people, as plain JSON data: `coverlay status` and `nodes`. Of locks: wire/inspect-answer.ts. */
import type { FailedOn } from "../fencing/unfencing.ts";
import type { FenceRecord } from "../wire/fencing-group.ts";
import type { LockspaceAnswer } from "../wire/inspect-answer.ts";
import type { ViewInfo } from "../wire/program.ts";
import type { ViewRecord } from "./view-history.ts";

export interface StatusAnswer extends ViewInfo {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly configVersion: number;
  readonly promisedEpoch: number;
  readonly phase: string;
  /** What lock service waits for, in words; "running" if for nothing. */
  readonly state: string;
  readonly clients: number;
  readonly locks: number;
  /** Programs whose connections broke, and whose locks and groups are kept for an heir (lock/README.md). */
  readonly kept: readonly KeptAnswer[];
  readonly engine: EngineAnswer;
  /** To each other member of the view. */
  readonly channels: readonly ChannelAnswer[];
  /** Nodes whose connections are refused, and why. */
  readonly refused: readonly { readonly nodeid: number; readonly reason: string }[];
  /** Whose votes count, while that changes those of before as well; null: those of all nodes. */
  readonly counting: readonly number[] | null;
  /** Nodes that went without a word and are not yet known to be dead; empty if no lockspace needs fencing. */
  readonly unfenced: readonly {
    readonly nodeid: number;
    readonly incarnation: string;
    readonly failingView: string;
    /** Those that wait for it. */
    readonly lockspaces: readonly string[];
  }[];
  /** Nothing is granted in these while a node that had them open is unfenced. */
  readonly fencedLockspaces: readonly string[];
  /** The last results, the latest at the end. */
  readonly fenced: readonly { readonly nodeid: number; readonly incarnation: string; readonly failingView: string }[];
  /** Lives that are to be fenced, and what was done about such (fencing/README.md). */
  readonly fencing: FencingAnswer;
  /** Programs that have not let go of the dead (clients/death-barrier.ts); of other nodes' programs as said last. */
  readonly goneWaits: readonly GoneWaitAnswer[];
  /** Those that any member of the view has open, as agreed (lockspaces/README.md). */
  readonly lockspaces: readonly LockspaceAnswer[];
  /** Members of which it is not known here what they have open: each counts as having all. */
  readonly lockspacesUnknown: readonly number[];
  /** Those that this life of the node has been in, the latest at the end. */
  readonly views: readonly ViewRecord[];
}

/** What the shell adds to an answer to "status": since when no datagram of a node came by multicast. */
export interface MulticastAnswer {
  readonly group: string;
  /** To each other node of the configuration: ms since its last one; null: none was heard. */
  readonly nodes: readonly { readonly nodeid: number; readonly agoMs: number | null }[];
}

export interface FencingAnswer {
  /** Nodes that have a fence device. */
  readonly devices: readonly number[];
  readonly wanted: readonly {
    readonly nodeid: number;
    readonly incarnations: readonly string[];
    readonly why: string;
    readonly by: string;
    /** CLOCK_REALTIME, milliseconds. */
    readonly sinceMs: number;
    /** Which node runs agents against it; null: none does now. */
    readonly executor: number | null;
    /** In words. */
    readonly step: string;
    /** Times that every level has failed, and how the last one ended. */
    readonly rounds: number;
    readonly failure: string;
    /** Until the next round; 0: it runs, or waits for something else. */
    readonly againAfterMs: number;
  }[];
  /** Devices that have not given this node its storage back, and are tried again. */
  readonly unfencing: readonly FailedOn[];
  /** The latest at the end. */
  readonly history: readonly FenceRecord[];
  /** How long the view of this node is quorate, or those before it were without a gap; null: it is not. */
  readonly quorumForMs: number | null;
}

export interface KeptAnswer {
  readonly clientId: number;
  readonly pid: number;
  readonly program: string;
  readonly lockspaces: readonly string[];
  /** Those that no heir has adopted yet. */
  readonly locks: number;
  /** Then it is gone, if its heir is not done. */
  readonly leftMs: number;
}

export interface GoneWaitAnswer {
  readonly nodeid: number;
  readonly clientId: number;
  readonly pid: number;
  readonly program: string;
  /** Of a node that is gone: nothing is granted in these lockspaces. Of a client that is gone: its locks in these stay held. */
  readonly of: "node" | "client";
  readonly lockspaces: readonly string[];
  readonly waitingMs: number;
  /** Its process is to end, and has not yet. */
  readonly ending: boolean;
}

export interface EngineAnswer {
  /** Nothing is ordered: a view change is under way, or there is no quorum. */
  readonly stopped: boolean;
  /** Of the last quorate view; 0: none yet. */
  readonly sequencerNodeid: number;
  /** Packets of this node that have not come back ordered, of so many that may be under way. */
  readonly underWay: number;
  readonly window: number;
  /** Messages of this node that are not delivered yet. */
  readonly waiting: number;
  /** More than may wait: who sends to a group has to wait. */
  readonly full: boolean;
  /** Ordered packets received in this view, and delivered; kept: not yet known to be everywhere. */
  readonly received: number;
  readonly delivered: number;
  readonly kept: number;
  readonly groups: number;
}

export interface ChannelAnswer {
  readonly nodeid: number;
  /** Since when the connection is down; null: it is up. */
  readonly downMs: number | null;
  /** Sent and not acknowledged. */
  readonly unacked: number;
  /** Received for a newer view, or for when lock service runs. */
  readonly held: number;
  /** Too much of it is held: its connection is not read. */
  readonly paused: boolean;
}

export interface NodeAnswer {
  readonly nodeid: number;
  readonly name: string;
  readonly address: string;
  readonly votes: number;
  readonly incarnation: string | null;
  /** "connected": it is there, and no heartbeat of it has come yet. */
  readonly state: "this" | "member" | "heard" | "connected" | "silent" | "left" | "evicted" | "other-config";
  /** ms since its last heartbeat; null: never heard. */
  readonly heardAgoMs: number | null;
  readonly tcpUp: boolean;
  /** Why it is not connected, in words; null: it is, or nothing is known. */
  readonly refused: string | null;
}
