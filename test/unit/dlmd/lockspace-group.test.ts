/** Who has a lockspace open: what is said, what is awaited, what a view change leaves known, and the limit. */
import { expect, it } from "vitest";
import type { EngineCommand } from "../../../dlmd/engine/engine.ts";
import { LockspaceGroup } from "../../../dlmd/lockspaces/lockspace-group.ts";
import type { CommandResult } from "../../../dlmd/wire/group.ts";
import {
  decodeLockspaceMessage,
  encodeLockspaceMessage,
  LOCKSPACE_GROUP,
  type LockspaceMessage,
  MAX_OPEN_LOCKSPACES,
} from "../../../dlmd/wire/lockspace-group.ts";
import type { Member } from "../../../dlmd/wire/view-id.ts";

const life = (nodeid: number, count = 1): Member => ({ nodeid, incarnation: `00000000000${nodeid}000${count}` });
const [one, two, three] = [life(1), life(2), life(3)];

function bench(inGroup = true) {
  const said: LockspaceMessage[] = [];
  const usable: string[] = [];
  const protests: string[] = [];
  const engine = { answer: "accepted" as CommandResult };
  let epoch = 0;
  const group = new LockspaceGroup(one, {
    command: (command: EngineCommand) => {
      if (command.kind === "multicast" && engine.answer === "accepted") said.push(decodeLockspaceMessage(command.data));
      return command.kind === "multicast" ? engine.answer : "accepted";
    },
    usable: (lockspace) => usable.push(lockspace),
    protest: (_, message) => protests.push(message),
  });
  const raw = (from: Member, data: Uint8Array): void =>
    group.event({ kind: "message", group: LOCKSPACE_GROUP, to: [0], from: { ...from, clientId: 0 }, data });
  const joined = (member: Member): void =>
    group.event({ kind: "members", group: LOCKSPACE_GROUP, to: [0], members: [], joined: [{ ...member, clientId: 0 }], left: [] });
  if (inGroup) joined(one);
  return {
    group,
    joined,
    engine,
    usable,
    protests,
    said: () =>
      said.splice(0).map((m) => ("lockspaces" in m ? `list ${m.no} ${m.lockspaces.join(" ")}` : `${m.kind.slice(10)} ${m.lockspace}`)),
    raw,
    deliver: (from: Member, message: LockspaceMessage): void => raw(from, encodeLockspaceMessage(message)),
    view: (members: readonly Member[], together: readonly number[], quorate = true): void => {
      group.event({ kind: "blocked" });
      const quorum = { votes: 3, expected: 3, needed: 2, quorate, rule: "votes", configVersion: 1, electorate: null } as const;
      const id = { epoch: ++epoch, proposer: 1, incarnation: one.incarnation };
      group.event({ kind: "view", view: { id, members, quorum, together } });
    },
  };
}
const opened = (no: number, lockspace: string): LockspaceMessage => ({ kind: "lockspace-opened", no, lockspace });
const listed = (no: number, ...lockspaces: string[]): LockspaceMessage => ({ kind: "lockspace-list", no, lockspaces });

it("a lockspace is used when every member has said that it knows, and that stays so", () => {
  const { group, view, deliver, said, usable } = bench();
  view([one, two, three], []);
  expect(said()).toEqual(["list 0 "]);
  expect(group.open("a")).toBe(true);
  expect(said()).toEqual(["opened a"]);
  group.receiveKnown(two, 1);
  deliver(one, opened(1, "a"));
  group.receiveKnown(life(3, 9), 1);
  expect([usable, group.isUsable("a")]).toEqual([[], false]);
  group.receiveKnown(three, 1);
  expect([usable, group.isUsable("a")]).toEqual([["a"], true]);
  // One that joins hears of it by the list: nothing waits for that.
  view([one, two, life(3, 2)], [1, 2]);
  expect([said(), group.isUsable("a")]).toEqual([["list 1 a"], true]);
  // What is opened now waits for the new one too.
  group.open("b");
  deliver(one, opened(2, "b"));
  group.receiveKnown(two, 2);
  expect(group.isUsable("b")).toBe(false);
  // It is gone: nothing is awaited of it.
  view([one, two], [1, 2]);
  expect(usable).toEqual(["a", "b"]);
});

it("opened again it is another open, and waits anew", () => {
  const { group, view, deliver } = bench();
  view([one, two], []);
  group.open("a");
  deliver(one, opened(1, "a"));
  group.receiveKnown(two, 1);
  group.close("a");
  group.open("a");
  deliver(one, { kind: "lockspace-closed", lockspace: "a" });
  expect(group.isUsable("a")).toBe(false);
  deliver(one, opened(2, "a"));
  group.receiveKnown(two, 1);
  expect(group.isUsable("a")).toBe(false);
  group.receiveKnown(two, 2);
  expect(group.isUsable("a")).toBe(true);
});

