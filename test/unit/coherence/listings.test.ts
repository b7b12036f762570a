/** Hazard F48: names of a listing are as new as the moment at which its thread installs them, whatever INC_EPOCH came before. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { Cover, type Inode, type Listing } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { Invalidation, type KernelCaches, LISTING_WAIT_MS } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { InodeTable } from "../../../overlay/inode/table.ts";
import type { LowerHandle } from "../../../overlay/lower/lower.ts";
import { perform } from "../../../overlay/op/perform.ts";
import { FILE } from "../op/scripted-lower.ts";
import { Workbench } from "../op/workbench.ts";
import { fail, lockspaceThatGrants, shellOver } from "./shell-lab.ts";
import { ToldNames } from "../../../overlay/coherence/told-names.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { allOver, type Heard, LISTINGS_MAX } from "../../../overlay/coherence/names/listings.ts";
import { dropUnchanged, moveName, planExpiry, tellName } from "../../../overlay/coherence/names/names.ts";

const NAME = Buffer.from("name");
const OTHER = Buffer.from("other");
let state: CoherenceState;
let numbers = 10;
beforeEach(() => {
  state = new CoherenceState();
});

function directory(): Cover {
  numbers += 1;
  const cover = new Cover({ ino: numbers, generation: 1 }, "directory");
  cover.inode = { fuseNodeid: numbers, id: cover.id, kind: "directory", nlookup: 1, openCount: 0, mappableCount: 0, cover };
  return cover;
}
function file(): Cover {
  numbers += 1;
  return new Cover({ ino: numbers, generation: 1 }, "file");
}
/** A listing of one name is answered. */
function list(dir: Cover, { fh = 1, tid = 100, name = NAME, child = file() } = {}): Listing {
  const listing = state.listings.of(dir, fh, tid) as Listing;
  tellName(dir, name, child, true, state.epoch, 0, false, true);
  state.listings.begin(listing);
  return listing;
}
const plannedNames = (dir: Cover): string[] => planExpiry(dir, state.epoch, 0).names.map(({ name }) => name.toString());

describe("a name of a listing", () => {
  it("is expired although the epoch was raised since, while the listing is under way", () => {
    const dir = directory();
    list(dir);
    tellName(dir, OTHER, file(), true, state.epoch, 0, false);
    state.epoch += 1;
    expect(plannedNames(dir)).toEqual(["name"]);
  });

  it("is expired if the epoch was raised before the listing ended, and not if that was afterwards", () => {
    const dir = directory();
    const listing = list(dir);
    state.epoch += 1;
    state.listings.over([listing], state.epoch);
    expect(plannedNames(dir)).toEqual(["name"]);
    expect(plannedNames(dir)).toEqual([]);

    const again = list(dir);
    state.listings.over([again], state.epoch);
    state.epoch += 1;
    expect(plannedNames(dir)).toEqual([]);
  });

  it("is expired at each revoke until the listing has ended", () => {
    const dir = directory();
    const listing = list(dir);
    expect([plannedNames(dir), plannedNames(dir)]).toEqual([["name"], ["name"]]);
    state.listings.over([listing], state.epoch);
    expect([plannedNames(dir), plannedNames(dir)]).toEqual([["name"], []]);
  });

  it("stays so when it is told again without validity, and with the name that it is moved to", () => {
    const dir = directory();
    const listing = list(dir);
    tellName(dir, NAME, file(), false, state.epoch, 0);
    expect(plannedNames(dir)).toEqual(["name"]);
    state.epoch += 1;
    state.listings.over([listing], state.epoch);
    const to = directory();
    moveName(dir, NAME, to, OTHER, state.epoch, 0);
    expect(plannedNames(to)).toEqual(["other"]);
  });

  it("of an answer without validity leaves what the kernel was told before", () => {
    const dir = directory();
    const child = file();
    tellName(dir, NAME, child, true, state.epoch, 0, false);
    tellName(dir, NAME, child, false, state.epoch, 0, false, true);
    expect(plannedNames(dir)).toEqual(["name"]);
  });

  it("that was told since it was dropped elsewhere stays known", () => {
    const dir = directory();
    const child = file();
    tellName(dir, NAME, child, true, state.epoch, 0, false);
    const told = child.toldIn;
    expect(told).not.toBeNull();
    const asked = { ...told! };
    list(dir, { child });
    dropUnchanged(told!, asked);
    expect(plannedNames(dir)).toEqual(["name"]);
  });
});

