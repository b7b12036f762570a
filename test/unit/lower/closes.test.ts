/** Closes of which the owner is told together (hazard F31), over the real wire. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { MAX_CLOSE_MANY } from "../../../overlay/lower/limits.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import { CLOSE_WAIT_MS, Closes } from "../../../overlay/lower/remote/closes.ts";
import { RemoteCore } from "../../../overlay/lower/remote/core.ts";
import { MAX_REMOTE_HANDLES } from "../../../overlay/lower/remote/handles.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { TEST_CALLER } from "../../compliance/lower-fixture.ts";
import { caller, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const { owner, proxyTo, remote } = remoteLab();

interface Made {
  readonly id: FileId;
  readonly handle: LowerHandle;
}

interface Bench {
  readonly lower: RemoteLower;
  readonly one: Owner;
  /** Inodes whose lock is not here. */
  readonly away: Set<number>;
  /** Open, and its attributes are known. */
  readonly file: (called: string) => Promise<Made>;
  /** How many the owner has open when it has made all that was sent before. */
  readonly open: () => Promise<number>;
  /** The files that the owner had open when it took a name away. */
  readonly openAt: number[];
}

async function bench(): Promise<Bench> {
  const away = new Set<number>();
  const openAt: number[] = [];
  const one = await owner(1, (lower) => ({
    ...lower,
    unlink: (...given) => {
      openAt.push(lower.openHandles);
      return lower.unlink(...given);
    },
    rename: (...given) => {
      openAt.push(lower.openHandles);
      return lower.rename(...given);
    },
  }));
  const lower = remote({}, undefined, { holds: { grants: () => 1, of: ({ ino }) => (away.has(ino) ? 0 : 1) } });
  await lower.connect(one.address, 1);
  const file = async (called: string): Promise<Made> => {
    const { entry, handle } = await lower.create(lower.root, name(called), RDWR, 0o644, caller);
    await lower.getattr(entry.id);
    return { id: entry.id, handle };
  };
  const open = async (): Promise<number> => {
    await lower.statfs();
    return one.lower.openHandles;
  };
  return { lower, one, away, file, open, openAt };
}

it("MAX_CLOSE_MANY files are closed by one call, and a lone one waits no longer than CLOSE_WAIT_MS", async () => {
  const { lower, one, file, open } = await bench();
  const files: Made[] = [];
  for (let at = 0; at <= MAX_CLOSE_MANY; at += 1) files.push(await file(`f${at}`));
  const trips = lower.counters.roundTrips;
  for (const { handle } of files.slice(1)) lower.close(handle);
  expect([await open(), lower.counters.roundTrips - trips]).toEqual([1, 2]);
  const sent = lower.counters.messagesSent;
  for (const { handle } of files.slice(0, 1)) lower.close(handle);
  await nextTurn();
  expect(lower.counters.messagesSent - sent).toBe(0);
  await until(() => one.lower.openHandles === 0);
});

it("before a name is taken away here, by unlink or by rename, what was closed is closed", async () => {
  const { lower, file, openAt } = await bench();
  const [gone, over, source] = [await file("gone"), await file("over"), await file("source")];
  lower.close(gone.handle);
  await lower.unlink(lower.root, name("gone"), gone.id);
  lower.close(over.handle);
  await lower.rename(lower.root, name("source"), lower.root, name("over"), 0, source.id, over.id);
  expect(openAt).toEqual([2, 1]);
});

it("what was written behind and is removed at once is closed between the two", async () => {
  const { lower, file, open, openAt } = await bench();
  const { id, handle } = await file("f");
  const written = lower.writeBehind(handle, Buffer.from("x"), 0);
  lower.close(handle);
  await lower.unlink(lower.root, name("f"), id);
  await written;
  expect([openAt, await open(), lower.openHandles]).toEqual([[0], 0, 0]);
});

it("what was written behind is open at the next owner, where it is made again and closed", async () => {
  const one = await owner(1);
  const proxy = await proxyTo(one);
  const lower = remote({}, undefined, { holds: { grants: () => 1, of: () => 1 } });
  await lower.connect(proxy.address, 1);
  const { entry, handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  await lower.getattr(entry.id);
  proxy.dropRequests = true;
  const written = lower.writeBehind(handle, Buffer.from("x"), 0);
  lower.close(handle);
  lower.ownerLost();
  const two = await owner(2, undefined, undefined, { cleanAfter: 1 });
  lower.ownerFound(two.address, 2);
  await written;
  expect((await lower.getattr(entry.id)).size).toBe(1);
  await until(() => lower.openHandles === 0 && two.lower.openHandles === 0);
});

it("before its lock leaves what was closed is told, and one without a name, or without a lock here, is told at once", async () => {
  const { lower, away, file, open } = await bench();
  const [one, two, three] = [await file("one"), await file("two"), await file("three")];
  lower.close(one.handle);
  await lower.tellOpens(one.id);
  expect(await open()).toBe(2);
  await lower.unlink(lower.root, name("two"), two.id);
  lower.close(two.handle);
  expect(await open()).toBe(1);
  away.add(three.id.ino);
  lower.close(three.handle);
  expect(await open()).toBe(0);
});

it("a caller that may have as many files open as it has is no reason for ENFILE at the owner", async () => {
  const core = new RemoteCore({ ...TEST_CALLER, log: silentLog });
  const calls: string[] = [];
  vi.spyOn(core.session, "call").mockImplementation((call) => {
    calls.push(call);
    return new Promise(() => undefined);
  });
  const id = { ino: 12, generation: 1 };
  const { handles } = core.opens;
  for (let at = 1; at < MAX_REMOTE_HANDLES; at += 1) handles.add(handles.allocate(), id, RDWR, false, 0);
  core.opens.closes.add({ handle: 0xffff_ffff as LowerHandle, id }, true);
  void core.opens.opendir(id);
  expect(calls).toEqual(["close", "opendir"]);
});

it("those of a mount that ends are not told: they end with its session", () => {
  vi.useFakeTimers();
  const told: LowerHandle[] = [];
  const closes = new Closes((handles) => void told.push(...handles));
  closes.add({ handle: 1 as LowerHandle, id: { ino: 12, generation: 1 } }, true);
  closes.stop();
  vi.advanceTimersByTime(2 * CLOSE_WAIT_MS);
  vi.useRealTimers();
  expect([told, closes.count]).toEqual([[], 1]);
});