it("what others open and close is acknowledged, to members", () => {
  const { group, view, deliver } = bench();
  view([one, two, three], []);
  deliver(two, listed(4, "a", "b"));
  deliver(two, { kind: "lockspace-closed", lockspace: "a" });
  deliver(three, opened(1, "b"));
  expect(group.takeAcknowledgements([one, two])).toEqual([{ nodeid: 2, no: 4 }]);
  expect(group.takeAcknowledgements([one, two, three])).toEqual([{ nodeid: 3, no: 1 }]);
  expect([...group.table()]).toEqual([["b", [2, 3]]]);
});

it("what a dead node had open is known while its view is the one before, in that life only", () => {
  const { group, view, deliver } = bench();
  view([one, two, three], []);
  deliver(three, listed(1, "a"));
  view([one, two], [1, 2]);
  expect([...(group.openedBy(three) ?? ["unknown"])]).toEqual(["a"]);
  expect(group.openedBy(life(3, 2))).toBeNull();
  expect([...group.table().keys()]).toEqual([]);
  // Another life of it has nothing open, before it says so.
  view([one, two, life(3, 2)], [1, 2]);
  expect([...(group.openedBy(life(3, 2)) ?? ["unknown"])]).toEqual([]);
  deliver(three, listed(2, "b"));
  expect([...(group.openedBy(life(3, 2)) ?? ["unknown"])]).toEqual([]);
});

it("a node that comes back before the next view is another member at once", () => {
  const { group, view, deliver } = bench();
  view([one, two, three], []);
  deliver(three, listed(1, "a"));
  view([one, two, life(3, 2)], [1, 2]);
  expect([group.openedBy(three), group.openedBy(life(3, 2))]).toEqual([new Set(["a"]), new Set()]);
});

it("a view without quorum changes nothing, and nothing is said before a quorate one", () => {
  const { group, view, deliver, said } = bench();
  view([one, two], []);
  deliver(two, listed(1, "a"));
  said();
  view([one], [], false);
  group.open("mine");
  expect([said(), [...(group.openedBy(two) ?? [])]]).toEqual([[], ["a"]]);
  view([one, two], [1, 2]);
  expect([said(), [...(group.openedBy(two) ?? [])]]).toEqual([["list 1 mine"], ["a"]]);
});

it("of those who were together before it joined a node knows nothing until their lists come: that counts as all", () => {
  const { group, view, deliver } = bench();
  view([one, two, three], [2, 3]);
  expect([group.openedBy(two), group.openedBy(three), group.unknown()]).toEqual([null, null, [2, 3]]);
  deliver(two, opened(7, "a"));
  expect(group.openedBy(two)).toBeNull();
  deliver(two, listed(7, "a"));
  expect([[...(group.openedBy(two) ?? [])], group.unknown()]).toEqual([["a"], [3]]);
  view([one, two], [1, 2]);
  expect(group.openedBy(three)).toBeNull();
});

it("a node that joins the group is told again, since it heard nothing before", () => {
  const { group, view, said, joined } = bench();
  view([one, two], []);
  group.open("a");
  said();
  joined(one);
  expect(said()).toEqual([]);
  joined(two);
  expect(said()).toEqual(["list 1 a"]);
});

it("before its own join is ordered a node knows nothing of others, not of those either that are new as well", () => {
  const { group, view, deliver, joined } = bench(false);
  view([one, two], []);
  expect([group.openedBy(two), [...(group.openedBy(one) ?? ["unknown"])]]).toEqual([null, []]);
  joined(one);
  deliver(two, listed(1, "a"));
  view([one, two, three], [1, 2]);
  expect([[...(group.openedBy(two) ?? [])], [...(group.openedBy(three) ?? ["unknown"])]]).toEqual([["a"], []]);
});

it("what cannot be read makes unknown what its sender has open; programs are not listened to", () => {
  const { group, view, deliver, raw, protests } = bench();
  view([one, two], []);
  deliver(two, listed(1, "a"));
  group.event({
    kind: "message",
    group: LOCKSPACE_GROUP,
    to: [0],
    from: { ...two, clientId: 5 },
    data: encodeLockspaceMessage(listed(2, "b")),
  });
  expect([...(group.openedBy(two) ?? [])]).toEqual(["a"]);
  raw(two, Uint8Array.of(99));
  expect([group.openedBy(two), protests.length]).toEqual([null, 1]);
});

it("what the engine has no room for is said when it has, in order", () => {
  const { group, view, engine, said } = bench();
  view([one, two], []);
  said();
  engine.answer = "full";
  group.open("a");
  group.open("b");
  group.close("a");
  expect(said()).toEqual([]);
  engine.answer = "accepted";
  group.event({ kind: "room" });
  expect(said()).toEqual(["opened a", "opened b", "closed a"]);
});

it("a node has at most 4096 lockspaces open, whose names fit into one message", () => {
  const { group, view, said } = bench();
  for (let i = 0; i < MAX_OPEN_LOCKSPACES; i++) expect(group.open(`${i}`.padStart(64, "x"))).toBe(true);
  expect([MAX_OPEN_LOCKSPACES, group.open("one more")]).toEqual([4096, false]);
  view([one, two], []);
  expect(said()[0]?.split(" ").length).toBe(2 + 4096);
  group.close("1".padStart(64, "x"));
  expect(group.open("one more")).toBe(true);
});
