/** How much a search for deadlocks asks and keeps (dlmd/plock/search.ts): at its limits, and with what programs can make it meet. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { type Client, newClient } from "../../../dlmd/clients/client.ts";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { maxOwnerWaits } from "../../../dlmd/plock/home.ts";
import { edgesPerRequest } from "../../../dlmd/plock/master.ts";
import { DeadlockSearch, maxSearchEdges, maxSearchRequests, maxSearchRows } from "../../../dlmd/plock/search.ts";
import { maxSearchMessages, SearchWork } from "../../../dlmd/plock/search-work.ts";
import { defaultPlockLimits, PlockService } from "../../../dlmd/plock/service.ts";
import type { Waiter } from "../../../dlmd/plock/table.ts";
import { decodeFrame, encodeFrames } from "../../../dlmd/wire/peer.ts";
import {
  isPlockMessage,
  maxProbeOwners,
  maxProbeRequests,
  type PlockEdge,
  type PlockMessage,
  type PlockProbeMessage,
  type PlockProbeReplyMessage,
  type PlockRequestName,
} from "../../../dlmd/wire/peer-plock.ts";
import type { PlockOwner, PlockType } from "../../../dlmd/wire/plock-range.ts";
import { noView } from "../../../dlmd/wire/view-id.ts";

const members = [1, 2].map((nodeid) => ({ nodeid, incarnation: `00000000000000a${nodeid}` }));

/** A file that this node masters. */
function fileOf(nodeid: number, name: string): string {
  for (let i = 0; ; i++) if (masterOf(members, "test", `${name}${i}`) === nodeid) return `${name}${i}`;
}

/** Two nodes; the programs are all on node 1. Every message goes through its codec. */
class Pair {
  readonly client: Client = newClient(1);
  readonly errnos: Map<number, number> = new Map();
  readonly sent: PlockMessage[] = [];
  readonly #services: PlockService[];
  #wire: [to: number, from: number, bytes: Uint8Array][] = [];
  #nextRequestId = 1;

