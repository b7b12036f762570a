/** Hazard C8 in small: single moments of a change of the configuration (dlmd/config/change.ts), which the simulation meets seldom. */
import { expect, it } from "vitest";
import type { ConfigEffect, ConfigEvent, ConfigMessage } from "../../dlmd/config/change-event.ts";
import { ConfigChange } from "../../dlmd/config/change.ts";
import type { ConfigRecord, KeptConfig } from "../../dlmd/config/record.ts";
import type { AgreedVersion } from "../../dlmd/config/trail.ts";
import type { Counting } from "../../dlmd/wire/view-id.ts";

/** "1:1 2:1 3:1": votes by node. */
function record(version: number, votes: string): ConfigRecord {
  const nodes = votes.split(" ").map((word) => {
    const [nodeid = 0, each = 0] = word.split(":").map(Number);
    return { nodeid, votes: each };
  });
  return { version, fingerprint: `${version} ${votes}`, text: votes, nodes };
}

const short = ({ committed, pending }: KeptConfig): string =>
  `${committed.version}${pending === null ? "" : ` open ${pending.record.text}`}`;

function countingAt(epoch: number, nodeids: readonly number[] | null): Counting {
  const id = { epoch, proposer: 1, incarnation: "00000000000000a1" };
  return { id, electorate: nodeids === null ? null : { nodeids, former: null } };
}

class ConfigWorld {
  readonly disks: Map<number, KeptConfig> = new Map();
  readonly told: string[] = [];
  readonly applied: string[] = [];
  readonly #cores: Map<number, ConfigChange> = new Map();
  readonly #wires: Map<string, ConfigMessage[]> = new Map();
  readonly #writes: Map<number, { serial: number; kept: KeptConfig }[]> = new Map();
  /** Of each node, the view that it is in. */
  readonly #views: Map<number, string> = new Map();
  /** Views have lasted when something is asked for. */
  lasting = true;

  constructor(first: ConfigRecord) {
    for (const { nodeid } of first.nodes) {
      this.disks.set(nodeid, { committed: first, agreedBy: [], trail: [], pending: null, counting: null });
      this.boot(nodeid);
    }
  }

  boot(nodeid: number): void {
    this.#cores.set(nodeid, new ConfigChange(nodeid, this.disks.get(nodeid) as KeptConfig, () => null));
    this.#writes.set(nodeid, []);
  }

  /** What was not on disk, and what was on its way to it or from it, is lost. */
  crash(nodeid: number): void {
    this.#cores.delete(nodeid);
    for (const [wire, messages] of this.#wires) if (wire.split(">").includes(String(nodeid))) messages.length = 0;
  }

  step(nodeid: number, event: ConfigEvent): void {
    for (const effect of this.#cores.get(nodeid)?.step(event) ?? []) this.#perform(nodeid, effect);
  }

  #perform(nodeid: number, effect: ConfigEffect): void {
    if (effect.kind === "send") this.#wire(nodeid, effect.to).push(effect.message);
    else if (effect.kind === "persist") this.#writes.get(nodeid)?.push(effect);
    else if (effect.kind === "inForce") this.told.push(`${nodeid} in force ${effect.record.text}`);
    else if (effect.kind === "applied") this.applied.push(`${nodeid} applied ${effect.record.text}`);
    else if (effect.kind === "declined") this.told.push(`${nodeid} declined: ${effect.reason}`);
    else if (effect.kind === "refused") this.told.push(`${nodeid} refused: ${effect.reason}`);
  }

  #wire(from: number, to: number): ConfigMessage[] {
    const key = `${from}>${to}`;
    const wire = this.#wires.get(key) ?? [];
    this.#wires.set(key, wire);
    return wire;
  }

  /** `nodeids`: who counts from it on; null: all do. */
  view(epoch: number, members: readonly number[], quorate = true, nodeids: readonly number[] | null = null): void {
    const counting = quorate ? countingAt(epoch, nodeids) : null;
    for (const nodeid of members) {
      this.step(nodeid, { kind: "view", view: { epoch, id: `view ${epoch}`, members, quorate, counting } });
      this.#views.set(nodeid, `view ${epoch}`);
    }
    if (this.lasting) this.last();
  }