describe("a listing is over", () => {
  const ends: readonly (readonly [string, Heard, boolean])[] = [
    ["its thread asks for something new", { op: "lookup", pid: 100 }, true],
    ["another thread asks", { op: "lookup", pid: 101 }, false],
    ["its thread reads what its buffer is a mapping of", { op: "read", pid: 100 }, false],
    ["its thread asks for attributes for such a mapping", { op: "getattr", pid: 100 }, false],
    ["a security module asks for the label of a new inode", { op: "getxattr", pid: 100 }, false],
    ["its handle is read again", { op: "readdirplus", pid: 101, fh: 1 }, true],
    ["its handle is closed", { op: "releasedir", pid: 0, fh: 1 }, true],
    ["another handle is closed", { op: "releasedir", pid: 0, fh: 2 }, false],
    ["its handle is synced, of which nothing is made", { op: "fsyncdir", pid: 101, fh: 1 }, false],
    ["a file has the same handle", { op: "release", pid: 0, fh: 1 }, false],
    ["the kernel has the directory locked for another thread", { op: "create", pid: 101 }, true],
    ["an unnamed file is made in the directory, which locks nothing", { op: "tmpfile", pid: 101 }, false],
  ];
  it.each(ends)("%s: %j is %s", (_what, request, isOver) => {
    const dir = directory();
    list(dir);
    state.listings.heard(request, dir, state.epoch);
    expect([state.listings.size, dir.names?.listings.length]).toEqual(isOver ? [0, 0] : [1, 1]);
  });

  it("not when another directory is locked", () => {
    const [dir, other] = [directory(), directory()];
    list(dir);
    list(other, { fh: 2, tid: 101 });
    state.listings.heard({ op: "unlink", pid: 102 }, other, state.epoch);
    expect([...state.listings.all()].map(({ dir: one }) => one)).toEqual([dir]);
  });

  it("and whoever waits for all of a directory goes on at the last", async () => {
    const dir = directory();
    const both = [list(dir), list(dir, { fh: 2, tid: 101 })];
    let isOver = false;
    const waits = allOver(both).then(() => (isOver = true));
    state.listings.heard({ op: "lookup", pid: 100 }, null, state.epoch);
    await new Promise(setImmediate);
    expect(isOver).toBe(false);
    state.listings.heard({ op: "lookup", pid: 101 }, null, state.epoch);
    await waits;
  });

  it("whatever has become of its directory: it is not followed any more", () => {
    const dir = directory();
    const listing = list(dir);
    dir.names = null;
    state.listings.over([listing], state.epoch);
    expect(state.listings.size).toBe(0);
  });

  it("though another one has its handle and its thread by now", () => {
    const [dir, other] = [directory(), directory()];
    const listing = list(dir);
    list(other);
    state.listings.over([listing], state.epoch);
    expect([dir.names?.listings.length, other.names?.listings.length, state.listings.size]).toEqual([0, 1, 1]);
  });

  it("is not followed beyond LISTINGS_MAX, or of a thread that can not be seen: no name of it may be valid", () => {
    expect(state.listings.of(directory(), 1, 0)).toBeNull();
    for (let at = 1; at <= LISTINGS_MAX; at += 1) list(directory(), { fh: at, tid: at });
    expect(state.listings.of(directory(), 9999, 9999)).toBeNull();
    state.listings.heard({ op: "lookup", pid: 7 }, null, state.epoch);
    expect(state.listings.of(directory(), 9999, 9999)).not.toBeNull();
  });
});

describe("what is told with a listing", () => {
  function told(): ToldNames {
    const invalidation = new Invalidation({} as KernelCaches, state, () => false, fail);
    return new ToldNames(state, invalidation, { mayBeValid: true, now: () => 0 });
  }
  const inodeOf = (cover: Cover): Inode => cover.inode as Inode;
  function here(): Cover {
    const dir = directory();
    dir.mode = Mode.PR;
    return dir;
  }

  it("is followed from the first valid name on, until a request says that it is over", () => {
    const [names, dir] = [told(), here()];
    const listing = names.listing(inodeOf(dir), 1, 100);
    expect([listing?.dir, state.listings.size]).toEqual([dir, 0]);
    expect(names.tellEntry(inodeOf(dir), NAME, inodeOf(directory()), undefined, listing)).toBe(true);
    expect([...state.listings.all()]).toEqual([listing]);
    state.epoch += 1;
    expect(plannedNames(dir)).toEqual(["name"]);
    names.heard({ op: "lookup", pid: 100 }, undefined);
    expect(state.listings.size).toBe(0);
  });

  it("has no validity where nothing would tell that the listing is over", () => {
    const [names, dir] = [told(), here()];
    const listing = names.listing(inodeOf(dir), 1, 0);
    expect(names.tellEntry(inodeOf(dir), NAME, inodeOf(directory()), undefined, listing)).toBe(false);
    expect(plannedNames(dir)).toEqual([]);
  });
});