  constructor() {
    this.client.lockspaces.set(7, { name: "test", resources: new Map(), opens: 1, blocked: false });
    this.#services = members.map(({ nodeid }) => this.#service(nodeid));
    for (const service of this.#services) service.startRebuild(members);
    for (const service of this.#services) while (!service.name(1));
    for (const service of this.#services) while (!service.settle(1));
  }

  #service(nodeid: number): PlockService {
    return new PlockService(
      nodeid,
      { nowMs: 0 },
      {
        toPeer: (to, message) => {
          this.sent.push(message);
          for (const bytes of encodeFrames(noView, [message])) this.#wire.push([to, nodeid, bytes]);
        },
        toClient: (_, event) => void (event.kind === "plock-result" && this.errnos.set(event.requestId, event.errno)),
        protest: (_, message) => expect.fail(message),
        blocks: () => false,
      },
      defaultPlockLimits,
    );
  }

  /** Until no message is under way, and no search has work left. */
  settle(): void {
    while (this.turn(Number.POSITIVE_INFINITY));
  }

  /** Each node looks at so many rows, and what is on the way arrives. False: nothing is left. */
  turn(budget: number): boolean {
    for (const service of this.#services) service.search(budget);
    const wire = this.#wire;
    this.#wire = [];
    for (const [to, from, bytes] of wire) {
      for (const message of decodeFrame(bytes).messages) {
        if (isPlockMessage(message)) this.#services[to - 1]?.receive(from, message);
      }
    }
    return this.#wire.length > 0 || this.#services.some(({ searching }) => searching);
  }

  lock(file: string, owner: number, type: PlockType, start = 0, end = 999): number {
    const requestId = this.ask(file, owner, type, start, end);
    this.settle();
    return requestId;
  }

  /** The same, and nobody has searched yet. */
  ask(file: string, owner: number, type: PlockType, start = 0, end = 999): number {
    const requestId = this.#nextRequestId++;
    const what = {
      op: "lock",
      type,
      start: BigInt(start),
      end: BigInt(end),
      pid: owner,
      wait: true,
      begun: false,
      heldMs: null,
      first: false,
    } as const;
    const names = { lockspaceId: 7, requestId, file, ownerKind: "posix", owner: BigInt(owner) } as const;
    this.#services[0]?.request(this.client, { kind: "plock", ...names, ...what });
    return requestId;
  }
}

describe("between two nodes", () => {
  const a = fileOf(1, "a");
  const b = fileOf(2, "b");
  const c = fileOf(2, "c");
  const many = Array.from({ length: 256 }, (_, at) => at + 1);

  it("256 owners hold what one wants, and want what 256 others hold: a circle behind the last of them is found", () => {
    const pair = new Pair();
    const root = 1000;
    for (const owner of many) pair.lock(a, owner, "read");
    for (const owner of many) pair.lock(b, 2000 + owner, "read");
    pair.lock(c, root, "write");
    // Each another byte, so that none stands behind the others.
    const waits = [...many.map((owner) => pair.lock(b, owner, "write", owner, owner)), pair.lock(c, 256, "write")];
    pair.sent.length = 0;
    const request = pair.lock(a, root, "write");
    expect([pair.errnos.get(request), waits.filter((id) => pair.errnos.has(id))]).toEqual([E.EDEADLK, []]);
    const probes = pair.sent.filter((message) => message.kind === "plock-probe");
    expect(Math.max(...probes.map(({ requests }) => requests.length))).toBe(maxProbeRequests);
    const replies = pair.sent.filter((message) => message.kind === "plock-probe-reply");
    expect(replies.reduce((sum, { edges }) => sum + edges.length, 0)).toBeGreaterThan(65_536);
  });

  it("so many rows are looked at in a turn, and what comes meanwhile is granted at once", () => {
    const pair = new Pair();
    for (const owner of many) pair.lock(a, owner, "read");
    for (const owner of many) pair.lock(b, 2000 + owner, "read");
    for (const owner of many) pair.lock(b, owner, "write", owner, owner);
    pair.lock(b, 1000, "read", 2000, 2999);
    pair.lock(b, 1, "write", 2000, 2999);
    pair.sent.length = 0;
    const request = pair.ask(a, 1000, "write");
    const rowsAtOnce = 64;
    let turns = 0;
    const replied = (): number =>
      pair.sent.reduce((sum, m) => sum + (m.kind === "plock-probe-reply" ? m.edges.length + m.waits.length : 0), 0);
    let most = 0;
    let meanwhile: unknown[] = [];
    while (pair.turn(rowsAtOnce)) {
      turns++;
      // What node 2 looks at, for replies, and what node 1 looks at, of replies.
      most = Math.max(most, replied() / turns);
      if (turns === 100) meanwhile = [pair.ask(fileOf(1, "other"), 3000, "write"), request].map((id) => pair.errnos.get(id));
    }
    expect(meanwhile).toEqual([0, undefined]);
    expect(pair.errnos.get(request)).toBe(E.EDEADLK);
    expect(replied()).toBeGreaterThan(65_536);
    expect(most).toBeLessThanOrEqual(rowsAtOnce);
    expect(turns).toBeGreaterThan(replied() / rowsAtOnce);
  });

  it("of an owner with more than 256 waiting requests a search hears of 256", () => {
    const pair = new Pair();
    pair.lock(a, 1, "write");
    pair.lock(b, 2, "write");
    for (let i = 0; i <= maxOwnerWaits; i++) pair.lock(b, 1, "write");
    pair.sent.length = 0;
    pair.lock(a, 3, "read");
    pair.lock(a, 2, "write");
    const asked = pair.sent.flatMap((message) => (message.kind === "plock-probe" ? message.requests : []));
    expect(asked).toHaveLength(maxOwnerWaits);
  });
});

const ownerOf = (at: number): PlockOwner => ({ nodeid: 2, clientId: at, kind: "posix", owner: 1n });
const edgeTo = (at: number): PlockEdge => ({
  masterNodeid: 1,
  request: { nodeid: 1, requestId: 1 },
  from: { nodeid: 1, clientId: 1, kind: "posix", owner: 1n },
  to: ownerOf(at),
  soft: false,
  stamp: 1,
});

interface Lone {
  readonly search: DeadlockSearch;
  readonly work: SearchWork;
  readonly probes: PlockProbeMessage[];
  /** Searches whose cycle is with the judge. */
  readonly accused: number[];
  readonly start: (at: number, owners: number) => void;
  readonly reply: (probe: PlockProbeMessage | undefined, reply: Partial<PlockProbeReplyMessage>) => void;
}

/** A search whose owners and masters are all on node 2. */
function lone(): Lone {
  const probes: PlockProbeMessage[] = [];
  const accused: number[] = [];
  const owners = new Map<Waiter, number>();
  const work = new SearchWork();
  const search = new DeadlockSearch({
    nodeid: 1,
    later: (piece) => work.add(piece),
    send: (_, message) => {
      if (message.kind === "plock-probe") probes.push(message);
      if (message.kind === "plock-cycle") accused.push(message.searchId);
    },
    judge: () => 1,
    edges: (waiter) => Array.from({ length: owners.get(waiter) as number }, (_, at) => edgeTo(at)),
    waits: () => true,
  });
  const start = (at: number, count: number): void => {
    const waiter = { requestId: at, holder: { key: `1/${at}/posix/1` } } as unknown as Waiter;
    owners.set(waiter, count);
    search.start(waiter);
  };
  const reply: Lone["reply"] = (probe, change) => {
    const { searchId } = probe as PlockProbeMessage;
    work.add(() => search.reply(2, { kind: "plock-probe-reply", searchId, waits: [], edges: [], ...change }));
    work.take(Number.POSITIVE_INFINITY);
  };
  return { search, work, probes, accused, start, reply };
}
const waitsOf = (first: number, count: number): { masterNodeid: number; request: PlockRequestName }[] =>
  Array.from({ length: count }, (_, at) => ({ masterNodeid: 2, request: { nodeid: 2, requestId: first + at } }));
const edgesOf = (count: number): PlockEdge[] => Array.from({ length: count }, () => edgeTo(0));

it("of another node 1024 messages of searches may wait; with one more it is not believed, as the limit is far above what searches can say", () => {
  const protests: string[] = [];
  const port = {
    toPeer() {},
    toClient() {},
    blocks: () => false,
    protest: (from: number, what: string) => void protests.push(`${from} ${what}`),
  };
  const service = new PlockService(1, { nowMs: 0 }, port, defaultPlockLimits);
  const say = (): void => service.receive(2, { kind: "plock-judged", searchId: 1 });
  for (let at = 0; at < maxSearchMessages; at++) say();
  expect(protests).toEqual([]);
  say();
  expect(protests).toEqual(["2 more of plock-judged than searches can say"]);
  service.receive(3, { kind: "plock-judged", searchId: 1 });
  expect(protests).toHaveLength(1);
  // One that was looked at does not wait.
  service.search(1);
  say();
  expect(protests).toHaveLength(1);
});

it("a turn takes so many steps, whatever they belong to, and none after its work was cleared", () => {
  const work = new SearchWork();
  const done: string[] = [];
  const piece = (name: string, rows: number): (() => Iterator<void>) =>
    function* () {
      for (let row = 1; row <= rows; row++) {
        done.push(`${name}${row}`);
        yield;
      }
    };
  work.add(piece("a", 3));
  work.add(piece("b", 3));
  work.take(2);
  expect(done).toEqual(["a1", "a2"]);
  // Its end is a step, too.
  work.take(3);
  expect(done).toEqual(["a1", "a2", "a3", "b1"]);
  expect(work.waits).toBe(true);
  work.clear();
  work.take(10);
  expect([done.length, work.waits]).toEqual([4, false]);
});

describe("one search", () => {
  it("asks a node about 64 owners and 64 requests, and on when the reply is there", () => {
    const { probes, start, reply } = lone();
    start(1, maxProbeOwners + 1);
    expect(probes.map(({ owners }) => owners.length)).toEqual([maxProbeOwners]);
    reply(probes.at(-1), { waits: waitsOf(1, maxProbeRequests + 1) });
    reply(probes.at(-1), {});
    const asked = probes.map(({ owners, requests }) => [owners.length, requests.length]);
    expect(asked).toEqual([
      [maxProbeOwners, 0],
      [1, maxProbeRequests],
      [0, 1],
    ]);
  });

  it("takes a step for each row of a reply, and for each edge when it concludes", () => {
    const { search, work, probes, accused, start } = lone();
    start(1, 1);
    const root = { nodeid: 1, clientId: 1, kind: "posix", owner: 1n } as const;
    const edges = [...edgesOf(500), { ...edgeTo(0), from: ownerOf(0), to: root }];
    const searchId = probes[0]?.searchId as number;
    expect([...search.reply(2, { kind: "plock-probe-reply", searchId, waits: waitsOf(1, 3), edges })]).toHaveLength(edges.length + 3);
    expect([...search.reply(2, { kind: "plock-probe-reply", searchId, waits: [], edges: [] })]).toEqual([]);
    let steps = 0;
    for (; accused.length === 0; steps++) work.take(1);
    expect(steps).toBeGreaterThan(edges.length);
  });

  it("asks about 4096 requests", () => {
    const { probes, start, reply } = lone();
    start(1, 1);
    reply(probes.at(-1), { waits: waitsOf(1, maxSearchRequests + 1) });
    for (let at = 1; at < probes.length; at++) reply(probes[at], {});
    expect(probes.reduce((sum, { requests }) => sum + requests.length, 0)).toBe(maxSearchRequests);
  });

  it("asks no further when it has 131,072 edges", () => {
    const askedAfter = (edges: number): number => {
      const { probes, start, reply } = lone();
      start(1, 1);
      reply(probes.at(-1), { waits: waitsOf(1, maxProbeRequests + 1) });
      const before = probes.length;
      // One edge it had at once.
      reply(probes.at(-1), { edges: edgesOf(edges - 1) });
      return probes.length - before;
    };
    expect([askedAfter(maxSearchEdges - 1), askedAfter(maxSearchEdges), askedAfter(maxSearchEdges + 1)]).toEqual([1, 0, 0]);
  });
});

it("when replies to come may fill what all searches keep only the oldest asks on, then the next", () => {
  const { search, probes, start, reply } = lone();
  const rows = maxProbeRequests * (edgesPerRequest + 1);
  const fitting = Math.floor(maxSearchRows / rows);
  for (let at = 1; at <= fitting + 2; at++) start(at, 1);
  const first = [...probes];
  probes.length = 0;
  for (const probe of first) reply(probe, { waits: waitsOf(1, 2 * maxProbeRequests) });
  expect([probes.length, first.length]).toEqual([fitting, fitting + 2]);
  // As many edges as it may have: the oldest fills the room alone, and goes on all the same.
  const oldest = probes[0];
  probes.length = 0;
  reply(oldest, { edges: edgesOf(maxSearchEdges - 2) });
  expect(probes.map(({ searchId }) => searchId)).toEqual([oldest?.searchId]);
  // At its end the others go on.
  reply(probes[0], {});
  expect(probes.length).toBeGreaterThan(1);
  search.reset();
  probes.length = 0;
  start(99, 1);
  expect(probes).toHaveLength(1);
});

it("a search that waits for room goes on when the judge is done with one that had it", () => {
  const { search, probes, accused, start, reply } = lone();
  for (const at of [1, 2, 3]) start(at, 1);
  const [first, second, third] = [...probes];
  for (const [at, probe] of [first, second].entries()) {
    const root = { nodeid: 1, clientId: at + 1, kind: "posix", owner: 1n } as const;
    const circle = [
      { ...edgeTo(0), from: root },
      { ...edgeTo(0), from: ownerOf(0), to: root },
    ];
    // Each as many as it may have, but one.
    reply(probe, { edges: [...circle, ...edgesOf(maxSearchEdges - 4)] });
  }
  expect(accused).toEqual([first?.searchId, second?.searchId]);
  probes.length = 0;
  reply(third, { waits: waitsOf(1, 1) });
  expect(probes).toEqual([]);
  search.judged(accused[0] as number);
  expect(probes.map(({ searchId }) => searchId)).toContain(third?.searchId);
});