  /** As membership says it of a view that was counted by what is in force, and has lasted. */
  last(): void {
    for (const [nodeid, core] of this.#cores) {
      this.step(nodeid, { kind: "settled", view: this.#views.get(nodeid) ?? "", version: core.kept.committed.version });
    }
  }

  offer(
    to: number,
    record: ConfigRecord,
    agreedBy: readonly number[],
    trail: readonly AgreedVersion[] = [],
    counting: Counting | null = null,
  ): void {
    this.step(to, { kind: "offered", record, agreedBy, trail, counting });
    this.sync(to);
  }

  /** As the handshake of two nodes, of which one has an older version in force. */
  meet(newer: number, older: number): void {
    const { committed, agreedBy, trail, counting } = (this.#cores.get(newer) as ConfigChange).kept;
    this.offer(older, committed, agreedBy, trail, counting);
  }

  /** Its state is lost; it starts with the file of what was in force there. */
  forget(nodeid: number): void {
    const { committed } = this.disks.get(nodeid) as KeptConfig;
    this.crash(nodeid);
    this.disks.set(nodeid, { committed, agreedBy: [], trail: [], pending: null, counting: null });
    this.boot(nodeid);
  }

  apply(nodeid: number, wanted: ConfigRecord): void {
    if (this.lasting) this.last();
    this.step(nodeid, { kind: "apply", requestId: wanted.version * 100 + nodeid, record: wanted });
  }

  /** Of those on that wire; the others go on waiting. */
  deliver(from: number, to: number): void {
    for (const message of this.#wire(from, to).splice(0)) this.step(to, { kind: "message", from, message });
  }

  sync(nodeid: number): void {
    for (const { serial, kept } of this.#writes.get(nodeid)?.splice(0) ?? []) {
      this.disks.set(nodeid, kept);
      this.step(nodeid, { kind: "persisted", serial });
    }
  }

  /** Their connection breaks, with all that is on it, and they make another one. */
  reconnect(a: number, b: number): void {
    this.#wire(a, b).length = 0;
    this.#wire(b, a).length = 0;
    this.step(a, { kind: "connected", nodeid: b });
    this.step(b, { kind: "connected", nodeid: a });
  }

  /** Among these nodes every message comes that is on its way, and every write ends. */
  round(...nodeids: number[]): void {
    for (const from of nodeids) for (const to of nodeids) this.deliver(from, to);
    for (const nodeid of nodeids) this.sync(nodeid);
  }

  settle(...nodeids: number[]): void {
    for (let round = 0; round < 12; round++) this.round(...nodeids);
  }

  kept(nodeid: number): string {
    return short((this.#cores.get(nodeid) as ConfigChange).kept);
  }
}

const three = record(1, "1:1 2:1 3:1");

/** Node 3 alone has one proposal on disk; nodes 1 and 2 then decided another one, of which node 2 has not heard that it is in force. */
function twoOpen(): ConfigWorld {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.apply(1, record(2, "1:1 2:1 3:2"));
  world.deliver(1, 3);
  world.sync(3);
  world.crash(1);
  world.boot(1);
  expect([1, 2, 3].map((nodeid) => world.kept(nodeid))).toEqual(["1", "1", "1 open 1:1 2:1 3:2"]);
  world.view(2, [1, 2]);
  world.settle(1, 2);
  world.apply(1, record(2, "1:2 2:1 3:1"));
  world.deliver(1, 2);
  world.sync(2);
  world.sync(1);
  world.deliver(2, 1);
  world.sync(1);
  expect(world.told).toEqual(["1 in force 1:2 2:1 3:1"]);
  world.crash(1);
  expect(world.kept(2)).toBe("1 open 1:2 2:1 3:1");
  return world;
}

it("of two open proposals that of the later view is taken up: it may have been decided", () => {
  const world = twoOpen();
  world.view(3, [2, 3]);
  world.settle(2, 3);
  expect(world.told.slice(1)).toEqual([]);
  // Two of four votes decide nothing; node 1 comes back with what was decided.
  world.boot(1);
  world.view(4, [1, 2, 3]);
  world.settle(1, 2, 3);
  expect([1, 2, 3].map((nodeid) => world.disks.get(nodeid)?.committed.text)).toEqual(Array(3).fill("1:2 2:1 3:1"));
});

it("without quorum an open proposal is not taken up, so that it does not become that of the latest view", () => {
  const world = twoOpen();
  world.view(3, [3], false);
  world.settle(3);
  world.view(4, [2, 3]);
  world.settle(2, 3);
  expect([2, 3].map((nodeid) => world.kept(nodeid))).toEqual(["1 open 1:2 2:1 3:1", "1 open 1:2 2:1 3:1"]);
});

it("a change is in force when every member of the view has it on disk, not before", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.apply(1, record(2, "1:2 2:1 3:1"));
  world.deliver(1, 2);
  world.deliver(1, 3);
  world.sync(1);
  world.sync(2);
  world.deliver(2, 1);
  world.sync(1);
  // Nodes 1 and 2 are majorities of before and of after.
  expect(world.told).toEqual([]);
  world.settle(1, 2, 3);
  expect(world.told).toHaveLength(3);
});

it.each([0, 1, 2, 3, 4, 5, 6])(
  "what is lost with a connection is said again on the next one: that of nodes 1 and 3 breaks at moment %i",
  (moment) => {
    const world = new ConfigWorld(three);
    world.view(1, [1, 2, 3]);
    world.apply(3, record(2, "1:1 2:1 3:2"));
    for (let round = 0; round < moment; round++) world.round(1, 2, 3);
    world.reconnect(1, 3);
    world.settle(1, 2, 3);
    expect([1, 2, 3].map((nodeid) => world.kept(nodeid))).toEqual(["2", "2", "2"]);
    expect([world.told.length, world.applied]).toEqual([3, ["3 applied 1:1 2:1 3:2"]]);
  },
);

it("of changes that two nodes apply at once one is in force, and the other node is told", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.apply(2, record(2, "1:1 2:2 3:1"));
  world.apply(3, record(2, "1:1 2:1 3:2"));
  world.settle(1, 2, 3);
  expect([1, 2, 3].map((nodeid) => world.disks.get(nodeid)?.committed.text)).toEqual(Array(3).fill("1:1 2:2 3:1"));
  expect(world.told).toContain("3 refused: another change to version 2 is under way: see `coverlay config show`");
  expect(world.applied).toEqual(["2 applied 1:1 2:2 3:1"]);
});

it("without quorum nothing is proposed", () => {
  const world = new ConfigWorld(three);
  world.view(1, [3], false);
  world.settle(3);
  world.apply(3, record(2, "1:1 2:1 3:2"));
  world.settle(3);
  expect(world.kept(3)).toBe("1");
  expect(world.told).toEqual(["3 refused: the cluster is not quorate"]);
});

it("a report of a former view does not count: a proposal that was stored since would be overlooked", () => {
  const world = new ConfigWorld(three);
  // Node 2's report of the first view, and all that node 2 says then, is late.
  world.view(1, [1, 2, 3]);
  world.view(2, [2, 3]);
  world.settle(2, 3);
  world.apply(2, record(2, "1:1 2:1 3:2"));
  world.deliver(2, 3);
  world.sync(3);
  world.sync(2);
  world.crash(3);
  world.boot(3);
  world.view(3, [1, 2]);
  world.deliver(2, 1);
  world.sync(1);
  world.apply(1, record(2, "1:2 2:1 3:1"));
  world.settle(1, 2);
  expect(world.kept(1)).toBe("1 open 1:1 2:1 3:2");
});

it("an open proposal that the view was not counted by is in force only with a majority of the new votes", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.apply(1, record(2, "1:1 2:1 3:2"));
  world.deliver(1, 2);
  // On nobody's disk yet when the next view is counted: two of three. By the new votes they are two of four.
  world.view(2, [1, 2]);
  world.settle(1, 2);
  expect(world.told).toEqual([]);
  world.view(3, [1, 2, 3]);
  world.settle(1, 2, 3);
  expect(world.told).toHaveLength(3);
});

it("an open proposal that is taken up is in force only with a majority of the old votes", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.apply(1, record(2, "1:1 2:1 3:2"));
  world.settle(1, 2, 3);
  expect(world.told).toHaveLength(3);
  // On the disk of node 2 alone. Whatever made the next view quorate, by version 2 its members have two votes of four.
  world.apply(1, record(3, "1:1 2:1 3:1"));
  world.deliver(1, 2);
  world.sync(2);
  world.view(2, [1, 2]);
  world.settle(1, 2);
  expect(world.kept(1)).toBe("2 open 1:1 2:1 3:1");
  expect(world.told).toHaveLength(3);
});

it.each([
  ["two nodes at once", "1:2 2:2 3:1", [1, 2, 3], "one node at a time: nodes 1, 2 are added, removed or given other votes at once"],
  ["two votes at once", "1:3 2:1 3:1", [1, 2, 3], "one vote at a time: node 1 has 1 votes, and would have 3"],
  ["a node that runs", "1:1 2:1", [1, 2, 3], "node 3 runs: stop its dlmd before it is removed"],
  [
    "the quorum of who changes it",
    "1:1 2:1 3:2",
    [1, 2],
    "the members of the view (1, 2) would be no majority by the new votes: start more nodes first",
  ],
])("refused: %s", (_, votes, members, words) => {
  const world = new ConfigWorld(three);
  world.view(1, members);
  world.settle(...members);
  world.apply(1, record(2, votes));
  world.settle(...members);
  expect(world.told).toEqual([`1 refused: ${words}`]);
});

it("refused: by a half that won a tie, which would lose its quorum as long as the change is open", () => {
  const four = record(1, "1:1 2:1 3:1 4:1");
  const world = new ConfigWorld(four);
  world.view(1, [1, 2]);
  world.settle(1, 2);
  world.apply(1, record(2, "1:1 2:1 3:1"));
  world.settle(1, 2);
  expect(world.told).toEqual(["1 refused: the members of the view (1, 2) are not more than half of the votes: start more nodes first"]);
  expect([1, 2].map((nodeid) => world.kept(nodeid))).toEqual(["1", "1"]);
});

it("a member of a quorate view takes no offer, but of what it has stored itself", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  const other = record(9, "1:1 2:1 3:1 4:1");
  world.offer(2, other, [1, 2, 3]);
  expect(world.kept(2)).toBe("1");
  expect(world.told).toEqual(["2 declined: this node is in a quorate view, in which version 1 is in force"]);
  // Node 2 has stored a proposal, and hears of its end only by the offer that answers its next connection.
  const next = record(2, "1:1 2:1 3:2");
  world.apply(1, next);
  world.deliver(1, 2);
  world.sync(2);
  expect(world.kept(2)).toBe("1 open 1:1 2:1 3:2");
  world.offer(2, next, [1, 2, 3]);
  expect(world.kept(2)).toBe("2");
});

it("a node that was evicted takes what was agreed on without it, though its last view was quorate", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.view(2, [1, 3]);
  const next = record(2, "1:1 2:1 3:2");
  world.apply(1, next);
  world.settle(1, 3);
  expect(world.kept(3)).toBe("2");
  world.offer(2, next, [1, 3]);
  expect(world.kept(2)).toBe("1");
  world.step(2, { kind: "no-view" });
  world.offer(2, next, [1, 3]);
  expect(world.kept(2)).toBe("2");
});

