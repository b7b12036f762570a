/** What a peer says of a resource that moves, and cannot have meant. */
import { expect, it } from "vitest";
import { newClient } from "../../../dlmd/lock/client.ts";
import { LockManager } from "../../../dlmd/lock/lock-manager.ts";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer-message.ts";
import type { MovedLock } from "../../../dlmd/wire/peer-move.ts";

const members = [1, 2, 3].map((nodeid) => ({ nodeid, incarnation: `00000000000000a${nodeid}` }));
const resource = Array.from({ length: 100 }, (_, i) => `r${i}`).find((name) => masterOf(members, "v", name) === 2) as string;
const name = { lockspace: "v", resource };
const block = { lvbSeq: 0, lvbValid: true, lvb: null };

const lockOf = (nodeid: number, lkbId: number): MovedLock => ({
  nodeid,
  lkbId,
  clientId: 1,
  granted: Mode.NL,
  requested: null,
  flags: 0,
  sbFlags: 0,
  grantNo: 1,
  transaction: 0,
  bastMode: Mode.NL,
  unordered: false,
  waitedMs: 0,
});

/** Node 1 has a lock on what node 2 masters, and has been told to wait. */
function told(): { manager: LockManager; sent: [number, PeerMessage["kind"]][]; protests: string[] } {
  const sent: [number, PeerMessage["kind"]][] = [];
  const protests: string[] = [];
  const port = {
    toPeer: (to: number, { kind }: PeerMessage) => void sent.push([to, kind]),
    toClient: () => {},
    protest: (_: number, message: string) => void protests.push(message),
  };
  const manager = new LockManager(1, port, 10);
  manager.tables.members = members;
  const client = newClient(1);
  manager.holder.open(client, 1, "v");
  manager.holder.request(client, { kind: "lock", lockspaceId: 1, lockId: 1, resource, mode: Mode.NL, flags: 0 });
  manager.receive(2, { kind: "grant", lkbId: 1, grantNo: 1, mode: Mode.NL, sbFlags: 0, lvbRead: false, ...block });
  manager.receive(2, { kind: "move-begin", ...name, no: 7 });
  sent.length = 0;
  return { manager, sent, protests };
}

const stranger = `${resource} is used by node 9, which is not in the view`;

it.each([
  { who: "waits", told: [{ nodeid: 9, by: 2, no: 8 }], locks: [lockOf(1, 1)] },
  { who: "has a lock", told: [], locks: [lockOf(1, 1), lockOf(9, 4)] },
])("queues of which a node outside the view $who are not taken over", ({ told: others, locks }) => {
  const { manager, sent, protests } = told();
  manager.receive(2, { kind: "move-state", ...name, ...block, told: others, locks });
  expect([sent, protests]).toEqual([[], [stranger]]);
});

it("requests of a node outside the view are not taken in", () => {
  const { manager, sent, protests } = told();
  manager.receive(2, { kind: "move-state", ...name, ...block, told: [{ nodeid: 3, by: 2, no: 8 }], locks: [lockOf(1, 1)] });
  expect([sent.splice(0), protests]).toEqual([[[3, "moved"]], []]);
  manager.receive(2, { kind: "move-join", ...name, told: [{ nodeid: 9, by: 2, no: 9 }], locks: [] });
  manager.receive(2, { kind: "move-join", ...name, told: [], locks: [{ ...lockOf(9, 4), granted: null, requested: Mode.NL }] });
  expect([sent, protests]).toEqual([[], [stranger, stranger]]);
});
