/** The value block of a rebuilt resource, and conversions whose order a recovery lost. */
import { describe, expect, it } from "vitest";
import { newClient } from "../../../dlmd/lock/client.ts";
import { VALBLK } from "../../../dlmd/lock/flag.ts";
import { newLkb, newResource, type Lkb, type Resource } from "../../../dlmd/lock/lkb.ts";
import { LockManager } from "../../../dlmd/lock/lock-manager.ts";
import { masterRemove, settleRebuilt } from "../../../dlmd/lock/master.ts";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import { LateMessages } from "../../../dlmd/recovery/late-messages.ts";
import { Rebuild, receiveOffer, settleLvb } from "../../../dlmd/recovery/rebuild.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import type { Member } from "../../../dlmd/wire/view-id.ts";

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
    const manager = new LockManager(1, { toPeer: send, toClient: () => {}, protest: () => {} }, 10);
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
      lossy: () => false,
      incremental: true,
      displaced: () => false,
      unsentSeq: () => 0,
    };
    const rebuild = new Rebuild(manager, [client], change, new LateMessages(() => {}), null, send);
    expect(rebuild.step(100)).toBe(true);
    expect(sent.map(({ kind }) => kind)).toEqual(["offer", "rebuild"]);
    expect(sent[0]).toMatchObject({ resource: name, lvbValid: true, writer: self });
  });
});

it("of blocks that several sides hand over the newest counts, whichever comes last", () => {
  const manager = new LockManager(1, { toPeer: () => {}, toClient: () => {}, protest: () => {} }, 10);
  manager.tables.members = [{ nodeid: 1, incarnation: "00000000000000aa" }];
  manager.tables.rebuilding = true;
  for (const n of [3, 5, 4]) {
    receiveOffer(manager, { kind: "offer", lockspace: "v", resource: "r", lvbSeq: n, lvbValid: n > 3, lvb: block(n), writer: null });
  }
  expect(manager.tables.lockspaces.get("v")?.resources.get("r")).toMatchObject({ lvbSeq: 5, lvbValid: true, lvb: block(5) });
});

it("what a holder wrote with a lock that it had named to this node, in a view that this one did not finish, is newer than the block it was offered", () => {
  const manager = new LockManager(1, { toPeer: () => {}, toClient: () => {}, protest: () => {} }, 10);
  const members = [
    { nodeid: 1, incarnation: "00000000000000aa" },
    { nodeid: 2, incarnation: "00000000000000bb" },
  ];
  manager.tables.members = members;
  manager.tables.rebuilding = true;
  const [, holder] = members as [Member, Member];
  const late = new LateMessages(() => {});
  const state = { granted: Mode.PW, requested: null, flags: VALBLK, grantNo: 1, transaction: 0, waitedMs: 0 };
  const read = { lvbSeq: 3, lvbRead: true, lvbValid: true, lvb: block(3) };
  receiveOffer(manager, { kind: "offer", lockspace: "v", resource: "r", lvbSeq: 3, lvbValid: true, lvb: block(3), writer: holder });
  late.add(holder, { kind: "rebuild", lkbId: 5, clientId: 1, lockspace: "v", resource: "r", ...state, ...read });
  late.add(holder, { kind: "unlock", lkbId: 5, lvbWrite: "invalidate", lvbSeq: 4, lvb: null });
  late.apply(
    manager,
    { before: members, members },
    () => false,
    () => {},
  );
  const resource = manager.tables.lockspaces.get("v")?.resources.get("r");
  // Its contents are those from before.
  expect([resource?.lvbSeq, resource?.lvbValid, resource?.lvb]).toEqual([4, false, block(3)]);
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

  it("two that wait for each other lose one", () => {
    const told: string[] = [];
    const manager = new LockManager(
      1,
      { toPeer: (_, m) => void told.push(`${m.kind} ${JSON.stringify(m)}`), toClient: () => {}, protest: () => {} },
      10,
    );
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
