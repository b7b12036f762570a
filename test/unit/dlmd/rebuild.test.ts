/** The value block of a rebuilt resource, and conversions whose order a recovery lost. */
import { describe, expect, it } from "vitest";
import { type Client, newClient } from "../../../dlmd/clients/client.ts";
import { HEADQUE, NODLCKWT, NOQUEUE, VALBLK } from "../../../dlmd/wire/flag.ts";
import { newLkb, newResource, type Lkb, type Resource } from "../../../dlmd/lock/lkb.ts";
import type { LockManager } from "../../../dlmd/lock/lock-manager.ts";
import { masterRemove, settleRebuilt } from "../../../dlmd/lock/master.ts";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { LateMessages } from "../../../dlmd/recovery/late-messages.ts";
import { receiveOffer } from "../../../dlmd/recovery/newest-block.ts";
import { Rebuild, settleLvb } from "../../../dlmd/recovery/rebuild.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import type { Member } from "../../../dlmd/wire/view-id.ts";
import { loneLocks } from "./lone-locks.ts";

const block = (n: number): Uint8Array => new Uint8Array([n]);

function rebuilt(known: { seq: number; valid: boolean; lvb: Uint8Array } | null, ...locks: (Partial<Lkb> & { granted: Mode })[]): Resource {
  const resource = newResource({ name: "v", resources: new Map(), opens: 0, blocked: false }, "r", 1);
  locks.forEach((lock, i) => {
    resource.grantQueue = [...resource.grantQueue, Object.assign(newLkb(resource, 2, i, null, 1, 0), lock)];
  });
  if (known !== null) Object.assign(resource, { lvbKnown: true, lvb: known.lvb, lvbSeq: known.seq, lvbValid: known.valid });
  settleLvb(resource);
  return resource;
}

describe("value block after a recovery", () => {
  it("is that of any lock above CR", () => {
    const { lvb, lvbValid, lvbSeq } = rebuilt(
      null,
      { granted: Mode.PR, lvbRead: true, lvb: block(4), lvbSeq: 4 },
      { granted: Mode.CR, lvbRead: true, lvb: block(3), lvbSeq: 3 },
    );
    expect({ lvb, lvbValid, lvbSeq }).toEqual({ lvb: block(4), lvbValid: true, lvbSeq: 4 });
  });

  it("stays not valid if such a lock read it as that", () => {
    expect(rebuilt(null, { granted: Mode.PR, lvbRead: true, lvb: block(4), lvbSeq: 4, lvbValid: false }).lvbValid).toBe(false);
  });

  it("is the old master's as it is, if only NL and CR remain", () => {
    const known = { seq: 7, valid: true, lvb: block(7) };
    const { lvb, lvbValid, lvbSeq } = rebuilt(known, { granted: Mode.CR, lvbRead: true, lvb: block(3), lvbSeq: 3 });
    expect({ lvb, lvbValid, lvbSeq }).toEqual({ lvb: block(7), lvbValid: true, lvbSeq: 7 });
  });

  it("is the highest sequence, not valid, if the old master is lost and only NL and CR remain", () => {
    const locks = [3, 6, 5].map((n) => ({ granted: Mode.NL, lvbRead: true, lvb: block(n), lvbSeq: n }));
    const { lvb, lvbValid, lvbSeq } = rebuilt(null, ...locks);
    expect({ lvb, lvbValid, lvbSeq }).toEqual({ lvb: block(6), lvbValid: false, lvbSeq: 6 });
  });
});