it("an offer is taken if a majority of our own votes had it in force: a node alone may be quorate by a file of its own", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.crash(2);
  world.boot(2);
  world.offer(2, record(9, "3:1"), [3]);
  expect(world.kept(2)).toBe("1");
  expect(world.told).toEqual([
    "2 declined: version 9 was in force at nodes 3 alone, which is no majority of the votes of version 1, nor of a version that led from that to it",
  ]);
  world.offer(2, record(9, "1:1 3:1"), [1, 3]);
  expect(world.kept(2)).toBe("9");
  expect(world.disks.get(2)?.agreedBy).toEqual([1, 3]);
});

const four = record(1, "1:1 2:1 3:1 4:1");

/** Node 3 was away while node 4 lost its vote, and went, and nodes 1 and 2 made one more change. */
function twoMissed(): ConfigWorld {
  const world = new ConfigWorld(four);
  world.view(1, [1, 2, 3, 4]);
  world.settle(1, 2, 3, 4);
  world.crash(3);
  world.boot(3);
  world.view(2, [1, 2, 4]);
  world.settle(1, 2, 4);
  world.apply(1, record(2, "1:1 2:1 3:1 4:0"));
  world.settle(1, 2, 4);
  world.crash(4);
  world.view(3, [1, 2]);
  world.settle(1, 2);
  world.apply(1, record(3, "1:2 2:1 3:1 4:0"));
  world.settle(1, 2);
  expect([1, 2, 3].map((nodeid) => world.kept(nodeid))).toEqual(["3", "3", "1"]);
  expect(world.disks.get(2)?.agreedBy).toEqual([1, 2]);
  return world;
}

