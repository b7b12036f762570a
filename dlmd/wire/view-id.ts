/**
 * Names of views. An epoch alone is not unique (two proposers may pick the same one), so a view is named by
 * (epoch, proposer, proposer's incarnation), compared whole (hazard H4).
 */

import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";

/** No cluster comes to it by its views. Who took a higher one could not count on from it, nor could its next life (hazard H4). */
export const maxEpoch: number = 2 ** 48;

/** Names a view. Epoch 0 is "no view yet". */
export interface ViewId {
  readonly epoch: number;
  /** Its nodeid. */
  readonly proposer: number;
  /** The proposer's incarnation, 16 hex digits. */
  readonly incarnation: string;
}

/** A member of a view: a nodeid in one of its lives. */
export interface Member {
  readonly nodeid: number;
  readonly incarnation: string;
}

/** The nodes whose votes count from a view on, ascending, if not all do: some left, or are missing with last_man_standing. */
export interface Electorate {
  readonly nodeids: readonly number[];
  /** Those of before, whose votes must be enough as well until every member of that view has the change on disk; null: it has. */
  readonly former: readonly number[] | null;
}

/** Who counts from a quorate view on. */
export interface Counting {
  readonly id: ViewId;
  /** null: all nodes of the configuration count. */
  readonly electorate: Electorate | null;
}

/** A quorate view with its members: who holds state of an earlier one and is not among them has been left behind. */
export interface Lineage extends Counting {
  readonly members: readonly Member[];
}

export const noIncarnation = "0000000000000000";

/** Where a node is before its first view. */
export const noView: ViewId = { epoch: 0, proposer: 0, incarnation: noIncarnation };

export const noLineage: Lineage = { id: noView, members: [], electorate: null };

export function sameView(a: ViewId, b: ViewId): boolean {
  return a === b || (a.epoch === b.epoch && a.proposer === b.proposer && a.incarnation === b.incarnation);
}

/**
 * Negative: `a` is before `b`. Of two views with one epoch that of the higher proposer counts as the later one, everywhere alike: if both
 * were quorate, one side is told that it was left behind, instead of both merging what each did.
 */
export function compareViews(a: ViewId, b: ViewId): number {
  if (a.epoch !== b.epoch) return a.epoch - b.epoch;
  if (a.proposer !== b.proposer) return a.proposer - b.proposer;
  return a.incarnation === b.incarnation ? 0 : a.incarnation < b.incarnation ? -1 : 1;
}

/**
 * The one of the later view. Of two of one view the one whose electorate is settled: every member has stored it. Of two that are settled an operator
 * has reset one: that counts when each has it.
 */
export function laterCounting<T extends Counting>(a: T, b: T): T {
  const order = compareViews(b.id, a.id);
  if (order !== 0) return order > 0 ? b : a;
  const rank = ({ electorate }: Counting): number => (electorate === null ? 1 : electorate.former === null ? 2 : 0);
  return rank(b) > rank(a) ? b : a;
}

/** "epoch.proposer.incarnation" */
export function viewName(view: ViewId): string {
  return `${view.epoch}.${view.proposer}.${view.incarnation}`;
}

/** null: it is no name of a view. */
export function parseViewName(name: string): ViewId | null {
  const [, epoch, proposer, incarnation] = /^(\d+)\.(\d+)\.([0-9a-f]{16})$/.exec(name) ?? [];
  if (incarnation === undefined) return null;
  return { epoch: Number(epoch), proposer: Number(proposer), incarnation };
}

export function isIncarnation(text: string): boolean {
  return /^[0-9a-f]{16}$/.test(text);
}

export function hasMember(members: readonly Member[], nodeid: number, incarnation: string): boolean {
  for (const member of members) if (member.nodeid === nodeid && member.incarnation === incarnation) return true;
  return false;
}

export function writeIncarnation(w: ByteWriter, incarnation: string): ByteWriter {
  // Its halves: a bigint would cost more than the rest of a frame.
  return w.u32(Number.parseInt(incarnation.slice(8), 16)).u32(Number.parseInt(incarnation.slice(0, 8), 16));
}

export function readIncarnation(r: ByteReader): string {
  const low = r.u32().toString(16).padStart(8, "0");
  return r.u32().toString(16).padStart(8, "0") + low;
}

/** 18 bytes. */
export function writeViewId(w: ByteWriter, view: ViewId): ByteWriter {
  return writeIncarnation(w.u64(view.epoch).u16(view.proposer), view.incarnation);
}

export function readViewId(r: ByteReader): ViewId {
  return { epoch: readEpoch(r), proposer: r.u16(), incarnation: readIncarnation(r) };
}

export function readEpoch(r: ByteReader): number {
  const value = r.u64();
  if (value > maxEpoch) throw new WireError(`epoch ${value} at offset ${r.offset - 8}, at most ${maxEpoch} allowed`);
  return value;
}