describe("a block that is handed over", () => {
  it("names the old master itself, if a program of its own may have written it: its locks may never come", () => {
    const sent: PeerMessage[] = [];
    const send = (_: number, message: PeerMessage): void => void sent.push(message);
    const { manager } = loneLocks({ toPeer: send });
    const [self, joiner] = [
      { nodeid: 1, incarnation: "00000000000000aa" },
      { nodeid: 2, incarnation: "00000000000000bb" },
    ];
    manager.tables.members = [self];
    const name = Array.from({ length: 100 }, (_, i) => `r${i}`).find((name) => masterOf([self, joiner], "v", name) === 2) as string;
    const client = newClient(1);
    manager.holder.open(client, 1, "v");
    manager.holder.request(client, { kind: "lock", lockspaceId: 1, lockId: 1, resource: name, mode: Mode.EX, flags: VALBLK });
    const change = {
      before: [self],
      members: [self, joiner],
      lossy: new Set<number>(),
      incremental: true,
    };
    const rebuild = new Rebuild(manager, [client], change, new LateMessages(1000, () => {}), null, send);
    expect(rebuild.step(100)).toBe(true);
    expect(sent.map(({ kind }) => kind)).toEqual(["offer", "rebuild"]);
    expect(sent[0]).toMatchObject({ resource: name, lvbValid: true, writer: self });
  });
});

describe("a rebuild that was given up before it had looked at a block", () => {
  const self = { nodeid: 1, incarnation: "00000000000000aa" };
  const writer = { nodeid: 2, incarnation: "00000000000000bb" };
  const again = { nodeid: 2, incarnation: "00000000000000cc" };

  /** Node 2 may be writing the block of a resource that node 1 masters. Two rebuilds; the first one may take so many steps. */
  function rebuiltTwice(first: { members: Member[]; lossy: number[]; steps: number }, flags = VALBLK): Resource {
    const { manager } = loneLocks();
    const { tables } = manager;
    tables.members = [self, writer];
    const name = Array.from({ length: 100 }, (_, i) => `r${i}`).find((name) => masterOf([self, writer], "v", name) === 1) as string;
    const resource = tables.resource(tables.lockspace("v"), name);
    Object.assign(resource, { lvbKnown: true, lvb: block(1), lvbSeq: 1 });
    tables.place(Object.assign(newLkb(resource, 2, 1, null, 1, 0), { granted: Mode.EX, flags }));
    const common = { incremental: false };
    const late = new LateMessages(1000, () => {});
    const rebuild = (before: Member[], members: Member[], lossy: number[], last: Rebuild | null): Rebuild =>
      new Rebuild(manager, [], { ...common, before, members, lossy: new Set(lossy) }, late, last, () => {});
    const givenUp = rebuild([self, writer], first.members, first.lossy, null);
    if (givenUp.step(first.steps)) {
      receiveOffer(manager, { kind: "offer", lockspace: "v", resource: name, lvbSeq: 5, lvbValid: true, lvb: block(5), writer });
    }
    expect(rebuild(first.members, first.members, [], givenUp).step(100)).toBe(true);
    return resource;
  }

  it("leaves to the next one whose messages were lost: what that node may have written is not valid", () => {
    expect(rebuiltTwice({ members: [self, writer], lossy: [2], steps: 0 })).toMatchObject({ lvbValid: false, lvbSeq: 2 });
  });

  it("leaves to the next one which nodes died, also if they are back in another life", () => {
    expect(rebuiltTwice({ members: [self, again], lossy: [], steps: 0 })).toMatchObject({ lvbValid: false, lvbSeq: 2 });
  });

  it("counts a writer whose last request was not about the block", () => {
    expect(rebuiltTwice({ members: [self, writer], lossy: [2], steps: 0 }, 0)).toMatchObject({ lvbValid: false, lvbSeq: 2 });
  });

  it("leaves nothing if it has looked at all, and a block that nothing is missing of stays valid", () => {
    expect(rebuiltTwice({ members: [self, writer], lossy: [2], steps: 100 })).toMatchObject({ lvbValid: true, lvbSeq: 5 });
    expect(rebuiltTwice({ members: [self, writer], lossy: [], steps: 0 })).toMatchObject({ lvbValid: true, lvbSeq: 1 });
  });
});