it("a node that missed two versions takes the newest, though those that agreed on it were no majority of its own votes", () => {
  const world = twoMissed();
  world.meet(2, 3);
  expect(world.kept(3)).toBe("3");
  // And it can tell the next one how the cluster came to it.
  expect(world.disks.get(3)?.trail.map(({ version, agreedBy }) => `${version} by ${agreedBy.join()}`)).toEqual([
    "1 by 1,2,3,4",
    "2 by 1,2,4",
  ]);
});

it("a node that lost its state learns again how the cluster came to what is in force", () => {
  const world = twoMissed();
  world.forget(2);
  world.view(4, [1, 2]);
  world.settle(1, 2);
  world.forget(1);
  world.view(5, [1, 2]);
  world.settle(1, 2);
  world.crash(2);
  world.meet(1, 3);
  expect(world.kept(3)).toBe("3");
});

it("a node alone with files of its own leads nobody to the second of them", () => {
  const world = twoMissed();
  const own = { version: 2, nodes: record(2, "4:1").nodes, agreedBy: [4] };
  world.offer(3, record(3, "4:1 5:1"), [4, 5], [own]);
  expect(world.kept(3)).toBe("1");
  expect(world.told.at(-1)).toContain("3 declined: version 3 was in force at nodes 4, 5 alone");
  // What comes after it proves nothing either.
  world.offer(3, record(3, "4:1 5:1"), [4, 5], [{ version: 4, nodes: record(4, "4:1").nodes, agreedBy: [1, 2, 3] }]);
  expect(world.kept(3)).toBe("1");
});

