/**
 * What the daemons say in order of fences (fencing/fence-table.ts): ordered messages of the engine, in a group of the daemons alone. A message:
 * u8 type and its body.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { bootIdField, fenceWords, type FencedLife } from "./fence-life.ts";
import { type Field, flag, list, oneOf, record, type Row, type Rows, row, rowsByType, u16, u32, u64, u8 } from "./field.ts";
import { maxMessageBytes } from "./group.ts";
import { DAEMON_GROUP_PREFIX } from "./lockspace-group.ts";
import { incarnation, nodeid, viewId } from "./peer-field.ts";
import type { ViewId } from "./view-id.ts";

export const FENCING_GROUP: string = `${DAEMON_GROUP_PREFIX}fencing`;

/** Lives of one node that are asked for at one time; the oldest goes first. */
export const MAX_WANTED_LIVES = 8;
/** Nodes of which a life is asked for at one time: as many as a cluster has, and some that it had. */
export const MAX_WANTED_NODES = 64;
/** Proofs, and rows of the history, that are kept; the oldest goes first. */
export const MAX_RESULTS = 64;

export interface WantedLife {
  readonly incarnation: string;
  readonly bootId: string;
}

/** What a node runs agents for. */
export interface OwnRun {
  readonly nodeid: number;
  readonly lives: readonly WantedLife[];
}

/** Lives of one node that are to be fenced. */
export interface Want {
  readonly nodeid: number;
  readonly lives: readonly WantedLife[];
  readonly why: string;
  /** The node or person that asked first, in words. */
  readonly by: string;
  readonly sinceMs: number;
  /** A person asked for it while the node was a member: it is kept out of the view until it was tried once. */
  readonly evict: boolean;
  /** Nodes that have tried every level in vain since all have. */
  readonly tried: readonly number[];
  /** Times that all levels have failed. */
  readonly rounds: number;
  /** How the last round ended; "": there was none. */
  readonly failure: string;
}

/** That life can write no more. */
export interface Proof extends FencedLife {
  readonly by: string;
  readonly atMs: number;
}

export const fenceOutcomes = ["fenced", "acknowledged", "failed", "returned", "rebooted", "refused", "known"] as const;
export type FenceOutcome = (typeof fenceOutcomes)[number];

export interface FenceRecord extends FencedLife {
  readonly outcome: FenceOutcome;
  readonly by: string;
  readonly words: string;
  readonly atMs: number;
}

/** All that the sender knows. A node that joins takes it over. */
export interface FenceTableMessage {
  readonly kind: "fence-table";
  /** Of the sender's machine. */
  readonly bootId: string;
  readonly wants: readonly Want[];
  /** When it says so. */
  readonly atMs: number;
  /** Nodes against which the sender runs agents, for those lives. */
  readonly runs: readonly OwnRun[];
  /** Both empty if nobody is new in the view. */
  readonly proofs: readonly Proof[];
  readonly history: readonly FenceRecord[];
}
export interface FenceWantedMessage extends FencedLife {
  readonly kind: "fence-wanted";
  readonly why: string;
  readonly by: string;
  readonly atMs: number;
  readonly evict: boolean;
}
/** The sender runs agents against that node from now on, if no other does. `view`: in which it asks; ignored in another. */
export interface FenceBegunMessage {
  readonly kind: "fence-begun";
  readonly nodeid: number;
  readonly view: ViewId;
}
/** What it does now, for people. */
export interface FenceStepMessage {
  readonly kind: "fence-step";
  readonly nodeid: number;
  readonly words: string;
}
/** `unable`: it could not even try, so the next node does so at once. `stopped`: it had to give up in the midst. */
export const runOutcomes = ["fenced", "failed", "unable", "stopped"] as const;
export type RunOutcome = (typeof runOutcomes)[number];
/** The sender runs none against that node any more. */
export interface FenceEndedMessage {
  readonly kind: "fence-ended";
  readonly nodeid: number;
  readonly outcome: RunOutcome;
  readonly by: string;
  readonly words: string;
  readonly atMs: number;
}
/** A person says that it is dead for sure: all of its lives that are asked for. */
export interface FenceAckedMessage {
  readonly kind: "fence-acked";
  readonly nodeid: number;
  readonly by: string;
  readonly atMs: number;
}
export type FencingMessage =
  | FenceTableMessage
  | FenceWantedMessage
  | FenceBegunMessage
  | FenceStepMessage
  | FenceEndedMessage
  | FenceAckedMessage;

const life = { nodeid, incarnation, bootId: bootIdField };
const lives = list(u8, record<WantedLife>({ incarnation, bootId: bootIdField }), MAX_WANTED_LIVES, "lives of a node");
const want: Field<Want> = record<Want>({
  nodeid,
  lives,
  why: fenceWords,
  by: fenceWords,
  sinceMs: u64,
  evict: flag,
  tried: list(u8, nodeid, MAX_WANTED_NODES, "nodes that have tried"),
  rounds: u32,
  failure: fenceWords,
});
const proof: Field<Proof> = record<Proof>({ ...life, by: fenceWords, atMs: u64 });
const historyRow: Field<FenceRecord> = record<FenceRecord>({
  ...life,
  outcome: oneOf(fenceOutcomes, "end of a fence"),
  by: fenceWords,
  words: fenceWords,
  atMs: u64,
});

const table: Rows<FencingMessage> = {
  "fence-table": row("fence-table", 1, {
    bootId: bootIdField,
    atMs: u64,
    wants: list(u16, want, MAX_WANTED_NODES, "fences asked for"),
    runs: list(u16, record<OwnRun>({ nodeid, lives }), MAX_WANTED_NODES, "fences under way"),
    proofs: list(u16, proof, MAX_RESULTS, "proofs"),
    history: list(u16, historyRow, MAX_RESULTS, "rows of the history"),
  }),
  "fence-wanted": row("fence-wanted", 2, { ...life, why: fenceWords, by: fenceWords, atMs: u64, evict: flag }),
  "fence-begun": row("fence-begun", 3, { nodeid, view: viewId }),
  "fence-step": row("fence-step", 4, { nodeid, words: fenceWords }),
  "fence-ended": row("fence-ended", 5, {
    nodeid,
    outcome: oneOf(runOutcomes, "end of a round"),
    by: fenceWords,
    words: fenceWords,
    atMs: u64,
  }),
  "fence-acked": row("fence-acked", 6, { nodeid, by: fenceWords, atMs: u64 }),
};
const byType = rowsByType(table);

export function encodeFencingMessage(message: FencingMessage): Uint8Array {
  const { type, write } = table[message.kind] as Row<FencingMessage>;
  const w = new ByteWriter(64, maxMessageBytes);
  write(w.u8(type), message);
  return w.copy();
}

/** Throws WireError. */
export function decodeFencingMessage(bytes: Uint8Array): FencingMessage {
  const r = new ByteReader(bytes);
  const type = r.u8();
  const known = byType.get(type);
  if (known === undefined) throw new WireError(`message about fences of unknown type ${type}`);
  const message = known.read(r);
  r.end();
  return message;
}