it("of blocks that several sides hand over the newest counts, whichever comes last", () => {
  const { manager } = loneLocks();
  manager.tables.members = [{ nodeid: 1, incarnation: "00000000000000aa" }];
  manager.tables.rebuilding = true;
  for (const n of [3, 5, 4]) {
    receiveOffer(manager, { kind: "offer", lockspace: "v", resource: "r", lvbSeq: n, lvbValid: n > 3, lvb: block(n), writer: null });
  }
  expect(manager.tables.lockspaces.get("v")?.resources.get("r")).toMatchObject({ lvbSeq: 5, lvbValid: true, lvb: block(5) });
});

it("what a holder wrote with a lock that it had named to this node, in a view that this one did not finish, is newer than the block it was offered", () => {
  const { manager } = loneLocks();
  const members = [
    { nodeid: 1, incarnation: "00000000000000aa" },
    { nodeid: 2, incarnation: "00000000000000bb" },
  ];
  manager.tables.members = members;
  manager.tables.rebuilding = true;
  const [, holder] = members as [Member, Member];
  const late = new LateMessages(1000, () => {});
  const state = { granted: Mode.PW, requested: null, flags: VALBLK, grantNo: 1, transaction: 0, waitedMs: 0 };
  const read = { lvbSeq: 3, lvbRead: true, lvbValid: true, lvb: block(3) };
  receiveOffer(manager, { kind: "offer", lockspace: "v", resource: "r", lvbSeq: 3, lvbValid: true, lvb: block(3), writer: holder });
  late.add(holder, { kind: "rebuild", lkbId: 5, clientId: 1, lockspace: "v", resource: "r", ...state, ...read });
  late.add(holder, { kind: "unlock", lkbId: 5, lvbWrite: "invalidate", lvbSeq: 4, lvb: null });
  late.apply(
    manager,
    members,
    () => false,
    () => {},
  );
  const resource = manager.tables.lockspaces.get("v")?.resources.get("r");
  // Its contents are those from before.
  expect([resource?.lvbSeq, resource?.lvbValid, resource?.lvb]).toEqual([4, false, block(3)]);
});

describe("a write that comes while the new master waits", () => {
  const members = [
    { nodeid: 1, incarnation: "00000000000000aa" },
    { nodeid: 2, incarnation: "00000000000000bb" },
    { nodeid: 3, incarnation: "00000000000000cc" },
  ] as const;
  const [self, holder, dead] = members;

  /** Node 2 names its EX to this node, which has no block; the next view comes before the block is settled, and after that message. */
  function takenIn(message: PeerMessage): Resource {
    const { manager } = loneLocks();
    manager.tables.members = [...members];
    const names = Array.from({ length: 100 }, (_, i) => `r${i}`);
    const name = names.find((each) => masterOf(members, "v", each) === 3 && masterOf([self, holder], "v", each) === 1) as string;
    const late = new LateMessages(1000, () => {});
    const change = { members: [self, holder], lossy: new Set<number>(), incremental: true };
    const first = new Rebuild(manager, [], { ...change, before: [self, holder, dead] }, late, null, () => {});
    const state = { granted: Mode.EX, requested: null, flags: VALBLK, grantNo: 1, transaction: 0, waitedMs: 0 };
    const read = { lvbSeq: 3, lvbRead: true, lvbValid: true, lvb: block(3) };
    const named = { kind: "rebuild", lkbId: 5, clientId: 1, lockspace: "v", resource: name, ...state, ...read } as const;
    expect(first.receiveLock(2, named)).toBe(true);
    expect(first.receiveLock(2, { ...named, lkbId: 6, granted: Mode.NL, lvbSeq: 2, lvb: block(2) })).toBe(true);
    expect(first.step(100)).toBe(true);
    late.add(holder, message);
    const second = new Rebuild(manager, [], { ...change, before: [self, holder] }, late, first, () => {});
    expect(second.step(100)).toBe(true);
    expect(second.settle(100)).toBe(true);
    return manager.tables.lockspaces.get("v")?.resources.get(name) as Resource;
  }

  it("of a conversion down is not undone by what that lock had read", () => {
    const written = takenIn({ kind: "down", lkbId: 5, grantNo: 2, mode: Mode.PR, lvbWrite: "write", lvbSeq: 4, lvb: block(4) });
    expect(written).toMatchObject({ lvbSeq: 4, lvbValid: true, lvb: block(4) });
    const marked = takenIn({ kind: "down", lkbId: 5, grantNo: 2, mode: Mode.PR, lvbWrite: "invalidate", lvbSeq: 4, lvb: null });
    expect(marked).toMatchObject({ lvbSeq: 4, lvbValid: false, lvb: block(3) });
  });

  it("of an unlock is known, and valid", () => {
    const written = takenIn({ kind: "unlock", lkbId: 5, lvbWrite: "write", lvbSeq: 4, lvb: block(4) });
    expect(written).toMatchObject({ lvbSeq: 4, lvbValid: true, lvb: block(4) });
  });
});

