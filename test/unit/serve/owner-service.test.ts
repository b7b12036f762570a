/** Calls of the dead that do not end (rule R7): the owner gives its disk up, or ends, so that the others go on. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Lock, LockHandlers } from "../../../dlmd/client/api.ts";
import type { OwnedLowerParts } from "../../../overlay/serve/owned-lower.ts";
import { LEASE_LOOK_MS, LEASE_WAIT_MS, OwnerService, type OwnerServiceHost } from "../../../overlay/serve/owner-service.ts";

const LATE = "calls of mounters that are gone (jid 0 of node1) did not end in 5000 ms";

const disk = vi.hoisted(() => ({
  withdrawn: [] as string[],
  withdraws: true,
  owned: null as object | null,
  mounts: 0,
  cleanAfter: 0,
  fails: false,
}));
vi.mock("../../../overlay/volume/lower-mount.ts", () => ({
  mountLower: () => {
    disk.mounts += 1;
    return Promise.resolve({ epoch: 4, type: "ext4", dirty: null, cleanAfter: disk.cleanAfter });
  },
}));
vi.mock("../../../overlay/serve/owned-lower.ts", () => ({
  serveMounted: (_mount: object, { createServer }: OwnedLowerParts) => {
    createServer({} as never, null);
    if (disk.fails) return Promise.reject(new Error("no port"));
    const withdraw = (why: string): boolean => {
      disk.withdrawn.push(why);
      return disk.withdraws;
    };
    return Promise.resolve(disk.owned ?? { port: 1, disk: { guard: { withdraw } } });
  },
}));

const reaching = { log: silentLog, bit: { uuid: "u" }, native: {}, readOnly: false, changed: () => undefined };
let failures: unknown[];
let holds: boolean;
let isEnding: boolean;
/** As this mount knows it. */
let owner: object | null;
/** Resources of the locks that are asked for and not given up. */
let locks: Map<string, string>;
/** As the others know. */
let reachesDevice: boolean;
/** Of dlmd: what is asked for is granted at once, and what it is asked for after it is answered, unless it is slow. */
let isSlow = false;
const lockspace = {
  batch: (make: () => void): void => make(),
  createLock: (resource: string, { ast }: LockHandlers): Lock => {
    const lock = {
      busy: false,
      exists: false,
      error: null,
      request: () => {
        const probe = resource.startsWith("served.");
        if (probe && isSlow) return;
        if (!probe) locks.set(resource, "held");
        lock.exists = true;
        queueMicrotask(() => ast(lock as unknown as Lock, "granted"));
      },
      unlock: () => {
        lock.exists = false;
        locks.delete(resource);
        queueMicrotask(() => ast(lock as unknown as Lock, "unlocked"));
      },
      cancel: () => void locks.delete(resource),
    };
    return lock as unknown as Lock;
  },
};
let service: OwnerService;
beforeEach(() => {
  disk.withdrawn = [];
  disk.owned = null;
  disk.mounts = 0;
  disk.cleanAfter = 0;
  disk.fails = false;
  owner = { nodeid: 1, incarnation: "i1", clientId: 7, epoch: 3 };
  locks = new Map();
  reachesDevice = true;
  failures = [];
  holds = true;
  isEnding = false;
  isSlow = false;
  service = new OwnerService(hostOf());
});

function hostOf(): OwnerServiceHost {
  const lower = { kind: "device", path: "/dev/x" };
  const info = { nodeid: 2, nodes: [{ nodeid: 2, address: "127.0.0.1" }], overlayKeys: [] };
  const host: Partial<OwnerServiceHost> = {
    options: { ...reaching, lower } as unknown as OwnerServiceHost["options"],
    ownWay: () => ({ remote: null, ownGuard: null }),
    role: () => ({ owner, reachesDevice, handOver: () => undefined }) as never,
    isEnding: () => isEnding,
    leaseHolds: () => holds,
    movesAway: () => undefined,
    client: () => ({ info, lockspace: () => Promise.resolve(lockspace) }) as never,
    fail: (error) => void failures.push(error),
  };
  return host as OwnerServiceHost;
}

it("an owner whose calls of the dead do not end withdraws from its disk", async () => {
  disk.withdraws = true;
  await service.mount(0, { block: null, proof: null });
  service.stopLate(LATE);
  expect([disk.withdrawn, failures]).toEqual([[LATE], []]);
});

