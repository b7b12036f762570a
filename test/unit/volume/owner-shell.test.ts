/** The owner's shell over a lock client in memory: what it asks for, with which flags, and in which order callbacks run. */
import { expect, test, vi } from "vitest";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type ClusterInfo, type Lock, LockFlag, type LockHandlers, type LockStatus, type Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";
import { PROOF_RETRY_MS, REACH_AGAIN_MIN_MS, VolumeOwner, volumeLockspace } from "../../../overlay/volume/owner.ts";
import { decodeOwnerRecord, encodeOwnerRecord } from "../../../overlay/volume/owner-record.ts";

interface FakeLock extends Lock {
  mode: Mode;
  busy: boolean;
  exists: boolean;
  lvb: Uint8Array | null;
  lvbValid: boolean;
  readonly asked: string[];
  readonly written: Uint8Array[];
  end(status: LockStatus, lvb?: Uint8Array | null): void;
  readonly handlers: LockHandlers;
}

function fakeLockspace(locks: FakeLock[]): Lockspace {
  return {
    name: volumeLockspace("u"),
    batch: (make) => make(),
    whenOver: () => () => undefined,
    createLock: (resource: string, handlers: LockHandlers) => {
      const lock: FakeLock = {
        resource,
        handlers,
        mode: Mode.NL,
        busy: false,
        exists: true,
        lvb: null,
        lvbValid: false,
        error: null,
        asked: [],
        written: [],
        request(mode, flags, lvb) {
          expect(this.busy).toBe(false);
          this.busy = true;
          this.asked.push(`${mode}/${flags}`);
          if (lvb !== undefined) this.written.push(lvb);
        },
        unlock(flags, lvb) {
          expect(this.busy).toBe(false);
          this.busy = true;
          this.asked.push(`unlock/${flags}`);
          if (lvb !== undefined) this.written.push(lvb);
        },
        cancel() {},
        end(status, lvb = null) {
          this.busy = false;
          this.lvb = lvb;
          this.lvbValid = true;
          handlers.ast(this, status);
        },
      };
      locks.push(lock);
      return lock;
    },
  };
}

const info: ClusterInfo = {
  clusterName: "demo",
  nodeid: 2,
  incarnation: "abc",
  clientId: 5,
  nodes: [1, 2].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `10.0.0.${nodeid}` })),
  volumes: [],
  preferredOwners: [],
  overlayKeys: [{ id: "00000000", bytes: new Uint8Array(32) }],
};

function newest(locks: readonly FakeLock[], resource: string): FakeLock {
  const lock = locks.findLast((candidate) => candidate.resource === resource);
  if (lock === undefined) throw new Error(`no lock ${resource}`);
  return lock;
}

const claiming = { bootId: "b", machineId: "m", pid: 7, startTime: 1, device: "/dev/d" };

/** Others wait for these for as long as there is an owner. */
const kept = LockFlag.MAYKEEP;
/** The record is given up whenever it is to be changed, also while this node has no limit (hazard H13). */
const read = LockFlag.PROMPT | LockFlag.VALBLK;

test("a first mounter asks, mounts, publishes, and hands over in order", async () => {
  const locks: FakeLock[] = [];
  const told: string[] = [];
  let release: () => void = () => {};
  const owner = new VolumeOwner({
    info,
    lockspace: fakeLockspace(locks),
    process: claiming,
    reachesLower: true,
    log: silentLog,
    callbacks: {
      readOwnerBlock: async () => null,
      proveGone: () => Promise.reject(new Error("must not ask")),
      mountLower: async (epochAbove) => ({ epoch: epochAbove + 3, address: "10.0.0.2", port: 7 }),
      releaseLower: () => new Promise((resolve) => (release = resolve)),
      ownerFound: () => told.push("found"),
      ownerLost: () => told.push("lost"),
      becomeOwner: () => told.push("owner"),
      left: (error) => told.push(`left ${error}`),
    },
  });
  owner.start();
  // The anchor comes first, so that it is there before anything is given up.
  expect(locks.map((lock) => `${lock.resource} ${lock.asked[0]}`)).toEqual([
    `owner ${Mode.NL}/${kept | LockFlag.VALBLK}`,
    `mounter.2 ${Mode.EX}/${kept}`,
    `owner ${Mode.CR}/${read}`,
  ]);
  const record = locks[2] as FakeLock;
  (locks[1] as FakeLock).end("granted");
  record.end("granted");
  newest(locks, "next").end("granted");
  const probe = newest(locks, "mounter.1");
  expect(probe.asked).toEqual([`${Mode.PR}/${LockFlag.NOQUEUE}`]);
  probe.end("granted");
  expect(record.asked.length).toBe(1);
  probe.end("unlocked");
  await new Promise((resolve) => setImmediate(resolve));
  expect(record.asked.at(-1)).toBe(`${Mode.EX}/${kept | LockFlag.VALBLK}`);
  record.end("granted");
  expect(decodeOwnerRecord(record.written[0] as Uint8Array)).toMatchObject({ state: "mounting", nodeid: 2, epoch: 1 });
  record.end("granted");
  await new Promise((resolve) => setImmediate(resolve));
  expect(record.asked.at(-1)).toBe(`${Mode.EX}/${kept | LockFlag.VALBLK}`);
  record.end("granted", record.written[0]);
  record.end("granted");
  expect(told).toEqual(["owner"]);
  expect([owner.role, owner.owner]).toEqual(["owner", decodeOwnerRecord(record.written[1] as Uint8Array)]);
  expect(owner.owner).toMatchObject({ state: "ready", epoch: 3, address: "10.0.0.2", port: 7, incarnation: "abc", clientId: 5 });

  const left = owner.leave();
  record.end("granted", record.written[1]);
  expect(newest(locks, "next").asked.length).toBe(1);
  release();
  await new Promise((resolve) => setImmediate(resolve));
  newest(locks, "next").end("unlocked");
  expect(record.asked.at(-1)).toBe(`unlock/${LockFlag.VALBLK}`);
  expect(decodeOwnerRecord(record.written[2] as Uint8Array)).toMatchObject({ state: "released", epoch: 3 });
  record.end("unlocked");
  await left;
  expect(told).toEqual(["owner", "left null"]);
  await owner.leave();
});

