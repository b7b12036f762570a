/** Who may grow a volume, and in which words it is refused. */
import { expect, it } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { beginGrowth, type GrowHost, growthUnderWay } from "../../../overlay/serve/grow.ts";
import type { Growth, GrowthReport } from "../../../overlay/volume/growth.ts";

const growing: GrowthReport = { kind: "growing", fromBytes: 1, bytes: 2, toBytes: 3, tookMs: 4, code: null, why: null, hint: null };
const growthThat = (begin: () => Promise<GrowthReport>, report: GrowthReport | null = null): Growth => ({ begin, report }) as Growth;

function host(change: Partial<GrowHost> = {}): GrowHost {
  return {
    role: () => "owner",
    ownerNodeid: () => 1,
    why: () => "this node has the volume mounted",
    growth: () => growthThat(() => Promise.resolve(growing)),
    isDevice: true,
    readOnly: false,
    leaseHolds: () => true,
    trouble: () => null,
    ...change,
  };
}

it("the owner begins", async () => {
  expect(await beginGrowth(host())).toBe(growing);
});

it.each<[string, Partial<GrowHost>, object]>([
  ["another node", { role: () => "remote", growth: () => null }, { kind: "elsewhere", owner: 1 }],
  [
    "one that waits for an owner",
    { role: () => "waiting", ownerNodeid: () => null, growth: () => null },
    { kind: "elsewhere", owner: null },
  ],
  ["one that gives the volume up", { growth: () => null }, { kind: "elsewhere" }],
  ["a directory", { isDevice: false }, { kind: "refused", code: "directory" }],
  ["a mount that is read-only", { readOnly: true }, { kind: "refused", code: "read-only" }],
  ["a node without a lease", { leaseHolds: () => false }, { kind: "refused", code: "no-lease" }],
  ["one whose disk fails", { trouble: () => "it is silent" }, { kind: "refused", code: "disk-trouble", why: "it is silent" }],
])("%s does not", async (_, change, answer) => {
  const begin = (): Promise<never> => Promise.reject(new Error("it began"));
  expect(await beginGrowth(host({ growth: () => growthThat(begin), ...change }))).toMatchObject(answer);
});

it("what the disk says against it is the answer; a defect is none", async () => {
  const noRoom = new OperatingError("no room", { code: "no-room", hint: "make some" });
  const refuses = (error: Error): Promise<object> => {
    const begin = async (): Promise<never> => {
      throw error;
    };
    return beginGrowth(host({ growth: () => growthThat(begin) }));
  };
  expect(await refuses(noRoom)).toEqual({ kind: "refused", code: "no-room", why: "no room", hint: "make some" });
  await expect(refuses(new TypeError("bug"))).rejects.toThrow("bug");
});

it("one that is under way keeps the volume here", () => {
  const never = (): Promise<never> => new Promise(() => undefined);
  expect(growthUnderWay(growthThat(never, growing))).toBe("the volume is being grown: it has 2 of 3 bytes");
  expect([
    growthUnderWay(null),
    growthUnderWay(growthThat(never)),
    growthUnderWay(growthThat(never, { ...growing, kind: "grown" })),
  ]).toEqual([null, null, null]);
});