describe("who waits is named in many turns, and read at any time", () => {
  const members = [1, 2].map((nodeid) => ({ nodeid, incarnation: `000000000000000${nodeid}` }));
  const names = Array.from({ length: 100 }, (_, i) => `r${i}`);
  const start = (manager: LockManager, clients: readonly Client[], send: (message: PeerMessage) => void): Rebuild => {
    const change = { before: members, members, lossy: new Set<number>(), incremental: false };
    return new Rebuild(manager, clients, change, new LateMessages(1000, () => {}), null, (_, message) => send(message));
  };

  it("all with their ages of one moment", () => {
    const { manager, time } = loneLocks();
    manager.tables.members = members;
    const elsewhere = names.find((each) => masterOf(members, "v", each) === 2) as string;
    const resource = manager.tables.resource(manager.tables.lockspace("v"), elsewhere);
    const client = newClient(1);
    for (const id of [1, 2, 3]) {
      const lkb = newLkb(resource, 1, id, client, 1, id);
      client.locks.set(id, Object.assign(lkb, { requested: Mode.EX, sinceMs: 10 * id }));
    }
    time.nowMs = 100;
    const sent: PeerMessage[] = [];
    const rebuild = start(manager, [client], (message) => void sent.push(message));
    do time.nowMs += 50;
    while (!rebuild.step(1));
    expect(sent.map((message) => message.kind === "rebuild" && message.waitedMs)).toEqual([90, 80, 70]);
  });

  it("so none has waited less because its message was read late, and the order is theirs", () => {
    const { manager, time } = loneLocks();
    manager.tables.members = members;
    const here = names.find((each) => masterOf(members, "v", each) === 1) as string;
    time.nowMs = 1000;
    const rebuild = start(manager, [], () => {});
    const state = { granted: null, requested: Mode.EX, flags: 0, grantNo: 0, transaction: 0 };
    const unread = { lvbSeq: 0, lvbRead: false, lvbValid: false, lvb: null };
    for (const [lkbId, waitedMs] of [
      [1, 90],
      [2, 95],
      [3, 70],
    ] as const) {
      time.nowMs += 100;
      const lock = { lkbId, clientId: 1, lockspace: "v", resource: here, ...state, waitedMs, ...unread };
      expect(rebuild.receiveLock(2, { kind: "rebuild", ...lock })).toBe(true);
    }
    while (!rebuild.step(100));
    while (!rebuild.settle(100));
    const resource = manager.tables.resource(manager.tables.lockspace("v"), here);
    expect(resource.grantQueue.map(({ id }) => id)).toEqual([2]);
    expect(resource.waitQueue.map(({ id, sinceMs }) => [id, sinceMs])).toEqual([
      [1, 910],
      [3, 930],
    ]);
  });
});

