/**
 * What nodes say to each other on the reliable FIFO channel of a pair, as types; how they travel is in peer.ts.
 *
 * Messages are those of Linux fs/dlm (dlm_internal.h DLM_MSG_*, DLM_RCOM_*) where they have a namesake; departures: a conversion
 * down and an unlock have no reply (hazard H2), and a view is entered with MARK and left with the next one.
 */
import type { GoneMessage } from "./peer-gone.ts";
import type { LifeMessage } from "./peer-life.ts";
import type { LockspacesKnownMessage } from "./lockspace-group.ts";
import type { PlockMessage } from "./peer-plock.ts";
import type { Mode } from "./mode.ts";
import type { Member, ViewId } from "./view-id.ts";

/** What happens to the value block at a write point. */
export type LvbWrite = "none" | "write" | "invalidate";
export const lvbWrites: readonly LvbWrite[] = ["none", "write", "invalidate"];
export type Refusal = "again" | "deadlock" | "canceled" | "timeout";
export const refusals: readonly Refusal[] = ["again", "deadlock", "canceled", "timeout"];

/** First on the channel in a view: all that came before it belongs to views before. */
export interface MarkMessage {
  readonly kind: "mark";
}
/** First on a connection: so many messages of yours have arrived here, on all connections of our two incarnations. */
export interface ResumeMessage {
  readonly kind: "resume";
  readonly received: number;
}
/** The answer to RESUME: the next message is that one of mine, counted from 1. */
export interface ContinueMessage {
  readonly kind: "continue";
  readonly first: number;
}
/** So many messages of yours have arrived: they need not be kept. */
export interface AckMessage {
  readonly kind: "ack";
  readonly received: number;
}
/** Barrier: the sender has done everything of that phase. */
export interface DoneMessage {
  readonly kind: "done";
  readonly phase: 1 | 2;
  /** Phase 1: the view whose locks the sender's tables describe, every one of them; no view: they are not whole. */
  readonly base: ViewId;
  /** Phase 1: its tables are empty, because it has just begun. */
  readonly fresh: boolean;
  /** Phase 1: nodes that are not yet known to be dead, and nodes that are. */
  readonly unfenced: readonly OpenVictim[];
  readonly fenced: readonly Victim[];
}
/** A node that went without a word: `failingView` is the first quorate view without it. */
export interface Victim extends Member {
  readonly failingView: ViewId;
}
/** Beyond, a dead node counts as having been in all. */
export const MAX_VICTIM_LOCKSPACES = 64;
export interface OpenVictim extends Victim {
  /** Of those that need fencing, what it had open: none of them, if empty. null: not known, which counts as all. */
  readonly lockspaces: readonly string[] | null;
}
/** That node is dead for sure: its fence said so, or a person. */
export interface FencedMessage {
  readonly kind: "fenced";
  readonly victim: Victim;
}
/** Holder to master: a new lock. lkbId names it for its life (with the sender's nodeid); never used again. */
export interface RequestMessage {
  readonly kind: "request";
  readonly lkbId: number;
  readonly clientId: number;
  readonly lockspace: string;
  readonly resource: string;
  readonly mode: Mode;
  readonly flags: number;
  /** Of that client; 0: none. */
  readonly transaction: number;
}
/** Holder to master: conversion that needs a grant. */
export interface ConvertMessage {
  readonly kind: "convert";
  readonly lkbId: number;
  readonly mode: Mode;
  readonly flags: number;
  readonly transaction: number;
}
/** Holder to master: has taken effect (hazard H2). grantNo: the one that the lock has now. */
export interface DownMessage {
  readonly kind: "down";
  readonly lkbId: number;
  readonly grantNo: number;
  readonly mode: Mode;
  readonly lvbWrite: LvbWrite;
  /** The writer's: sequence read at its grant + 1. */
  readonly lvbSeq: number;
  readonly lvb: Uint8Array | null;
}
/** Holder to master: the lock is gone, whatever it was waiting for. */
export interface UnlockMessage {
  readonly kind: "unlock";
  readonly lkbId: number;
  readonly lvbWrite: LvbWrite;
  readonly lvbSeq: number;
  readonly lvb: Uint8Array | null;
}
/** Holder to master: take the outstanding request back; no answer if it is not outstanding any more. */
export interface CancelMessage {
  readonly kind: "cancel";
  readonly lkbId: number;
}
/** Holder to master: that lock, granted and with nothing outstanding, is another client's from now on (hazard C6). */
export interface AdoptedMessage {
  readonly kind: "adopted";
  readonly lkbId: number;
  readonly clientId: number;
}
/** Master to holder. */
export interface GrantMessage {
  readonly kind: "grant";
  readonly lkbId: number;
  readonly grantNo: number;
  readonly mode: Mode;
  readonly sbFlags: number;
  readonly lvbSeq: number;
  readonly lvbRead: boolean;
  readonly lvbValid: boolean;
  readonly lvb: Uint8Array | null;
}
/** Master to holder: the request ended without a grant. */
export interface RefuseMessage {
  readonly kind: "refuse";
  readonly lkbId: number;
  /** With DEMOTED in sbFlags: the one that the lock has now, at NL. */
  readonly grantNo: number;
  readonly status: Refusal;
  readonly sbFlags: number;
}
/** Master to holder; ignored unless the lock still has that grantNo (hazard H5). */
export interface BastMessage {
  readonly kind: "bast";
  readonly lkbId: number;
  readonly grantNo: number;
  readonly wanted: Mode;
}
/** Release the orphans on your node that processes of that user left behind in that lockspace; answered by "purged". */
export interface PurgeMessage {
  readonly kind: "purge";
  readonly purgeId: number;
  readonly lockspace: string;
  /** 0: of any process. */
  readonly pid: number;
  /** 0: of any user. */
  readonly uid: number;
}
export interface PurgedMessage {
  readonly kind: "purged";
  readonly purgeId: number;
  /** Locks that are being released. */
  readonly locks: number;
}
/**
 * What do you know of locks (query/inspect.ts)? Answered by "inspected" in every phase: it changes nothing, so it waits for no view. lockspace and
 * resource "": of every one; nodeid 0: of every holder; waitingMs null: whether or not somebody waits.
 */
