/** Whether a mount is well: what a busy one does each moment does not count, what lasts does. */
import { describe, expect, it } from "vitest";
import type { OwnerWait } from "../../../overlay/lower/owner-wait.ts";
import { type MountParts, MountStatus, type MountStatusOptions } from "../../../overlay/serve/mount-status.ts";

const call: OwnerWait = { id: 1, call: "write", waitedMs: 5, calls: 3, inOwnersHands: true, trouble: null };

interface Seen {
  readonly ownerWait?: OwnerWait;
  readonly wait?: string;
  readonly silence?: string;
  readonly lease?: string;
  readonly isEnding?: boolean;
  readonly session?: null;
  readonly failure?: Error;
}

function isWell({ ownerWait, wait, silence, lease = "holds", isEnding = false, session, failure }: Seen): boolean {
  const parts = {
    session: session === null ? null : {},
    lease: { state: lease },
    group: { wait: wait ?? null },
    owner: { role: "remote" },
    isEnding,
    failure: failure ?? null,
  } as unknown as MountParts;
  const options = {
    parts: () => parts,
    service: { owned: null, disk: { silence: silence ?? null } },
    ownCalls: { remote: { ownerWait: ownerWait ?? null } },
  };
  return new MountStatus(options as unknown as MountStatusOptions).isWell;
}

it.each<[string, Seen]>([
  ["that nobody uses", {}],
  ["of which calls are under way", { ownerWait: call }],
  ["of which a call is about to last", { ownerWait: { ...call, waitedMs: 1_999 } }],
])("a mount %s is well", (_, seen) => expect(isWell(seen)).toBe(true));

it.each<[string, Seen]>([
  ["of which a call lasts", { ownerWait: { ...call, waitedMs: 2_000 } }],
  ["that has no connection to the owner", { ownerWait: { ...call, trouble: "it is refused" } }],
  ["that waits for its group", { wait: "node2 is recovered" }],
  ["of which the disk is silent", { silence: "the disk has not answered" }],
  ["without a lease", { lease: "lapsed" }],
  ["that ends", { isEnding: true }],
  ["that is being taken out", { failure: new Error("EMFILE") }],
  ["that is not there yet", { session: null }],
])("a mount %s is not", (_, seen) => expect(isWell(seen)).toBe(false));

it("what it says is of one moment: a call that comes to last is in all of it, or in none", () => {
  let waitedMs = 1_999;
  const remote = {
    get ownerWait(): OwnerWait {
      return { ...call, waitedMs: waitedMs++ };
    },
  };
  const parts = {
    session: {},
    lease: { state: "holds" },
    group: { wait: null },
    owner: { role: "remote", why: "through node1" },
    failure: null,
  };
  const options = { parts: () => parts, service: { owned: null, disk: { silence: null } }, ownCalls: { remote } };
  const status = new MountStatus(options as unknown as MountStatusOptions);
  expect(status.standing).toEqual({ why: "through node1", ownerWait: null, isWell: true });
  const { why, ownerWait, isWell } = status.standing;
  expect([why, isWell]).toEqual([`through node1; ${ownerWait}`, false]);
});

it("a mount that is being taken out says why, first of all", () => {
  const parts = { session: {}, owner: { role: "owner", why: "this node is the owner" }, failure: new Error("EMFILE: too many open files") };
  const options = { parts: () => parts, service: { owned: null, disk: { silence: null } }, ownCalls: { remote: null } };
  expect(new MountStatus(options as unknown as MountStatusOptions).why).toBe(
    "it is being taken out: EMFILE: too many open files; this node is the owner",
  );
});

describe("long work that goes on by itself", () => {
  const workOf = (service: object): unknown => {
    const parts = { client: { info: { nodes: [{ nodeid: 2, name: "node2" }] } } };
    return new MountStatus({ parts: () => parts, service } as unknown as MountStatusOptions).work;
  };
  const growing = { kind: "growing", bytes: 2 ** 30, toBytes: 2 ** 32, tookMs: 7 };

  it.each([
    ["syncing", "what is in memory is written, and calls go on"],
    ["ending-calls", "calls that are under way end, and new ones wait"],
    ["releasing", "the disk is given back, and calls wait"],
  ])("a handover that is %s", (step, words) =>
    expect(workOf({ move: { heir: 2, step, sinceMs: performance.now() }, growth: null })).toEqual({
      kind: "handover",
      words: `handing the volume over to node2: ${words}`,
      tookMs: expect.any(Number),
    }),
  );

  it("a growth", () =>
    expect(workOf({ move: null, growth: { report: growing } })).toEqual({
      kind: "growth",
      words: "growing the file system: 1 GiB of 4 GiB",
      tookMs: 7,
    }));

  it("none", () =>
    expect([workOf({ move: null, growth: null }), workOf({ move: null, growth: { report: { ...growing, kind: "grown" } } })]).toEqual([
      null,
      null,
    ]));
});