test("a blocking AST makes a remote step down and ask again", () => {
  const locks: FakeLock[] = [];
  const told: string[] = [];
  const owner = new VolumeOwner({
    info,
    lockspace: fakeLockspace(locks),
    process: claiming,
    reachesLower: false,
    log: silentLog,
    callbacks: {
      readOwnerBlock: () => Promise.reject(new Error("must not read")),
      proveGone: () => Promise.reject(new Error("must not ask")),
      mountLower: () => Promise.reject(new Error("must not mount")),
      releaseLower: () => Promise.reject(new Error("must not release")),
      ownerFound: (found) => told.push(`found ${found.nodeid} ${found.port}`),
      ownerLost: (reason) => told.push(`lost: ${reason}`),
      becomeOwner: () => told.push("owner"),
      left: (error) => told.push(`left: ${error?.message}`),
    },
  });
  owner.start();
  const ready = {
    state: "ready",
    nodeid: 1,
    incarnation: "x",
    clientId: 9,
    address: "10.0.0.1",
    port: 70,
    epoch: 4,
    heir: 0,
    process: claiming,
    claimEpoch: 4,
  } as const;
  const record = newest(locks, "owner");
  record.end("granted", encodeOwnerRecord(ready));
  expect([owner.role, owner.why]).toEqual(["remote", "through node1"]);
  record.handlers.bast(record, Mode.EX);
  record.handlers.bast(record, Mode.EX);
  expect(record.asked.at(-1)).toBe("unlock/0");
  record.end("unlocked");
  const again = newest(locks, "owner");
  expect(again.asked).toEqual([`${Mode.CR}/${read}`]);
  again.end("granted", encodeOwnerRecord({ ...ready, port: 71, epoch: 5, heir: 0 }));
  owner.receiveGone([{ nodeid: 1, incarnation: "x", clientId: 8 }]);
  owner.receiveGone([{ nodeid: 1, incarnation: "x", clientId: null }]);
  expect(owner.why).toBe("owner node1 is gone: operations go on when node1 mounts the volume again");
  owner.receiveDisconnected(new Error("dlmd ended"));
  expect(told).toEqual(["found 1 70", "lost: the owner is changing", "found 1 71", "lost: owner node1 is gone", "left: dlmd ended"]);
});