describe("the master after a rebuild that was given up", () => {
  const members = [1, 2, 3, 4].map((nodeid) => ({ nodeid, incarnation: `000000000000000${nodeid}` }));
  const of = (...nodeids: number[]): Member[] => members.filter(({ nodeid }) => nodeids.includes(nodeid));

  it("is one for the node that had looked at the resource and for the one that had not", () => {
    const names = Array.from({ length: 500 }, (_, i) => `r${i}`);
    const name = names.find((each) => masterOf(of(1, 2, 3), "v", each) === 2 && masterOf(of(1, 2, 3, 4), "v", each) === 4) as string;
    const masters = [100, 0].map((steps) => {
      const { manager } = loneLocks();
      manager.tables.members = of(1, 2, 3);
      const resource = manager.tables.resource(manager.tables.lockspace("v"), name);
      resource.held = 1;
      const late = new LateMessages(1000, () => {});
      const rebuild = (before: Member[], after: Member[], incremental: boolean, last: Rebuild | null): Rebuild =>
        new Rebuild(manager, [], { before, members: after, lossy: new Set(), incremental }, late, last, () => {});
      // Node 4 joins; then node 3 dies before everybody had named what moved.
      const givenUp = rebuild(of(1, 2, 3), of(1, 2, 3, 4), true, null);
      givenUp.step(steps);
      expect(rebuild(of(1, 2, 3, 4), of(1, 2, 4), false, givenUp).step(100)).toBe(true);
      return resource.masterNodeid;
    });
    expect(masters).toEqual([4, 4]);
  });
});

