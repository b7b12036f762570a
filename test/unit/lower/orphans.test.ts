/** H10: open files without a name, on real file systems, from owner to owner. */
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { Holds } from "../../../overlay/lower/remote/known.ts";
import { createRemoteLower, type RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import type { LowerServer } from "../../../overlay/lower/server/server.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type Native, nativeAddon } from "../../../native/index.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import {
  directoryPlace,
  type Image,
  listenOn,
  makeImage,
  ownedLower,
  type Place,
  TEST_CALLER,
  testServer,
} from "../../compliance/lower-fixture.ts";
import { bytes, errnoOf, RDWR, root } from "../../compliance/lower-bench.ts";
import { until } from "./remote-lab.ts";

const ORPHANS = ".coverlay.orphans";
const MEBIBYTE = 1024 * 1024;
const O_TRUNC = 0o1000;

describe.each([
  ["ext4", "inline"],
  ["ext4", "pool"],
  ["xfs", "inline"],
] as const)("%s, changes of names %s", (type, metadataCalls) => {
  let image: Image;
  let place: Place;
  let lower: LocalLower;

  /** Another owner on the same disk, after the one before has ended in good order. */
  async function nextOwner(): Promise<void> {
    await lower.shutdown();
    await place.release();
    place = image.mount();
    lower = await ownedLower(place.rootFd, metadataCalls);
  }

  beforeEach(async () => {
    image = makeImage(type, type === "ext4" ? 32 : 320);
    place = image.mount();
    lower = await ownedLower(place.rootFd, metadataCalls);
    await lower.recoverOrphans();
  });
  afterEach(async () => {
    await lower.shutdown();
    await place.release();
    image.remove();
  });

  const orphans = (): string[] => fs.readdirSync(`${place.path}/${ORPHANS}`);
  const until0 = (): Promise<void> => until(() => lower.orphanCount === 0 && orphans().length === 0);

  async function make(name: string, content = "content"): Promise<{ id: FileId; handle: LowerHandle }> {
    const { entry, handle } = await lower.create(lower.root, bytes(name), RDWR, 0o644, root);
    await lower.write(handle, Buffer.from(content), 0, false);
    return { id: entry.id, handle };
  }

  const textOf = async (handle: LowerHandle): Promise<string> => Buffer.from(await lower.read(handle, 0, 100)).toString();

  it("the hidden directory is root's, and neither listed nor counted nor found", async () => {
    const stat = fs.statSync(`${place.path}/${ORPHANS}`);
    expect([stat.mode & 0o7777, stat.uid, stat.isDirectory()]).toEqual([0o700, 0, true]);
    const handle = await lower.opendir(lower.root);
    const page = await lower.readdir(handle, 0n, 65536, "entries");
    expect(page.entries.map(({ name }) => name.toString())).not.toContain(ORPHANS);
    lower.close(handle);
    const before = (await lower.getattr(lower.root)).nlink;
    expect(before).toBe(fs.statSync(place.path).nlink - 1);
    expect(await errnoOf(() => lower.lookup(lower.root, bytes(ORPHANS)))).toBe(E.ENOENT);
    expect(await errnoOf(() => lower.mkdir(lower.root, bytes(ORPHANS), 0o755, root))).toBe(E.EPERM);
    expect(await errnoOf(() => lower.rmdir(lower.root, bytes(ORPHANS), { ino: stat.ino, generation: 0 }))).toBe(E.ENOENT);
  });

  it("a file that is unlinked while open is used as before, has no link, and ends with its last close", async () => {
    const { id, handle } = await make("f");
    const second = await lower.open(id, RDWR);
    const { ctimeSec, ctimeNsec } = await lower.getattr(id);
    await lower.unlink(lower.root, bytes("f"), id);
    expect(orphans()).toEqual([`${id.ino}.${id.generation}`]);
    const attr = await lower.getattr(id);
    expect(attr.nlink).toBe(0);
    expect(attr.ctimeSec > ctimeSec || (attr.ctimeSec === ctimeSec && attr.ctimeNsec >= ctimeNsec)).toBe(true);
    expect((await lower.getattrMany([id]))[0]?.nlink).toBe(0);
    expect((await lower.setattr(id, { size: 4 }, handle)).nlink).toBe(0);
    expect((await lower.setattr(id, { mode: 0o600 }, null)).nlink).toBe(0);
    await lower.write(second, Buffer.from("CONT"), 0, false);
    await lower.fallocate(handle, 0, 0, 8192);
    await lower.fsync(second, false);
    expect(await textOf(handle)).toMatch(/^CONT\0/);
    expect(await errnoOf(() => lower.link(id, lower.root, bytes("again")))).toBe(E.ENOENT);
    expect(await errnoOf(() => lower.lookup(lower.root, bytes("f")))).toBe(E.ENOENT);
    lower.close(handle);
    expect(orphans()).toHaveLength(1);
    lower.close(second);
    await until0();
  });

  it("a file that nobody has open, or that has another name, is not moved", async () => {
    const { id, handle } = await make("f");
    lower.close(handle);
    await lower.unlink(lower.root, bytes("f"), id);
    const linked = await make("one");
    await lower.link(linked.id, lower.root, bytes("two"));
    await lower.unlink(lower.root, bytes("one"), linked.id);
    expect((await lower.getattr(linked.id)).nlink).toBe(1);
    expect([lower.orphanCount, orphans()]).toEqual([0, []]);
    await lower.unlink(lower.root, bytes("two"), linked.id);
    expect([lower.orphanCount, (await lower.getattr(linked.id)).nlink]).toEqual([1, 0]);
    lower.close(linked.handle);
    await until0();
  });

  it("a file that a rename replaces while it is open is used as before, and ends with its last close", async () => {
    const victim = await make("victim", "victim");
    const moved = await make("moved", "moved");
    await lower.rename(lower.root, bytes("moved"), lower.root, bytes("victim"), 0, moved.id, victim.id);
    expect([(await lower.getattr(victim.id)).nlink, (await lower.getattr(moved.id)).nlink]).toEqual([0, 1]);
    expect(await textOf(victim.handle)).toBe("victim");
    expect((await lower.lookup(lower.root, bytes("victim"))).id).toEqual(moved.id);
    lower.close(moved.handle);
    expect(orphans()).toEqual([`${victim.id.ino}.${victim.id.generation}`]);
    lower.close(victim.handle);
    await until0();
  });

  it("a rename that fails leaves its victim as it was, with one link and no second name", async () => {
    const victim = await make("victim");
    const moved = await make("moved");
    const before = fs.statSync(`${place.path}/victim`);
    // Not known to this kernel.
    expect(await errnoOf(() => lower.rename(lower.root, bytes("moved"), lower.root, bytes("victim"), 0x80, moved.id, victim.id))).toBe(
      E.EINVAL,
    );
    expect([fs.statSync(`${place.path}/victim`).nlink, before.nlink, (await lower.getattr(victim.id)).nlink]).toEqual([1, 1, 1]);
    expect([lower.orphanCount, orphans()]).toEqual([0, []]);
    lower.close(victim.handle);
    lower.close(moved.handle);
  });

  it("what is being opened when it is unlinked counts as open", async () => {
    const { id, handle } = await make("f");
    lower.close(handle);
    const opening = lower.open(id, RDWR | O_TRUNC);
    const unlinking = lower.unlink(lower.root, bytes("f"), id);
    const opened = await opening;
    await unlinking;
    expect([lower.orphanCount, (await lower.getattr(id)).nlink]).toEqual([1, 0]);
    lower.close(opened);
    await until0();
  });

  it("names of 255 bytes", async () => {
    const long = "n".repeat(255);
    const { id, handle } = await make(long);
    await lower.unlink(lower.root, bytes(long), id);
    expect(lower.orphanCount).toBe(1);
    lower.close(handle);
    await until0();
  });

  it("a directory that is removed while open: nothing can be made in it, its listing says ENOENT, and it ends with its last close", async () => {
    const { id } = await lower.mkdir(lower.root, bytes("d"), 0o755, root);
    const { handle: full, entry } = await lower.create(id, bytes("f"), RDWR, 0o644, root);
    const handle = await lower.opendir(id);
    expect(await errnoOf(() => lower.rmdir(lower.root, bytes("d"), id))).toBe(E.ENOTEMPTY);
    expect((await lower.getattr(id)).nlink).toBe(2);
    await lower.unlink(id, bytes("f"), entry.id);
    lower.close(full);
    const links = (await lower.getattr(lower.root)).nlink;
    await lower.rmdir(lower.root, bytes("d"), id);
    expect([(await lower.getattr(id)).nlink, (await lower.getattr(lower.root)).nlink]).toEqual([0, links - 1]);
    expect(await errnoOf(() => lower.create(id, bytes("g"), RDWR, 0o644, root))).toBe(E.ESTALE);
    expect(await errnoOf(() => lower.mkdir(id, bytes("g"), 0o755, root))).toBe(E.ESTALE);
    expect(await errnoOf(() => lower.lookup(id, bytes("g")))).toBe(E.ESTALE);
    expect(await errnoOf(() => lower.readdir(handle, 0n, 4096, "plain"))).toBe(E.ENOENT);
    expect(orphans()).toHaveLength(1);
    lower.close(handle);
    await until0();
  });

  it("what waits for the end of the rmdir of an open directory is not made in it, and none of its space is lost", async () => {
    const { id } = await lower.mkdir(lower.root, bytes("d"), 0o755, root);
    const { id: file, handle } = await make("f");
    const open = await lower.opendir(id);
    const calls = [
      () => lower.rmdir(lower.root, bytes("d"), id),
      () => lower.create(id, bytes("created"), RDWR, 0o644, root),
      () => lower.mkdir(id, bytes("directory"), 0o755, root),
      () => lower.mknod(id, bytes("node"), 0o100644, 0, 0, root),
      () => lower.symlink(id, bytes("symlink"), bytes("f"), root),
      () => lower.link(file, id, bytes("link")),
      () => lower.rename(lower.root, bytes("f"), id, bytes("moved"), 0, file, null),
      () => lower.rename(id, bytes("none"), lower.root, bytes("g"), 0, file, null),
    ];
    const ends = await Promise.all(calls.map(errnoOf));
    expect(ends).toEqual([0, ...calls.slice(1).map(() => E.ESTALE)]);
    expect(fs.readdirSync(`${place.path}/${ORPHANS}/${id.ino}.${id.generation}`)).toEqual([]);
    lower.close(open);
    lower.close(handle);
    await until0();
  });

  it("goes on at the next owner, with all its data; what nobody opens again ends once all that were there have come", async () => {
    const kept = await make("kept");
    const left = await make("left");
    const directory = await lower.mkdir(lower.root, bytes("d"), 0o755, root);
    const open = await lower.opendir(directory.id);
    await lower.unlink(lower.root, bytes("kept"), kept.id);
    await lower.unlink(lower.root, bytes("left"), left.id);
    await lower.rmdir(lower.root, bytes("d"), directory.id);
    expect(orphans()).toHaveLength(3);
    lower.leaveOrphans();
    for (const handle of [kept.handle, left.handle, open]) lower.close(handle);
    await nextOwner();
    expect([lower.orphanCount, (await lower.getattr(kept.id)).nlink]).toEqual([3, 0]);
    const handle = await lower.open(kept.id, RDWR);
    expect(await textOf(handle)).toBe("content");
    // A second one of the same file, closed before all that were there have come.
    lower.close(await lower.open(left.id, RDWR));
    expect(orphans()).toHaveLength(3);
    expect(await lower.recoverOrphans()).toBe(2);
    expect(await lower.recoverOrphans()).toBe(0);
    expect(orphans()).toEqual([`${kept.id.ino}.${kept.id.generation}`]);
    await lower.write(handle, Buffer.from("more"), 7, false);
    expect([await textOf(handle), (await lower.getattr(kept.id)).nlink]).toEqual(["contentmore", 0]);
    lower.close(handle);
    await until0();
  });

  it("its space comes back with the last close, at this owner or at the next", async () => {
    const free = (await lower.statfs()).bfree;
    const { id, handle } = await make("f");
    for (let at = 0; at < 8; at += 1) await lower.write(handle, Buffer.alloc(MEBIBYTE, 1), at * MEBIBYTE, false);
    await lower.unlink(lower.root, bytes("f"), id);
    await lower.syncfs();
    const used = free - (await lower.statfs()).bfree;
    expect(used * 4096).toBeGreaterThanOrEqual(8 * MEBIBYTE);
    await nextOwner();
    const again = await lower.open(id, 0);
    await lower.recoverOrphans();
    expect(free - (await lower.statfs()).bfree).toBeGreaterThan(used / 2);
    lower.close(again);
    await until0();
    // XFS frees it a moment later.
    while (free - (await lower.statfs()).bfree > used / 10) await lower.syncfs();
  });

  it("what a rename was to replace when the owner died has its name still, and no second one", async () => {
    const victim = await make("victim");
    lower.close(victim.handle);
    fs.linkSync(`${place.path}/victim`, `${place.path}/${ORPHANS}/${victim.id.ino}.${victim.id.generation}`);
    await nextOwner();
    expect([lower.orphanCount, orphans()]).toEqual([0, []]);
    expect((await lower.lookup(lower.root, bytes("victim"))).attr.nlink).toBe(1);
  });

  it("no change fails because of it: without the hidden directory the file lives as long as this owner", async () => {
    await lower.shutdown();
    fs.rmdirSync(`${place.path}/${ORPHANS}`);
    fs.writeFileSync(`${place.path}/${ORPHANS}`, "an operator's");
    lower = await ownedLower(place.rootFd, metadataCalls);
    await lower.recoverOrphans();
    const { id, handle } = await make("f");
    const moved = await make("moved");
    await lower.rename(lower.root, bytes("moved"), lower.root, bytes("f"), 0, moved.id, id);
    await lower.unlink(lower.root, bytes("f"), moved.id);
    expect([await textOf(handle), await textOf(moved.handle), (await lower.getattr(id)).nlink]).toEqual(["content", "content", 0]);
    lower.close(handle);
    lower.close(moved.handle);
  });
});

describe.each(["ext4", "xfs"] as const)("%s, a loss of power", (type) => {
  const MOST_TRIES = 5;
  let image: Image;
  let place: Place;
  let lower: LocalLower;
  let victim: { id: FileId; handle: LowerHandle };
  let moved: FileId;

  /** What the disk had, by the next owner: names of the root, orphans, and the victim's content by its number. */
  async function afterCrash(crashed: Image): Promise<{ names: string[]; orphans: number; links: number; content: string }> {
    await lower.shutdown();
    await place.release();
    image.remove();
    image = crashed;
    place = image.mount();
    lower = await ownedLower(place.rootFd);
    const names = fs.readdirSync(place.path).filter((name) => !name.startsWith(".") && name !== "lost+found");
    const handle = await lower.open(victim.id, 0);
    const content = Buffer.from(await lower.read(handle, 0, 100)).toString();
    const { nlink } = await lower.getattr(victim.id);
    const orphans = lower.orphanCount;
    lower.close(handle);
    await lower.recoverOrphans();
    expect(lower.orphanCount).toBe(0);
    await lower.shutdown();
    await place.release();
    expect(image.fsck()).toBeNull();
    place = image.mount();
    lower = await ownedLower(place.rootFd);
    return { names: names.toSorted(), orphans, links: nlink, content };
  }

  /** Two files, on the disk; one is open. */
  async function begin(): Promise<void> {
    image = makeImage(type, type === "ext4" ? 32 : 320);
    place = image.mount();
    lower = await ownedLower(place.rootFd);
    await lower.recoverOrphans();
    const [f, g] = [
      await lower.create(lower.root, bytes("f"), RDWR, 0o644, root),
      await lower.create(lower.root, bytes("g"), RDWR, 0o644, root),
    ];
    await lower.write(f.handle, Buffer.from("victim"), 0, false);
    lower.close(g.handle);
    victim = { id: f.entry.id, handle: f.handle };
    moved = g.entry.id;
    await lower.syncfs();
  }

  async function end(): Promise<void> {
    await lower.shutdown();
    await place.release();
    image.remove();
  }

  /** Before the commit: the kernel commits by itself every few seconds, perhaps just now. */
  async function crashedBefore(change: () => Promise<void>, both: object): Promise<object> {
    for (let round = 1; ; round += 1) {
      await begin();
      try {
        await change();
        const seen = await afterCrash(image.crash());
        if (round === MOST_TRIES || JSON.stringify(seen) === JSON.stringify(both)) return seen;
      } finally {
        await end();
      }
    }
  }

  async function crashedAfter(change: () => Promise<void>): Promise<object> {
    await begin();
    try {
      await change();
      await lower.syncfs();
      return await afterCrash(image.crash());
    } finally {
      await end();
    }
  }

  it("before the journal has committed brings the name back, with its content; after it the file is an orphan", async () => {
    const unlink = async (): Promise<void> => await lower.unlink(lower.root, bytes("f"), victim.id);
    const before = { names: ["f", "g"], orphans: 0, links: 1, content: "victim" };
    expect(await crashedBefore(unlink, before)).toEqual(before);
    expect(await crashedAfter(unlink)).toEqual({ names: ["g"], orphans: 1, links: 0, content: "victim" });
  });

  it("beside a rename over an open file: both names, or the new one and an orphan", async () => {
    const rename = async (): Promise<void> => await lower.rename(lower.root, bytes("g"), lower.root, bytes("f"), 0, moved, victim.id);
    const before = { names: ["f", "g"], orphans: 0, links: 1, content: "victim" };
    expect(await crashedBefore(rename, before)).toEqual(before);
    expect(await crashedAfter(rename)).toEqual({ names: ["f"], orphans: 1, links: 0, content: "victim" });
  });

  it("between the two steps of a rename over an open file: both names, and no orphan", async () => {
    const link = async (): Promise<void> =>
      fs.linkSync(`${place.path}/f`, `${place.path}/${ORPHANS}/${victim.id.ino}.${victim.id.generation}`);
    expect(await crashedAfter(link)).toEqual({ names: ["f", "g"], orphans: 0, links: 1, content: "victim" });
  });
});

describe("a directory in which nothing can be given a name", () => {
  // chattr +i stands for all that keeps an inode from being moved there: quota, project, a full disk.
  it("does not make unlink and rename fail: the file lives as long as this owner", async () => {
    const image = makeImage("ext4", 32);
    const place = image.mount();
    const lower = await ownedLower(place.rootFd);
    await lower.recoverOrphans();
    const path = place.path.replace("self", String(process.pid));
    const hidden = `${path}/${ORPHANS}`;
    const immutable = (on: boolean): Buffer => execFileSync("chattr", [on ? "+i" : "-i", hidden]);
    try {
      const [f, g] = [
        await lower.create(lower.root, bytes("f"), RDWR, 0o644, root),
        await lower.create(lower.root, bytes("g"), RDWR, 0o644, root),
      ];
      immutable(true);
      await lower.rename(lower.root, bytes("f"), lower.root, bytes("g"), 0, f.entry.id, g.entry.id);
      await lower.unlink(lower.root, bytes("g"), f.entry.id);
      expect([lower.orphanCount, fs.readdirSync(hidden)]).toEqual([0, []]);
      for (const { entry } of [f, g]) expect((await lower.getattr(entry.id)).nlink).toBe(0);
      // An orphan that cannot be dropped says so in the log, and goes with the next owner.
      immutable(false);
      const h = await lower.create(lower.root, bytes("h"), RDWR, 0o644, root);
      await lower.unlink(lower.root, bytes("h"), h.entry.id);
      immutable(true);
      lower.close(h.handle);
      expect(fs.readdirSync(hidden)).toHaveLength(1);
      immutable(false);
      await lower.shutdown();
      const next = await ownedLower(place.rootFd);
      expect(await next.recoverOrphans()).toBe(1);
      expect(fs.readdirSync(hidden)).toEqual([]);
      // What is immutable itself cannot be removed, nor moved.
      const i = await next.create(next.root, bytes("i"), RDWR, 0o644, root);
      execFileSync("chattr", ["+i", `${path}/i`]);
      expect(await errnoOf(() => next.unlink(next.root, bytes("i"), i.entry.id))).toBe(E.EPERM);
      expect([next.orphanCount, (await next.getattr(i.entry.id)).nlink]).toEqual([0, 1]);
      execFileSync("chattr", ["-i", `${path}/i`]);
      next.close(i.handle);
      await next.shutdown();
    } finally {
      await lower.shutdown();
      await place.release();
      image.remove();
    }
  });
});

describe("system calls", () => {
  /** Names of the calls that `work` makes, on the serving thread and in the pools. */
  async function callsOf(orphans: boolean, work: (lower: LocalLower) => Promise<void>): Promise<string[]> {
    const place = directoryPlace("/dev/shm");
    const made: string[] = [];
    const counted = <T extends object>(calls: T): T =>
      new Proxy(calls, {
        get(target, key) {
          const call: unknown = Reflect.get(target, key);
          return typeof call === "function" ? (...args: unknown[]) => (made.push(String(key)), Reflect.apply(call, target, args)) : call;
        },
      });
    const native = nativeAddon();
    const pool = { ...native.pool, data: counted(native.pool.data), metadata: counted(native.pool.metadata) };
    const watched: Native = { ...native, sync: counted(native.sync), pool };
    const lower = createLocalLower({ native: watched, rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
    if (orphans) await lower.openOrphans(false);
    await lower.recoverOrphans();
    try {
      made.length = 0;
      await work(lower);
      return [...made];
    } finally {
      await lower.shutdown();
      await place.release();
    }
  }

  it("an unlink or a rename over a file that nobody has open takes not one more", async () => {
    const work = async (lower: LocalLower): Promise<void> => {
      for (const name of ["f", "g", "h"]) {
        const { handle } = await lower.create(lower.root, bytes(name), RDWR, 0o644, root);
        lower.close(handle);
      }
      const [f, g, h] = await Promise.all(["f", "g", "h"].map(async (name) => (await lower.lookup(lower.root, bytes(name))).id));
      await lower.unlink(lower.root, bytes("f"), f!);
      await lower.rename(lower.root, bytes("g"), lower.root, bytes("h"), 0, g!, h!);
      await lower.getattr(g!);
    };
    const calls = await callsOf(true, work);
    expect(calls).toEqual(await callsOf(false, work));
    expect(calls.filter((call) => call === "unlink" || call === "rename")).toEqual(["unlink", "rename"]);
  });

  it("an unlink of an open file takes one more, at its last close", async () => {
    const work = async (lower: LocalLower): Promise<void> => {
      const { entry, handle } = await lower.create(lower.root, bytes("f"), RDWR, 0o644, root);
      await lower.unlink(lower.root, bytes("f"), entry.id);
      lower.close(handle);
    };
    const without = await callsOf(false, work);
    const withIt = await callsOf(true, work);
    expect(withIt.length).toBe(without.length + 1);
    expect(withIt.filter((call) => call === "unlink" || call === "rename")).toEqual(["rename", "unlink"]);
  });
});

describe("callers at other nodes", () => {
  let image: Image;
  let place: Place;
  let owners: { lower: LocalLower; server: LowerServer }[];
  let callers: RemoteLower[];
  let claims = 0;
  /** Files that the owner had open when a caller said that all of its are. */
  let openAtClaims: number[];

  async function owner(
    epoch: number,
    wrap: (lower: LocalLower) => LocalLower = (lower) => lower,
  ): Promise<Parameters<RemoteLower["connect"]>[0]> {
    const lower = wrap(await ownedLower(place.rootFd));
    const server = testServer(lower, epoch, () => false, {
      claimed() {
        claims += 1;
        openAtClaims.push(lower.openHandles);
      },
    });
    owners.push({ lower, server });
    return await listenOn(server);
  }

  async function caller(
    nodeid: number,
    address: Parameters<RemoteLower["connect"]>[0],
    epoch: number,
    holds?: Holds,
  ): Promise<RemoteLower> {
    const lower = createRemoteLower({ ...TEST_CALLER, nodeid, log: silentLog, ...(holds === undefined ? {} : { holds }) });
    callers.push(lower);
    await lower.connect(address, epoch);
    return lower;
  }

  beforeEach(() => {
    image = makeImage("ext4", 32);
    place = image.mount();
    owners = [];
    callers = [];
    claims = 0;
    openAtClaims = [];
  });
  afterEach(async () => {
    for (const one of callers) one.shutdown();
    for (const { server, lower } of owners) {
      await server.close();
      await lower.shutdown();
    }
    await place.release();
    image.remove();
  });

  const client = (nodeid: number): { nodeid: number; incarnation: string; clientId: number } => ({ ...TEST_CALLER, nodeid });

  it("go on at the next owner; it hears from each that all is open again, and only then drops the rest", async () => {
    const first = await owner(1);
    await owners[0]?.lower.recoverOrphans();
    const [two, three] = [await caller(2, first, 1), await caller(3, first, 1)];
    const { entry, handle } = await two.create(two.root, bytes("f"), RDWR, 0o644, root);
    await two.write(handle, Buffer.from("content"), 0, false);
    const gone = await two.create(two.root, bytes("gone"), RDWR, 0o644, root);
    await three.unlink(three.root, bytes("f"), entry.id);
    await three.unlink(three.root, bytes("gone"), gone.entry.id);
    expect([(await two.getattr(entry.id)).nlink, owners[0]?.lower.orphanCount]).toEqual([0, 2]);
    await owners[0]?.server.close();
    await owners[0]?.lower.shutdown();
    // Nobody is left who has it open.
    two.close(gone.handle);
    for (const one of [two, three]) one.ownerLost();

    claims = 0;
    openAtClaims = [];
    const second = await owner(2);
    const next = owners[1]!;
    expect(next.lower.orphanCount).toBe(2);
    two.ownerFound(second, 2);
    await until(() => claims === 1);
    expect(openAtClaims).toEqual([1]);
    expect([next.server.hasClaimed(client(2)), next.server.hasClaimed(client(3))]).toEqual([true, false]);
    three.ownerFound(second, 2);
    await until(() => next.server.hasClaimed(client(3)));
    expect(await next.lower.recoverOrphans()).toBe(1);
    expect(Buffer.from(await two.read(handle, 0, 100)).toString()).toBe("content");
    expect(await two.write(handle, Buffer.from("!"), 7, false)).toMatchObject({ bytes: 1 });
    expect((await two.getattr(entry.id)).nlink).toBe(0);
    two.close(handle);
    await until(() => next.lower.orphanCount === 0);
  });

  /** The last owner ends in good order, and there is another one. */
  async function change(one: RemoteLower, wrap?: (lower: LocalLower) => LocalLower): Promise<LocalLower> {
    const last = owners.at(-1)!;
    await last.server.close();
    await last.lower.shutdown();
    one.ownerLost();
    one.ownerFound(await owner(owners.length + 1, wrap), owners.length);
    const next = owners.at(-1)!;
    await until(() => next.server.hasClaimed(client(2)));
    return next.lower;
  }

  it("keep what cannot be opened at the next owner for now: it is open at the one after it", async () => {
    const two = await caller(2, await owner(1), 1);
    await owners[0]?.lower.recoverOrphans();
    const { entry, handle } = await two.create(two.root, bytes("f"), RDWR, 0o644, root);
    const closed = await two.create(two.root, bytes("closed"), RDWR, 0o644, root);
    await two.unlink(two.root, bytes("f"), entry.id);
    await two.unlink(two.root, bytes("closed"), closed.entry.id);
    const full = (lower: LocalLower): LocalLower => ({ ...lower, open: () => Promise.reject(errnoError(E.ENFILE)) });
    const second = await change(two, full);
    expect(await second.recoverOrphans()).toBe(0);
    expect(await errnoOf(() => two.read(handle, 0, 1))).toBe(E.ENFILE);
    two.close(closed.handle);
    await until(() => fs.readdirSync(`${place.path}/${ORPHANS}`).length === 1);
    const third = await change(two);
    expect(await third.recoverOrphans()).toBe(0);
    expect(await errnoOf(() => two.read(handle, 0, 1))).toBe(0);
    await owners[2]?.server.closeSessions([client(2)]);
    expect(fs.readdirSync(`${place.path}/${ORPHANS}`)).toEqual([]);
  });

  it("keep what a caller has opened without the owner, and the owner cannot open for now (hazard F22)", async () => {
    let full = false;
    let refused = 0;
    const wrap = (lower: LocalLower): LocalLower => ({
      ...lower,
      open: (...given) => {
        if (!full) return lower.open(...given);
        refused += 1;
        throw errnoError(E.ENFILE);
      },
    });
    const first = await owner(1, wrap);
    await owners[0]?.lower.recoverOrphans();
    const kept = (): number => fs.readdirSync(`${place.path}/${ORPHANS}`).length;
    const two = await caller(2, first, 1, { grants: () => 1, of: () => 1 });
    const three = await caller(3, first, 1);
    const [f, closed] = [
      await three.mknod(three.root, bytes("f"), 0o100644, 0, 0, root),
      await three.mknod(three.root, bytes("closed"), 0o100644, 0, 0, root),
    ];
    const opened: LowerHandle[] = [];
    for (const { id } of [f, closed]) {
      await two.getattr(id);
      const handle = two.open(id, 0);
      if (handle instanceof Promise) throw new Error("the owner is asked");
      opened.push(handle);
    }
    full = true;
    for (const { id } of [f, closed]) await two.tellOpens(id);
    expect(refused).toBe(2);
    // It is kept: another step down of the lock need not ask again.
    expect(two.tellOpens(f.id)).toBeUndefined();
    await three.unlink(three.root, bytes("f"), f.id);
    await three.unlink(three.root, bytes("closed"), closed.id);
    expect(kept()).toBe(2);
    const [read, unread] = opened as [LowerHandle, LowerHandle];
    expect(await errnoOf(() => two.read(read, 0, 100))).toBe(E.ENFILE);
    expect(await errnoOf(() => two.lseek(read, 0, 0))).toBe(E.ENFILE);
    full = false;
    expect(await errnoOf(() => two.read(read, 0, 100))).toBe(0);
    two.close(unread);
    await until(() => kept() === 1);
    two.close(read);
    await until(() => kept() === 0);
  });

  it("keep what another one unlinks at the next owner before they have come", async () => {
    const first = await owner(1);
    await owners[0]?.lower.recoverOrphans();
    const [two, three] = [await caller(2, first, 1), await caller(3, first, 1)];
    const { entry, handle } = await two.create(two.root, bytes("f"), RDWR, 0o644, root);
    await two.write(handle, Buffer.from("content"), 0, false);
    three.ownerLost();
    two.ownerLost();
    await owners[0]?.server.close();
    await owners[0]?.lower.shutdown();
    const second = await owner(2);
    three.ownerFound(second, 2);
    await three.unlink(three.root, bytes("f"), entry.id);
    expect(owners[1]?.lower.orphanCount).toBe(1);
    two.ownerFound(second, 2);
    expect(Buffer.from(await two.read(handle, 0, 100)).toString()).toBe("content");
    expect((await two.getattr(entry.id)).nlink).toBe(0);
    await owners[1]?.lower.recoverOrphans();
    expect(owners[1]?.lower.orphanCount).toBe(1);
    two.close(handle);
    await until(() => owners[1]?.lower.orphanCount === 0);
  });

  it("what was opened after its last name had gone ends with its owner", async () => {
    const two = await caller(2, await owner(1), 1);
    await owners[0]?.lower.recoverOrphans();
    const { entry, handle } = await two.create(two.root, bytes("f"), RDWR, 0o644, root);
    two.close(handle);
    await two.unlink(two.root, bytes("f"), entry.id);
    const late = await two.open(entry.id, RDWR);
    expect(await two.write(late, Buffer.from("x"), 0, false)).toMatchObject({ bytes: 1 });
    const next = await change(two);
    expect(next.orphanCount).toBe(0);
    expect(await errnoOf(() => two.read(late, 0, 1))).toBe(E.ESTALE);
  });

  it("an open directory that a rename replaces ends with its owner", async () => {
    const two = await caller(2, await owner(1), 1);
    await owners[0]?.lower.recoverOrphans();
    const replaced = await two.mkdir(two.root, bytes("replaced"), 0o755, root);
    const moved = await two.mkdir(two.root, bytes("moved"), 0o755, root);
    const handle = await two.opendir(replaced.id);
    await two.rename(two.root, bytes("moved"), two.root, bytes("replaced"), 0, moved.id, replaced.id);
    expect(await errnoOf(() => two.readdir(handle, 0n, 4096, "plain"))).toBe(E.ENOENT);
    await change(two);
    expect(await errnoOf(() => two.readdir(handle, 0n, 4096, "plain"))).toBe(E.ENOENT);
    expect(await errnoOf(() => two.fsyncdir(handle, false))).toBe(E.ENOENT);
  });

  it("that die give the space back at once; an owner that ends keeps what they have open", async () => {
    const first = await owner(1);
    const { lower, server } = owners[0]!;
    await lower.recoverOrphans();
    const [two, three] = [await caller(2, first, 1), await caller(3, first, 1)];
    for (const [one, name] of [
      [two, "a"],
      [three, "b"],
    ] as const) {
      const { entry } = await one.create(one.root, bytes(name), RDWR, 0o644, root);
      await one.unlink(one.root, bytes(name), entry.id);
    }
    expect(lower.orphanCount).toBe(2);
    await server.closeSessions([client(2)]);
    expect(lower.orphanCount).toBe(1);
    await server.abandon();
    expect([lower.openHandles, lower.orphanCount]).toEqual([0, 1]);
  });
});