it("says why its disk cannot be given back just now, and gives it back: its service ends before", async () => {
  expect(service.whyNotGivenBack).toBe("this owner gives the volume up");
  const steps: string[] = [];
  const step = (what: string) => (): Promise<void> => {
    steps.push(what);
    return Promise.resolve();
  };
  const guard = { isGiven: false };
  let growing = true;
  disk.owned = {
    port: 1,
    server: { close: step("service") },
    local: { shutdown: step("files") },
    disk: { guard, end: () => undefined },
    mount: {
      release: step("disk"),
      get growth() {
        return growing ? { report: { kind: "growing", bytes: 1, toBytes: 2 } } : null;
      },
    },
  };
  await service.mount(0, { block: null, proof: null });
  expect(service.whyNotGivenBack).toBe("the volume is being grown: it has 1 of 2 bytes");
  growing = false;
  expect(service.whyNotGivenBack).toBeNull();
  guard.isGiven = true;
  expect(service.whyNotGivenBack).toBe("this owner gives the volume up");
  await service.giveBack();
  expect([steps, service.owned]).toEqual([["service", "service", "files", "disk"], null]);
});

it("does not give back what was given up because it failed", async () => {
  await expect(service.giveBack()).rejects.toThrow("it was given up");
});

it("one that may not withdraw ends", async () => {
  disk.withdraws = false;
  await service.mount(0, { block: null, proof: null });
  service.stopLate(LATE);
  expect([disk.withdrawn, failures]).toEqual([[LATE], [expect.objectContaining({ code: "not-stopped", message: LATE })]]);
});

it("a mount that is not the owner ends", () => {
  service.stopLate(LATE);
  expect([disk.withdrawn, failures]).toEqual([[], [expect.objectContaining({ code: "not-stopped", message: LATE })]]);
});

it("a planned move says how far it is, until the disk is given back", async () => {
  const steps: unknown[] = [];
  const look = async (): Promise<void> => void steps.push(service.move?.step ?? null);
  disk.owned = {
    port: 1,
    local: { syncfs: look, shutdown: look },
    server: { close: look },
    mount: { release: look },
    disk: { guard: { handOver: look }, end: () => undefined },
  };
  await service.mount(0, { block: null, proof: null });
  expect(service.move).toBeNull();
  await service.give(3);
  expect(service.move).toMatchObject({ heir: 3, step: "releasing" });
  await service.release();
  expect(steps).toEqual(["syncing", "ending-calls", "ending-calls", "releasing", "releasing", "releasing"]);
  expect(service.move).toBeNull();
});

afterEach(() => void vi.useRealTimers());

it.each([
  ["waits for the first lease of its node", LEASE_LOOK_MS, () => (holds = true)],
  ["does not wait for it for ever", LEASE_WAIT_MS, () => undefined],
])("an owner %s", async (_what, afterMs, then) => {
  vi.useFakeTimers();
  holds = false;
  const mounted = service.mount(0, { block: null, proof: null });
  await vi.advanceTimersByTimeAsync(LEASE_WAIT_MS - LEASE_LOOK_MS);
  expect(disk.mounts).toBe(0);
  then();
  await vi.advanceTimersByTimeAsync(Math.min(afterMs, LEASE_LOOK_MS));
  await mounted;
  expect(disk.mounts).toBe(1);
});

it("an owner that ends meanwhile takes no disk, and that is no failure", async () => {
  vi.useFakeTimers();
  holds = false;
  const mounted = service.mount(0, { block: null, proof: null }).catch((error: unknown) => String(error));
  await vi.advanceTimersByTimeAsync(LEASE_LOOK_MS);
  isEnding = true;
  await vi.advanceTimersByTimeAsync(LEASE_LOOK_MS);
  expect(await mounted).toContain("is being taken down");
  expect([disk.mounts, failures]).toEqual([0, []]);
});

const IN_TIME = new AbortController().signal;
const file = { ino: 5, generation: 1 };
const left = (change: object = {}) => ({
  epoch: 3,
  ticket: "t1",
  isLast: true,
  dlmdDied: true,
  tokens: [file],
  locked: [],
  sharedLocks: [],
  shared: [],
  ...change,
});