it("a node that took a newer version in a view without quorum does not go back to that of its coordinator", () => {
  const world = new ConfigWorld(three);
  world.view(1, [1, 2], false);
  world.settle(1, 2);
  world.offer(2, record(2, "1:1 2:1 3:2"), [1, 3]);
  expect(world.kept(2)).toBe("2");
  world.reconnect(1, 2);
  world.settle(1, 2);
  expect([1, 2].map((nodeid) => world.kept(nodeid))).toEqual(["1", "2"]);
});

it("a file is agreed on when a quorate view has it in force, by those who were in one", () => {
  const world = new ConfigWorld(three);
  expect(world.disks.get(1)?.agreedBy).toEqual([]);
  world.view(1, [3], false);
  world.settle(3);
  expect(world.disks.get(3)?.agreedBy).toEqual([]);
  world.view(2, [1, 3]);
  world.settle(1, 3);
  expect(world.disks.get(3)?.agreedBy).toEqual([1, 3]);
  world.view(3, [1, 2, 3]);
  world.settle(1, 2, 3);
  expect([1, 2, 3].map((nodeid) => world.disks.get(nodeid)?.agreedBy)).toEqual([
    [1, 2, 3],
    [1, 2, 3],
    [1, 2, 3],
  ]);
});

it("H4: of two open proposals of views with one epoch every coordinator takes up the same one", () => {
  const decided = [1, 2].map((lowest) => {
    const world = new ConfigWorld(three);
    const open = (nodeid: number, view: string, votes: string): void => {
      const [committed, agreedBy] = [three, [1, 2, 3]];
      world.disks.set(nodeid, { committed, agreedBy, trail: [], pending: { record: record(2, votes), epoch: 7, view }, counting: null });
      world.boot(nodeid);
    };
    open(lowest, "7.1", "1:2 2:1 3:1");
    open(3 - lowest, "7.2", "1:1 2:2 3:1");
    world.view(8, [1, 2, 3]);
    world.settle(1, 2, 3);
    return [1, 2, 3].map((nodeid) => world.disks.get(nodeid)?.committed.text);
  });
  expect(decided).toEqual([Array(3).fill("1:1 2:2 3:1"), Array(3).fill("1:1 2:2 3:1")]);
});

