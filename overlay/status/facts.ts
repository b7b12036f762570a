/** What dlmd and the mounts of a node have answered: all that a report is made of. Pure. Plain data; what was not answered is null. */
import type { ViewInfo } from "../../dlmd/wire/program.ts";

export interface OwnerChange {
  readonly fromNodeid: number;
  readonly toNodeid: number;
  /** From when this mount knew of no owner until it knew of the next one: calls waited. */
  readonly pauseMs: number;
  /** CLOCK_REALTIME at its end, milliseconds. */
  readonly atMs: number;
  /** Why the owner before was given up, in words. */
  readonly reason: string;
}

/** What serve/owner-changes.ts has seen. */
export interface OwnerChangesSeen {
  /** Since the mount: each time that there was none, and then one. */
  readonly count: number;
  readonly last: OwnerChange | null;
  /** For how long there has been none; null: there is one, or there was none yet. */
  readonly withoutMs: number | null;
}

export interface NodeFacts {
  /** Null: dlmd could not be asked. */
  readonly cluster: ClusterFacts | null;
  /** Why it could not. */
  readonly error: { readonly error: string; readonly code: string; readonly hint: string } | null;
  readonly mounts: readonly MountFacts[];
  /** Processes that wait in the background to mount (volume/mount-waiter.ts). */
  readonly waiters: readonly WaiterFacts[];
  /** Calls of programs that have waited for a second and more. */
  readonly calls: readonly WaitingCall[];
  readonly waits: readonly Wait[];
  readonly waitsTruncated: boolean;
  /** Nodes that did not say who waits there, and why. */
  readonly unasked: readonly { readonly node: string; readonly reason: string }[];
  /** CLOCK_REALTIME when all had answered. */
  readonly atMs: number;
  readonly tookMs: number;
}

export interface ClusterFacts {
  readonly clusterName: string;
  readonly nodeid: number;
  readonly view: ViewInfo;
  /** What lock service waits for, in words; "running": nothing. */
  readonly state: string;
  /** Whose votes count, if not those of all. */
  readonly counting: readonly number[] | null;
  readonly nodes: readonly NodeFact[];
  readonly volumes: readonly { readonly name: string; readonly uuid: string }[];
  /** By the uuid of a volume: its owner, or the node that is becoming it. */
  readonly owners: ReadonlyMap<string, number>;
  readonly unfenced: readonly { readonly nodeid: number; readonly lockspaces: readonly string[] }[];
  readonly fencing: readonly { readonly nodeid: number; readonly step: string; readonly rounds: number; readonly failure: string }[];
  /** Devices that have not given this node its storage back. */
  readonly unfencing: readonly { readonly device: string; readonly rounds: number; readonly failure: string }[];
  /** Nodes that have a fence device. */
  readonly devices: readonly number[];
  /** Null: the cluster uses none. */
  readonly multicast: {
    readonly group: string;
    readonly nodes: readonly { readonly nodeid: number; readonly agoMs: number | null }[];
  } | null;
  readonly channels: readonly { readonly nodeid: number; readonly downMs: number | null }[];
  /** Those that this life of dlmd has been in, the latest at the end. */
  readonly views: readonly PastView[];
  /** What was done about nodes that had to be fenced, the latest at the end. */
  readonly fences: readonly PastFence[];
}

export interface PastView extends Pick<ViewInfo, "viewId" | "quorate" | "members" | "incarnations" | "quorumReason"> {
  /** CLOCK_REALTIME of this node. */
  readonly atMs: number;
}

export interface PastFence {
  readonly nodeid: number;
  /** "fenced", "acknowledged", "failed", "returned", "rebooted", "refused", "known". */
  readonly outcome: string;
  readonly by: string;
  readonly words: string;
  readonly atMs: number;
}

export interface NodeFact {
  readonly nodeid: number;
  readonly name: string;
  /** "this", "member", "heard", "connected", "silent", "left", "evicted", "other-config". */
  readonly state: string;
  readonly heardAgoMs: number | null;
  readonly refused: string | null;
}

export interface MountFacts {
  readonly mountpoint: string;
  readonly volume: string;
  readonly uuid: string | null;
  readonly device: string;
  /** "owner", "remote", "waiting"; "paused" (restart/holder.ts); "gone": its process is. */
  readonly role: string;
  readonly pid: number;
  /** Why it did not answer; null: it did. */
  readonly problem: string | null;
  readonly why: string;
  readonly ownerNodeid: number | null;
  readonly lease: string | null;
  readonly readOnly: boolean | null;
  readonly disk: string | null;
  readonly diskFault: string | null;
  /** What of a lower directory is not watched, and what to do. */
  readonly unwatched: string | null;
  /** Of an owner: where its disk is mounted past the cluster, too. */
  readonly plainlyAt: readonly string[];
  readonly ownerWait: string | null;
  readonly groupWait: string | null;
  readonly operatorBlocks: boolean;
  readonly ownerChanges: OwnerChangesSeen | null;
  /** Long work of this node as the owner that goes on by itself; null: none. */
  readonly work: { readonly kind: string; readonly words: string; readonly tookMs: number } | null;
  /** Calls that are under way; null: not known. `longest`: of those that do not wait for a file lock. */
  readonly calls: { readonly count: number; readonly longest: Call | null } | null;
  /** Why `calls` is not known, though the mount answered. */
  readonly callsProblem: string | null;
  readonly figures: Readonly<Record<string, number>>;
}

export interface WaiterFacts {
  readonly mountPoint: string;
  readonly source: string;
  readonly pid: number;
  readonly logFile: string;
}

export interface Call {
  readonly op: string;
  readonly pid: number;
  readonly program: string;
  readonly waitingMs: number;
}

/** In one mount of this node. */
export interface WaitingCall extends Call {
  readonly mountpoint: string;
  /** The process of the mount. */
  readonly mountPid: number;
  readonly lockspace: string;
  /** Inode number and generation (fileKey); null: of no inode that the mount knows. */
  readonly key: string | null;
  /** The same of the inode for whose lock it waits: another one for a rename or a copy. */
  readonly lockKey: string | null;
  /** It asks for a file lock. */
  readonly fileLock: boolean;
  /** Where the program has it open; null: it has not. */
  readonly path: string | null;
}

export interface Party {
  readonly node: string;
  readonly pid: number;
  readonly program: string;
}

/** A program waits for a lock that others have. */
export interface Wait {
  /** "inode": a mount, for the lock of an inode; "file": a program's file lock; "other": of a program that uses the lock manager. */
  readonly kind: "inode" | "file" | "other";
  /** Null: the lockspace is no volume's. */
  readonly volume: string | null;
  readonly lockspace: string;
  readonly resource: string;
  /** In words. */
  readonly what: string;
  /** Of its file, where a process of this node has it open; null, or not there: not known here. */
  readonly path?: string | null;
  readonly waiter: Party;
  /** Some of those that have what excludes it. */
  readonly holders: readonly Party[];
  /** Its request came earlier and is not granted yet, so this one waits behind it; null: nobody is ahead. */
  readonly ahead: Party | null;
  readonly waitingMs: number;
}