describe("a revoke by epoch", () => {
  const asked: string[] = [];
  /** The kernel drops no name before that. */
  let expired: Promise<number[]>;
  let expire: (results: number[]) => void;
  let failed: Error[];
  let invalidation: Invalidation;
  beforeEach(() => {
    asked.length = 0;
    failed = [];
    expired = new Promise((resolve) => (expire = resolve));
    const answer = (what: string): Promise<number[]> => {
      asked.push(what);
      return Promise.resolve([0]);
    };
    const caches = {
      expireNames: (_fuseNodeid: number, some: readonly unknown[]) => {
        asked.push(`${some.length} names`);
        return expired;
      },
      incrementEpoch: () => answer("epoch"),
      invalidateAttributes: () => answer("attributes"),
      invalidateMany: () => ({ write: () => Promise.resolve(0), begun: () => 0, refused: () => [] }),
    } as unknown as KernelCaches;
    invalidation = new Invalidation(
      caches,
      state,
      () => false,
      (error) => failed.push(error),
    );
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  const round = (dir: Cover, isLocked = true): Promise<unknown> =>
    invalidation.round(dir, { what: "names", expiry: planExpiry(dir, state.epoch, 0, isLocked) });

  it("waits for the listing: its thread asks again", async () => {
    const dir = directory();
    list(dir);
    tellName(dir, OTHER, file(), true, state.epoch, 0, false);
    const over = round(dir);
    await vi.advanceTimersByTimeAsync(LISTING_WAIT_MS - 1);
    expect([asked, state.epoch]).toEqual([["2 names"], 1]);
    state.listings.heard({ op: "lookup", pid: 100 }, null, state.epoch);
    await over;
    expect([asked, state.epoch, invalidation.counts.listingsLeft]).toEqual([["2 names", "epoch", "attributes"], 2, 0]);
    expect(plannedNames(dir)).toEqual([]);
  });

  it("waits for the listing: the kernel has locked the directory for the expiry", async () => {
    const dir = directory();
    list(dir);
    const over = round(dir);
    await vi.advanceTimersByTimeAsync(1);
    expire([0]);
    await over;
    expect([asked, state.listings.size]).toEqual([["1 names", "epoch", "attributes"], 0]);
  });

  it("that follows names left behind waits as well", async () => {
    const dir = directory();
    list(dir);
    const over = round(dir, false);
    await vi.advanceTimersByTimeAsync(100);
    expect(asked).toEqual(["1 names", "1 names"]);
    state.listings.heard({ op: "releasedir", pid: 0, fh: 1 }, null, state.epoch);
    await over;
    expect(asked).toEqual(["1 names", "1 names", "epoch", "attributes"]);
  });

  it("goes on after LISTING_WAIT_MS, and has all names expired behind the listing", async () => {
    const dir = directory();
    list(dir);
    tellName(dir, OTHER, file(), true, state.epoch, 0, false);
    const over = round(dir);
    await vi.advanceTimersByTimeAsync(LISTING_WAIT_MS);
    await over;
    expect([asked, invalidation.counts.listingsLeft]).toEqual([["2 names", "epoch", "attributes"], 1]);
    expire([-22]);
    await vi.advanceTimersByTimeAsync(0);
    expect(failed.map(({ message }) => message)).toEqual([expect.stringContaining("EINVAL")]);
  });

  it("waits once for a thread that is held up: the next revokes wait for nobody, and leave nothing more behind", async () => {
    const dir = directory();
    list(dir);
    const first = round(dir);
    await vi.advanceTimersByTimeAsync(LISTING_WAIT_MS);
    await first;
    asked.length = 0;
    for (let times = 0; times < 3; times += 1) await round(dir);
    expect([asked, state.epoch, invalidation.counts.listingsLeft]).toEqual([["attributes", "attributes", "attributes"], 2, 1]);
    // What another listing tells meanwhile is waited for.
    list(dir, { fh: 2, tid: 101 });
    const again = round(dir);
    await vi.advanceTimersByTimeAsync(LISTING_WAIT_MS - 1);
    expect(asked.slice(3)).toEqual(["1 names"]);
    state.listings.heard({ op: "lookup", pid: 101 }, null, state.epoch);
    await again;
  });

  it("takes no expiry that failed for the proof that a listing is over", async () => {
    const dir = directory();
    list(dir);
    const over = round(dir);
    expire([-12]);
    await expect(over).rejects.toThrow("ENOMEM");
    expect([state.listings.size, state.epoch]).toEqual([1, 1]);
  });

  it("waits for nobody where nothing is listed", async () => {
    const dir = directory();
    tellName(dir, NAME, file(), true, state.epoch, 0, false);
    await round(dir);
    expect(asked).toEqual(["epoch", "attributes"]);
  });

  it("expires one by one if the kernel has the directory free: that ends the listing, and its names are expired", async () => {
    const dir = directory();
    list(dir);
    expire([0]);
    await round(dir, false);
    expect([asked, state.listings.size, plannedNames(dir)]).toEqual([["1 names", "attributes"], 0, []]);
  });

  it("all that is cached goes: names of listings under way are expired behind INC_EPOCH", async () => {
    const dir = directory();
    list(dir);
    tellName(dir, OTHER, file(), true, state.epoch, 0, false);
    list(directory(), { fh: 2, tid: 101 });
    const over = invalidation.dropAll([]);
    await vi.advanceTimersByTimeAsync(LISTING_WAIT_MS - 1);
    expect(asked).toEqual(["epoch", "1 names", "1 names"]);
    expire([0]);
    await over;
    expect([state.listings.size, invalidation.counts.listingsLeft]).toEqual([0, 0]);
  });

  it("all that is cached goes: so do names of a listing that ends before INC_EPOCH is said to be written", async () => {
    list(directory());
    expire([0]);
    const over = invalidation.dropAll([]);
    state.listings.heard({ op: "lookup", pid: 100 }, null, state.epoch);
    await over;
    expect(asked).toEqual(["epoch", "1 names"]);
  });

  it("all that is cached goes: a thread that takes longer than LISTING_WAIT_MS is left behind", async () => {
    list(directory());
    const over = invalidation.dropAll([]);
    await vi.advanceTimersByTimeAsync(LISTING_WAIT_MS);
    await over;
    expect([asked, invalidation.counts.listingsLeft]).toEqual([["epoch", "1 names"], 1]);
    expire([-22]);
    await vi.advanceTimersByTimeAsync(0);
    expect(failed.map(({ message }) => message)).toEqual([expect.stringContaining("EINVAL")]);
  });

  it("what a killed change may have cached goes: names of listings of its directories, too", async () => {
    const [dir, other] = [directory(), directory()];
    list(dir);
    list(other, { fh: 2, tid: 101 });
    const over = invalidation.dropKernelCaches([dir.inode as Inode], true);
    await vi.advanceTimersByTimeAsync(LISTING_WAIT_MS - 1);
    expect(asked).toEqual(["epoch", "1 names", "attributes"]);
    expire([0]);
    await over;
    expect([...state.listings.all()].map((one) => one.dir)).toEqual([other]);
  });
});

describe("a READDIRPLUS that looks at a name before the rename of a killed caller is made", () => {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const NODEID_AT = 0;

  it("does not tell that name when it is answered after all names were dropped for the rename", async () => {
    const done: string[] = [];
    const incrementEpoch = (): Promise<number[]> => {
      done.push("epoch");
      return Promise.resolve([0]);
    };
    const shell = shellOver(lockspaceThatGrants([]).lockspace, { incrementEpoch });
    const bench = new Workbench();
    const { lower } = bench;
    const inodes = new InodeTable({ root: lower.root, createCover: (id, kind) => shell.createCover(id, kind), dropped: () => undefined });
    const mount = { ...bench.mount, coherence: shell.operations, inodes };
    const child = inodes.remember(FILE, 0o100644);
    child.nlookup = 1;
    inodes.leave(child);
    const { fh } = mount.handles.add(inodes.root, 78 as LowerHandle, false, true, false, false);
    const serve = (request: Parameters<Workbench["serve"]>[0], call = bench.call(request.op)): Promise<unknown> =>
      bench.serve(request, call, (given, decoded) => perform(mount, given, decoded));

    let rename = (): void => undefined;
    lower.held.set("rename", new Promise((resolve) => (rename = resolve)));
    const call = bench.call("rename");
    const renamed = serve({ op: "rename", name: NAME, newFuseNodeid: 1, newName: OTHER, flags: 0 }, call);
    while (!lower.calls.includes("rename")) await turn();
    // The kernel has let go of the directory.
    call.interrupt();
    let look = (): void => undefined;
    lower.held.set("readdir", new Promise((resolve) => (look = resolve)));
    const listed = serve({ op: "readdirplus", fh, cookie: 0n, size: 4096 });
    while (!lower.calls.includes("readdir")) await turn();
    rename();
    await renamed;
    expect([bench.replies.map(({ errno }) => errno), done]).toEqual([[E.EINTR], ["epoch"]]);
    look();
    await listed;
    // A plain entry: the kernel would install it under the present epoch (fs/fuse/readdir.c, fuse_direntplus_link).
    const { errno, body } = bench.replies.at(-1) ?? {};
    expect([errno, body?.readBigUInt64LE(NODEID_AT), body?.includes(NAME)]).toEqual([0, 0n, true]);
    expect(shell.operations.names.toldChild(inodes.root, NAME)).toBe(undefined);

    // What is listed from then on is told.
    await serve({ op: "readdirplus", fh, cookie: 0n, size: 4096 });
    expect(bench.replies.at(-1)?.body.readBigUInt64LE(NODEID_AT)).toBe(BigInt(child.fuseNodeid));
  });
});
