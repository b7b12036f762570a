/** Growth of a mounted file system, by steps, against a kernel of the test's: how far it is, when it ends, and that a release waits for one step alone. */
import { expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { E } from "../../../dlmd/base/errno.ts";
import { GROW_STEP_BYTES_MAX, Growth, type GrowthPort, mayResize } from "../../../overlay/volume/growth.ts";
import { refusal } from "../../refusal.ts";

const STEP = GROW_STEP_BYTES_MAX;

interface Kernel extends GrowthPort {
  bytes: number;
  device: number;
  /** The wanted sizes, in the order of the calls. */
  readonly calls: number[];
  /** Ends the call that is under way. */
  end: (result?: number) => Promise<void>;
}

function kernel(bytes: number, device: number): Kernel {
  const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));
  const state: Kernel = {
    bytes,
    device,
    calls: [],
    end: () => Promise.resolve(),
    deviceBytes: () => state.device,
    fileSystemBytes: () => Promise.resolve(state.bytes),
    countedBytes: () => state.bytes - 100,
    mayResize: () => true,
    nowMs: () => 0,
    grow: (_, wanted) => {
      state.calls.push(wanted);
      return new Promise((resolve) => {
        state.end = async (result = 0) => {
          if (result === 0) state.bytes = wanted - (wanted % 10);
          resolve(result);
          await turn();
        };
      });
    },
  };
  return state;
}

const growthOf = (port: GrowthPort, confirm: () => Promise<void> = () => Promise.resolve()): Growth =>
  new Growth({ device: "/dev/x", type: "ext4", rootFd: 3, confirm }, port);

it("takes GROW_STEP_BYTES_MAX at a time, and says how far it is", async () => {
  const port = kernel(1000, 1000 + 2 * STEP + 50);
  const growth = growthOf(port);
  expect(growth.report).toBeNull();
  expect(await growth.begin()).toMatchObject({ kind: "growing", fromBytes: 1000, bytes: 1000, toBytes: 1050 + 2 * STEP });
  // Within a step it is what the kernel counts.
  port.bytes = 5000;
  expect(growth.report).toMatchObject({ kind: "growing", bytes: 5000 });
  await port.end();
  // Who asks again joins it.
  expect(await growth.begin()).toMatchObject({ kind: "growing", fromBytes: 1000 });
  while (growth.report?.kind === "growing") await port.end();
  expect(port.calls[0]).toBe(1000 + STEP);
  expect(port.calls.length).toBeGreaterThan(2);
  for (const [at, wanted] of port.calls.entries()) expect(wanted - (port.calls[at - 1] ?? 1000)).toBeLessThanOrEqual(STEP);
  expect(growth.report).toMatchObject({ kind: "grown", fromBytes: 1000, bytes: port.bytes, code: null });
});

it("with a rest that is too little for the file system, ends with what there is", async () => {
  const port = kernel(1000, 2005);
  const growth = growthOf(port);
  await growth.begin();
  await port.end();
  await port.end();
  expect(port.calls).toEqual([2005, 2005]);
  expect(growth.report).toMatchObject({ kind: "grown", bytes: 2000 });
  // Nothing at all: it has no room.
  await growth.begin();
  await port.end();
  expect(growth.report).toMatchObject({ kind: "failed", code: "no-room" });
});

it("is refused without room, where the device is smaller, and where the disk is another's", async () => {
  expect(await refusal(growthOf(kernel(1000, 1000)).begin())).toMatchObject({ code: "no-room", exitStatus: 32 });
  expect(await refusal(growthOf(kernel(1000, 990)).begin())).toMatchObject({ code: "device-short", exitStatus: 32 });
  const anothers = new OperatingError("it names node 2", { code: "anothers", hint: "" });
  const port = kernel(1000, 2000);
  expect(await refusal(growthOf(port, () => Promise.reject(anothers)).begin())).toBe(anothers);
  expect(port.calls).toEqual([]);
});

it("ends before the next step where the disk is another's by then", async () => {
  const port = kernel(1000, 1000 + 2 * STEP);
  let asked = 0;
  const anothers = new OperatingError("it names node 2", { code: "anothers", hint: "look" });
  const growth = growthOf(port, () => (asked++ === 0 ? Promise.resolve() : Promise.reject(anothers)));
  await growth.begin();
  await port.end();
  expect(growth.report).toMatchObject({ kind: "failed", code: "anothers", why: "it names node 2", hint: "look", bytes: port.bytes });
  expect(port.calls).toHaveLength(1);
});

it("R18: a release waits for the step that is under way, and no other one begins", async () => {
  const port = kernel(1000, 1000 + 3 * STEP);
  const growth = growthOf(port);
  await growth.begin();
  let isReleased = false;
  const release = growth.stop().then(() => (isReleased = true));
  await new Promise((resolve) => void setImmediate(resolve));
  expect(isReleased).toBe(false);
  await port.end();
  await release;
  expect(port.calls).toHaveLength(1);
  expect(growth.report).toMatchObject({ kind: "stopped", code: "released" });
  expect(await refusal(growth.begin())).toMatchObject({ code: "released" });
  expect(port.calls).toHaveLength(1);
});

it.each([
  [E.EPERM, "EPERM", "The kernel has found errors in it"],
  [E.EBUSY, "EBUSY", "Another program grows it"],
  [E.EINVAL, "EINVAL", "dmesg says why"],
])("a kernel that refuses (%i) is told of, and it can be tried again", async (errno, name, hint) => {
  const port = kernel(1000, 2000);
  const growth = growthOf(port);
  await growth.begin();
  await port.end(-errno);
  expect(growth.report).toMatchObject({ kind: "failed", code: "not-grown", bytes: 1000 });
  expect(growth.report?.why).toContain(name);
  expect(growth.report?.hint).toContain(hint);
  await growth.begin();
  await port.end();
  expect(growth.report).toMatchObject({ kind: "grown", bytes: 2000 });
});

it("a mount without CAP_SYS_RESOURCE says that it lacks it", async () => {
  const port = { ...kernel(1000, 2000), mayResize: () => false, grow: () => Promise.resolve(-E.EPERM) };
  const growth = growthOf(port);
  await growth.begin();
  await new Promise((resolve) => void setImmediate(resolve));
  expect(growth.report?.hint).toContain("no CAP_SYS_RESOURCE");
  expect([mayResize("CapEff:\t000001fffeffffff\n"), mayResize("CapEff:\t000001ffffffffff\n"), mayResize("")]).toEqual([false, true, false]);
});