it("C8: a change waits until no lease runs by a version before the one in force; its view said that of this very version", () => {
  const world = new ConfigWorld(three);
  world.lasting = false;
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.apply(2, record(2, "1:1 2:1 3:2"));
  world.settle(1, 2, 3);
  expect([1, 2, 3].map((nodeid) => world.kept(nodeid))).toEqual(["1", "1", "1"]);
  world.last();
  world.settle(1, 2, 3);
  expect(world.applied).toEqual(["2 applied 1:1 2:1 3:2"]);
  // What was said of version 1 says nothing of version 2.
  world.apply(2, record(3, "1:2 2:1 3:2"));
  world.settle(1, 2, 3);
  world.view(2, [1, 2, 3]);
  world.settle(1, 2, 3);
  expect([1, 2, 3].map((nodeid) => world.kept(nodeid))).toEqual(["2", "2", "2"]);
  // What can never be is refused at once.
  world.apply(3, record(3, "1:9 2:1 3:2"));
  world.settle(1, 2, 3);
  expect(world.told.at(-1)).toBe("3 refused: one vote at a time: node 1 has 1 votes, and would have 9");
  world.last();
  world.settle(1, 2, 3);
  expect([1, 2, 3].map((nodeid) => world.kept(nodeid))).toEqual(["3", "3", "3"]);
});

it("requests that wait for an answer have a limit: the next one is refused", () => {
  const world = new ConfigWorld(three);
  // In no view yet: nobody answers.
  for (let requestId = 1; requestId <= 8; requestId++) {
    world.step(1, { kind: "apply", requestId, record: record(2, `1:1 2:1 3:1 ${requestId + 3}:1`) });
  }
  expect(world.told).toEqual([]);
  world.step(1, { kind: "apply", requestId: 99, record: record(2, "1:1 2:1 3:2") });
  expect(world.told).toEqual(["1 refused: 8 requests wait for an answer already"]);
});

it.each([
  [255, ["1 in force 1:1 2:1 3:2"]],
  [256, []],
])(
  "messages of a view that is not here yet wait: after %i more the first one is lost, and its sender says it in the next view",
  (more, told) => {
    const world = new ConfigWorld(three);
    const inView = { epoch: 1, view: "view 1" } as const;
    world.step(1, { kind: "message", from: 2, message: { ...inView, kind: "request", requestId: 1, record: record(2, "1:1 2:1 3:2") } });
    for (let n = 0; n < more; n++) {
      world.step(1, { kind: "message", from: 3, message: { ...inView, kind: "stored", version: 7, fingerprint: "" } });
    }
    world.view(1, [1, 2, 3]);
    world.settle(1, 2, 3);
    expect(world.told.filter((line) => line.startsWith("1 "))).toEqual(told);
  },
);

