/** Since when a lock is held: what becomes of that when ranges merge and split, when it is converted, and when a master is rebuilt. */
import { expect, it } from "vitest";
import { newClient } from "../../../dlmd/clients/client.ts";
import { PlockHome } from "../../../dlmd/plock/home.ts";
import { PlockMaster } from "../../../dlmd/plock/master.ts";
import { defaultPlockLimits } from "../../../dlmd/plock/service.ts";
import type { PlockMessage, PlockRequestMessage, PlockStatus } from "../../../dlmd/wire/peer-plock.ts";
import type { PlockClientRequest } from "../../../dlmd/wire/local-plock.ts";
import { type HeldRange, maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { flock, LoneService, posix } from "./lone-service.ts";
import { ageOf } from "../../../dlmd/wire/peer-field.ts";

/** "type start-end since" of all on a file. */
function since(lone: LoneService, file = "f", space: "ranges" | "flock" = "ranges"): string[] {
  return [...(lone.table(file, space)?.holders.values() ?? [])].flatMap((holder) =>
    holder.ranges.overlapping(0n, maxOffset).map(({ type, start, end, sinceMs }) => `${type} ${start}-${end} ${sinceMs}`),
  );
}

/** The same as this node's client has it, which it would tell to another master. */
function sinceAtHome(lone: LoneService): string[] {
  return [...lone.service.home.held()].flatMap(({ ranges }) =>
    ranges.overlapping(0n, maxOffset).map(({ type, start, end, sinceMs }) => `${type} ${start}-${end} ${sinceMs}`),
  );
}

it("from the grant on, not from the request, and a lock that is there already goes on", () => {
  const lone = new LoneService();
  lone.lock("f", posix(1), "write", 0n, 9n);
  lone.time.nowMs = 100;
  lone.lock("f", posix(2), "write", 5n, 9n);
  lone.time.nowMs = 300;
  lone.unlock("f", posix(1), 5n, 9n);
  expect(since(lone)).toEqual(["write 0-4 0", "write 5-9 300"]);
  lone.time.nowMs = 400;
  lone.lock("f", posix(2), "write", 6n, 7n);
  expect(since(lone)).toEqual(["write 0-4 0", "write 5-9 300"]);
  expect(sinceAtHome(lone)).toEqual(since(lone));
});

it("neighbours that become one are held as a whole since the latest; of what is split each part keeps its time", () => {
  const lone = new LoneService();
  lone.lock("f", posix(1), "read", 0n, 9n);
  lone.time.nowMs = 50;
  lone.lock("f", posix(1), "read", 10n, 19n);
  expect(since(lone)).toEqual(["read 0-19 50"]);
  lone.time.nowMs = 70;
  lone.lock("f", posix(1), "write", 5n, 6n);
  lone.time.nowMs = 90;
  lone.unlock("f", posix(1), 12n, 13n);
  expect(since(lone)).toEqual(["read 0-4 50", "write 5-6 70", "read 7-11 50", "read 14-19 50"]);
  // As a reader it has them since now: before, it had something else.
  lone.lock("f", posix(1), "read", 5n, 6n);
  expect(since(lone)).toEqual(["read 0-11 90", "read 14-19 50"]);
  expect(sinceAtHome(lone)).toEqual(since(lone));
});

it("a flock that is converted is a new one", () => {
  const lone = new LoneService();
  lone.lock("f", flock(1), "read", 0n);
  lone.time.nowMs = 20;
  lone.lock("f", flock(1), "write", 0n);
  expect(since(lone, "f", "flock")).toEqual([`write 0-${maxOffset} 20`]);
});

it("a lock that a program had elsewhere keeps its age, even if it waits here first", () => {
  const lone = new LoneService();
  const ask = { file: "f", op: "lock", ownerKind: "posix", owner: 1n, pid: 1, type: "write", wait: true } as const;
  lone.time.nowMs = 10_000;
  lone.ask({ ...ask, start: 0n, end: 9n, heldMs: 60_000 });
  lone.lock("f", posix(2), "write", 20n, 29n);
  lone.ask({ ...ask, start: 20n, end: 29n, heldMs: 5000 });
  lone.time.nowMs = 11_000;
  lone.unlock("f", posix(2));
  expect(since(lone)).toEqual(["write 0-9 -50000", "write 20-29 5000"]);
  expect(sinceAtHome(lone)).toEqual(since(lone));
  // Of two neighbours one of which came later the whole is as old as that one.
  lone.ask({ ...ask, start: 10n, end: 19n, heldMs: 1000 });
  expect(since(lone)).toEqual(["write 0-29 10000"]);
});

interface Apart {
  readonly master: PlockMaster;
  readonly sent: PlockMessage[];
  readonly time: { nowMs: number };
}

function apart(): Apart {
  const sent: PlockMessage[] = [];
  const time = { nowMs: 1_000_000 };
  const port = {
    nodeid: 9,
    nowMs: () => time.nowMs,
    send: (_: number, message: PlockMessage) => void sent.push(message),
    protest: (_: number, message: string) => {
      throw new Error(message);
    },
    blocks: () => false,
    blocked: () => {},
  };
  return { master: new PlockMaster(port, defaultPlockLimits), sent, time };
}

function heldBy(master: PlockMaster): string[] {
  return [...(master.files.get("test\0f")?.ranges.holders.values() ?? [])].flatMap((holder) =>
    holder.ranges
      .overlapping(0n, maxOffset)
      .map(({ type, start, end, sinceMs }) => `${holder.owner.nodeid} ${type} ${start}-${end} ${sinceMs}`),
  );
}

const names = { lockspace: "test", file: "f", clientId: 1, ownerKind: "posix", owner: 1n } as const;
const again = { kind: "plock-again", ...names, pid: 1, wait: true, entangled: true, begun: false, first: false, canceled: false } as const;

it("a new master has it from the ages that homes tell, each by the clock of its own node", () => {
  const { master, time } = apart();
  const claim = (from: number, start: bigint, heldMs: number | null): void => {
    const ranges: HeldRange[] = [{ type: "write", start, end: start + 9n, pid: from, heldMs }];
    master.claim(from, { kind: "plock-held", ...names, ranges });
  };
  claim(1, 0n, 30_000);
  time.nowMs += 500;
  claim(2, 10n, 30_000);
  claim(3, 20n, null);
  expect(heldBy(master)).toEqual(["1 write 0-9 970000", "2 write 10-19 970500", "3 write 20-29 null"]);
});

it("a request that was named while the master was rebuilt is as old as it is, and its lock begins with the grant", () => {
  const { master, time } = apart();
  master.again(1, { ...again, requestId: 1, op: "lock", type: "write", start: 0n, end: 9n, heldMs: null, waitedMs: 4000 });
  master.again(2, { ...again, requestId: 1, op: "lock", type: "write", start: 0n, end: 9n, heldMs: null, waitedMs: 3000 });
  master.again(3, { ...again, requestId: 1, op: "lock", type: "write", start: 20n, end: 29n, heldMs: 60_000, waitedMs: 1000 });
  time.nowMs += 700;
  for (const _ of master.settle());
  expect(heldBy(master)).toEqual(["1 write 0-9 1000700", "3 write 20-29 939000"]);
  expect([...master.waiters()].map(({ sinceMs }) => sinceMs)).toEqual([997_000]);
});

it("a request for less that only the dead master can have granted: since when is not known", () => {
  const { master } = apart();
  const range = { start: 0n, end: 9n, pid: 1, heldMs: 8000 } as const;
  master.claim(1, { kind: "plock-held", ...names, ranges: [{ ...range, type: "write" }] });
  master.claim(2, { kind: "plock-held", ...names, ranges: [{ ...range, type: "read" }] });
  master.again(1, { ...again, requestId: 7, op: "lock", type: "read", start: 0n, end: 9n, heldMs: null, waitedMs: 5 });
  for (const _ of master.settle());
  expect(heldBy(master)).toEqual(["1 read 0-9 null", "2 read 0-9 992000"]);
});

type Plock = Extract<PlockClientRequest, { kind: "plock" }>;

interface Home {
  readonly ask: (change: Partial<Plock>) => void;
  readonly answer: (status?: PlockStatus) => void;
  /** What the next master is told. */
  readonly rebuild: () => HeldRange[];
  readonly time: { nowMs: number };
}

function home(): Home {
  const sent: PlockMessage[] = [];
  const time = { nowMs: 0 };
  const port = {
    nodeid: 1,
    nowMs: () => time.nowMs,
    masterOf: () => 2,
    send: (_: number, message: PlockMessage) => void sent.push(message),
    toClient: () => {},
  };
  const service = new PlockHome(port, defaultPlockLimits);
  const client = newClient(1);
  client.lockspaces.set(7, { name: "test", resources: new Map(), opens: 1, blocked: false });
  let requestId = 0;
  const common = {
    kind: "plock",
    lockspaceId: 7,
    file: "f",
    ownerKind: "posix",
    owner: 1n,
    begun: false,
    heldMs: null,
    first: false,
    pid: 1,
  } as const;
  return {
    time,
    ask: (change) =>
      service.request(client, { ...common, requestId: ++requestId, op: "lock", wait: true, type: "write", start: 0n, end: 9n, ...change }),
    answer: (status = "ok") => {
      const asked = sent.findLast(({ kind }) => kind === "plock-request" || kind === "plock-again") as PlockRequestMessage;
      service.answer({ requestId: asked.requestId, status, conflict: null }, false);
    },
    rebuild: () => {
      sent.splice(0);
      for (const _ of service.rebuild());
      return sent.flatMap((message) => (message.kind === "plock-held" ? message.ranges : []));
    },
  };
}

it("a home tells the age of what its clients hold, and of what they had elsewhere", () => {
  const { ask, answer, rebuild, time } = home();
  ask({});
  time.nowMs = 100;
  answer();
  ask({ start: 20n, end: 29n, heldMs: 9000 });
  time.nowMs = 200;
  answer();
  time.nowMs = 5000;
  expect(rebuild().map(({ start, heldMs }) => [start, heldMs])).toEqual([
    [0n, 4900],
    [20n, 13_900],
  ]);
});

it("a home does not know since when it has less, if the master that was asked for that died", () => {
  const { ask, answer, rebuild, time } = home();
  ask({});
  answer();
  ask({ type: "read" });
  rebuild();
  time.nowMs = 1000;
  answer();
  time.nowMs = 3000;
  expect(rebuild()).toMatchObject([{ type: "read", heldMs: null }]);
  ask({ start: 20n, end: 29n });
  rebuild();
  answer();
  // More than it had it has from the one that answers.
  time.nowMs = 3500;
  expect(rebuild()).toMatchObject([
    { type: "read", heldMs: null },
    { start: 20n, heldMs: 500 },
  ]);
});

it("an age is as wide as its field, whatever a program has said of it", () => {
  expect([ageOf(null, 5), ageOf(7, 5), ageOf(5, 7.4), ageOf(-Number.MAX_SAFE_INTEGER, 1000)]).toEqual([
    null,
    0,
    2,
    Number.MAX_SAFE_INTEGER,
  ]);
});
