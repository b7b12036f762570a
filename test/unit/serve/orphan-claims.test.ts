/** H10: when a new owner knows that nobody has an orphan open any more. */
import { describe, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Group, GroupChange, GroupHandlers, GroupMember } from "../../../dlmd/client/group-api.ts";
import { mountersGroup, OrphanClaims, type OwnWay } from "../../../overlay/serve/orphan-claims.ts";

const member = (nodeid: number, clientId = 1): GroupMember => ({ nodeid, incarnation: `i${nodeid}`, clientId });
const [self, two, three] = [member(1), member(2), member(3)];
const change = (members: readonly GroupMember[]): GroupChange => ({ members, joined: [], left: [] });

/** A mount of node 1, and its group by hand. */
async function mount(ownWay: () => OwnWay = () => ({ remote: null, ownGuard: null })): Promise<{
  claims: OrphanClaims;
  members: (...members: GroupMember[]) => void;
  claimed: (one: GroupMember) => void;
  /** What was said is delivered. */
  order: () => void;
  orderOne: () => void;
  end: () => void;
  recovered: () => number;
  failures: string[];
  begin: () => void;
}> {
  let handlers: GroupHandlers | null = null;
  const said: Uint8Array[] = [];
  const group: Group = {
    name: "g",
    self,
    members: [],
    multicast: async (data) => void said.push(data),
    leave: () => Promise.resolve(),
  };
  const failures: string[] = [];
  const claims = new OrphanClaims(silentLog, ownWay, (error) => failures.push(error.message));
  await claims.join({ join: async (_, given) => ((handlers = given), group) }, "0b9f5f1e-7f5c-4f0e-9a47-5d4f0f6a1c11");
  const deliver = (messages: readonly Uint8Array[]): void => {
    for (const data of messages) handlers?.message({ group: "g", from: self, seq: 1, data, own: true }, group);
  };
  let recovered = 0;
  let claimed: GroupMember[] = [];
  return {
    claims,
    members: (...members) => handlers?.members(change(members), group),
    claimed(one) {
      claimed.push(one);
      claims.check();
    },
    order: () => deliver(said.splice(0)),
    orderOne: () => deliver(said.splice(0, 1)),
    end: () => handlers?.ended(new Error("too much was not read")),
    recovered: () => recovered,
    failures,
    begin() {
      claimed = [];
      const server = {
        hasClaimed: (one: { nodeid: number; clientId: number }) =>
          claimed.some((by) => by.nodeid === one.nodeid && by.clientId === one.clientId),
      };
      claims.begin({ recoverOrphans: async () => (recovered += 1), orphanCount: 3 }, server);
    },
  };
}

describe("what an earlier owner left is dropped", () => {
  it("once every mounter has opened its files again, and not before the last", async () => {
    const { members, begin, order, claimed, recovered, claims } = await mount();
    members(self, two, three);
    begin();
    order();
    expect(claims.describe()).toEqual({ kept: 3, waitsFor: [2, 3] });
    claimed(two);
    expect([recovered(), claims.missing]).toEqual([0, [three]]);
    claimed(three);
    expect(recovered()).toBe(1);
    // Once.
    claimed(three);
    members(self, two);
    expect([recovered(), claims.describe()]).toEqual([1, { kept: 3, waitsFor: [] }]);
  });

  it("once those that have not are gone", async () => {
    const { members, begin, order, claimed, recovered } = await mount();
    members(self, two, three);
    begin();
    order();
    claimed(three);
    expect(recovered()).toBe(0);
    members(self, three);
    expect(recovered()).toBe(1);
  });

  it("at once where there is no other mounter", async () => {
    const { members, begin, order, recovered } = await mount();
    members(self);
    begin();
    order();
    expect(recovered()).toBe(1);
  });

  it("not before its own message is back: a mounter that had files open may not be known before", async () => {
    const { members, begin, order, claimed, recovered, claims } = await mount();
    members(self);
    begin();
    expect([recovered(), claims.missing]).toEqual([0, null]);
    members(self, two);
    order();
    expect(recovered()).toBe(0);
    claimed(two);
    expect(recovered()).toBe(1);
  });

  it("without a mounter that joined behind that message: it had nothing open at an earlier owner, and may never reach this one", async () => {
    const { members, begin, order, claimed, recovered, claims } = await mount();
    members(self, two);
    begin();
    order();
    members(self, two, three);
    expect([recovered(), claims.missing]).toEqual([0, [two]]);
    claimed(two);
    expect([recovered(), claims.describe()]).toEqual([1, { kept: 3, waitsFor: [] }]);
  });

  it("not by the message of an earlier time as the owner", async () => {
    const { members, begin, order, orderOne, claimed, recovered, claims } = await mount();
    members(self);
    begin();
    claims.end();
    begin();
    orderOne();
    expect([recovered(), claims.missing]).toEqual([0, null]);
    members(self, two);
    order();
    claimed(two);
    expect(recovered()).toBe(1);
  });

  it("not before this mount's own files are open again, if it reaches its lower as a caller", async () => {
    const { members, begin, order, claimed, recovered } = await mount(() => ({ remote: {}, ownGuard: null }));
    members(self, two);
    begin();
    order();
    claimed(two);
    expect(recovered()).toBe(0);
    claimed(self);
    expect(recovered()).toBe(1);
  });

  it("not before its own files are open again, if it gave its first lower up and owns again: its remote lower is made after that", async () => {
    const ownGuard = { isGiven: false };
    const way: { remote: object | null; ownGuard: { isGiven: boolean } } = { remote: null, ownGuard };
    const { members, begin, order, claimed, recovered, claims } = await mount(() => way);
    members(self);
    begin();
    order();
    expect(recovered()).toBe(1);
    ownGuard.isGiven = true;
    claims.end();
    begin();
    order();
    expect([recovered(), claims.missing]).toEqual([1, [self]]);
    way.remote = {};
    expect(claims.missing).toEqual([self]);
    claimed(self);
    expect(recovered()).toBe(2);
  });

  it("not for a mount of the same node in its place", async () => {
    const { members, begin, order, claimed, recovered } = await mount();
    members(self, member(1, 2));
    begin();
    order();
    expect(recovered()).toBe(0);
    claimed(member(1, 2));
    expect(recovered()).toBe(1);
  });

  it("never by a mount that does not know the mounters any more, nor they it: it is taken out", async () => {
    const { members, begin, order, claimed, recovered, end, claims, failures } = await mount();
    members(self, two);
    begin();
    order();
    end();
    claimed(two);
    expect([recovered(), claims.missing, failures]).toEqual([0, null, []]);
    await Promise.resolve();
    expect(failures).toEqual(["this mount is not in the group of the volume's mounters any more: too much was not read"]);
  });
});

it("the group has a name that a group may have", () => {
  expect(mountersGroup("0b9f5f1e-7f5c-4f0e-9a47-5d4f0f6a1c11").length).toBeLessThanOrEqual(64);
});