describe("conversions after a recovery", () => {
  it("are granted in any order, also later, and two that wait for each other lose one", () => {
    const told: string[] = [];
    const port = {
      granted: (lkb: Lkb) => void told.push(`${lkb.id} granted`),
      refused: (lkb: Lkb, status: string) => void told.push(`${lkb.id} ${status}`),
      bast: () => {},
      nextWaitNo: () => 1,
    };
    const resource = newResource({ name: "v", resources: new Map(), opens: 0, blocked: false }, "r", 1);
    const add = (id: number, granted: Mode, requested: Mode | null): Lkb => {
      const lkb = Object.assign(newLkb(resource, 2, id, null, 1, 0), { granted, requested, unordered: requested !== null });
      const queue = requested === null ? "grantQueue" : "convertQueue";
      resource[queue] = [...resource[queue], lkb];
      return lkb;
    };
    // 1 asked after 2, but comes first now; 2 waits for 3 only.
    add(1, Mode.NL, Mode.EX);
    add(2, Mode.PR, Mode.EX);
    const three = add(3, Mode.PR, null);
    settleRebuilt(port, resource);
    expect(told).toEqual([]);
    masterRemove(port, resource, three);
    expect(told).toEqual(["2 granted"]);

    add(4, Mode.NL, Mode.EX);
    expect(resource.convertQueue.map((lkb) => lkb.id)).toEqual([1, 4]);
  });

  it("what was asked for with HEADQUE is before what waits for longer, and the last of these is first", () => {
    const { manager } = loneLocks({});
    manager.tables.members = [{ nodeid: 1, incarnation: "00000000000000aa" }];
    const resource = manager.tables.resource(manager.tables.lockspace("v"), "r");
    const waits = [0, 0, HEADQUE, HEADQUE].map((flags, at) => ({ granted: null, requested: Mode.EX, flags, sinceMs: at + 1 }));
    for (const [id, lock] of [{ granted: Mode.EX, requested: null }, ...waits].entries())
      manager.tables.place(Object.assign(newLkb(resource, 2, id, null, 1, 0), lock));
    settleRebuilt(manager, resource);
    expect(resource.grantQueue.map(({ id }) => id)).toEqual([0]);
    expect(resource.waitQueue.map(({ id }) => id)).toEqual([4, 3, 1, 2]);
  });

  it("come after what was asked for with HEADQUE, if that can be granted: it stands there for one who has died", () => {
    const { manager } = loneLocks({});
    manager.tables.members = [{ nodeid: 1, incarnation: "00000000000000aa" }];
    const resource = manager.tables.resource(manager.tables.lockspace("v"), "r");
    const locks = [
      { granted: Mode.PR, requested: Mode.EX, flags: NOQUEUE },
      { granted: null, requested: Mode.EX, flags: 0, sinceMs: 1 },
      { granted: null, requested: Mode.PR, flags: HEADQUE, sinceMs: 9 },
    ];
    for (const [id, lock] of locks.entries()) manager.tables.place(Object.assign(newLkb(resource, 2, id, null, 1, 0), lock));
    settleRebuilt(manager, resource);
    expect(resource.grantQueue.map(({ id, granted }) => [id, granted])).toEqual([
      [2, Mode.PR],
      [0, Mode.PR],
    ]);
    expect(resource.waitQueue.map(({ id }) => id)).toEqual([1]);
  });

  it("so they do in a lockspace that has to know of the death first, when it does", () => {
    const { manager } = loneLocks({});
    manager.tables.members = [{ nodeid: 1, incarnation: "00000000000000aa" }];
    const lockspace = manager.tables.lockspace("v");
    const resource = manager.tables.resource(lockspace, "r");
    lockspace.blocked = true;
    const locks = [
      { granted: Mode.PR, requested: Mode.EX, flags: 0 },
      { granted: null, requested: Mode.PR, flags: HEADQUE },
    ];
    for (const [id, lock] of locks.entries()) manager.tables.place(Object.assign(newLkb(resource, 2, id, null, 1, 0), lock));
    settleRebuilt(manager, resource);
    expect(resource.grantQueue).toEqual([]);
    manager.unblock();
    expect([resource.grantQueue, resource.convertQueue].map((queue) => queue.map(({ id }) => id))).toEqual([[1], [0]]);
  });

  const lone = (locks: readonly { granted: Mode; requested: Mode | null; flags: number }[], blocked = false) => {
    const told: string[] = [];
    const { manager } = loneLocks({
      toPeer: (_, m) => {
        if (m.kind === "grant" || m.kind === "refuse") told.push(`${m.lkbId} ${m.kind}`);
        if (m.kind === "bast") told.push(`${m.lkbId} bast ${m.wanted}`);
      },
    });
    manager.tables.members = [{ nodeid: 1, incarnation: "00000000000000aa" }];
    const resource = manager.tables.resource(manager.tables.lockspace("v"), "r");
    resource.lockspace.blocked = blocked;
    for (const [id, lock] of locks.entries()) manager.tables.place(Object.assign(newLkb(resource, 2, id, null, 1, 0), lock));
    settleRebuilt(manager, resource);
    return { told, resource, manager };
  };

  it("who holds back any of them is told, those too that want the same", () => {
    const wants = { granted: Mode.CR, requested: Mode.EX, flags: NODLCKWT };
    expect(lone([wants, wants, wants]).told.toSorted()).toEqual(["0 bast 5", "1 bast 5", "2 bast 5"]);
  });

  it("what a conversion between PR and CW takes away lets those go that come before it", () => {
    const { told } = lone([
      { granted: Mode.NL, requested: Mode.CW, flags: 0 },
      { granted: Mode.PR, requested: Mode.CW, flags: 0 },
    ]);
    expect(told).toEqual(["1 grant", "0 grant"]);
  });

  it.each<[string, { granted: Mode; requested: Mode | null; flags: number }, Mode, readonly string[]]>([
    ["one that has the mode itself", { granted: Mode.CW, requested: null, flags: 0 }, Mode.CW, ["0 grant", "1 grant"]],
    ["one that waits for more than it", { granted: Mode.CW, requested: Mode.EX, flags: NODLCKWT }, Mode.CW, ["0 grant", "1 grant"]],
  ])(
    "between PR and CW that their master had granted are granted, in a blocked lockspace too: %s shows it (H16)",
    (_, shows, mode, grants) => {
      const trades = [0, 0].map((flags) => ({ granted: Mode.PR, requested: Mode.CW, flags }));
      const { told, resource } = lone([...trades, shows], true);
      expect(told.filter((text) => text.endsWith("grant"))).toEqual(grants);
      expect([...resource.grantQueue, ...resource.convertQueue].every(({ granted }) => granted === mode)).toBe(true);
    },
  );

  it("between PR and CW that show only each other wait while a lock of the dead may count, and then either is right (H16)", () => {
    const trade = { granted: Mode.PR, requested: Mode.CW, flags: 0 };
    const { told, resource, manager } = lone([trade, { granted: Mode.CW, requested: Mode.PR, flags: 0 }], true);
    const grants = (): string[] => told.filter((text) => text.endsWith("grant"));
    expect(grants()).toEqual([]);
    manager.unblock();
    expect(grants()).toEqual(["1 grant"]);
    expect([...resource.grantQueue, ...resource.convertQueue].every(({ granted }) => granted === Mode.PR)).toBe(true);
  });

  it("a trade that is being taken back is named with its request, also where this node was the new master of a rebuild that was given up (H16)", () => {
    const members = [1, 2, 3, 4].map((nodeid) => ({ nodeid, incarnation: `000000000000000${nodeid}` }));
    const of = (...ids: number[]): Member[] => members.filter(({ nodeid }) => ids.includes(nodeid));
    const heard: string[] = [];
    const { manager } = loneLocks({ toClient: (_, event) => void (event.kind === "ast" && heard.push(`${event.status} ${event.mode}`)) });
    const isOurs = (name: string): boolean =>
      [of(1, 2, 4), of(1, 2)].every((left) => masterOf(left, "v", name) === 1) && masterOf(of(1, 2, 3, 4), "v", name) === 3;
    const name = Array.from({ length: 500 }, (_, at) => `r${at}`).find(isOurs) ?? "";
    manager.tables.members = of(1, 2, 3, 4);
    const client = newClient(1);
    manager.holder.open(client, 1, "v");
    manager.holder.request(client, { kind: "lock", lockspaceId: 1, lockId: 1, resource: name, mode: Mode.PR, flags: 0 });
    const lkbId = client.locks.get(1)?.id ?? 0;
    const block = { lvbSeq: 0, lvbRead: false, lvbValid: true, lvb: null };
    manager.holder.receive({ kind: "grant", lkbId, sbFlags: 0, grantNo: 1, mode: Mode.PR, ...block });
    manager.holder.request(client, { kind: "convert", lockId: 1, mode: Mode.CW, flags: 0, lvb: null });
    manager.holder.request(client, { kind: "cancel", lockId: 1 });
    const late = new LateMessages(1000, () => undefined);
    const rebuild = (before: Member[], after: Member[], incremental: boolean, last: Rebuild | null): Rebuild =>
      new Rebuild(manager, [client], { before, members: after, lossy: new Set(), incremental }, late, last, () => undefined);
    const first = rebuild(of(1, 2, 3, 4), of(1, 2, 4), true, null);
    expect(first.step(100)).toBe(true);
    const second = rebuild(of(1, 2, 4), of(1, 2), false, first);
    expect(second.step(100)).toBe(true);
    const shows = {
      lkbId: 9,
      clientId: 1,
      lockspace: "v",
      resource: name,
      granted: Mode.CW,
      requested: null,
      flags: 0,
      grantNo: 1,
      ...block,
    };
    second.receiveLock(2, { kind: "rebuild", ...shows, transaction: 0, waitedMs: 0 });
    expect(second.settle(100)).toBe(true);
    expect(heard).toEqual([`granted ${Mode.PR}`, `granted ${Mode.CW}`]);
  });

  it("two that wait for each other lose one", () => {
    const told: string[] = [];
    const { manager } = loneLocks({ toPeer: (_, m) => void told.push(`${m.kind} ${JSON.stringify(m)}`) });
    manager.tables.members = [{ nodeid: 1, incarnation: "00000000000000aa" }];
    const resource = manager.tables.resource(manager.tables.lockspace("v"), "r");
    for (const id of [1, 2]) {
      manager.tables.place(Object.assign(newLkb(resource, 2, id, null, 1, 0), { granted: Mode.PR, requested: Mode.EX, sinceMs: id }));
    }
    settleRebuilt(manager, resource);
    expect(told.filter((text) => text.startsWith("refuse"))).toEqual([
      `refuse {"kind":"refuse","lkbId":2,"grantNo":0,"status":"deadlock","sbFlags":0}`,
    ]);
  });
});
