/** What counts as a proof that an earlier life of this node is over, and what does not. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Exclusive } from "../../../overlay/volume/device.ts";
import type { Life, Proof, ProveGone } from "../../../overlay/volume/life.ts";
import { type Machine, createProveGone, proveGoneHere, thisMachine } from "../../../overlay/volume/prove-gone.ts";

const life: Life = {
  nodeid: 1,
  incarnation: "i1",
  clientId: 3,
  epoch: 4,
  bootId: "boot-a",
  machineId: "machine-a",
  pid: 100,
  startTime: 555n,
  device: "/dev/old",
  hostName: "one",
};
const self = { nodeid: 1, pid: 200, device: "/dev/new" };

function machine(change: Partial<Record<string, Exclusive>> = {}, startTime: bigint | null = null, sameDisk = true): Machine {
  return {
    bootId: () => "boot-a",
    machineId: () => "machine-a",
    startTimeOf: () => startTime,
    exclusive: async (device) => change[device] ?? "free",
    maybeSameDisk: async () => sameDisk,
  };
}

test("another boot id of this node: rebooted; the process gone and the device free: ended", async () => {
  expect(await proveGoneHere({ ...life, bootId: "boot-b" }, self, machine({ "/dev/new": "busy" }))).toEqual({ kind: "rebooted" });
  expect(await proveGoneHere(life, self, machine())).toEqual({ kind: "ended" });
  // Its pid has been taken by another process.
  expect(await proveGoneHere(life, self, machine({}, 556n))).toEqual({ kind: "ended" });
  // The name that it had then is another disk's now, or nothing.
  expect(await proveGoneHere(life, self, machine({ "/dev/old": "busy" }, null, false))).toEqual({ kind: "ended" });
  expect(await proveGoneHere(life, self, machine({ "/dev/old": "gone" }))).toEqual({ kind: "ended" });
});

test("no proof: it runs, its device is in use by either name, the device is gone, it is another node's", async () => {
  const why = (proof: Proof): string => (proof.kind === "none" ? proof.why : proof.kind);
  expect(why(await proveGoneHere(life, self, machine({}, 555n)))).toContain("process 100 of this node runs still");
  expect(why(await proveGoneHere(life, self, machine({ "/dev/old": "busy" })))).toContain("/dev/old is in use still");
  expect(why(await proveGoneHere(life, self, machine({ "/dev/new": "busy" })))).toContain("/dev/new is in use still");
  expect(why(await proveGoneHere(life, self, machine({ "/dev/new": "gone" })))).toContain("/dev/new cannot be reached");
  expect(why(await proveGoneHere({ ...life, nodeid: 2, bootId: "boot-b" }, self, machine()))).toContain("node 2");
  const elsewhere = { ...life, bootId: "boot-b", machineId: "machine-b" };
  expect(why(await proveGoneHere(elsewhere, self, machine()))).toContain(
    "(nodeid 1) is another machine than the one that had /dev/old mounted (one)",
  );
});

test("an earlier life of this very process is over once nothing holds the device", async () => {
  const own = { ...life, pid: self.pid };
  expect(await proveGoneHere(own, self, machine({}, 555n))).toEqual({ kind: "ended" });
  expect((await proveGoneHere(own, self, machine({ "/dev/new": "busy" }, 555n))).kind).toBe("none");
});

test("a question that fails is no proof", async () => {
  const prove: ProveGone = createProveGone(self, {
    ...machine(),
    exclusive: () => Promise.reject(new Error("EACCES")),
  });
  expect(await prove(life)).toEqual({ kind: "none", why: "this machine cannot tell: EACCES" });
});

test("this machine's boot id and processes", async () => {
  expect(thisMachine.bootId()).toMatch(/^[0-9a-f-]{36}$/);
  const field = /\) (.*)$/s.exec(readFileSync("/proc/self/stat", "latin1"))?.[1]?.split(" ")[19];
  expect(thisMachine.startTimeOf(process.pid)).toBe(BigInt(field ?? "0"));
  expect(thisMachine.startTimeOf(2 ** 22 + 1)).toBeNull();
  expect(await thisMachine.maybeSameDisk("/dev/null", "/dev/null")).toBe(false);
});