/** Hazard F44: what the owner has left whose dlmd has died. */
it("keeps what the owner leaves, has it as the next owner, and removes no file before it is collected", async () => {
  expect(await service.keep(left())).toEqual({ refused: "" });
  expect([[...locks.keys()], service.keeps]).toEqual([["w5.1"], 0]);
  owner = null;
  await service.closeGone([{ nodeid: 1, incarnation: "i1", clientId: null }]);
  disk.cleanAfter = 3;
  const removed: string[] = [];
  disk.owned = {
    port: 1,
    local: { recoverOrphans: () => Promise.resolve(removed.push("orphans")), shutdown: () => Promise.resolve() },
    server: { close: () => Promise.resolve(), closeSessions: () => Promise.resolve() },
    mount: { release: () => Promise.resolve() },
    disk: null,
  };
  await service.mount(3, { block: null, proof: null });
  service.keepNothing();
  expect([[...locks.keys()], service.keeps]).toEqual([["w5.1"], 1]);
  await service.openFiles.settle();
  expect(removed).toEqual([]);
  await service.release();
  expect([[...locks.keys()], removed]).toEqual([[], []]);
});

it.each([
  ["another owner is there", async () => Promise.resolve(service.keepNothing())],
  ["it is taken back", async () => Promise.resolve(service.keepNot("t1"))],
  [
    "the owner before has left its disk otherwise",
    async () => {
      disk.cleanAfter = 2;
      await service.mount(3, { block: null, proof: null });
    },
  ],
  [
    "it becomes no owner after all",
    async () => {
      disk.cleanAfter = 3;
      disk.fails = true;
      await expect(service.mount(3, { block: null, proof: null })).rejects.toThrow("no port");
    },
  ],
])("gives it up if %s", async (_, then) => {
  expect(await service.keep(left())).toEqual({ refused: "" });
  await then();
  expect([[...locks.keys()], service.keeps]).toEqual([[], 0]);
});

it("keeps nothing that was not queued for when the owner's node is gone, nor anything after that", async () => {
  isSlow = true;
  const asked = service.keep(left());
  await vi.waitFor(() => expect([...locks.keys()]).toEqual(["w5.1"]));
  await service.closeGone([{ nodeid: 3, incarnation: "i3", clientId: 9 }]);
  expect([...locks.keys()]).toEqual(["w5.1"]);
  await service.closeGone([{ nodeid: 1, incarnation: "i1", clientId: null }]);
  expect([...locks.keys()]).toEqual([]);
  isSlow = false;
  expect(await service.keep(left({ ticket: "t2" }))).toEqual({ refused: "the owner is gone" });
  void asked;
});

it.each<[string, string, () => void]>([
  ["ends", "it is ending", () => (isEnding = true)],
  ["knows of no owner", "the owner is gone", () => (owner = null)],
  ["knows of another owner", "the owner is gone", () => (owner = { nodeid: 3, incarnation: "i3", clientId: 1, epoch: 4 })],
  ["only reads the volume", "it is not to be the owner", () => Object.assign(reaching, { readOnly: true })],
  ["does not reach the device", "it is not to be the owner", () => (reachesDevice = false)],
])("keeps nothing if it %s", async (_, refused, change) => {
  const before = { ...reaching };
  change();
  try {
    service = new OwnerService(hostOf());
    expect(await service.keep(left())).toEqual({ refused });
  } finally {
    Object.assign(reaching, before);
  }
});

it("an owner asks its callers, and says why nobody keeps it", async () => {
  expect(await service.leaveToCallers(left(), IN_TIME)).toBe("this owner gives the volume up");
  let found: object = { nodeids: [3], refused: [] };
  const said: string[] = [];
  disk.owned = {
    port: 1,
    disk: null,
    server: { askToKeep: () => Promise.resolve(found), keepNot: (ticket: string) => void said.push(ticket) },
  };
  await service.mount(0, { block: null, proof: null });
  expect(await service.leaveToCallers(left(), IN_TIME)).toBe("");
  found = { nodeids: [], refused: ["node 3: it is ending"] };
  expect(await service.leaveToCallers(left(), IN_TIME)).toBe("no other mount has said in time that it does; node 3: it is ending");
  service.takeBack("t1");
  expect(said).toEqual(["t1"]);
});

it.each([
  ["is handed over", () => service.give(3)],
  ["is given back", () => service.sync()],
])("a disk that fails as it is synced before it %s is given up by its guard: what is lost is not told here alone", async (_, give) => {
  const steps: string[] = [];
  const guard = {
    why: null as string | null,
    served: {
      syncfs: () => {
        guard.why = "EIO of a sync";
        return Promise.reject(new Error("EIO"));
      },
    },
    handOver: () => Promise.resolve(steps.push("hand over")),
  };
  const local = { syncfs: () => Promise.resolve(steps.push("past the guard")) };
  disk.owned = { port: 1, local, server: { close: () => Promise.resolve(steps.push("close")) }, disk: { guard } };
  await service.mount(0, { block: null, proof: null });
  await give().catch(() => undefined);
  expect([steps, service.move]).toEqual([[], null]);
});