it("a coordinator keeps 8 requests of each member; one more is refused, one that is said again is not", () => {
  const first = record(1, "1:1 2:1 3:1");
  const core = new ConfigChange(1, { committed: first, agreedBy: [], trail: [], pending: null, counting: null }, () => null);
  core.step({ kind: "view", view: { epoch: 1, id: "v", members: [1, 2, 3], quorate: true, counting: null } });
  const ask = (from: number, requestId: number): ConfigEffect[] => {
    const message = { epoch: 1, view: "v", kind: "request", requestId, record: record(2, "1:1 2:1 3:2") } as const;
    return core.step({ kind: "message", from, message });
  };
  for (let requestId = 1; requestId <= 8; requestId++) expect(ask(2, requestId)).toEqual([]);
  expect([ask(2, 8), ask(3, 9)]).toEqual([[], []]);
  expect(ask(2, 9)).toMatchObject([{ kind: "send", to: 2, message: { kind: "refuse", requestId: 9 } }]);
});

const oneEach = "1:1 2:1 3:1";
const countingOf = (world: ConfigWorld, ...nodeids: number[]): unknown[] => nodeids.map((nodeid) => world.disks.get(nodeid)?.counting);

it("who counts is kept with the votes that are stored, by each member of the view", () => {
  const world = new ConfigWorld(record(1, oneEach));
  world.view(1, [1, 3], true, [1, 3]);
  world.settle(1, 3);
  expect(countingOf(world, 1, 3)).toEqual([null, null]);
  world.apply(1, record(2, "1:1 2:0 3:1"));
  world.settle(1, 3);
  const first = countingAt(1, [1, 3]);
  expect(countingOf(world, 1, 3)).toEqual([first, first]);
  // As soon as it is proposed: those who store it are the majority that decides it.
  world.view(2, [1, 3], true, [1]);
  world.settle(1, 3);
  world.apply(1, record(3, oneEach));
  world.deliver(1, 3);
  world.sync(3);
  expect(short(world.disks.get(3) as KeptConfig)).toBe(`2 open ${oneEach}`);
  expect(countingOf(world, 3)).toEqual([countingAt(2, [1])]);
});

it("who is given votes is told who counts: with an offer, and by a coordinator without quorum", () => {
  const world = new ConfigWorld(record(1, oneEach));
  world.view(1, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.view(2, [1, 3], true, [1, 3]);
  world.settle(1, 3);
  world.apply(1, record(2, "1:2 2:1 3:1"));
  world.settle(1, 3);
  world.crash(2);
  world.boot(2);
  world.meet(1, 2);
  expect(countingOf(world, 2)).toEqual([countingAt(2, [1, 3])]);
  world.view(3, [1, 3]);
  world.settle(1, 3);
  world.apply(1, record(3, "1:2 2:1 3:2"));
  world.settle(1, 3);
  // Node 3 is the one that knows, and node 1 has crashed.
  world.view(4, [2, 3], false);
  world.settle(2, 3);
  expect(short(world.disks.get(2) as KeptConfig)).toBe("3");
  expect(countingOf(world, 2)).toEqual([countingAt(3, null)]);
});

it("what is told of an earlier view changes nothing", () => {
  const world = new ConfigWorld(record(1, oneEach));
  world.view(5, [1, 2, 3]);
  world.settle(1, 2, 3);
  world.apply(1, record(2, "1:2 2:1 3:1"));
  world.settle(1, 2, 3);
  world.crash(2);
  world.boot(2);
  world.offer(2, record(3, "1:2 2:2 3:1"), [1, 2, 3], [], countingAt(4, [1]));
  expect(short(world.disks.get(2) as KeptConfig)).toBe("3");
  expect(countingOf(world, 2)).toEqual([countingAt(5, null)]);
});

it("an operator's word that the others are gone for good ends what was told", () => {
  const world = new ConfigWorld(record(1, oneEach));
  world.view(5, [1, 2, 3], true, [1, 2]);
  world.settle(1, 2, 3);
  world.apply(1, record(2, "1:2 2:1 3:1"));
  world.settle(1, 2, 3);
  expect(countingOf(world, 3)).toEqual([countingAt(5, [1, 2])]);
  world.step(3, { kind: "count-all" });
  world.sync(3);
  expect(countingOf(world, 3)).toEqual([null]);
  expect(short(world.disks.get(3) as KeptConfig)).toBe("2");
});
