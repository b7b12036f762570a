/** Calls of the dead that do not end (rule R7): the owner gives its disk up, or ends, so that the others go on. */
import { beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { OwnerService, type OwnerServiceHost } from "../../../overlay/serve/owner-service.ts";

const LATE = "calls of mounters that are gone (jid 0 of node1) did not end in 5000 ms";

const disk = vi.hoisted(() => ({ withdrawn: [] as string[], withdraws: true, owned: null as object | null }));
vi.mock("../../../overlay/volume/lower-mount.ts", () => ({ mountLower: () => Promise.resolve({ epoch: 1, type: "ext4", dirty: null }) }));
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
let service: OwnerService;
beforeEach(() => {
  disk.withdrawn = [];
  failures = [];
  const lower = { kind: "device", path: "/dev/x" };
  const info = { nodeid: 2, nodes: [{ nodeid: 2, address: "127.0.0.1" }] };
  const host: Partial<OwnerServiceHost> = {
    options: { log: silentLog, lower, changed: () => undefined } as unknown as OwnerServiceHost["options"],
    role: () => null,
    isEnding: () => false,
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
