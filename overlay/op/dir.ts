/** READDIR, READDIRPLUS. */
import { E, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { fuseGeneration, type Since } from "../coherence/cover.ts";
import type { ReaddirRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import { isDots } from "../lower/listing-reply.ts";
import type { Attr, DirEntry, DirPage, Entry, Listing, Lower } from "../lower/lower.ts";
import { type Call, LISTING_BYTES_MAX } from "./call.ts";
import { unlessMoved } from "./lookup.ts";
import { fileOf, type Mount } from "./mount.ts";
import { pinned } from "./pinned.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";

/** A listing waits no longer for locks that are elsewhere: it is answered without what has not come. */
const BRING_WAIT_MS = 20;

/** One name of the page on its way to the reply; `child` null: a plain entry, which counts as no lookup. */
interface Row {
  readonly entry: DirEntry;
  readonly child: InodeRecord | null;
  attr: Attr | null;
  pinned: boolean;
}

export function readdir(mount: Mount, call: Call, request: ReaddirRequest): MaybePromise<void> {
  const file = fileOf(mount, request.fh);
  const { endCookie } = file;
  file.endCookie = null;
  // The kernel asks for more once, right behind the last name. Who comes there later may find what was made since.
  if (endCookie !== request.cookie) return list(mount, call, request, file);
  call.listed(call.listing(request.size, request.op === "readdirplus"));
}

async function list(mount: Mount, call: Call, request: ReaddirRequest, file: OpenFile): Promise<void> {
  if (request.op === "readdir") {
    await pinned(mount, call, file.inode, Mode.PR, async () => answerPlain(call, request, await readPage(mount, file, request, "plain")));
    return;
  }
  const away = await readdirplus(mount, call, request, file, false);
  if (away === null) return;
  try {
    await mount.coherence.fetchLocks(away, Mode.PR, BRING_WAIT_MS);
  } finally {
    for (const child of away) mount.inodes.leave(child);
  }
  await readdirplus(mount, call, request, file, true);
}

/**
 * Answers and gives null; or, unless it is the last try, gives the children whose locks are elsewhere, in use until left: under the
 * directory's lock nothing may wait for them (hazard F13), and looking them up one by one would cost a trip each.
 */
function readdirplus(
  mount: Mount,
  call: Call,
  request: ReaddirRequest,
  file: OpenFile,
  lastTry: boolean,
): MaybePromise<readonly InodeRecord[] | null> {
  const dir = file.inode;
  return pinned(mount, call, dir, Mode.PR, async () => {
    const since = mount.coherence.since();
    const page = await readPlus(mount, file, request);
    return await answerPlus(mount, call, request, dir, page, since, lastTry);
  });
}

const END: DirPage = { entries: [], end: true };

/** A removed directory has no entries (hazard F18); an open one says ENOENT itself. */
async function readPage(mount: Mount, file: OpenFile, request: ReaddirRequest, listing: Listing): Promise<DirPage> {
  try {
    const page = await mount.lower.readdir(file.lowerHandle, request.cookie, Math.min(request.size, LISTING_BYTES_MAX), listing);
    file.endCookie = page.end ? (page.entries.at(-1)?.cookie ?? null) : null;
    return page;
  } catch (error) {
    if (isErrno(error, E.ESTALE) || isErrno(error, E.ENOENT)) return END;
    throw error;
  }
}

/**
 * The names, and what is behind those that the kernel does not have: the others go as plain entries, which leave alone what it has. Where
 * most were new, or it has hardly any, that is read in one trip.
 */
async function readPlus(mount: Mount, file: OpenFile, request: ReaddirRequest): Promise<DirPage> {
  const { coherence, lower } = mount;
  const dir = file.inode;
  const atOnce = file.manyNew || (request.cookie === 0n && coherence.names.hasFew(dir));
  const page = await readPage(mount, file, request, atOnce ? "entries" : "names");
  const fresh = page.entries.filter(({ name }) => !isDots(name) && !coherence.names.isTold(dir, name));
  file.manyNew = fresh.length * 2 > page.entries.length;
  const found = atOnce ? fresh.map(({ entry }) => entry) : await lookUpNames(lower, dir, fresh);
  const behind = new Map(fresh.map((entry, at) => [entry, found[at] ?? null]));
  const entries = page.entries.map((entry): DirEntry => {
    const { name, type, ino, cookie } = entry;
    const one = behind.get(entry) ?? null;
    return one === null ? { name, type, ino, cookie } : { name, type, ino, cookie, entry: one };
  });
  return { entries, end: page.end };
}

async function lookUpNames(lower: Lower, dir: InodeRecord, entries: readonly DirEntry[]): Promise<readonly (Entry | null)[]> {
  if (entries.length === 0) return [];
  try {
    return await lower.lookupMany(
      dir.id,
      entries.map(({ name }) => name),
    );
  } catch (error) {
    if (isErrno(error, E.ESTALE)) return [];
    throw error;
  }
}

function answerPlain(call: Call, request: ReaddirRequest, page: DirPage): void {
  const listing = call.listing(request.size, false);
  for (const { name, type, ino, cookie } of page.entries) if (!listing.add(name, type, ino, cookie)) break;
  call.listed(listing);
}

async function answerPlus(
  mount: Mount,
  call: Call,
  request: ReaddirRequest,
  dir: InodeRecord,
  page: DirPage,
  since: Since,
  lastTry: boolean,
): Promise<readonly InodeRecord[] | null> {
  const { coherence, inodes } = mount;
  const rows = page.entries.map((entry): Row => {
    const { entry: found } = entry;
    if (found === undefined) return { entry, child: null, attr: null, pinned: false };
    return { entry, child: inodes.remember(found.id, found.attr.mode), attr: found.attr, pinned: false };
  });
  try {
    await pinRows(mount, rows, since);
    mount.filesAhead.listed(
      dir.cover.key,
      rows.flatMap(({ entry: { name }, child, attr, pinned }) =>
        child === null || attr === null || !pinned ? [] : [{ id: child.id, attr, name }],
      ),
      request.cookie === 0n,
    );
    const away = lastTry ? [] : rows.flatMap((row) => (row.child === null || row.pinned ? [] : [row.child]));
    if (away.length === 0) {
      answerRows(mount, call, request, dir, rows, since);
      return null;
    }
    for (const child of away) inodes.use(child);
    return away;
  } finally {
    for (const { child, pinned } of rows) {
      if (child === null) continue;
      if (pinned) coherence.unpin(child, Mode.PR);
      inodes.leave(child);
    }
  }
}

/** Pins what can be had without waiting for other nodes, all in one message, and reads those anew whose lock took a trip. */
async function pinRows(mount: Mount, rows: readonly Row[], since: Since): Promise<void> {
  const wanted = rows.filter((row): row is Row & { child: InodeRecord } => row.child !== null);
  const pins = await mount.coherence.pinChildren(
    wanted.map((row) => row.child),
    since,
  );
  const outdated: (Row & { child: InodeRecord })[] = [];
  wanted.forEach((row, at) => {
    const pin = pins[at];
    row.pinned = pin?.pinned === true;
    if (row.pinned && pin?.trip === true) outdated.push(row);
  });
  if (outdated.length === 0) return;
  const attrs = await mount.lower.getattrMany(outdated.map((row) => row.child.id));
  outdated.forEach((row, at) => {
    row.attr = attrs[at] ?? null;
  });
}

function answerRows(mount: Mount, call: Call, request: ReaddirRequest, dir: InodeRecord, rows: readonly Row[], since: Since): void {
  // Its caller has gone: it installs nothing, and nothing would show when the listing is over.
  if (call.interrupted) return;
  const { coherence } = mount;
  // The owner died after it had given the names, or a killed change has outdated them. The kernel takes those of a listing for as new as their
  // answer (fs/fuse/readdir.c, fuse_direntplus_link), and not, as that of a LOOKUP, for as old as the question.
  const doubtful = coherence.ownerDied(since) || coherence.namesDropped(since);
  // Hazard F48.
  const underWay = coherence.names.listing(dir, request.fh, call.pid);
  const listing = call.listing(request.size, true);
  const counted: InodeRecord[] = [];
  for (const { entry, child, attr, pinned } of rows) {
    const { name, type, ino, cookie } = entry;
    if (doubtful || child === null || attr === null || !pinned || !coherence.sizes.known(child)) {
      if (!listing.add(name, type, ino, cookie)) break;
      continue;
    }
    if (!listing.fits(name.length)) break;
    child.nlinkHint = attr.nlink;
    // Hazard F46.
    const { entryValid, attrValid } = unlessMoved(
      mount,
      child,
      coherence.terms.of(child, attr.size, call.pid, since, { dir, name, listing: underWay }),
    );
    listing.addPlus(name, type, cookie, child.fuseNodeid, fuseGeneration(child), attr, entryValid, attrValid);
    mount.inodes.telling(child);
    counted.push(child);
  }
  const given = call.listed(listing);
  for (const child of counted) mount.inodes.told(child, given);
}
