/**
 * A file that programs append whole records to. Its list of records tells the order of the appends, so no search is needed. Pure.
 *
 * A hole is a record of zeros. A reader may be shown one behind the old end (overlay/EXCEPTIONS.md, S1), and after an owner's death there may be
 * one where an append was answered and not synced: ext4 may have the size on the disk, and not the data.
 */
import { type Call, type Interval, isUnknown } from "./history.ts";

/** What a program sees instead of a record of zeros. */
export const HOLE = "";
/** What it sees where a record is neither whole nor zeros. */
export const TORN = "torn";

interface Append {
  readonly record: string;
  readonly begin: number;
  /** Infinity: unknown. */
  readonly end: number;
}

interface Listing {
  readonly call: Call;
  readonly records: readonly string[];
}

/** `loss`: when answered appends that nobody synced may have been lost; null: never. Gives what is wrong, in words. */
export function checkAppends(calls: readonly Call[], loss: Interval | null): string[] {
  const appends = new Map<string, Append>();
  for (const call of calls) {
    if (call.action.kind !== "append" || (call.error !== null && !isUnknown(call))) continue;
    const { record } = call.action;
    appends.set(record, { record, begin: call.begin, end: isUnknown(call) ? Number.POSITIVE_INFINITY : call.end });
  }
  const listings = calls
    .filter((call) => call.action.kind === "readAll" && call.error === null && call.end !== Number.POSITIVE_INFINITY)
    .map((call): Listing => ({ call, records: call.value as readonly string[] }));
  const wrong = listings.flatMap((listing) => checkListing(listing, appends));
  // What overlaps the loss may be of either side; what is wrong with it alone was looked at.
  const before = loss === null ? listings : listings.filter(({ call }) => call.end < loss.begin);
  const after = loss === null ? [] : listings.filter(({ call }) => call.begin > loss.end);
  const lossless = (list: readonly Append[]): readonly Append[] => list.filter(({ end }) => end !== Number.POSITIVE_INFINITY);
  const all = lossless([...appends.values()]);
  if (loss === null) return [...wrong, ...checkOneAge(listings, all)];
  const afterLoss = all.filter(({ begin }) => begin > loss.end);
  const synced = calls.filter(({ action, error, end }) => action.kind === "sync" && error === null && end < loss.begin);
  const isDurable = (append: Append): boolean => synced.some(({ begin }) => append.end < begin);
  const durable = all.filter(isDurable);
  return [...wrong, ...checkOneAge(before, all), ...checkOneAge(after, afterLoss), ...checkAcross(before.at(-1), after, durable)];
}

function at({ call }: Listing): string {
  return `readAll ${call.client}#${call.index} of ${call.object}`;
}

/** Each record was appended by a call that had begun, and is there once. */
function checkListing(listing: Listing, appends: ReadonlyMap<string, Append>): string[] {
  const seen = new Set<string>();
  return listing.records.flatMap((record, place) => {
    if (record === HOLE) return [];
    if (record === TORN) return [`${at(listing)}: record ${place} is torn`];
    const append = appends.get(record);
    if (append === undefined) return [`${at(listing)}: record ${place}, ${record}, was never appended, or its append failed`];
    if (append.begin > listing.call.end) return [`${at(listing)}: record ${record} is there before its append had begun`];
    if (seen.has(record)) return [`${at(listing)}: record ${record} is there twice`];
    seen.add(record);
    return [];
  });
}

/** Between two losses: lists only grow, and have all that was appended before, in the order of the calls. */
function checkOneAge(listings: readonly Listing[], appends: readonly Append[]): string[] {
  const last = listings.reduce<Listing | null>(
    (most, one) => (most === null || one.records.length >= most.records.length ? one : most),
    null,
  );
  if (last === null) return [];
  return [
    ...listings.flatMap((listing) => checkPrefix(listing, last)),
    ...checkGrowth(listings),
    ...listings.flatMap((listing) => checkComplete(listing, appends)),
    ...checkOrder(last, appends),
  ];
}

function checkPrefix(listing: Listing, last: Listing): string[] {
  const place = listing.records.findIndex(
    (record, index) => record !== HOLE && last.records[index] !== HOLE && record !== last.records[index],
  );
  return place < 0 ? [] : [`${at(listing)}: record ${place} is ${listing.records[place]}, but ${last.records[place]} in ${at(last)}`];
}

function checkGrowth(listings: readonly Listing[]): string[] {
  const byEnd = listings.toSorted((a, b) => a.call.end - b.call.end);
  const byBegin = listings.toSorted((a, b) => a.call.begin - b.call.begin);
  let longest: Listing | null = null;
  let next = 0;
  const wrong: string[] = [];
  for (const listing of byBegin) {
    for (let ended = byEnd[next]; ended !== undefined && ended.call.end < listing.call.begin; ended = byEnd[++next]) {
      if (longest === null || ended.records.length > longest.records.length) longest = ended;
    }
    if (longest !== null && listing.records.length < longest.records.length) {
      wrong.push(`${at(listing)}: ${listing.records.length} records, but ${at(longest)} had ${longest.records.length} before`);
    }
  }
  return wrong;
}

function checkComplete(listing: Listing, appends: readonly Append[]): string[] {
  const there = new Set(listing.records);
  const lost = appends.filter(({ record, end }) => end < listing.call.begin && !there.has(record));
  // One read may show zeros in the place of a record (S1).
  const holes = listing.records.filter((record) => record === HOLE).length;
  return lost.length <= holes && !listing.call.client.startsWith("census")
    ? []
    : lost.map(({ record }) => `${at(listing)}: ${record} is missing, whose append had ended before`);
}

/** Of two appends that did not overlap the first comes first. */
function checkOrder({ records }: Listing, appends: readonly Append[]): string[] {
  const known = new Map(appends.map((append) => [append.record, append]));
  let latest: Append | null = null;
  const wrong: string[] = [];
  for (const record of records) {
    const append = known.get(record);
    if (append === undefined) continue;
    if (latest !== null && append.end < latest.begin)
      wrong.push(`${record} comes after ${latest.record}, whose append began when it had ended`);
    if (latest === null || append.begin > latest.begin) latest = append;
  }
  return wrong;
}

/** Over a loss: what was synced keeps its place, and what is left of the rest does too. */
function checkAcross(before: Listing | undefined, after: readonly Listing[], durable: readonly Append[]): string[] {
  const synced = new Set(durable.map(({ record }) => record));
  return after.flatMap((listing) => {
    const there = new Set(listing.records);
    const lost = [...synced]
      .filter((record) => !there.has(record))
      .map((record) => `${at(listing)}: ${record} is missing, which was synced`);
    const moved = (before?.records ?? []).flatMap((record, place) => {
      if (record === HOLE || !there.has(record) || listing.records[place] === record) return [];
      return [`${at(listing)}: ${record} is no longer at place ${place}`];
    });
    return [...lost, ...moved];
  });
}