export interface InspectMessage {
  readonly kind: "inspect";
  readonly askId: number;
  readonly lockspace: string;
  readonly resource: string;
  readonly nodeid: number;
  readonly waitingMs: number | null;
  /** Locks that the answer may have. */
  readonly limit: number;
}
export interface InspectedMessage {
  readonly kind: "inspected";
  readonly askId: number;
  /** UTF-8. */
  readonly json: Uint8Array;
}
/** Longer circles of waiting locks are not found: those wait until one is given up or times out. */
export const maxHops = 32;
export interface LockName {
  readonly nodeid: number;
  readonly lkbId: number;
}
/** An edge of the graph of who waits for whom, as the master of the waiting lock saw it. */
export interface Hop {
  readonly masterNodeid: number;
  /** `no`: its waitNo. */
  readonly waiter: LockName & { readonly no: number };
  /** `no`: its grantNo, or its waitNo if it blocks because its turn comes first (`queued`). */
  readonly blocker: LockName & { readonly no: number };
  readonly queued: boolean;
  /** waitNo of the request, the waiter's or one before it, that the blocker is in the way of. */
  readonly via: number;
  /** Whose the blocker is. */
  readonly clientId: number;
  readonly transaction: number;
}
/** Looks for a circle of waiting locks: lock/deadlock.ts. */
export interface ProbeMessage {
  readonly kind: "probe";
  readonly initiator: LockName;
  readonly round: number;
  /** "wait": to the master of the waiting lock; "hold": to the home of the blocker; "victim": to the master of the initiator. */
  readonly step: "wait" | "hold" | "victim";
  /** The second time round. */
  readonly confirming: boolean;
  /** Of the hop in question. */
  readonly index: number;
  /** The first time round, "wait": the waiting lock. */
  readonly target: LockName;
  readonly path: readonly Hop[];
}
export const probeSteps: readonly ProbeMessage["step"][] = ["wait", "hold", "victim"];
/** Recovery, holder to new master: the holder's copy of a lock. */
export interface RebuildMessage {
  readonly kind: "rebuild";
  readonly lkbId: number;
  readonly clientId: number;
  readonly lockspace: string;
  readonly resource: string;
  /** null: a new request that waits. */
  readonly granted: Mode | null;
  /** null: nothing is outstanding. */
  readonly requested: Mode | null;
  readonly flags: number;
  readonly grantNo: number;
  readonly transaction: number;
  readonly waitedMs: number;
  readonly lvbSeq: number;
  /** `lvb` is what the resource has, as far as this lock's last grant or write can tell. */
  readonly lvbRead: boolean;
  readonly lvbValid: boolean;
  readonly lvb: Uint8Array | null;
}
/** Recovery, old master to new master: the value block as it is (hazard H2). */
export interface OfferMessage {
  readonly kind: "offer";
  readonly lockspace: string;
  readonly resource: string;
  readonly lvbSeq: number;
  readonly lvbValid: boolean;
  readonly lvb: Uint8Array | null;
  /** Who may have written it since, and has yet to name its lock. */
  readonly writer: Member | null;
}
/** Holder to master, about a lock. */
export type HolderMessage = RequestMessage | ConvertMessage | DownMessage | UnlockMessage | CancelMessage | AdoptedMessage;

export type PeerMessage =
  | MarkMessage
  | ResumeMessage
  | ContinueMessage
  | AckMessage
  | DoneMessage
  | FencedMessage
  | GoneMessage
  | RequestMessage
  | ConvertMessage
  | DownMessage
  | UnlockMessage
  | CancelMessage
  | AdoptedMessage
  | GrantMessage
  | RefuseMessage
  | BastMessage
  | PurgeMessage
  | PurgedMessage
  | InspectMessage
  | InspectedMessage
  | ProbeMessage
  | RebuildMessage
  | OfferMessage
  | LifeMessage
  | LockspacesKnownMessage
  | PlockMessage;

const ofNoView: ReadonlySet<PeerMessage["kind"]> = new Set(["inspect", "inspected", "ask-life", "life-seen", "lockspaces-known"]);

/** About two lives of nodes, whatever the view; or a question that changes nothing, or its answer. It passes in every phase of a recovery. */
export function isOfNoView({ kind }: PeerMessage): boolean {
  return ofNoView.has(kind);
}

/** The other end answers at once if it can: with one of the next kind. */
export function isQuestion({ kind }: PeerMessage): boolean {
  return kind === "request" || kind === "convert" || kind === "plock-request";
}
export function isAnswer({ kind }: PeerMessage): boolean {
  return kind === "grant" || kind === "refuse" || kind === "plock-answer";
}
