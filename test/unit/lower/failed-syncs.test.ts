/** Hazard H8: the kernel tells one sync of a failed write-back, and the next one says 0. No fsync(2) says 0 for that of what may be lost. */
import { expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { Syncs } from "../../../overlay/lower/local/syncs.ts";
import type { LowerHandle } from "../../../overlay/lower/lower.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { OwnChanges } from "../../../overlay/lower/server/own-changes.ts";
import { caller, errnoOf, name, type Owner, RDWR, remoteLab } from "./remote-lab.ts";

const lab = remoteLab();

/** Its next syncs end with these, and then with 0. */
class FailingDisk {
  readonly results: number[] = [];
  /** A sync waits for it. */
  held: Promise<unknown> | null = null;
  onSync: () => void = () => undefined;
  readonly syncs: Syncs = new Syncs(async () => {
    const errno = this.results.shift() ?? 0;
    this.onSync();
    await this.held;
    if (errno !== 0) throw errnoError(errno);
  });

  readonly wrap = (lower: LocalLower): LocalLower => ({ ...lower, syncfs: () => this.syncs.sync(), failedSyncs: () => this.syncs.failed });
}

interface Bench {
  readonly disk: FailingDisk;
  readonly one: Owner;
  readonly callers: readonly [RemoteLower, RemoteLower];
}

async function bench(): Promise<Bench> {
  const disk = new FailingDisk();
  const one = await lab.owner(1, disk.wrap);
  const callers = [lab.remote({ clientId: 5 }), lab.remote({ clientId: 6 })] as const;
  for (const each of callers) await each.connect(one.address, 1);
  return { disk, one, callers };
}

async function unsyncedFile(lower: RemoteLower, called: string): Promise<LowerHandle> {
  const { handle } = await lower.create(lower.root, name(called), RDWR, 0o644, caller);
  await lower.write(handle, Buffer.from("not synced"), 0, false);
  return handle;
}

/** What fsync(2) says at the next owner, after an end of that one in good order. */
async function fsyncAtNext({ one, callers: [lower] }: Bench, handle: LowerHandle): Promise<number[]> {
  await one.server.close();
  const two = await lab.owner(2, undefined, undefined, { letGoAfter: 1 });
  lower.ownerFound(two.address, 2);
  const fsync = (): Promise<number> => errnoOf(async () => lower.fsync(handle, false));
  return [await fsync(), await fsync()];
}

it("an owner that ends says no farewell if a sync before has failed: its last one would say 0 of what that was told", async () => {
  const all = await bench();
  const { disk, callers } = all;
  const handle = await unsyncedFile(callers[0], "f");
  disk.results.push(E.ENOSPC);
  // As before a volume is handed over.
  expect(await errnoOf(() => disk.syncs.sync())).toBe(E.ENOSPC);
  expect(await fsyncAtNext(all, handle)).toEqual([E.EIO, 0]);
});

it("after the end of an owner whose syncs said 0 nothing is reported", async () => {
  const all = await bench();
  const handle = await unsyncedFile(all.callers[0], "f");
  await all.disk.syncs.sync();
  expect(await fsyncAtNext(all, handle)).toEqual([0, 0]);
});

it("each caller's sync is told once of what another one's was told", async () => {
  const { disk, callers } = await bench();
  disk.results.push(E.ENOSPC);
  const [first, second] = callers.map((lower) => () => errnoOf(() => lower.syncfs())) as [() => Promise<number>, () => Promise<number>];
  expect(await first()).toBe(E.ENOSPC);
  expect([await second(), await first()]).toEqual([E.EIO, 0]);
});

it("a session that begins after it is told nothing", async () => {
  const { disk, one } = await bench();
  disk.results.push(E.ENOSPC);
  expect(await errnoOf(() => disk.syncs.sync())).toBe(E.ENOSPC);
  const late = lab.remote({ clientId: 7 });
  await late.connect(one.address, 1);
  expect(await errnoOf(() => late.syncfs())).toBe(0);
});

it("a caller whose sync failed takes what it had changed for lost, though the next sync says 0 and the disk was clean", async () => {
  const { disk, one, callers } = await bench();
  const [lower] = callers;
  const handle = await unsyncedFile(lower, "f");
  disk.results.push(E.ENOSPC);
  expect(await errnoOf(() => lower.syncBefore())).toBe(E.ENOSPC);
  await lower.syncBefore();
  const later = await unsyncedFile(lower, "later");
  await lower.syncBefore();
  await one.server.abandon();
  const two = await lab.owner(2, undefined, undefined, { cleanAfter: 1 });
  lower.ownerFound(two.address, 2);
  const fsync = (file: LowerHandle): Promise<number> => errnoOf(async () => lower.fsync(file, false));
  expect([await fsync(handle), await fsync(handle), await fsync(later)]).toEqual([E.EIO, 0, 0]);
});

it("an fsync that the disk fails tells of what a sync before has lost: it is told once", async () => {
  const disk = new FailingDisk();
  const fsyncs = [E.ENOMEM, E.ENOSPC];
  const one = await lab.owner(1, (lower) => ({
    ...disk.wrap(lower),
    fsync: (handle, dataOnly) => {
      const errno = fsyncs.shift();
      if (errno !== undefined) throw errnoError(errno);
      return lower.fsync(handle, dataOnly);
    },
  }));
  const lower = lab.remote({ clientId: 5 });
  await lower.connect(one.address, 1);
  const handle = await unsyncedFile(lower, "f");
  const other = await lower.open((await lower.lookup(lower.root, name("f"))).id, RDWR);
  disk.results.push(E.ENOSPC);
  expect(await errnoOf(() => lower.syncBefore())).toBe(E.ENOSPC);
  const fsync = (file: LowerHandle): Promise<number> => errnoOf(async () => lower.fsync(file, false));
  expect([await fsync(handle), await fsync(handle), await fsync(handle)]).toEqual([E.ENOMEM, E.ENOSPC, 0]);
  // Through the other descriptor it is told, too.
  expect([await fsync(other), await fsync(other)]).toEqual([E.EIO, 0]);
});

it("what was changed while a sync was on its way that failed is lost, too: it may be what that was told of", async () => {
  const { disk, one, callers } = await bench();
  const [lower] = callers;
  let end = (): void => {};
  disk.held = new Promise<void>((resolve) => (end = resolve));
  const begun = new Promise<void>((resolve) => (disk.onSync = resolve));
  disk.results.push(E.ENOSPC);
  const sync = errnoOf(() => lower.syncBefore());
  await begun;
  const handle = await unsyncedFile(lower, "f");
  end();
  expect(await sync).toBe(E.ENOSPC);
  await lower.syncBefore();
  await one.server.abandon();
  const two = await lab.owner(2, undefined, undefined, { cleanAfter: 1 });
  lower.ownerFound(two.address, 2);
  const fsync = (): Promise<number> => errnoOf(async () => lower.fsync(handle, false));
  expect([await fsync(), await fsync()]).toEqual([E.EIO, 0]);
});

it("the owner's own mount takes for lost what another one's sync was told of", async () => {
  const disk = new FailingDisk();
  const id = { ino: 7, generation: 1 };
  const changes = new OwnChanges(
    () => id,
    () => true,
    () => true,
    () => Promise.resolve(),
    () => disk.syncs.failed,
  );
  const sync = changes.noting("syncfs", () => disk.syncs.sync());
  const isLost = (): boolean => changes.unsynced.takeLost({ id, lossesTold: 0 });
  changes.unsynced.note(id, "data");
  await sync();
  expect([changes.unsynced.size, isLost()]).toEqual([0, false]);
  changes.unsynced.note(id, "data");
  disk.results.push(E.ENOSPC);
  expect(await errnoOf(() => disk.syncs.sync())).toBe(E.ENOSPC);
  await sync();
  expect([changes.unsynced.size, isLost()]).toEqual([0, true]);
});

it("of two syncs of the owner's own mount that overlap, and one that fails, neither says 0 of what was changed between them", async () => {
  const [one, two] = [
    { ino: 7, generation: 1 },
    { ino: 8, generation: 1 },
  ];
  const ends: (() => void)[] = [];
  let failed = 0;
  const changes = new OwnChanges(
    () => undefined,
    () => true,
    () => true,
    () => Promise.resolve(),
    () => failed,
  );
  const sync = changes.noting("syncfs", () => new Promise<void>((resolve) => ends.push(resolve)));
  changes.unsynced.note(one, "data");
  const first = sync();
  changes.unsynced.note(two, "data");
  const second = sync();
  failed = 1;
  for (const end of ends) end();
  await Promise.all([first, second]);
  expect([one, two].map((id) => changes.unsynced.takeLost({ id, lossesTold: 0 }))).toEqual([true, true]);
});

it("of two syncs that overlap both are told, or those that failed are counted before either says 0", async () => {
  const ends: ((errno: number) => void)[] = [];
  const syncs = new Syncs(
    () => new Promise((resolve, reject) => ends.push((errno) => (errno === 0 ? resolve() : reject(errnoError(errno))))),
  );
  const said: string[] = [];
  const one = syncs.sync().then(() => said.push(`0, and ${syncs.failed} failed`));
  const two = syncs.sync().catch(() => said.push("failed"));
  ends[0]?.(0);
  await new Promise((resolve) => setImmediate(resolve));
  expect(said).toEqual([]);
  ends[1]?.(E.EIO);
  await Promise.all([one, two]);
  expect(said.sort()).toEqual(["0, and 1 failed", "failed"]);
});
