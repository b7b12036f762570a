/** Hazard F30: files that are made without a name (O_TMPFILE), on real file systems, from owner to owner. */
import fs from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import { createRemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { DiskGuard } from "../../../overlay/lower/server/disk-guard.ts";
import { bytes, errnoOf, nobody, RDWR, root } from "../../compliance/lower-bench.ts";
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
import { until } from "./remote-lab.ts";

const ORPHANS = ".coverlay.orphans";
const MEBIBYTES = { ext4: 32, xfs: 320 } as const;
const PROJINHERIT = 0x200;

/** struct posix_acl_xattr: user 5 may read and write, the mask is as wide. */
function defaultAcl(): Buffer {
  const entries: readonly (readonly [tag: number, permissions: number, id: number])[] = [
    [0x01, 7, 0xffffffff],
    [0x02, 6, 5],
    [0x04, 5, 0xffffffff],
    [0x10, 7, 0xffffffff],
    [0x20, 0, 0xffffffff],
  ];
  const acl = Buffer.alloc(4 + 8 * entries.length);
  acl.writeUInt32LE(2, 0);
  entries.forEach(([tag, permissions, id], at) => {
    acl.writeUInt16LE(tag, 4 + 8 * at);
    acl.writeUInt16LE(permissions, 6 + 8 * at);
    acl.writeUInt32LE(id, 8 + 8 * at);
  });
  return acl;
}

describe.each([
  ["ext4", "inline"],
  ["ext4", "pool"],
  ["xfs", "inline"],
] as const)("%s, changes of names %s", (type, metadataCalls) => {
  let image: Image;
  let place: Place;
  let lower: LocalLower;

  /** Another owner on the same disk. */
  async function nextOwner(): Promise<void> {
    lower.leaveOrphans();
    await lower.shutdown();
    await place.release();
    place = image.mount();
    lower = await ownedLower(place.rootFd, metadataCalls);
  }

  beforeEach(async () => {
    image = makeImage(type, MEBIBYTES[type]);
    place = image.mount();
    lower = await ownedLower(place.rootFd, metadataCalls);
    await lower.recoverOrphans();
  });
  afterEach(async () => {
    await lower.shutdown();
    await place.release();
    image.remove();
  });

  const hidden = (): string[] => fs.readdirSync(`${place.path}/${ORPHANS}`);

  async function make(linkable = true, dir = lower.root): Promise<{ id: FileId; handle: LowerHandle }> {
    const { entry, handle } = await lower.tmpfile(dir, RDWR, 0o644, root, linkable);
    await lower.write(handle, Buffer.from("content"), 0, false);
    return { id: entry.id, handle };
  }

  it("has a hidden name, which says whether it may have another, until its last close", async () => {
    const [one, never] = [await make(), await make(false)];
    const name = ({ ino, generation }: FileId): string => `${ino}.${generation}`;
    expect(hidden().toSorted()).toEqual([`${name(one.id)}.linkable`, name(never.id)].toSorted());
    expect([lower.orphanCount, (await lower.getattr(one.id)).nlink, (await lower.getattr(never.id)).nlink]).toEqual([2, 0, 0]);
    lower.close(one.handle);
    lower.close(never.handle);
    await until(() => lower.orphanCount === 0 && hidden().length === 0);
  });

  it("goes on at the next owner, and can be linked there if it could before; what nobody opens again ends", async () => {
    const [one, never, left] = [await make(), await make(false), await make()];
    await nextOwner();
    const [oneOpen, neverOpen] = [await lower.open(one.id, RDWR), await lower.open(never.id, RDWR)];
    expect(await lower.recoverOrphans()).toBe(1);
    expect([(await lower.getattr(one.id)).nlink, await errnoOf(() => lower.getattr(left.id))]).toEqual([0, E.ESTALE]);
    expect(await errnoOf(() => lower.link(never.id, lower.root, bytes("never")))).toBe(E.ENOENT);
    expect((await lower.link(one.id, lower.root, bytes("one"))).nlink).toBe(1);
    expect(fs.readFileSync(`${place.path}/one`, "utf8")).toBe("content");
    lower.close(oneOpen);
    lower.close(neverOpen);
    await until(() => lower.orphanCount === 0 && hidden().length === 0);
    expect(fs.readdirSync(place.path)).toContain("one");
  });

  it("one that was given a name and lost it is as any other that was unlinked while open", async () => {
    const { id, handle } = await make();
    const taken = await lower.mknod(lower.root, bytes("taken"), 0o100644, 0, 0, root);
    expect(await errnoOf(() => lower.link(id, lower.root, bytes("taken")))).toBe(E.EEXIST);
    expect((await lower.lookup(lower.root, bytes("taken"))).id).toEqual(taken.id);
    expect((await lower.link(id, lower.root, bytes("name"))).nlink).toBe(1);
    expect([lower.orphanCount, hidden()]).toEqual([0, []]);
    await lower.unlink(lower.root, bytes("name"), id);
    expect(hidden()).toEqual([`${id.ino}.${id.generation}`]);
    expect(await errnoOf(() => lower.link(id, lower.root, bytes("again")))).toBe(E.ENOENT);
    lower.close(handle);
    await until(() => lower.orphanCount === 0);
  });

  it("gets the owner, mode, group, ACL and project that a file with a name gets in that directory", async () => {
    const dir = (await lower.mkdir(lower.root, bytes("d"), 0o755, root)).id;
    await lower.setattr(dir, { gid: 4242, mode: 0o2770 }, null);
    for (const acl of [false, true]) {
      if (acl) await lower.setxattr(dir, bytes("system.posix_acl_default"), defaultAcl(), 0);
      if (acl && type === "xfs") {
        const opened = await lower.opendir(dir);
        const project = Buffer.from(await lower.fileAttributes(opened, "fsxattr"));
        project.writeUInt32LE(PROJINHERIT, 0);
        project.writeUInt32LE(77, 12);
        await lower.setFileAttributes(opened, "fsxattr", project);
        lower.close(opened);
      }
      const [named, nameless] = [
        await lower.create(dir, bytes(`named ${acl}`), RDWR, 0o666, nobody),
        await lower.tmpfile(dir, RDWR, 0o666, nobody, true),
      ];
      const { mode, uid, gid } = named.entry.attr;
      expect(nameless.entry.attr).toMatchObject({ mode, uid, gid, nlink: 0 });
      const acls = await Promise.all([named, nameless].map(async ({ entry }) => Buffer.from(await lower.listxattr(entry.id)).toString()));
      expect(acls.map((names) => names.includes("system.posix_acl_access"))).toEqual([acl, acl]);
      const projects = await Promise.all(
        [named, nameless].map(async ({ handle }) => Buffer.from(await lower.fileAttributes(handle, "fsxattr"))),
      );
      const project = acl && type === "xfs" ? 77 : 0;
      expect(projects.map((fsxattr) => fsxattr.readUInt32LE(12))).toEqual([project, project]);
      for (const { handle } of [named, nameless]) lower.close(handle);
    }
  });

  it("in a directory that was removed there is none", async () => {
    const { id } = await lower.mkdir(lower.root, bytes("d"), 0o755, root);
    const opened = await lower.opendir(id);
    await lower.rmdir(lower.root, bytes("d"), id);
    expect(await errnoOf(() => lower.tmpfile(id, RDWR, 0o644, root, true))).toBe(E.ESTALE);
    lower.close(opened);
  });

  it("is refused where it could not be kept", async () => {
    await lower.shutdown();
    fs.rmdirSync(`${place.path}/${ORPHANS}`);
    fs.writeFileSync(`${place.path}/${ORPHANS}`, "an operator's");
    lower = await ownedLower(place.rootFd, metadataCalls);
    expect(await errnoOf(() => lower.tmpfile(lower.root, RDWR, 0o644, root, true))).toBe(E.EOPNOTSUPP);
    expect([lower.openHandles, lower.orphanCount]).toEqual([0, 0]);
  });
});

describe("a hidden directory of another project", () => {
  it("is no place for it: refused, and nothing is left", async () => {
    const image = makeImage("xfs", MEBIBYTES.xfs);
    const place = image.mount();
    const lower = await ownedLower(place.rootFd);
    // link(2) into it is EXDEV.
    const native = nativeAddon();
    const fd = native.open(`${place.path}/${ORPHANS}`, 0, 0);
    const project = Buffer.alloc(28);
    expect(native.sync.fsxattr(fd, project)).toBe(0);
    project.writeUInt32LE(PROJINHERIT, 0);
    project.writeUInt32LE(77, 12);
    expect(native.sync.setFsxattr(fd, project)).toBe(0);
    native.sync.close(fd);
    expect(await errnoOf(() => lower.tmpfile(lower.root, RDWR, 0o644, root, true))).toBe(E.EOPNOTSUPP);
    expect([lower.openHandles, lower.orphanCount, fs.readdirSync(`${place.path}/${ORPHANS}`)]).toEqual([0, 0, []]);
    await lower.shutdown();
    await place.release();
    image.remove();
  });
});

describe.each(["ext4", "xfs"] as const)("%s, a loss of power", (type) => {
  let image: Image;
  let place: Place;
  let lower: LocalLower;

  /** What the disk had, by the next owner: the name's content, orphans, and whether fsck(8) is content. */
  async function after(change: (id: FileId, handle: LowerHandle) => Promise<void>): Promise<{ named: string | null; orphans: number }> {
    image = makeImage(type, MEBIBYTES[type]);
    place = image.mount();
    lower = await ownedLower(place.rootFd);
    await lower.recoverOrphans();
    const { entry, handle } = await lower.tmpfile(lower.root, RDWR, 0o644, root, true);
    await lower.write(handle, Buffer.from("content"), 0, false);
    await change(entry.id, handle);
    const crashed = image.crash();
    await lower.shutdown();
    await place.release();
    image.remove();
    image = crashed;
    place = image.mount();
    lower = await ownedLower(place.rootFd);
    const path = `${place.path}/named`;
    const named = fs.existsSync(path) ? fs.readFileSync(path, "utf8") : null;
    const orphans = lower.orphanCount;
    await lower.recoverOrphans();
    expect(lower.orphanCount).toBe(0);
    await lower.shutdown();
    await place.release();
    expect(image.fsck()).toBeNull();
    image.remove();
    return { named, orphans };
  }

  const link = async (id: FileId): Promise<void> => void (await lower.link(id, lower.root, bytes("named")));

  it("after an fsync of the file it is there: nameless, or by the name that it was given before", async () => {
    expect(await after(async (_id, handle) => await lower.fsync(handle, false))).toEqual({ named: null, orphans: 1 });
    const linked = async (id: FileId, handle: LowerHandle): Promise<void> => {
      await link(id);
      await lower.fsync(handle, false);
    };
    expect(await after(linked)).toEqual({ named: "content", orphans: 0 });
  });

  it("beside a link it is nameless or has the name, and never both", async () => {
    const seen = await after(async (id, handle) => {
      await lower.fsync(handle, false);
      await link(id);
    });
    expect([
      { named: null, orphans: 1 },
      { named: "content", orphans: 0 },
    ]).toContainEqual(seen);
  });
});

describe("a caller at another node", () => {
  it("is told by fsync of the file that the name may be lost with its owner", async () => {
    const place = directoryPlace();
    const owner = async (epoch: number): Promise<{ lower: LocalLower; server: ReturnType<typeof testServer> }> => {
      const lower = await ownedLower(place.rootFd);
      return { lower, server: testServer(lower, epoch) };
    };
    const first = await owner(1);
    const caller = createRemoteLower({ ...TEST_CALLER, log: silentLog });
    await caller.connect(await listenOn(first.server), 1);
    const [one, other] = [
      await caller.tmpfile(caller.root, RDWR, 0o644, root, true),
      await caller.tmpfile(caller.root, RDWR, 0o644, root, true),
    ];
    for (const { handle } of [one, other]) {
      await caller.write(handle, Buffer.from("content"), 0, false);
      await caller.fsync(handle, false);
    }
    await caller.link(one.entry.id, caller.root, bytes("one"));
    await first.server.abandon();
    await first.lower.shutdown();
    caller.ownerLost();
    const second = await owner(2);
    caller.ownerFound(await listenOn(second.server), 2);
    expect(await errnoOf(() => caller.fsync(one.handle, false))).toBe(E.EIO);
    expect([await errnoOf(() => caller.fsync(one.handle, false)), await errnoOf(() => caller.fsync(other.handle, false))]).toEqual([0, 0]);
    expect((await caller.link(other.entry.id, caller.root, bytes("other"))).nlink).toBe(1);
    expect(fs.readFileSync(`${place.path}/other`, "utf8")).toBe("content");
    caller.shutdown();
    await second.server.close();
    await second.lower.shutdown();
    await place.release();
  });
});

describe("the owner's own mount", () => {
  it("has it open at the next owner, and what it linked counts as changed", async () => {
    const place = directoryPlace();
    const local = await ownedLower(place.rootFd);
    const guard = new DiskGuard({
      readOnly: false,
      isDamaged: () => false,
      local,
      probe: () => Promise.resolve(true),
      mayWithdraw: () => true,
      withdraw: () => undefined,
      log: silentLog,
    });
    const { entry, handle } = await guard.own.tmpfile(local.root, RDWR, 0o644, root, true);
    expect(guard.handles).toEqual([{ handle, id: entry.id, flags: RDWR, directory: false }]);
    await guard.own.link(entry.id, local.root, bytes("name"));
    expect(guard.unsynced.size).toBe(2);
    await guard.own.fsync(handle, false);
    expect(guard.unsynced.size).toBe(1);
    guard.own.close(handle);
    await local.shutdown();
    await place.release();
  });
});

it("without the hidden directory there are no nameless files", async () => {
  const place = directoryPlace();
  const lower = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
  expect(await errnoOf(() => lower.tmpfile(lower.root, RDWR, 0o644, root, true))).toBe(E.EOPNOTSUPP);
  await lower.shutdown();
  await place.release();
});
