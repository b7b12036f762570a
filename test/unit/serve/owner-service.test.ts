/** Calls of the dead that do not end (rule R7): the owner gives its disk up, or ends, so that the others go on. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { LEASE_LOOK_MS, LEASE_WAIT_MS, OwnerService, type OwnerServiceHost } from "../../../overlay/serve/owner-service.ts";

const LATE = "calls of mounters that are gone (jid 0 of node1) did not end in 5000 ms";

const disk = vi.hoisted(() => ({ withdrawn: [] as string[], withdraws: true, owned: null as object | null, mounts: 0 }));
vi.mock("../../../overlay/volume/lower-mount.ts", () => ({
  mountLower: () => {
    disk.mounts += 1;
    return Promise.resolve({ epoch: 1, type: "ext4", dirty: null });
  },
}));
vi.mock("../../../overlay/serve/owned-lower.ts", () => ({
  serveMounted: () => {
    const withdraw = (why: string): boolean => {
      disk.withdrawn.push(why);
      return disk.withdraws;
    };
    return Promise.resolve(disk.owned ?? { port: 1, disk: { guard: { withdraw } } });
  },
}));

let failures: unknown[];
let holds: boolean;
let isEnding: boolean;
let service: OwnerService;
beforeEach(() => {
  disk.withdrawn = [];
  disk.owned = null;
  disk.mounts = 0;
  failures = [];
  holds = true;
  isEnding = false;
  const lower = { kind: "device", path: "/dev/x" };
  const info = { nodeid: 2, nodes: [{ nodeid: 2, address: "127.0.0.1" }] };
  const host: Partial<OwnerServiceHost> = {
    options: { log: silentLog, lower, changed: () => undefined } as unknown as OwnerServiceHost["options"],
    role: () => null,
    isEnding: () => isEnding,
    leaseHolds: () => holds,
    movesAway: () => undefined,
    client: () => ({ info }) as never,
    fail: (error) => void failures.push(error),
  };
  service = new OwnerService(host as OwnerServiceHost);
});

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
