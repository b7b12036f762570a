/** An owner whose disk fails tells nobody: its calls wait, and go on at the next owner. */
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { DiskGuard } from "../../../overlay/lower/server/disk-guard.ts";
import { type OwnerWait, ownerWaitWords, waitOfMount } from "../../../overlay/lower/owner-wait.ts";
import { judgeError, mayWithdraw, WITHDRAW_AGAIN_MS } from "../../../overlay/lower/server/disk-fault.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { O } from "../../../overlay/lower/linux.ts";
import { changeFor, fileKey, type LowerHandle } from "../../../overlay/lower/lower.ts";
import { MAX_UNSYNCED } from "../../../overlay/lower/unsynced.ts";
import { caller, errnoOf, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const plain = { readOnly: false, isDamaged: (): boolean => false };

describe("the rule", () => {
  it("an error of a change or a sync that says that the disk failed is told to nobody", () => {
    for (const errno of [E.EIO, E.EROFS, E.ESHUTDOWN, E.EUCLEAN]) expect(judgeError(errno, true, plain)).toBe("withdraw");
  });

  it("of a read, the path is looked at first: a bad block is told", () => {
    expect([E.EIO, E.EUCLEAN].map((errno) => judgeError(errno, false, plain))).toEqual(["probe", "probe"]);
    expect([E.EROFS, E.ESHUTDOWN].map((errno) => judgeError(errno, false, plain))).toEqual(["withdraw", "withdraw"]);
  });

  it("so it is of other errors that a lost path may come as", () => {
    for (const errno of [E.ENOMEM, E.ENOLINK, E.ETIMEDOUT, E.EREMOTEIO, E.EBADE]) {
      for (const changes of [false, true]) expect(judgeError(errno, changes, plain)).toBe("probe");
    }
  });

  it("what any file system answers is told, and EROFS of a volume that is mounted read-only", () => {
    for (const errno of [E.ENOSPC, E.EDQUOT, E.ENOENT, E.EEXIST, E.ESTALE, E.EINVAL]) expect(judgeError(errno, true, plain)).toBe("none");
    expect(judgeError(E.EROFS, true, { ...plain, readOnly: true })).toBe("none");
    expect(judgeError(E.EIO, true, { ...plain, readOnly: true })).toBe("withdraw");
  });

  it("are told where the kernel found the file system damaged, but for those of the disk itself", () => {
    const damaged = { readOnly: false, isDamaged: (): boolean => true };
    for (const changes of [false, true]) {
      expect([E.EROFS, E.EUCLEAN].map((errno) => judgeError(errno, changes, damaged))).toEqual(["none", "none"]);
    }
    expect([E.EIO, E.ESHUTDOWN].map((errno) => judgeError(errno, true, damaged))).toEqual(["withdraw", "withdraw"]);
  });

  it("no second withdrawal within a minute", () => {
    expect(mayWithdraw(null, 5)).toBe(true);
    expect(mayWithdraw(1000, 999 + WITHDRAW_AGAIN_MS)).toBe(false);
    expect(mayWithdraw(1000, 1000 + WITHDRAW_AGAIN_MS)).toBe(true);
  });
});

const lab = remoteLab();

describe("a volume that is handed over", () => {
  it("calls that run end, those that come wait and go on with the next owner; those of other nodes are the server's to end", async () => {
    const answers: (() => void)[] = [];
    const writes = (): Promise<unknown> => new Promise((resolve) => answers.push(() => resolve("here")));
    const guard = new DiskGuard({
      ...plain,
      local: { write: writes, statfs: () => "here", isAbsent: () => true } as unknown as LocalLower,
      probe: () => Promise.resolve(true),
      mayWithdraw: () => true,
      withdraw: () => expect.fail("nothing has failed"),
      log: silentLog,
    });
    const handle = 7 as never;
    const first = guard.own.write(handle, new Uint8Array(1), 0, false);
    let given = false;
    const over = guard.handOver().then(() => (given = true));
    const second = guard.own.write(handle, new Uint8Array(1), 0, false);
    const third = guard.own.statfs();
    expect(answers).toHaveLength(1);
    expect([guard.isGiven, guard.why, guard.own.isAbsent(1 as never, Buffer.from("a"))]).toEqual([true, null, false]);
    expect(guard.served.statfs()).toBe("here");
    await Promise.resolve();
    expect(given).toBe(false);
    answers[0]?.();
    expect(await first).toBe("here");
    await over;
    guard.goOn({ write: () => "there", statfs: () => "there" } as unknown as LocalLower);
    expect(await Promise.all([second, third])).toEqual(["there", "there"]);
    expect(guard.own.statfs()).toBe("there");
  });
});

it("a change that waits for the next owner is made there for the request that asked for it (hazard F38)", async () => {
  const guard = new DiskGuard({
    ...plain,
    local: { madeFor: () => undefined } as unknown as LocalLower,
    probe: () => Promise.resolve(true),
    mayWithdraw: () => true,
    withdraw: () => expect.fail("nothing has failed"),
    log: silentLog,
  });
  const { own } = guard;
  const directory = { ino: 2, generation: 0 };
  const remove = (): unknown => own.rmdir(directory, name("d"), directory);
  await guard.handOver();
  const [first, second] = [changeFor(own, 7, remove), remove()];
  const made: string[] = [];
  let request = 0;
  const next = { madeFor: (of: number) => void (request = of), rmdir: () => void made.push(`rmdir for ${request}`) };
  guard.goOn(next as unknown as LocalLower);
  await Promise.all([first, second]);
  changeFor(own, 9, remove);
  remove();
  expect(made).toEqual(["rmdir for 7", "rmdir for 0", "rmdir for 9", "rmdir for 0"]);
});

describe("a disk that hangs", () => {
  it("is what the oldest call of the owner's own mount waits for, and of no other node's", async () => {
    const answers: (() => void)[] = [];
    const hangs = (): Promise<unknown> => new Promise((resolve) => answers.push(() => resolve(0)));
    const guard = new DiskGuard({
      ...plain,
      local: { write: hangs, fsync: hangs, statfs: () => 0 } as unknown as LocalLower,
      probe: () => Promise.resolve(true),
      mayWithdraw: () => true,
      withdraw: () => undefined,
      log: silentLog,
    });
    const handle = 7 as never;
    const served = guard.served.fsync(handle, false);
    void guard.own.statfs();
    expect(guard.ownWait).toBeNull();
    const write = guard.own.write(handle, new Uint8Array(1), 0, false);
    const first = guard.ownWait;
    const fsync = guard.own.fsync(handle, false);
    expect(first).toMatchObject({ call: "write", calls: 1, inOwnersHands: true });
    expect(guard.ownWait).toMatchObject({ id: first?.id, call: "write", calls: 2 });
    expect(ownerWaitWords({ ...(guard.ownWait as OwnerWait), waitedMs: 61_000 })).toBe(
      "the disk has not answered: 2 calls wait, a write for 61.0 s",
    );
    answers[1]?.();
    await write;
    expect(guard.ownWait).toMatchObject({ call: "fsync", calls: 1 });
    expect(guard.ownWait?.id).not.toBe(first?.id);
    for (const answer of answers) answer();
    await Promise.all([fsync, served]);
    expect(guard.ownWait).toBeNull();
  });

  it("is what a mount waits for that was remote until it became the owner: it calls its own server", async () => {
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    let guard: DiskGuard | null = null;
    const owner = await lab.owner(2, (local) => {
      guard = new DiskGuard({
        ...plain,
        local: { ...local, syncfs: () => answered },
        probe: () => Promise.resolve(true),
        mayWithdraw: () => true,
        withdraw: () => undefined,
        log: silentLog,
      });
      return guard.served;
    });
    const remote = lab.remote();
    await remote.connect((await lab.owner(1)).address, 1);
    remote.ownerFound(owner.address, 2);
    const synced = Promise.resolve(remote.syncfs());
    await until(() => remote.ownerWait?.inOwnersHands === true && remote.ownerWait.trouble === null);
    const wait = waitOfMount(guard, remote);
    answer();
    await synced;
    expect(wait).toMatchObject({ call: "syncfs", calls: 1, trouble: null });
    expect(waitOfMount(guard, remote)).toBeNull();
  });
});

it("a call that fails after the disk was given up is told nothing of it, whatever the error: it waits for the next owner", async () => {
  const ends: ((error: Error) => void)[] = [];
  const hangs = (): Promise<never> => new Promise((_, reject) => ends.push(reject));
  const guard = new DiskGuard({
    ...plain,
    local: { getattr: hangs, mkdir: hangs } as unknown as LocalLower,
    probe: () => Promise.resolve(true),
    mayWithdraw: () => true,
    withdraw: () => undefined,
    log: silentLog,
  });
  const id = { ino: 12, generation: 0 };
  const told: number[] = [];
  const all = [() => guard.own.getattr(id), () => guard.own.mkdir(id, name("d"), 0o755, caller)].map((call) =>
    errnoOf(call).then((errno) => told.push(errno)),
  );
  guard.withdraw("the disk hangs");
  // Their descriptor is closed, or another's: they were not made.
  for (const end of ends) end(errnoError(E.ESTALE));
  await turns();
  expect(told).toEqual([]);
  const exists = (): never => {
    throw errnoError(E.EEXIST);
  };
  guard.goOn({ getattr: () => 1, mkdir: exists } as unknown as LocalLower);
  await Promise.all(all);
  expect(told).toEqual([0, E.EEXIST]);
});

interface Bench {
  readonly guard: DiskGuard;
  readonly withdrawals: string[];
  /** Errno of every call that changes something; 0: none. */
  failing: number;
  /** And of reads. */
  failingReads: number;
  /** Writes wait for that. */
  hangs: Promise<void>;
  pathIsWell: boolean;
  withdrawnJustNow: boolean;
  probes: number;
  errorsLogged: number;
}

/** An owner's local lower with a disk that can fail. */
async function bench(): Promise<Bench & { readonly first: Owner }> {
  const first = await lab.owner(1);
  const withdrawals: string[] = [];
  const state = {
    failing: 0,
    failingReads: 0,
    pathIsWell: true,
    withdrawnJustNow: false,
    probes: 0,
    errorsLogged: 0,
    hangs: Promise.resolve(),
  };
  const fault = (errno: number): void => {
    if (errno !== 0) throw errnoError(errno);
  };
  const local: LocalLower = {
    ...first.lower,
    mkdir: (...args) => {
      if (state.failing !== 0 && args[1].toString() === "half") void first.lower.mkdir(...args);
      fault(state.failing);
      return first.lower.mkdir(...args);
    },
    write: async (...args) => {
      await state.hangs;
      fault(state.failing);
      return await first.lower.write(...args);
    },
    read: (...args) => {
      fault(state.failingReads);
      return first.lower.read(...args);
    },
  };
  const guard = new DiskGuard({
    local,
    readOnly: false,
    isDamaged: () => false,
    probe: async () => {
      state.probes += 1;
      await turns();
      return state.pathIsWell;
    },
    mayWithdraw: () => !state.withdrawnJustNow,
    withdraw: (why) => void withdrawals.push(why),
    log: { ...silentLog, error: () => void (state.errorsLogged += 1) },
  });
  return Object.assign(state, { guard, withdrawals, first });
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
}

it("keeps what failed and what comes later, and makes all of it at the next owner, through the files that were open", async () => {
  const b = await bench();
  const { own } = b.guard;
  const { handle } = await own.create(own.root, name("f"), RDWR, 0o644, caller);
  await own.write(handle, Buffer.from("before"), 0, false);
  const answers: (string | number)[] = [];
  b.failing = E.EIO;
  const all = [
    errnoOf(() => own.write(handle, Buffer.from("AFTER"), 0, false)).then((errno) => answers.push(errno)),
    errnoOf(() => own.mkdir(own.root, name("d"), 0o755, caller)).then((errno) => answers.push(errno)),
    errnoOf(() => own.getattr(own.root)).then((errno) => answers.push(errno)),
  ];
  await turns();
  expect(answers).toEqual([]);
  expect(b.withdrawals).toEqual(["EIO of a change"]);
  expect(b.guard.why).toBe("EIO of a change");
  expect(b.guard.handles).toMatchObject([{ handle, directory: false, flags: RDWR }]);
  const next = lab.remote();
  next.adopt({ handles: b.guard.handles, lastHandle: b.guard.lastHandle, unsynced: b.guard.unsynced, epoch: 1 });
  b.guard.goOn(next);
  await turns();
  expect(answers).toEqual([]);
  next.ownerFound((await lab.owner(2)).address, 2);
  await Promise.all(all);
  expect(answers).toEqual([0, 0, 0]);
  expect(Buffer.from(await own.read(handle, 0, 100)).toString()).toBe("AFTERe");
  own.close(handle);
  expect(await errnoOf(() => own.read(handle, 0, 1))).toBe(E.EBADF);
});

it("says EIO of what may have been made before its disk failed, and of an append", async () => {
  const b = await bench();
  const { own } = b.guard;
  const { handle } = await own.create(own.root, name("f"), RDWR, 0o644, caller);
  b.failing = E.EROFS;
  const half = errnoOf(() => own.mkdir(own.root, name("half"), 0o755, caller));
  await turns();
  b.failing = 0;
  // It waits already, and was never made.
  const append = errnoOf(() => own.write(handle, Buffer.from("x"), 0, true));
  const next = lab.remote();
  next.adopt({ handles: b.guard.handles, lastHandle: b.guard.lastHandle, unsynced: b.guard.unsynced, epoch: 1 });
  b.guard.goOn(next);
  next.ownerFound((await lab.owner(2)).address, 2);
  expect(await half).toBe(E.EIO);
  expect(await append).toBe(0);
  const c = await bench();
  const opened = await c.guard.own.open((await c.guard.own.lookup(c.guard.own.root, name("f"))).id, RDWR);
  c.failing = E.EIO;
  const failed = errnoOf(() => c.guard.own.write(opened, Buffer.from("x"), 0, true));
  await turns();
  c.guard.goOn(next);
  expect(await failed).toBe(E.EIO);
});

it("makes a call of a killed program with no other file, if it fails when there is another owner", async () => {
  const b = await bench();
  const { own } = b.guard;
  const { handle } = await own.create(own.root, name("f"), RDWR, 0o644, caller);
  let fail = (): void => undefined;
  b.hangs = new Promise((resolve) => (fail = resolve));
  b.failing = E.EIO;
  const killed = errnoOf(() => own.write(handle, Buffer.from("of a killed program"), 0, false));
  own.close(handle);
  b.guard.yieldTo("a test");
  const next = lab.remote();
  next.adopt({ handles: b.guard.handles, lastHandle: b.guard.lastHandle, unsynced: b.guard.unsynced, epoch: 1 });
  b.guard.goOn(next);
  next.ownerFound((await lab.owner(2)).address, 2);
  const other = await own.create(own.root, name("g"), RDWR, 0o644, caller);
  fail();
  expect(await killed).toBe(E.EBADF);
  expect((await own.read(other.handle, 0, 100)).byteLength).toBe(0);
});

it("tells an error of a read while the path to the disk is well, and withdraws when it is not", async () => {
  const b = await bench();
  const { own } = b.guard;
  const { handle } = await own.create(own.root, name("f"), RDWR, 0o644, caller);
  b.failingReads = E.EIO;
  expect(await errnoOf(() => own.read(handle, 0, 1))).toBe(E.EIO);
  expect(b.withdrawals).toEqual([]);
  // Many at a time look once.
  b.probes = 0;
  await Promise.all([0, 1, 2].map((offset) => errnoOf(() => own.read(handle, offset, 1))));
  expect(b.probes).toBe(1);
  b.pathIsWell = false;
  let told = false;
  const waiting = errnoOf(() => own.read(handle, 0, 1)).finally(() => (told = true));
  while (b.withdrawals.length === 0) await turns();
  expect(b.withdrawals).toEqual(["EIO of a read, and the superblock cannot be read either"]);
  expect(told).toBe(false);
  b.guard.end();
  expect(await waiting).toBe(E.EIO);
  expect(await errnoOf(() => own.getattr(own.root))).toBe(E.EIO);
});

it("looks at the path for an error of a change that says little of the disk", async () => {
  const b = await bench();
  b.failing = E.ENOMEM;
  expect(await errnoOf(() => b.guard.own.mkdir(b.guard.own.root, name("d"), 0o755, caller))).toBe(E.ENOMEM);
  b.pathIsWell = false;
  void errnoOf(() => b.guard.own.mkdir(b.guard.own.root, name("d"), 0o755, caller));
  while (b.withdrawals.length === 0) await turns();
  expect(b.withdrawals).toEqual(["ENOMEM of a change, and the superblock cannot be read either"]);
  b.guard.end();
});

it("tells the error where another owner has withdrawn a moment ago", async () => {
  const b = await bench();
  b.withdrawnJustNow = true;
  b.failing = E.EIO;
  expect(await errnoOf(() => b.guard.own.mkdir(b.guard.own.root, name("d"), 0o755, caller))).toBe(E.EIO);
  expect(await errnoOf(() => b.guard.own.mkdir(b.guard.own.root, name("d"), 0o755, caller))).toBe(E.EIO);
  expect(b.withdrawals).toEqual([]);
  expect(b.guard.why).toBe(null);
  expect(b.errorsLogged).toBe(1);
});

it("lets go of other nodes' calls when their sessions are closed, and of them alone", async () => {
  const b = await bench();
  const { own, served } = b.guard;
  b.failing = E.EIO;
  const theirs = errnoOf(() => served.mkdir(served.root, name("d"), 0o755, caller));
  let told = false;
  const ours = errnoOf(() => own.mkdir(own.root, name("e"), 0o755, caller)).finally(() => (told = true));
  await turns();
  b.guard.dropServed();
  expect(await theirs).toBe(E.EIO);
  await turns();
  expect(told).toBe(false);
  b.guard.end();
  expect(await ours).toBe(E.EIO);
});

describe("what this node's own mount had changed when the disk was let go of", () => {
  /** The errors of fsync at the next owner: of a file that was changed, one that was synced since, one that was only read, and of the root. */
  async function fsyncs(after: { readonly cleanAfter?: number; readonly letGoAfter?: number }): Promise<number[]> {
    const b = await bench();
    const { own } = b.guard;
    const make = async (file: string): Promise<LowerHandle> => (await own.create(own.root, name(file), RDWR, 0o644, caller)).handle;
    const [changed, synced, read] = [await make("changed"), await make("synced"), await make("read")];
    const root = await own.opendir(own.root);
    if (changed === undefined || synced === undefined || read === undefined) throw new Error("three were made");
    for (const handle of [changed, synced]) await own.write(handle, Buffer.from("x"), 0, false);
    await own.fsync(synced, false);
    b.guard.yieldTo("a test");
    const next = lab.remote();
    next.adopt({ handles: b.guard.handles, lastHandle: b.guard.lastHandle, unsynced: b.guard.unsynced, epoch: 1 });
    b.guard.goOn(next);
    next.ownerFound(
      (
        await lab.owner(
          2,
          (lower) => lower,
          () => false,
          after,
        )
      ).address,
      2,
    );
    const errors: number[] = [];
    for (const handle of [changed, synced, read]) errors.push(await errnoOf(() => own.fsync(handle, false)));
    errors.push(await errnoOf(() => own.fsyncdir(root, false)));
    // Once.
    expect(await errnoOf(() => own.fsync(changed, false))).toBe(0);
    return errors;
  }

  it("is what it was changed through, though that was closed before the change ended: its program was killed", async () => {
    const id = { ino: 12, generation: 1 };
    const handle = 7 as LowerHandle;
    let end = (): void => undefined;
    const write = (): Promise<unknown> => new Promise((resolve) => (end = () => resolve({ offset: 0, bytes: 1 })));
    const guard = new DiskGuard({
      ...plain,
      local: { open: () => handle, close: () => undefined, write } as unknown as LocalLower,
      probe: () => Promise.resolve(true),
      mayWithdraw: () => true,
      withdraw: () => undefined,
      log: silentLog,
    });
    await guard.own.open(id, RDWR);
    const written = guard.own.write(handle, Buffer.from("x"), 0, false);
    guard.own.close(handle);
    end();
    await written;
    expect(guard.unsynced.state().changed).toMatchObject([[fileKey(id), { data: true }]]);
  });

  it.each([
    [false, 0],
    [true, 1],
  ])("counts as synced only by a sync that ended before that: given up meanwhile %s, %d left", async (givenUp, left) => {
    for (const name of ["fsync", "syncfs"] as const) {
      let end = (): void => undefined;
      const sync = (): Promise<void> => new Promise((resolve) => (end = resolve));
      const handle = 7 as unknown as LowerHandle;
      const guard = new DiskGuard({
        ...plain,
        local: { open: () => handle, write: () => 1, fsync: sync, syncfs: sync, failedSyncs: () => 0 } as unknown as LocalLower,
        probe: () => Promise.resolve(true),
        mayWithdraw: () => true,
        withdraw: () => undefined,
        log: silentLog,
      });
      void guard.own.open({ ino: 12, generation: 0 }, RDWR);
      void guard.own.write(handle, new Uint8Array(1), 0, false);
      const synced = name === "fsync" ? guard.own.fsync(handle, false) : guard.own.syncfs();
      if (givenUp) guard.yieldTo("another's");
      end();
      await turns();
      guard.goOn({ fsync: () => undefined, syncfs: () => undefined } as unknown as LocalLower);
      await synced;
      expect(guard.unsynced.size).toBe(left);
    }
  });

  it("is not said to be on the disk by a call that ends after that: it waits for the next owner, and for what that says", async () => {
    const ends: (() => void)[] = [];
    const hangs = (): Promise<unknown> => new Promise((resolve) => ends.push(() => resolve(1)));
    const calls = { write: hangs, fallocate: hangs, copyFileRange: hangs, fsync: hangs, fsyncdir: hangs, syncfs: hangs };
    const [plainFile, dsync, sync] = [7, 8, 9] as unknown as [LowerHandle, LowerHandle, LowerHandle];
    const opened = [plainFile, dsync, sync];
    const guard = new DiskGuard({
      ...plain,
      local: { open: () => opened.shift(), failedSyncs: () => 0, ...calls } as unknown as LocalLower,
      probe: () => Promise.resolve(true),
      mayWithdraw: () => true,
      withdraw: () => undefined,
      log: silentLog,
    });
    const { own } = guard;
    for (const flags of [RDWR, RDWR | O.DSYNC, RDWR | O.SYNC]) void own.open({ ino: 12, generation: 0 }, flags);
    const data = new Uint8Array(1);
    const told: string[] = [];
    const all = Object.entries({
      plain: own.write(plainFile, data, 0, false),
      "copy from O_SYNC": own.copyFileRange(sync, 0, plainFile, 0, 1),
      fsync: own.fsync(plainFile, false),
      fsyncdir: own.fsyncdir(plainFile, false),
      syncfs: own.syncfs(),
      O_DSYNC: own.write(dsync, data, 0, false),
      O_SYNC: own.write(sync, data, 0, false),
      append: own.write(sync, data, 0, true),
      fallocate: own.fallocate(sync, 0, 0, 1),
      copy: own.copyFileRange(plainFile, 0, sync, 0, 1),
    }).map(([call, made]) =>
      errnoOf(() => Promise.resolve<unknown>(made)).then((errno) => told.push(`${call}: ${errno === E.EIO ? "EIO" : errno}`)),
    );
    guard.yieldTo("another's");
    for (const end of ends) end();
    await turns();
    expect(told).toEqual(["plain: 0", "copy from O_SYNC: 0"]);
    const lost = (): never => {
      throw errnoError(E.EIO);
    };
    const next = {
      write: () => 1,
      fallocate: () => undefined,
      copyFileRange: () => 1,
      fsync: lost,
      fsyncdir: () => undefined,
      syncfs: lost,
    };
    guard.goOn(next as unknown as LocalLower);
    await Promise.all(all);
    expect(told.slice(2).sort()).toEqual([
      "O_DSYNC: 0",
      "O_SYNC: 0",
      "append: EIO",
      "copy: 0",
      "fallocate: 0",
      "fsync: EIO",
      "fsyncdir: 0",
      "syncfs: EIO",
    ]);
  });

  it("has names in it: of what was renamed, and of both that changed places; an fsync of their directory is enough", async () => {
    const b = await bench();
    const { own, unsynced } = b.guard;
    const [one, other] = [
      await own.create(own.root, name("a"), RDWR, 0o644, caller),
      await own.create(own.root, name("b"), RDWR, 0o644, caller),
    ];
    const dir = (await own.mkdir(own.root, name("d"), 0o755, caller)).id;
    const [root, opened] = [await own.opendir(own.root), await own.opendir(dir)];
    await own.fsyncdir(root, false);
    expect(unsynced.size).toBe(0);
    // With its directories, of which one is synced.
    await own.rename(own.root, name("a"), dir, name("c"), 0, one.entry.id, null);
    expect(unsynced.size).toBe(3);
    await own.fsync(one.handle, false);
    expect(unsynced.size).toBe(2);
    await own.rename(own.root, name("b"), dir, name("c"), 2, other.entry.id, one.entry.id);
    expect(unsynced.size).toBe(4);
    await own.fsyncdir(opened, false);
    expect(unsynced.size).toBe(1);
    // Over another one, of which no name is left.
    await own.rename(own.root, name("b"), dir, name("c"), 0, one.entry.id, other.entry.id);
    expect(unsynced.size).toBe(3);
  });

  it("is reported by fsync, once for each file, unless all of it is on the disk", async () => {
    expect(await fsyncs({ letGoAfter: 1 })).toEqual([E.EIO, 0, 0, E.EIO]);
  });

  it("is not reported after a clean release", async () => {
    expect(await fsyncs({ cleanAfter: 1 })).toEqual([0, 0, 0, 0]);
  });

  it("is synced in the background when there is much of it", async () => {
    const b = await bench();
    const { own } = b.guard;
    const { entry } = await own.create(own.root, name("f"), RDWR, 0o644, caller);
    for (let ino = 0; ino < MAX_UNSYNCED - 2; ino += 1) b.guard.unsynced.note({ ino: 1_000_000 + ino, generation: 0 }, "data");
    const before = b.guard.unsynced.size;
    await own.setattr(entry.id, { mode: 0o600 }, null);
    await turns();
    await new Promise((resolve) => {
      const look = (): void => void (b.guard.unsynced.size < before ? resolve(null) : setTimeout(look, 5));
      look();
    });
    expect(b.guard.unsynced.size).toBe(0);
  });
});
