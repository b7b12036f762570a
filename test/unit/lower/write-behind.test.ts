/** Hazard F23, over the real wire: what a program has written without waiting for the owner. */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { BEHIND_BYTES_MAX } from "../../../overlay/lower/limits.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import type { Attr, AttrChange, FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { Holds } from "../../../overlay/lower/remote/known.ts";
import { UNAWAITED_BYTES_MAX } from "../../../overlay/lower/remote/connection.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { BEHIND_CALLS_MAX, BEHIND_END_MAX, ROOM_MS } from "../../../overlay/lower/remote/write-behind.ts";
import { handClock } from "./hand-clock.ts";
import { caller, errnoOf, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const { owner, proxyTo, remote } = lab;

const clock = handClock();

const O_SYNC = 0o4010000;
const O_DSYNC = 0o10000;
const O_DIRECT = 0o40000;
const O_TRUNC = 0o1000;

/** Holds the owner's writes back until it is opened, and says in which order calls began. */
class Gate {
  readonly begun: string[] = [];
  #open: () => void = () => undefined;
  readonly #opened = new Promise<void>((resolve) => (this.#open = resolve));
  error: Error | null = null;
  setattrError: Error | null = null;

  open(): void {
    this.#open();
  }

  wrap(lower: LocalLower): LocalLower {
    const noted = <A extends unknown[], R>(what: string, call: (...given: A) => R): ((...given: A) => R) => {
      return (...given) => {
        this.begun.push(what);
        return call(...given);
      };
    };
    return {
      ...lower,
      getattr: noted("getattr", (...given: Parameters<LocalLower["getattr"]>) => lower.getattr(...given)),
      lookup: noted("lookup", (...given: Parameters<LocalLower["lookup"]>) => lower.lookup(...given)),
      readdir: noted("readdir", (...given: Parameters<LocalLower["readdir"]>) => lower.readdir(...given)),
      fsync: noted("fsync", (...given: Parameters<LocalLower["fsync"]>) => lower.fsync(...given)),
      unlink: noted("unlink", (...given: Parameters<LocalLower["unlink"]>) => lower.unlink(...given)),
      close: noted("close", (...given: Parameters<LocalLower["close"]>) => lower.close(...given)),
      write: async (handle, data, offset, append) => {
        this.begun.push("write");
        // The frame's buffer is given back when this ends.
        await this.#opened;
        if (this.error !== null) throw this.error;
        return lower.write(handle, data, offset, append);
      },
      setattr: async (...given) => {
        this.begun.push("setattr");
        await this.#opened;
        if (this.setattrError !== null) throw this.setattrError;
        return lower.setattr(...given);
      },
    };
  }
}

interface Made {
  readonly id: FileId;
  readonly handle: LowerHandle;
}

async function create(lower: RemoteLower, called: string, flags: number = RDWR): Promise<Made> {
  const { entry, handle } = await lower.create(lower.root, name(called), flags, 0o644, caller);
  return { id: entry.id, handle };
}

function behind(lower: RemoteLower, { handle }: Made, text: string, offset = 0): Promise<void> {
  if (!lower.mayWriteBehind(handle, offset, text.length)) throw new Error("it has to be waited for");
  return lower.writeBehind(handle, Buffer.from(text), offset);
}

/** An owner whose writes wait, and its caller. */
async function gated(): Promise<{ readonly gate: Gate; readonly one: Owner; readonly lower: RemoteLower }> {
  const gate = new Gate();
  const one = await owner(1, (lower) => gate.wrap(lower));
  const lower = remote();
  await lower.connect(one.address, 1);
  return { gate, one, lower };
}

class Hold implements Holds {
  held = 1;
  grants(): number {
    return this.held;
  }
  of(): number {
    return this.held;
  }
}

interface Here {
  readonly gate: Gate;
  readonly one: Owner;
  readonly lower: RemoteLower;
  readonly hold: Hold;
  readonly file: Made;
}

async function madeHere(): Promise<Here> {
  const gate = new Gate();
  const one = await owner(1, (lower) => gate.wrap(lower));
  const hold = new Hold();
  const lower = remote({}, undefined, { holds: hold });
  await lower.connect(one.address, 1);
  const { entry, handle } = await lower.create(lower.root, name("f"), RDWR, 0o600, caller);
  lower.madeFile(handle, entry.attr);
  return { gate, one, lower, hold, file: { id: entry.id, handle } };
}

const onDisk = (called: string): string => fs.readFileSync(path.join(lab.place.path, called), "utf8");

async function chmodAfterSync(lower: RemoteLower, { handle, id }: Made): Promise<void> {
  await lower.write(handle, Buffer.from("newer"), 0, false);
  await lower.setattr(id, { mode: 0o600 }, null);
  await lower.fsync(handle, true);
}

describe("a file that replaces another one", () => {
  /** `kept` is safe on the disk; `tmp` is new, and its data on its way. */
  async function replacing(
    lower: RemoteLower,
  ): Promise<{ readonly old: Made; readonly tmp: Made; readonly rename: () => Promise<number> }> {
    const old = await create(lower, "kept");
    await lower.write(old.handle, Buffer.from("old and safe"), 0, false);
    await lower.fsync(old.handle, false);
    lower.close(old.handle);
    const tmp = await create(lower, "tmp");
    const rename = (): Promise<number> =>
      errnoOf(async () => lower.rename(lower.root, name("tmp"), lower.root, name("kept"), 0, tmp.id, old.id));
    return { old, tmp, rename };
  }

  it("has all that was written to it behind, or the rename says EIO, once, and the old one is there", async () => {
    const error = errnoError(E.ENOSPC);
    let full = false;
    const refuse: LocalLower["write"] = () => Promise.reject(error);
    const one = await owner(1, (lower) => ({ ...lower, write: (...given) => (full ? refuse(...given) : lower.write(...given)) }));
    const lower = remote();
    await lower.connect(one.address, 1);
    const { tmp, rename } = await replacing(lower);
    full = true;
    // As rsync and sed -i: write, close, rename, no fsync.
    const written = errnoOf(() => behind(lower, tmp, "new"));
    lower.close(tmp.handle);
    expect([await rename(), await written, onDisk("kept")]).toEqual([E.EIO, E.ENOSPC, "old and safe"]);
    expect([await rename(), onDisk("kept")]).toEqual([0, ""]);
  });

  it("and whose owner died with that data replaces nothing at the next owner", async () => {
    const one = await owner(1);
    const proxy = await proxyTo(one);
    const lower = remote();
    await lower.connect(proxy.address, 1);
    const { tmp, rename } = await replacing(lower);
    proxy.dropRequests = true;
    const written = errnoOf(() => behind(lower, tmp, "new"));
    lower.close(tmp.handle);
    lower.ownerLost();
    const renamed = rename();
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    expect([await written, await renamed, onDisk("kept")]).toEqual([E.EIO, E.EIO, "old and safe"]);
  });

  it.each<[string, "kept" | "before" | "after" | "told", number, string]>([
    ["when there is another one: it replaces nothing, once", "after", E.EIO, "old and safe"],
    ["while there is none: it replaces nothing, once", "before", E.EIO, "old and safe"],
    ["when its program has been told that it is lost: it replaces it", "told", 0, ""],
    ["when all of it is on the disk: it replaces it", "kept", 0, "new"],
  ])("and whose owner died with data that it had answered, is renamed %s", async (_, when, errno, content) => {
    const one = await owner(1);
    const lower = remote();
    await lower.connect(one.address, 1);
    const { tmp, rename } = await replacing(lower);
    await lower.write(tmp.handle, Buffer.from("new"), 0, false);
    if (when !== "told") lower.close(tmp.handle);
    if (when === "kept") await lower.syncfs();
    lower.ownerLost();
    // As a disk does it whose journal has the name, and not the data.
    if (when !== "kept") fs.truncateSync(path.join(lab.place.path, "tmp"), 0);
    const early = when === "before" ? rename() : null;
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    const told = when === "told" ? await errnoOf(async () => lower.fsync(tmp.handle, false)) : E.EIO;
    expect([told, await (early ?? rename()), onDisk("kept")]).toEqual([E.EIO, errno, content]);
    // And then its program knows.
    const again = errno === 0 ? 0 : await rename();
    expect([again, onDisk("kept")]).toEqual([0, errno === 0 ? content : ""]);
  });

  it.each<[string, (lower: RemoteLower, tmp: Made) => unknown, number, number]>([
    ["chmod(2)", (lower, { id }) => lower.setattr(id, { mode: 0o600 }, null), 0, 0],
    ["truncate(2)", (lower, { id }) => lower.setattr(id, { size: 2 }, null), 0, E.EIO],
    ["a write, and fdatasync(2) before a chmod(2)", chmodAfterSync, 0, 0],
    ["a write, renamed with RENAME_EXCHANGE", async (lower, { handle }) => lower.write(handle, Buffer.from("newer"), 0, false), 2, 0],
  ])("whose owner died after %s: data that is lost counts, where a file is replaced", async (_, change, flags, errno) => {
    const one = await owner(1);
    const lower = remote();
    await lower.connect(one.address, 1);
    const { old, tmp } = await replacing(lower);
    await lower.write(tmp.handle, Buffer.from("new"), 0, false);
    await lower.fsync(tmp.handle, false);
    await change(lower, tmp);
    lower.close(tmp.handle);
    lower.ownerLost();
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    const renamed = errnoOf(async () => lower.rename(lower.root, name("tmp"), lower.root, name("kept"), flags, tmp.id, old.id));
    expect(await renamed).toBe(errno);
  });

  it("and has done so, though the answer was lost with its connection, has done so whatever is lost since", async () => {
    const one = await owner(1);
    const proxy = await proxyTo(one);
    const lower = remote();
    await lower.connect(proxy.address, 1);
    const { tmp, rename } = await replacing(lower);
    proxy.holdAnswers = true;
    const renamed = rename();
    await until(() => !fs.existsSync(path.join(lab.place.path, "tmp")));
    lower.noteLost(tmp.id);
    proxy.holdAnswers = false;
    proxy.cut();
    expect(await renamed).toBe(0);
    expect(await errnoOf(async () => lower.fsync(tmp.handle, false))).toBe(E.EIO);
  });

  it("and is written behind without a loss replaces it", async () => {
    const { gate, lower } = await gated();
    gate.open();
    const { tmp, rename } = await replacing(lower);
    const written = behind(lower, tmp, "new");
    expect([await rename(), await written, onDisk("kept")]).toEqual([0, undefined, "new"]);
  });
});

it("after a loss the next write through any handle is waited for, so that its program is told", async () => {
  const { gate, lower } = await gated();
  gate.error = errnoError(E.ENOSPC);
  gate.open();
  const [one, two] = [await create(lower, "f"), await create(lower, "g")];
  expect(await errnoOf(() => behind(lower, one, "a"))).toBe(E.ENOSPC);
  expect([one, two].map(({ handle }) => lower.mayWriteBehind(handle, 1, 1))).toEqual([false, false]);
});

it("the owner's word that there is room counts from when it was asked for", async () => {
  const one = await owner(1);
  const lower = remote();
  await lower.connect(one.address, 1);
  const made = create(lower, "f");
  // In the turn in which the owner makes it: its answer is read in a later one.
  await until(() => fs.existsSync(path.join(lab.place.path, "f")));
  clock.nowMs += ROOM_MS;
  expect(lower.mayWriteBehind((await made).handle, 0, 1)).toBe(false);
});

it("data of a file that was removed after it is no loss at the next owner, where it is made again", async () => {
  const one = await owner(1);
  const proxy = await proxyTo(one);
  const lower = remote();
  await lower.connect(proxy.address, 1);
  const file = await create(lower, "f");
  proxy.holdAnswers = true;
  const written = errnoOf(() => behind(lower, file, "a"));
  lower.close(file.handle);
  const removed = errnoOf(() => lower.unlink(lower.root, name("f"), file.id));
  await until(() => !fs.existsSync(path.join(lab.place.path, "f")));
  // The owner has made all of it, and ends in good order; its answers are lost.
  lower.ownerLost();
  await one.server.abandon();
  await one.server.close();
  await one.lower.shutdown();
  const two = await owner(2, undefined, undefined, { cleanAfter: 1 });
  lower.ownerFound(two.address, 2);
  await removed;
  expect([await written, await errnoOf(async () => lower.syncfs())]).toEqual([0, 0]);
});

describe("what is asked after it", () => {
  it("is begun by the owner when it has ended, and in its order", async () => {
    const { gate, one, lower } = await gated();
    const file = await create(lower, "f");
    gate.begun.length = 0;
    const before = one.server.counters.received;
    const written = behind(lower, file, "new");
    const attr = lower.getattr(file.id);
    const found = lower.lookup(lower.root, name("f"));
    await until(() => one.server.counters.received >= before + 3);
    expect(gate.begun).toEqual(["write"]);
    gate.open();
    await written;
    expect([(await attr).size, (await found).attr.size]).toEqual([3, 3]);
    expect(gate.begun).toEqual(["write", "getattr", "lookup"]);
  });

  it("is so over a connection that breaks: it is made once, and its file is closed", async () => {
    const { gate, one, lower: direct } = await gated();
    direct.shutdown();
    const proxy = await proxyTo(one);
    const lower = remote({ clientId: 8 });
    await lower.connect(proxy.address, 1);
    const file = await create(lower, "f");
    gate.begun.length = 0;
    const written = behind(lower, file, "new");
    await until(() => gate.begun.includes("write"));
    lower.close(file.handle);
    const attr = lower.getattr(file.id);
    proxy.cut();
    await until(() => lower.disconnected);
    gate.open();
    await written;
    expect((await attr).size).toBe(3);
    expect(gate.begun.filter((call) => call !== "getattr")).toEqual(["write", "close"]);
    await until(() => one.lower.openHandles === 0);
    expect(lower.openHandles).toBe(0);
  });

  it("is not begun by an owner that ends meanwhile: the next one makes all of it, in its order", async () => {
    const { gate, one, lower } = await gated();
    const file = await create(lower, "f");
    const written = behind(lower, file, "new");
    await until(() => gate.begun.includes("write"));
    gate.begun.length = 0;
    lower.close(file.handle);
    const removed = lower.unlink(lower.root, name("f"), file.id);
    await until(() => lower.ownerWait?.calls === 3);
    const ended = one.server.close();
    gate.open();
    await Promise.all([ended, written]);
    expect([gate.begun.includes("unlink"), onDisk("f")]).toEqual([false, "new"]);
    const two = await owner(2, (next) => gate.wrap(next));
    lower.ownerFound(two.address, 2);
    await removed;
    await until(() => lower.openHandles === 0 && two.lower.openHandles === 0);
    expect(gate.begun.filter((call) => call !== "close")).toEqual(["unlink"]);
  });
});

describe("a new owner", () => {
  it("makes what the last one was not sent, though its program has closed the file", async () => {
    const gone = await owner(1);
    const proxy = await proxyTo(gone);
    const lower = remote();
    await lower.connect(proxy.address, 1);
    const file = await create(lower, "f");
    proxy.dropRequests = true;
    const written = behind(lower, file, "new");
    lower.close(file.handle);
    lower.ownerLost();
    expect(onDisk("f")).toBe("");
    // All that the last one had executed is on the disk: so what it did not answer is made again.
    const two = await owner(2, undefined, undefined, { cleanAfter: 1 });
    lower.ownerFound(two.address, 2);
    await written;
    expect(onDisk("f")).toBe("new");
    await until(() => lower.openHandles === 0 && two.lower.openHandles === 0);
  });

  it("makes nothing again over what the last one has answered since", async () => {
    let [writes, comesAgain] = [0, false];
    let open = (): void => undefined;
    const mayWrite = new Promise<void>((resolve) => (open = resolve));
    const write = async (lower: LocalLower, given: Parameters<LocalLower["write"]>): Promise<{ offset: number; bytes: number }> => {
      writes += 1;
      if (writes === 2) await mayWrite;
      return lower.write(...given);
    };
    const mayServe = (): boolean => {
      // What runs is answered over the next connection, before anything is sent again.
      if (comesAgain) open();
      proxy.dropRequests = comesAgain;
      return true;
    };
    const wrap = (lower: LocalLower): LocalLower => ({ ...lower, write: (...given) => write(lower, given) });
    const gone = await owner(1, wrap, undefined, { mayServe: () => mayServe() });
    const proxy = await proxyTo(gone);
    const lower = remote();
    await lower.connect(proxy.address, 1);
    const file = await create(lower, "f");
    const { received } = gone.server.counters;
    proxy.holdAnswers = true;
    const older = errnoOf(() => behind(lower, file, "older"));
    const newer = lower.write(file.handle, Buffer.from("newer"), 0, false);
    await until(() => writes === 2 && gone.server.counters.received >= received + 2);
    proxy.cut();
    await until(() => lower.disconnected);
    [proxy.holdAnswers, comesAgain] = [false, true];
    expect((await newer).bytes).toBe(5);
    lower.ownerLost();
    await gone.server.abandon();
    await gone.server.close();
    await gone.lower.shutdown();
    const two = await owner(2, undefined, undefined, { cleanAfter: 1 });
    lower.ownerFound(two.address, 2);
    expect([await older, await errnoOf(async () => lower.fsync(file.handle, false)), onDisk("f")]).toEqual([0, 0, "newer"]);
  });

  it("after one that left in good order: what the next one has made is lost if that one dies", async () => {
    const gone = await owner(1);
    const proxy = await proxyTo(gone);
    const lower = remote();
    await lower.connect(proxy.address, 1);
    const file = await create(lower, "f");
    proxy.dropRequests = true;
    const written = behind(lower, file, "new");
    lower.ownerLost();
    const two = await owner(2, undefined, undefined, { cleanAfter: 1 });
    lower.ownerFound(two.address, 2);
    await written;
    lower.ownerLost();
    const three = await owner(3);
    lower.ownerFound(three.address, 3);
    expect(await errnoOf(async () => lower.fsync(file.handle, false))).toBe(E.EIO);
  });

  it("after one that died: what an fsync has brought to the disk since is not lost", async () => {
    const { gate, lower } = await gated();
    const file = await create(lower, "f");
    const written = behind(lower, file, "new");
    const synced = lower.fsync(file.handle, false);
    gate.open();
    await Promise.all([written, synced]);
    lower.ownerLost();
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    expect(await errnoOf(async () => lower.fsync(file.handle, false))).toBe(0);
  });

  it("after one that died: what it had answered is lost as well", async () => {
    const { gate, lower } = await gated();
    gate.open();
    const file = await create(lower, "f");
    await behind(lower, file, "new");
    lower.ownerLost();
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    expect(await errnoOf(async () => lower.fsync(file.handle, false))).toBe(E.EIO);
  });

  it("after one that died: what it had not answered is lost, and each open handle is told once", async () => {
    const { gate, lower } = await gated();
    const file = await create(lower, "f");
    const other = await lower.open(file.id, RDWR);
    const written = behind(lower, file, "new");
    await until(() => gate.begun.includes("write"));
    lower.ownerLost();
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    expect(await errnoOf(() => written)).toBe(E.EIO);
    for (const handle of [file.handle, other]) {
      expect(await errnoOf(async () => lower.fsync(handle, false))).toBe(E.EIO);
      expect(await errnoOf(async () => lower.fsync(handle, false))).toBe(0);
    }
    gate.open();
  });
});

describe("what the owner could not write", () => {
  it("is told by fsync: each open handle once, and the first that is opened later if nobody was told; by syncfs once", async () => {
    const { gate, lower } = await gated();
    gate.error = errnoError(E.ENOSPC);
    gate.open();
    const file = await create(lower, "f");
    expect(await errnoOf(() => behind(lower, file, "new"))).toBe(E.ENOSPC);
    lower.close(file.handle);
    const [late, later] = [await lower.open(file.id, RDWR), await lower.open(file.id, RDWR)];
    for (const handle of [late, later]) expect(await errnoOf(async () => lower.fsync(handle, true))).toBe(E.EIO);
    expect(await errnoOf(async () => lower.fsync(late, true))).toBe(0);
    const last = await lower.open(file.id, RDWR);
    expect(await errnoOf(async () => lower.fsync(last, true))).toBe(0);
    expect(await errnoOf(async () => lower.syncfs())).toBe(E.EIO);
    expect(await errnoOf(async () => lower.syncfs())).toBe(0);
  });

  it("an fsync that was asked for with it is told, too", async () => {
    const { gate, lower } = await gated();
    gate.error = errnoError(E.EDQUOT);
    const file = await create(lower, "f");
    const written = errnoOf(() => behind(lower, file, "new"));
    const synced = errnoOf(async () => lower.fsync(file.handle, false));
    gate.open();
    expect([await written, await synced]).toEqual([E.EDQUOT, E.EIO]);
  });

  it.each(["fsync", "syncfs"] as const)("an answer to %s that comes in the same packet is told, too", async (sync) => {
    const { gate, one, lower: direct } = await gated();
    direct.shutdown();
    const proxy = await proxyTo(one);
    const lower = remote({ clientId: 8 });
    await lower.connect(proxy.address, 1);
    const file = await create(lower, "f");
    await until(() => one.server.sessions.some(({ rememberedAnswers }) => rememberedAnswers > 0));
    gate.error = errnoError(E.ENOSPC);
    proxy.holdAnswers = true;
    const written = errnoOf(() => behind(lower, file, "new"));
    const synced = errnoOf(async () => (sync === "fsync" ? lower.fsync(file.handle, false) : lower.syncfs()));
    gate.open();
    const session = one.server.sessions.find(({ id }) => id.clientId === 8);
    // Both were made, and the caller has heard of neither.
    await until(() => session?.runningCalls === 0 && (session?.rememberedAnswers ?? 0) >= 2 && gate.begun.includes("write"));
    proxy.holdAnswers = false;
    proxy.cut();
    expect([await written, await synced]).toEqual([E.ENOSPC, E.EIO]);
  });

  it("a part of it counts as lost", async () => {
    const one = await owner(1, (lower) => ({ ...lower, write: (_handle, _data, offset) => ({ offset, bytes: 1 }) }));
    const lower = remote();
    await lower.connect(one.address, 1);
    const file = await create(lower, "f");
    expect(await errnoOf(() => behind(lower, file, "new"))).toBe(E.ENOSPC);
    expect(await errnoOf(async () => lower.fsync(file.handle, false))).toBe(E.EIO);
  });
});

describe("a write is waited for", () => {
  it("of a file that was opened, and of one that was made with O_SYNC, O_DSYNC or O_DIRECT", async () => {
    const { lower } = await gated();
    const file = await create(lower, "f");
    expect(lower.mayWriteBehind(await lower.open(file.id, RDWR), 0, 1)).toBe(false);
    for (const [at, flag] of [O_SYNC, O_DSYNC, O_DIRECT].entries()) {
      const waits = await create(lower, `f${at}`, RDWR | flag);
      expect([flag, lower.mayWriteBehind(waits.handle, 0, 1)]).toEqual([flag, false]);
    }
  });

  it("that ends behind BEHIND_END_MAX", async () => {
    const { lower } = await gated();
    const file = await create(lower, "f");
    const may = [BEHIND_END_MAX - 1, BEHIND_END_MAX].map((offset) => lower.mayWriteBehind(file.handle, offset, 1));
    expect(may).toEqual([true, false]);
  });

  it("ROOM_MS after its file was made", async () => {
    const { gate, lower } = await gated();
    gate.open();
    const file = await create(lower, "f");
    await behind(lower, file, "x");
    clock.nowMs += ROOM_MS - 1;
    expect(lower.mayWriteBehind(file.handle, 0, 1)).toBe(true);
    clock.nowMs += 1;
    expect(lower.mayWriteBehind(file.handle, 0, 1)).toBe(false);
  });

  it("where BEHIND_BYTES_MAX are under way, until they are not", async () => {
    const { gate, lower } = await gated();
    const file = await create(lower, "f");
    const part = new Uint8Array(BEHIND_END_MAX);
    const parts = Array.from({ length: BEHIND_BYTES_MAX / BEHIND_END_MAX }, () => lower.writeBehind(file.handle, part, 0));
    expect(lower.mayWriteBehind(file.handle, 0, 1)).toBe(false);
    gate.open();
    for (const one of parts) await one;
    expect(lower.writtenBehind()).toBeUndefined();
    await behind(lower, await create(lower, "g"), "x");
  });

  it("where BEHIND_CALLS_MAX are under way, until they are not", async () => {
    const { gate, lower } = await gated();
    const file = await create(lower, "f");
    const all = Array.from({ length: BEHIND_CALLS_MAX }, () => behind(lower, file, "x"));
    expect(lower.mayWriteBehind(file.handle, 0, 1)).toBe(false);
    gate.open();
    for (const one of all) await one;
    expect(lower.writtenBehind()).toBeUndefined();
  });

  it.each<[string, () => number, boolean]>([
    ["has room for 256 times as much", () => 256 * BEHIND_BYTES_MAX, true],
    ["has one byte less", () => 256 * BEHIND_BYTES_MAX - 1, false],
    [
      "says nothing of it",
      () => {
        throw errnoError(E.EIO);
      },
      false,
    ],
  ])("if the disk %s", async (_what, room, may) => {
    const one = await owner(1, (lower) => ({ ...lower, room }));
    const lower = remote();
    await lower.connect(one.address, 1);
    expect(lower.mayWriteBehind((await create(lower, "f")).handle, 0, 1)).toBe(may);
  });

  it("while the owner cannot be reached", async () => {
    const { gate, lower } = await gated();
    const file = await create(lower, "f");
    const written = behind(lower, file, "x");
    lower.ownerLost();
    expect(lower.mayWriteBehind(file.handle, 0, 1)).toBe(false);
    lower.shutdown();
    expect(await errnoOf(() => written)).toBe(E.EIO);
    gate.open();
  });
});

it("a change that has no answer is known, whoever waits for it", async () => {
  const { gate, lower } = await gated();
  const file = await create(lower, "f");
  const attr = lower.getattr(file.id);
  expect(lower.hasUnansweredChanges).toBe(false);
  await attr;
  const written = behind(lower, file, "a");
  expect(lower.hasUnansweredChanges).toBe(true);
  gate.open();
  await written;
  expect(lower.hasUnansweredChanges).toBe(false);
});

it("what is sent again is what was there when the program was answered", async () => {
  const one = await owner(1);
  const proxy = await proxyTo(one);
  const lower = remote();
  await lower.connect(proxy.address, 1);
  const file = await create(lower, "f");
  proxy.dropRequests = true;
  const request = Buffer.from("old");
  const written = lower.writeBehind(file.handle, request, 0);
  // The buffer is the next request's.
  request.write("new");
  proxy.cut();
  await until(() => lower.disconnected);
  expect(onDisk("f")).toBe("");
  proxy.dropRequests = false;
  await written;
  expect(onDisk("f")).toBe("old");
});

it("writtenBehind ends with the last of them; what waits when the lower ends is lost", async () => {
  const { gate, lower } = await gated();
  const file = await create(lower, "f");
  expect(lower.writtenBehind()).toBeUndefined();
  const [first, second] = [behind(lower, file, "a"), behind(lower, file, "b")];
  let over = false;
  const all = Promise.resolve(lower.writtenBehind()).then(() => (over = true));
  gate.open();
  await first;
  expect(over).toBe(false);
  await second;
  await all;
  const lost = behind(lower, file, "c");
  lower.shutdown();
  expect(await errnoOf(() => lost)).toBe(E.EIO);
  expect(lower.writtenBehind()).toBeUndefined();
});

describe("a change of owner, mode or times", () => {
  const TIMES = { atime: { sec: 1, nsec: 2 }, mtime: { sec: 3, nsec: 4 } };

  const make = async (lower: RemoteLower, id: FileId, change: AttrChange): Promise<Attr | null> => {
    const next = lower.setattrBehind(id, change);
    await next?.make();
    return next?.attr ?? null;
  };

  it("is foreseen together with the writes before it, and made after them", async () => {
    const { gate, lower, file } = await madeHere();
    const written = behind(lower, file, "new", 10);
    const next = lower.setattrBehind(file.id, { mode: 0o640, uid: 5, gid: 6, ...TIMES });
    const made = next?.make();
    lower.close(file.handle);
    // Also after its program has closed it.
    const last = lower.setattrBehind(file.id, { mode: 0o444 });
    const lastMade = last?.make();
    const real = lower.getattr(file.id);
    gate.open();
    await Promise.all([written, made, lastMade]);
    // Of its change time only this machine's is known here, and of its blocks nothing.
    const { ctimeSec, ctimeNsec, blocks } = last?.attr ?? {};
    expect(last?.attr).toEqual({ ...(await real), ctimeSec, ctimeNsec, blocks });
    expect([last?.attr.size, last?.attr.mode, last?.attr.uid, last?.attr.gid]).toEqual([13, 0o100444, 5, 6]);
    expect([next?.attr.mode, next?.attr.size]).toEqual([0o100640, 13]);
  });

  it("who owns it is known meanwhile, without a trip (hazard F36)", async () => {
    const { gate, one, lower, hold, file } = await madeHere();
    const made = make(lower, file.id, { mode: 0o640, uid: 5 });
    expect(lower.ownership(file.id)).toMatchObject({ mode: 0o100640, uid: 5 });
    gate.open();
    await made;
    expect(lower.ownership(file.id)).toMatchObject({ mode: 0o100640, uid: 5 });
    // Under another lock it is asked for.
    hold.held = 2;
    const before = one.server.counters.received;
    expect((await lower.ownership(file.id)).uid).toBe(5);
    expect(one.server.counters.received - before).toBe(1);
  });

  it("the owner begins nothing that is asked later before it has ended", async () => {
    const { gate, one, lower, file } = await madeHere();
    gate.begun.length = 0;
    const before = one.server.counters.received;
    const made = make(lower, file.id, { mode: 0o640 });
    const found = lower.lookup(lower.root, name("f"));
    await until(() => one.server.counters.received >= before + 2);
    expect([gate.begun, lower.hasUnansweredChanges]).toEqual([["setattr"], true]);
    gate.open();
    expect([(await found).attr.mode, (await made)?.mode]).toEqual([0o100640, 0o100640]);
  });

  it.each<[string, (here: Here) => unknown]>([
    ["the lock has left", ({ hold }) => (hold.held = 2)],
    ["the lock is about to leave", ({ hold }) => (hold.held = 0)],
    ["its attributes were changed, and that was waited for", ({ lower, file }) => lower.setattr(file.id, { mode: 0o4711 }, null)],
    ["it got an extended attribute", ({ lower, file }) => lower.setxattr(file.id, name("user.a"), Buffer.from("b"), 0)],
    ["it was truncated by an open", ({ lower, file }) => lower.open(file.id, RDWR | O_TRUNC)],
    ["it got another name", ({ lower, file }) => lower.link(file.id, lower.root, name("g"))],
    ["it was removed", ({ lower, file }) => lower.unlink(lower.root, name("f"), file.id)],
    ["room was made in it", ({ lower, file }) => lower.fallocate(file.handle, 0, 0, 1)],
    ["it was written to, and that was waited for", ({ lower, file }) => lower.write(file.handle, Buffer.from("new"), 0, false)],
    ["ROOM_MS have passed", () => (clock.nowMs += ROOM_MS)],
    ["there is another owner", ({ lower }) => lower.ownerLost()],
  ])("is waited for once %s", async (_what, then) => {
    const here = await madeHere();
    here.gate.open();
    expect(here.lower.setattrBehind(here.file.id, { mode: 0o640 })).not.toBeNull();
    await then(here);
    expect(here.lower.setattrBehind(here.file.id, { mode: 0o640 })).toBeNull();
  });

  it.each<[string, AttrChange]>([
    ["a truncation", { size: 0 }],
    ["set-user-id", { mode: 0o4755 }],
    ["a time before 1970", { mtime: { sec: -1, nsec: 0 } }],
    ["a time after 2038", { atime: { sec: 2 ** 31, nsec: 0 } }],
  ])("%s is waited for", async (_what, change) => {
    const { lower, file } = await madeHere();
    expect(await make(lower, file.id, change)).toBeNull();
  });

  it("is waited for of a file that another node has made", async () => {
    const { one, file } = await madeHere();
    const other = remote({ clientId: 8 }, undefined, { holds: new Hold() });
    await other.connect(one.address, 1);
    await other.getattr(file.id);
    expect(other.setattrBehind(file.id, { mode: 0o640 })).toBeNull();
  });

  it("where BEHIND_CALLS_MAX are under way, until they are not", async () => {
    const { gate, lower, file } = await madeHere();
    const all = Array.from({ length: BEHIND_CALLS_MAX }, () => behind(lower, file, "x"));
    expect(lower.setattrBehind(file.id, { mode: 0o640 })).toBeNull();
    gate.open();
    await Promise.all(all);
    expect(lower.setattrBehind(file.id, { mode: 0o640 })).not.toBeNull();
  });

  it("that fails is lost: fsync says so, and the next one is waited for", async () => {
    const { gate, lower, file } = await madeHere();
    gate.setattrError = errnoError(E.EROFS);
    gate.open();
    expect(await errnoOf(() => make(lower, file.id, { mode: 0o640 }))).toBe(E.EROFS);
    expect(lower.setattrBehind(file.id, { mode: 0o640 })).toBeNull();
    expect(await errnoOf(async () => lower.fsync(file.handle, false))).toBe(E.EIO);
  });

  it("after a write that fails while it is under way, the next one is waited for", async () => {
    const { gate, lower, file } = await madeHere();
    gate.error = errnoError(E.ENOSPC);
    const written = errnoOf(() => behind(lower, file, "new"));
    const made = lower.setattrBehind(file.id, { mode: 0o640 })?.make();
    void made?.catch(() => undefined);
    gate.open();
    expect(await written).toBe(E.ENOSPC);
    expect(await errnoOf(async () => made)).toBe(0);
    expect(lower.setattrBehind(file.id, { mode: 0o640 })).toBeNull();
  });

  it("of a file that was removed after it, made again at the next owner, is no loss", async () => {
    const { gate, lower, file } = await madeHere();
    const made = lower.setattrBehind(file.id, { mode: 0o640 })?.make();
    lower.close(file.handle);
    // As an owner that has made this and the removal, and ended before it answered.
    fs.rmSync(path.join(lab.place.path, "f"));
    await until(() => gate.begun.includes("close") || gate.begun.includes("setattr"));
    gate.open();
    expect(await errnoOf(async () => made)).toBe(0);
    expect(await errnoOf(async () => lower.syncfs())).toBe(0);
  });

  it("that an owner had when it died is lost", async () => {
    const { gate, lower, file } = await madeHere();
    gate.open();
    await lower.fsync(file.handle, false);
    expect(await make(lower, file.id, { mode: 0o640 })).not.toBeNull();
    lower.ownerLost();
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    expect(await errnoOf(async () => lower.fsync(file.handle, false))).toBe(E.EIO);
  });
});

describe("a file that may have become immutable (hazard F27)", () => {
  it("has no write behind once its lock has left, nor after a change of its flags here", async () => {
    const { gate, lower } = await gated();
    gate.open();
    const [left, changed, other] = [await create(lower, "left"), await create(lower, "changed"), await create(lower, "other")];
    const may = ({ handle }: Made): boolean => lower.mayWriteBehind(handle, 0, 1);
    expect([left, changed, other].map(may)).toEqual([true, true, true]);
    await lower.tellOpens(left.id);
    expect([left, changed, other].map(may)).toEqual([false, true, true]);
    const value = await lower.fileAttributes(changed.handle, "flags");
    await lower.setFileAttributes(changed.handle, "flags", value);
    expect([left, changed, other].map(may)).toEqual([false, false, true]);
  });
});

describe("a write behind leaves", () => {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  it("with the next call; at once where its end is waited for", async () => {
    const { gate, lower } = await gated();
    gate.open();
    const file = await create(lower, "f");
    const before = lower.counters.flushes;
    const grown = (): number => lower.counters.flushes - before;
    const first = behind(lower, file, "a");
    await turn();
    expect(grown()).toBe(0);
    const asked = lower.statfs();
    await turn();
    expect(grown()).toBe(1);
    await Promise.all([first, asked]);
    const second = behind(lower, file, "b");
    const over = lower.writtenBehind();
    expect(grown()).toBe(2);
    await Promise.all([second, over]);
    const third = behind(lower, file, "c");
    const told = lower.tellOpens(file.id);
    expect(grown()).toBe(3);
    await Promise.all([third, told]);
  });

  it("at the end of the turn where there is much of it", async () => {
    const { gate, lower } = await gated();
    gate.open();
    const files = await Promise.all(["f", "g"].map((called) => create(lower, called)));
    const before = lower.counters.flushes;
    const half = "x".repeat(UNAWAITED_BYTES_MAX / 2);
    const written = files.slice(0, 1).map((file) => behind(lower, file, half));
    await turn();
    expect(lower.counters.flushes - before).toBe(0);
    written.push(...files.slice(1).map((file) => behind(lower, file, half)));
    await turn();
    expect(lower.counters.flushes - before).toBe(1);
    await Promise.all(written);
  });
});

describe("attributes that are asked for behind it", () => {
  const asked = (one: Owner): (() => number) => {
    const before = one.server.counters.received;
    return () => one.server.counters.received - before;
  };

  it("are those of its answer: the owner is not asked for them", async () => {
    const { gate, one, lower, file } = await madeHere();
    gate.begun.length = 0;
    const since = asked(one);
    const written = behind(lower, file, "new");
    const attr = lower.getattr(file.id);
    // Nobody else sends it sooner.
    await until(() => since() === 1);
    gate.open();
    await written;
    const { mtimeNs, ctimeNs } = fs.statSync(path.join(lab.place.path, "f"), { bigint: true });
    const { size, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } = await attr;
    const nanoseconds = (sec: number, nsec: number): bigint => BigInt(sec) * 1_000_000_000n + BigInt(nsec);
    expect([size, nanoseconds(mtimeSec, mtimeNsec), nanoseconds(ctimeSec, ctimeNsec)]).toEqual([3, mtimeNs, ctimeNs]);
    // With the write the owner reads them, for its answer.
    expect([gate.begun, since()]).toEqual([["write", "getattr"], 1]);
  });

  it("are those after the last of several", async () => {
    const { gate, one, lower, file } = await madeHere();
    const since = asked(one);
    const writes = [behind(lower, file, "one"), behind(lower, file, "two", 3)];
    const between = lower.getattr(file.id);
    const made = lower.setattrBehind(file.id, { mode: 0o640 })?.make();
    const after = lower.getattr(file.id);
    gate.open();
    await Promise.all([...writes, made]);
    expect([(await after).size, (await after).mode]).toEqual([6, 0o100640]);
    // What came after it may have been made before its answer was read.
    expect((await between).size).toBe(6);
    expect(since()).toBeLessThanOrEqual(4);
  });

  it.each<[string, (here: Here) => unknown]>([
    ["it fails", ({ gate }) => (gate.error = errnoError(E.ENOSPC))],
    ["the lock leaves", ({ hold }) => (hold.held = 0)],
  ])("are asked for when it has ended where %s meanwhile", async (_what, happens) => {
    const here = await madeHere();
    const { gate, one, lower, file } = here;
    gate.begun.length = 0;
    const since = asked(one);
    const written = errnoOf(() => behind(lower, file, "new"));
    const attr = lower.getattr(file.id);
    happens(here);
    gate.open();
    expect((await attr).size).toBe(gate.error === null ? 3 : 0);
    await written;
    expect(since()).toBe(2);
  });

  it("are asked for at once where another change has begun since", async () => {
    const { gate, lower, file } = await madeHere();
    gate.begun.length = 0;
    const written = behind(lower, file, "new");
    const changed = lower.setattr(file.id, { mode: 0o600 }, null);
    expect(gate.begun).toEqual([]);
    const attr = lower.getattr(file.id);
    await until(() => gate.begun.includes("write"));
    gate.open();
    await Promise.all([written, changed]);
    expect([(await attr).size, (await attr).mode, gate.begun]).toEqual([3, 0o100600, ["write", "getattr", "setattr", "getattr"]]);
  });
});