test("without a proof: the line is left, and it asks again after PROOF_RETRY_MS, or at once with another view", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const locks: FakeLock[] = [];
    const asked: number[] = [];
    const told: string[] = [];
    const life = {
      nodeid: 1,
      incarnation: "x",
      clientId: 9,
      epoch: 4,
      bootId: "b",
      machineId: "m",
      pid: 1,
      startTime: 1n,
      device: "/dev/d",
      hostName: "h",
    };
    const block: OwnerBlock = { state: "owned", volumeUuid: "u", sequence: 1, epoch: 4, atMs: 0, life };
    const owner = new VolumeOwner({
      info,
      lockspace: fakeLockspace(locks),
      process: claiming,
      reachesLower: true,
      log: silentLog,
      callbacks: {
        readOwnerBlock: async () => block,
        proveGone: async ({ life: { nodeid } }) => {
          if (asked.push(nodeid) === 2) throw new Error("the question failed");
          return { kind: "none", why: "it does not answer" };
        },
        mountLower: () => Promise.reject(new Error("must not mount")),
        releaseLower: () => Promise.reject(new Error("must not release")),
        ownerFound: () => told.push("found"),
        ownerLost: () => told.push("lost"),
        becomeOwner: () => told.push("owner"),
        left: (error) => told.push(`left: ${(error as OperatingError).code}`),
      },
    });
    owner.start();
    newest(locks, "mounter.2").end("granted");
    newest(locks, "owner").end("granted");
    /** `next` is had, the lower nodeid is not in the line, the block is read, the proof asked for, `next` given up. */
    const turn = async (): Promise<void> => {
      newest(locks, "next").end("granted");
      const probe = newest(locks, "mounter.1");
      probe.end("granted");
      probe.end("unlocked");
      for (let tick = 0; tick < 4; tick++) await Promise.resolve();
    };
    await turn();
    expect([asked, newest(locks, "next").asked.at(-1)]).toEqual([[1], "unlock/0"]);
    newest(locks, "next").end("unlocked");
    expect(owner.why).toBe("node1 may have the volume mounted still: it does not answer");
    const before = locks.length;
    vi.advanceTimersByTime(PROOF_RETRY_MS - 1);
    expect(locks.length).toBe(before);
    vi.advanceTimersByTime(1);
    expect(newest(locks, "next").asked).toEqual([`${Mode.EX}/${kept}`]);
    await turn();
    newest(locks, "next").end("unlocked");
    expect(owner.why).toBe("node1 may have the volume mounted still: the question failed");
    owner.receiveView();
    await turn();
    expect([asked, told]).toEqual([[1, 1, 1], ["left: still-owned"]]);
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("a device that could not be read is looked at again after REACH_AGAIN_MIN_MS, and the lock that says so is asked for again", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const locks: FakeLock[] = [];
    let reads = 0;
    let broken = true;
    const owner = new VolumeOwner({
      info,
      lockspace: fakeLockspace(locks),
      process: claiming,
      reachesLower: true,
      log: silentLog,
      callbacks: {
        readOwnerBlock: async () => {
          reads += 1;
          if (broken) throw new Error("EIO");
          return null;
        },
        proveGone: () => Promise.reject(new Error("must not ask")),
        mountLower: () => Promise.reject(new Error("must not mount")),
        releaseLower: () => Promise.reject(new Error("must not release")),
        ownerFound: () => {},
        ownerLost: () => {},
        becomeOwner: () => {},
        left: () => {},
      },
    });
    const turns = async (): Promise<void> => {
      for (let tick = 0; tick < 6; tick++) await Promise.resolve();
    };
    owner.start();
    newest(locks, "mounter.2").end("granted");
    const ready = {
      state: "ready",
      nodeid: 1,
      incarnation: "x",
      clientId: 9,
      address: "10.0.0.1",
      port: 70,
      epoch: 4,
      heir: 0,
      process: claiming,
      claimEpoch: 4,
    } as const;
    newest(locks, "owner").end("granted", encodeOwnerRecord(ready));
    owner.receiveGone([{ nodeid: 1, incarnation: "x", clientId: 9 }]);
    newest(locks, "next").end("granted");
    await turns();
    const given = newest(locks, "mounter.2");
    expect([reads, given.asked.at(-1)]).toEqual([1, "unlock/0"]);
    expect(owner.why).toContain("this node does not reach the device, and looks again: EIO");
    broken = false;
    vi.advanceTimersByTime(REACH_AGAIN_MIN_MS - 1);
    expect(reads).toBe(1);
    vi.advanceTimersByTime(1);
    await turns();
    // The unlock is still on its way.
    expect([reads, newest(locks, "mounter.2")]).toEqual([2, given]);
    given.end("unlocked");
    expect(newest(locks, "mounter.2").asked).toEqual([`${Mode.EX}/${kept}`]);
    expect(owner.why).not.toContain("does not reach");
  } finally {
    vi.useRealTimers();
  }
});

test("one that was made to wait for another owner is none before it may be (hazard F44)", async () => {
  const locks: FakeLock[] = [];
  const owner = new VolumeOwner({
    info,
    lockspace: fakeLockspace(locks),
    process: claiming,
    reachesLower: false,
    log: silentLog,
    callbacks: {
      readOwnerBlock: () => new Promise(() => undefined),
      proveGone: () => Promise.reject(new Error("must not ask")),
      mountLower: () => Promise.reject(new Error("must not mount")),
      releaseLower: () => Promise.reject(new Error("must not release")),
      ownerFound: () => undefined,
      ownerLost: () => undefined,
      becomeOwner: () => undefined,
      left: () => undefined,
    },
  });
  owner.start();
  newest(locks, "owner").end("granted");
  expect([owner.reachesDevice, locks.map(({ resource }) => resource)]).toEqual([false, ["owner", "owner"]]);
  owner.mayOwn();
  newest(locks, "mounter.2").end("granted");
  expect([owner.reachesDevice, newest(locks, "next").asked.length]).toEqual([true, 1]);
  owner.mayOwn();
  expect(locks.length).toBe(4);
  await owner.leave();
});
