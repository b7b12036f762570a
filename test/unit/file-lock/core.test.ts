/** Where file locks are kept, and that it never shows: the rules of overlay/file-lock/core.ts. */
import { describe, expect, it } from "vitest";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import type { LockOwner } from "../../../overlay/file-lock/api.ts";
import { FileLockCore, LOCAL_WAIT_MS, MAX_IDLE_FILES, RETURN_AFTER_MS, SHARED_MIN_MS } from "../../../overlay/file-lock/core.ts";
import { seeded } from "../coherence/seeded.ts";
import { type Caller, LockCluster } from "./lock-cluster.ts";

const caller = (node: number, owner: number, kind: LockOwner["kind"] = "posix"): Caller => ({
  node,
  owner: { kind, owner: BigInt(owner) },
  pending: null,
});

type Step = "read" | "write" | "unlock";

function lock(cluster: LockCluster, who: Caller, type: Step, { file = "f", start = 0n, end = maxOffset, wait = true } = {}): void {
  const range = { type: type === "unlock" ? "read" : type, start, end } as const;
  cluster.ask(who, { file, op: type === "unlock" ? "unlock" : "lock", range, pid: 1, wait });
}

/** What the last request ended with. */
const last = (cluster: LockCluster): string | undefined => cluster.answers.at(-1)?.answer.status;

function passes(cluster: LockCluster, ms: number): void {
  const until = cluster.nowMs + ms;
  while (cluster.step(until));
  cluster.nowMs = Math.max(cluster.nowMs, until);
}

describe("a file that one node uses", () => {
  it("costs one message at first, and none from then on, whatever is locked", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, b] = [caller(0, 1), caller(0, 2, "flock")];
    lock(cluster, a, "write");
    cluster.settle();
    expect([last(cluster), cluster.messages]).toEqual(["granted", 1]);
    for (let turn = 0; turn < 10; turn++) {
      lock(cluster, a, "unlock");
      lock(cluster, a, "write", { start: 5n, end: 9n });
      lock(cluster, b, "write");
      lock(cluster, b, "unlock");
    }
    expect([last(cluster), cluster.messages]).toEqual(["granted", 1]);
  });

  it("an unlock of nothing is answered at once, and asks nobody", () => {
    const cluster = new LockCluster(2, () => 1);
    lock(cluster, caller(0, 1), "unlock");
    expect([last(cluster), cluster.messages, cluster.nodes[0]?.files.size]).toEqual(["granted", 0, 0]);
  });

  it("a request that waits longer than LOCAL_WAIT_MS is told to the service, with all that is held", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, b] = [caller(0, 1), caller(0, 2)];
    lock(cluster, a, "write");
    cluster.settle();
    lock(cluster, b, "write");
    passes(cluster, LOCAL_WAIT_MS - 1);
    expect(cluster.inService()).toBe(0);
    passes(cluster, 20);
    expect([cluster.inService(), cluster.modes("f")]).toEqual([2, { 0: "CW" }]);
    lock(cluster, a, "unlock");
    passes(cluster, 5);
    expect([b.pending, last(cluster)]).toEqual([null, "granted"]);
    lock(cluster, b, "unlock");
    cluster.settle();
    expect(cluster.inService()).toBe(0);
  });

  it("and so are two that wait by turns a short time each not", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, b] = [caller(0, 1), caller(0, 2)];
    lock(cluster, a, "write");
    passes(cluster, 10);
    for (let turn = 0; turn < 20; turn++) {
      const [has, waits] = turn % 2 === 0 ? [a, b] : [b, a];
      lock(cluster, waits, "write");
      passes(cluster, LOCAL_WAIT_MS / 2);
      lock(cluster, has, "unlock");
      expect(waits.pending).toBe(null);
    }
    expect(cluster.messages).toBe(1);
  });
});

describe("a file that two nodes use", () => {
  it("goes over at once where nothing is locked: request, blocking AST, unlock, grant", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, b] = [caller(0, 1), caller(1, 1)];
    lock(cluster, a, "write");
    cluster.settle();
    lock(cluster, a, "unlock");
    const beganMs = cluster.nowMs;
    lock(cluster, b, "write");
    while (b.pending !== null) cluster.step();
    expect([cluster.nowMs - beganMs, cluster.modes("f"), cluster.inService()]).toEqual([4, { 1: "EX" }, 0]);
  });

  it("goes over when the last lock does, and not to a newcomer here before", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, near, b] = [caller(0, 1), caller(0, 2), caller(1, 1)];
    lock(cluster, a, "write", { end: 9n });
    cluster.settle();
    lock(cluster, b, "write", { start: 50n });
    passes(cluster, 5);
    lock(cluster, near, "write", { start: 20n, end: 29n });
    // Who has something here may have more.
    lock(cluster, a, "write", { start: 30n, end: 39n });
    expect([a.pending, near.pending === null]).toEqual([null, false]);
    lock(cluster, a, "unlock");
    while (b.pending !== null) cluster.step();
    expect([near.pending === null, cluster.inService()]).toEqual([false, 0]);
    lock(cluster, b, "unlock");
    while (near.pending !== null) cluster.step();
    expect(cluster.modes("f")).toEqual({ 0: "EX" });
  });

  it("is shared when its locks stay longer than LOCAL_WAIT_MS: all that is held is in the service before the other node gets in", () => {
    const cluster = new LockCluster(3, () => 1);
    const [a, b] = [caller(0, 1), caller(1, 1)];
    lock(cluster, a, "write", { end: 9n });
    cluster.settle();
    lock(cluster, a, "read", { start: 20n, end: 29n });
    lock(cluster, b, "write", { end: 5n, wait: false });
    passes(cluster, LOCAL_WAIT_MS - 5);
    expect(b.pending).not.toBe(null);
    passes(cluster, 30);
    expect([b.pending, last(cluster), cluster.modes("f")]).toEqual([null, "again", { 0: "CW", 1: "CW" }]);
    lock(cluster, b, "read", { start: 20n, end: 29n, wait: false });
    passes(cluster, 5);
    expect([last(cluster), cluster.inService()]).toEqual(["granted", 3]);
  });

  it("is not shared before the service has all of it, however long that takes", () => {
    const cluster = new LockCluster(2, (channel) => (channel.startsWith("0 service") ? 500 : 1));
    const [a, b] = [caller(0, 1), caller(1, 1)];
    lock(cluster, a, "write", { end: 9n });
    cluster.settle();
    lock(cluster, b, "write", { end: 5n, wait: false });
    passes(cluster, LOCAL_WAIT_MS + 400);
    expect([b.pending === null, cluster.modes("f"), cluster.inService()]).toEqual([false, { 0: "EX" }, 0]);
    passes(cluster, 200);
    expect([b.pending, last(cluster), cluster.inService()]).toEqual([null, "again", 1]);
  });

  it("stays shared for SHARED_MIN_MS, and is given up when nothing is locked then", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, b] = [caller(0, 1), caller(1, 1)];
    lock(cluster, a, "write");
    cluster.settle();
    lock(cluster, b, "write");
    passes(cluster, LOCAL_WAIT_MS + 10);
    lock(cluster, a, "unlock");
    passes(cluster, 5);
    lock(cluster, b, "unlock");
    passes(cluster, 5);
    expect(cluster.modes("f")).toEqual({ 0: "CW", 1: "CW" });
    passes(cluster, SHARED_MIN_MS);
    expect(cluster.modes("f")).toEqual({});
    expect(cluster.nodes.map(({ files }) => files.size)).toEqual([0, 0]);
  });

  it("comes back with its locks after RETURN_AFTER_MS when no other node uses it any more; costs nothing then", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, b] = [caller(0, 1), caller(1, 1)];
    lock(cluster, a, "write", { end: 9n });
    cluster.settle();
    lock(cluster, b, "read", { end: 5n, wait: false });
    passes(cluster, SHARED_MIN_MS * 3);
    expect(cluster.modes("f")).toEqual({ 0: "CW" });
    passes(cluster, RETURN_AFTER_MS);
    lock(cluster, a, "write", { start: 20n, end: 29n });
    passes(cluster, 20);
    expect([cluster.modes("f"), cluster.inService(), cluster.nodes[0]?.locks]).toEqual([{ 0: "EX" }, 0, 2]);
    const { messages } = cluster;
    lock(cluster, a, "unlock", { start: 20n, end: 29n });
    lock(cluster, a, "write", { start: 20n, end: 29n });
    expect(cluster.messages).toBe(messages);
    // What came back excludes others as before.
    lock(cluster, b, "write", { end: 5n, wait: false });
    passes(cluster, 200);
    expect(last(cluster)).toBe("again");
  });

  it("is not taken back while another node has locks; asked again after RETURN_AFTER_MS only", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, b] = [caller(0, 1), caller(1, 1)];
    lock(cluster, a, "write", { end: 9n });
    cluster.settle();
    lock(cluster, b, "write", { start: 20n });
    passes(cluster, RETURN_AFTER_MS + 200);
    for (let turn = 0; turn < 5; turn++) {
      lock(cluster, a, "write", { end: 9n });
      passes(cluster, 10);
    }
    expect(cluster.modes("f")).toEqual({ 0: "CW", 1: "CW" });
    // Five requests, and one attempt.
    const { messages } = cluster;
    for (let turn = 0; turn < 5; turn++) {
      lock(cluster, a, "write", { end: 9n });
      passes(cluster, 10);
    }
    expect(cluster.messages - messages).toBe(5);
  });

  it("a request can be taken back wherever it waits: for the state, here, behind another node, in the service", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, near, b] = [caller(0, 1), caller(0, 2), caller(1, 1)];
    const cancel = (who: Caller): void => cluster.nodes[who.node]?.cancel(who.pending?.id ?? 0);
    lock(cluster, a, "write");
    cancel(a);
    expect(last(cluster)).toBe("canceled");
    lock(cluster, a, "write");
    cluster.settle();
    lock(cluster, near, "write");
    cancel(near);
    expect(last(cluster)).toBe("canceled");
    lock(cluster, b, "write");
    passes(cluster, 5);
    lock(cluster, near, "write", { wait: true });
    cancel(near);
    expect([near.pending, last(cluster)]).toEqual([null, "canceled"]);
    passes(cluster, LOCAL_WAIT_MS * 2);
    cancel(b);
    passes(cluster, 5);
    expect([b.pending, last(cluster), cluster.inService()]).toEqual([null, "canceled", 1]);
    lock(cluster, a, "unlock");
    cluster.settle();
    expect([cluster.inService(), cluster.nodes.map(({ locks }) => locks)]).toEqual([0, [0, 0]]);
  });

  it("flock: a conversion that waits or fails has given up what it had, wherever the locks are kept", () => {
    const cluster = new LockCluster(2, () => 1);
    const [a, near, b] = [caller(0, 1, "flock"), caller(0, 2, "flock"), caller(1, 1, "flock")];
    lock(cluster, a, "read");
    lock(cluster, near, "read");
    cluster.settle();
    lock(cluster, a, "write", { wait: false });
    expect([last(cluster), cluster.nodes[0]?.locks]).toEqual(["again", 1]);
    lock(cluster, b, "read");
    passes(cluster, LOCAL_WAIT_MS * 2);
    lock(cluster, near, "write", { wait: false });
    passes(cluster, 5);
    expect([last(cluster), cluster.nodes.map(({ locks }) => locks)]).toEqual(["again", [0, 1]]);
    lock(cluster, near, "read");
    passes(cluster, 5);
    lock(cluster, near, "write");
    passes(cluster, 5);
    cluster.nodes[0]?.cancel(near.pending?.id ?? 0);
    passes(cluster, 5);
    expect([last(cluster), cluster.nodes.map(({ locks }) => locks), cluster.inService()]).toEqual(["canceled", [0, 1], 1]);
  });
});

describe("flock by two threads on one open file, in the service", () => {
  /** Another node holds it, too; the open file has it by its first thread. */
  const begin = (): [LockCluster, Caller, Caller, Caller] => {
    const cluster = new LockCluster(2, () => 1);
    const [one, two, b] = [caller(0, 1, "flock"), caller(0, 1, "flock"), caller(1, 1, "flock")];
    lock(cluster, one, "read");
    cluster.settle();
    lock(cluster, b, "read");
    passes(cluster, LOCAL_WAIT_MS * 2);
    expect([cluster.inService(), cluster.modes("f")]).toEqual([2, { 0: "CW", 1: "CW" }]);
    return [cluster, one, two, b];
  };
  const cancel = (cluster: LockCluster, who: Caller): void => {
    cluster.nodes[who.node]?.cancel(who.pending?.id ?? 0);
    passes(cluster, 5);
    expect([who.pending, last(cluster)]).toEqual([null, "canceled"]);
  };

  it("what the second got after the first's conversion began stays when that is taken back", () => {
    const [cluster, one, two, b] = begin();
    lock(cluster, one, "write");
    passes(cluster, 5);
    lock(cluster, two, "read", { wait: false });
    passes(cluster, 5);
    expect([one.pending === null, last(cluster)]).toEqual([false, "granted"]);
    cancel(cluster, one);
    expect([cluster.nodes[0]?.locks, cluster.inService()]).toEqual([1, 2]);
    lock(cluster, b, "write", { wait: false });
    passes(cluster, 5);
    expect(last(cluster)).toBe("again");
  });

  it("what the second is given behind the first's cancel stays, and that is heard of before", () => {
    const [cluster, one, two, b] = begin();
    lock(cluster, one, "write");
    passes(cluster, 5);
    cluster.nodes[0]?.cancel(one.pending?.id ?? 0);
    lock(cluster, two, "read", { wait: false });
    passes(cluster, 5);
    expect(cluster.answers.slice(-2).map(({ answer }) => answer.status)).toEqual(["canceled", "granted"]);
    expect([cluster.nodes[0]?.locks, cluster.inService()]).toEqual([1, 2]);
    lock(cluster, b, "write", { wait: false });
    passes(cluster, 5);
    expect(last(cluster)).toBe("again");
  });

  it("and when a third was granted it while the second waited, and gives up after that", () => {
    const [cluster, one, two, b] = begin();
    const three = caller(0, 1, "flock");
    for (const who of [one, two]) lock(cluster, who, "write");
    passes(cluster, 5);
    cancel(cluster, one);
    lock(cluster, three, "read", { wait: false });
    passes(cluster, 5);
    expect(last(cluster)).toBe("granted");
    cancel(cluster, two);
    expect([cluster.nodes[0]?.locks, cluster.inService()]).toEqual([1, 2]);
    lock(cluster, b, "write", { wait: false });
    passes(cluster, 5);
    expect(last(cluster)).toBe("again");
  });

  it("what it was given before goes, though it is heard of later", () => {
    const [cluster, one, two] = begin();
    lock(cluster, two, "read", { wait: false });
    lock(cluster, one, "write");
    passes(cluster, 5);
    expect([one.pending === null, last(cluster)]).toEqual([false, "granted"]);
    cancel(cluster, one);
    expect([cluster.nodes[0]?.locks, cluster.inService()]).toEqual([0, 1]);
  });
});

describe("flock by two threads on one open file, kept here until the first has waited LOCAL_WAIT_MS", () => {
  /** The first waits to convert, because of another open file; the second was granted a lock meanwhile; then all went to the service. */
  const begin = (): [LockCluster, Caller, Caller, Caller] => {
    const cluster = new LockCluster(2, () => 1);
    const [one, two, near] = [caller(0, 1, "flock"), caller(0, 1, "flock"), caller(0, 2, "flock")];
    for (const who of [one, near]) {
      lock(cluster, who, "read");
      cluster.settle();
    }
    lock(cluster, one, "write");
    expect(cluster.nodes[0]?.locks).toBe(2);
    lock(cluster, two, "read", { wait: false });
    expect([last(cluster), cluster.inService()]).toEqual(["granted", 0]);
    passes(cluster, LOCAL_WAIT_MS * 2);
    expect([one.pending === null, cluster.inService(), cluster.modes("f")]).toEqual([false, 3, { 0: "CW" }]);
    return [cluster, one, near, caller(1, 1, "flock")];
  };

  it("what the second got stays, also when the first gives up", () => {
    const [cluster, one, near, b] = begin();
    cluster.nodes[0]?.cancel(one.pending?.id ?? 0);
    lock(cluster, near, "unlock");
    passes(cluster, 5);
    expect([one.pending, cluster.nodes[0]?.locks, cluster.inService()]).toEqual([null, 1, 1]);
    lock(cluster, b, "write", { wait: false });
    passes(cluster, LOCAL_WAIT_MS * 2);
    expect(last(cluster)).toBe("again");
  });

  it("and becomes the first's when that is granted", () => {
    const [cluster, one, near, b] = begin();
    lock(cluster, near, "unlock");
    passes(cluster, 5);
    expect([one.pending, cluster.inService()]).toEqual([null, 1]);
    lock(cluster, b, "read", { wait: false });
    passes(cluster, LOCAL_WAIT_MS * 2);
    expect(last(cluster)).toBe("again");
    lock(cluster, one, "unlock");
    cluster.settle();
    expect([cluster.inService(), cluster.nodes.map(({ locks }) => locks)]).toEqual([0, [0, 0]]);
  });
});

it("what is held can be brought to the service at any time, to be seen; it stays locked", () => {
  const cluster = new LockCluster(2, () => 1);
  const [a, b] = [caller(0, 1), caller(1, 1)];
  lock(cluster, a, "write", { end: 9n });
  cluster.nodes[0]?.share("f");
  cluster.settle();
  cluster.nodes[0]?.share("f");
  passes(cluster, 10);
  expect([cluster.inService(), cluster.modes("f")]).toEqual([1, { 0: "CW" }]);
  lock(cluster, b, "write", { wait: false });
  passes(cluster, 10);
  expect(last(cluster)).toBe("again");
});

/** A core whose world is the test: `did` is what it asked for. */
function coreAlone(): { readonly core: FileLockCore; readonly did: string[]; readonly now: { ms: number } } {
  const did: string[] = [];
  const now = { ms: 0 };
  const note = (what: string) => (): void => void did.push(what);
  const core = new FileLockCore({
    nowMs: () => now.ms,
    askState: note("ask"),
    inheritState: note("inherit"),
    shareState: note("share"),
    takeBackState: note("back"),
    giveUpState: note("give up"),
    ask: (id, { op }) => did.push(op === "lock" ? `service ${id}` : `service ${id} ${op}`),
    cancel: note("cancel"),
    answer: () => undefined,
    setTimer: () => undefined,
  });
  return { core, did, now };
}

it("flock: what a conversion had not given up is released by the last of its owner's requests, if none is granted (F52)", () => {
  const { core, did } = coreAlone();
  const ask = (type: "read" | "write"): number =>
    core.request({
      file: "f",
      op: "lock",
      owner: { kind: "flock", owner: 1n },
      range: { type, start: 0n, end: maxOffset },
      pid: 1,
      wait: true,
    });
  const held = ask("read");
  core.stateGranted("f", "shared");
  core.serviceAnswered(held, "granted", null);
  const [one, two] = [ask("write"), ask("write")];
  core.cancel(one);
  // The service had not come to it: it has the first lock still.
  core.serviceAnswered(one, "canceled", null);
  expect([did.splice(0), core.locks]).toEqual([["ask", `service ${held}`, `service ${one}`, `service ${two}`, "cancel"], 0]);
  core.cancel(two);
  core.serviceAnswered(two, "canceled", null);
  expect(did).toEqual(["cancel", `service ${two + 1} unlock`]);
});

it("a blocking AST for what is shared changes nothing; one that comes while EX is asked for counts when it came", () => {
  const { core, did, now } = coreAlone();
  core.request({
    file: "f",
    op: "lock",
    owner: { kind: "posix", owner: 1n },
    range: { type: "read", start: 0n, end: 9n },
    pid: 1,
    wait: true,
  });
  core.stateGranted("f", "shared");
  core.serviceAnswered(1, "granted", null);
  core.stateWanted("f");
  expect(did.splice(0)).toEqual(["ask", "service 1"]);
  now.ms = RETURN_AFTER_MS;
  core.handleTimer("f");
  core.stateWanted("f");
  core.stateGranted("f", "local");
  core.serviceAnswered(2, "granted", null);
  expect(did.splice(0)).toEqual(["back", "service 2 unlock"]);
  now.ms += LOCAL_WAIT_MS;
  core.handleTimer("f");
  core.serviceAnswered(3, "granted", null);
  expect(did).toEqual(["service 3", "share"]);
});

describe("limits", () => {
  it("what is locked here has room in the service: ENOLCK below its limit of a file and of a client, and pushing is never refused", () => {
    const cluster = new LockCluster(2, () => 1, { locksPerFile: 20, locks: 30 }, 20);
    const [a, b] = [caller(0, 1), caller(1, 1)];
    for (let at = 0; at < 40; at += 2) {
      lock(cluster, a, "write", { start: BigInt(at), end: BigInt(at), wait: false });
      cluster.settle();
    }
    const held = cluster.nodes[0]?.locks ?? 0;
    expect([last(cluster), held]).toEqual(["limit", 17]);
    lock(cluster, b, "read", { start: 0n, end: 0n, wait: false });
    passes(cluster, LOCAL_WAIT_MS * 4);
    expect([last(cluster), cluster.inService()]).toEqual(["again", held]);
    const other = caller(0, 9);
    lock(cluster, other, "write", { file: "g", start: 100n, end: 199n });
    passes(cluster, 5);
    for (let at = 0; at < 40; at += 2) {
      lock(cluster, other, "write", { file: "g", start: BigInt(at), end: BigInt(at), wait: false });
      passes(cluster, 5);
    }
    expect([last(cluster), cluster.nodes[0]?.locks]).toEqual(["limit", 25]);
    // An unlock that splits would be one more.
    lock(cluster, other, "unlock", { file: "g", start: 150n, end: 150n });
    expect([last(cluster), cluster.nodes[0]?.locks]).toEqual(["limit", 25]);
    lock(cluster, other, "unlock", { file: "g" });
    expect(cluster.nodes[0]?.locks).toBe(held);
  });

  it("of files without locks MAX_IDLE_FILES are kept: the one that was not used for longest goes", () => {
    expect(MAX_IDLE_FILES).toBe(4096);
    const cluster = new LockCluster(1, () => 1, { idleFiles: 2 });
    const a = caller(0, 1);
    for (const file of ["f", "g", "f", "h"]) {
      lock(cluster, a, "write", { file });
      cluster.settle();
      lock(cluster, a, "unlock", { file });
    }
    cluster.settle();
    expect([...(cluster.nodes[0]?.files.keys() ?? [])].sort()).toEqual(["f", "h"]);
    expect(cluster.modes("g")).toEqual({});
    cluster.nodes[0]?.forget("f");
    cluster.settle();
    expect([cluster.nodes[0]?.files.size, cluster.modes("f")]).toEqual([1, {}]);
    // Not one that is locked.
    lock(cluster, a, "write", { file: "h" });
    cluster.nodes[0]?.forget("h");
    expect(cluster.modes("h")).toEqual({ 0: "EX" });
  });
});

const SEEDS = Number(process.env["COVERLAY_FILE_LOCK_SEEDS"] ?? 100);

describe("whatever happens, on three nodes, under delays", () => {
  const restarts = { asked: 0, waits: 0, crashes: 0, shared: 0, sharedAtCrash: 0 };
  it.each(Array.from({ length: SEEDS }, (_, at) => at + 1))(
    "seed %i: no two hold what excludes each other, and every request ends",
    (seed) => {
      const random = seeded(seed);
      const pick = (n: number): number => Math.floor(random() * n);
      // Some channels are slower than others: what is said on two of them comes in any order.
      const slowest = new Map<string, number>();
      const delayMs = (channel: string): number => {
        const slow = slowest.get(channel) ?? [1, 4, 60, 200][pick(4)] ?? 1;
        slowest.set(channel, slow);
        return 0.1 + random() * slow;
      };
      // In some seeds there is little room, here and in the service.
      const room = pick(4) === 0 ? 8 + pick(20) : 100_000;
      const cluster = new LockCluster(3, delayMs, { idleFiles: pick(2), locksPerFile: room, locks: room + pick(20) }, room);
      // Twelve owners; each open file, and each of three processes, has three threads. In some seeds those alone, on one file.
      const few = pick(3) === 0;
      const all = Array.from({ length: 24 }, (_, at) =>
        caller(at % 3, at < 6 ? at : 6 + (at % 3) + (at < 15 ? 0 : 3), at >= 6 && at < 15 ? "flock" : "posix"),
      );
      const callers = !few ? all : pick(2) === 0 ? all.slice(6, 15) : all.slice(15);
      const files = ["f", "g", "h"].slice(0, few ? 1 : 1 + pick(3));
      const bytes = 1 + pick(8);
      const gates = pick(3) === 0;
      const first = pick(4) === 0 ? maxOffset - BigInt(bytes) : 0n;
      let restarting: number | null = null;
      let asked = false;
      for (let turn = 0; turn < 400; turn++) {
        const who = callers[pick(callers.length)] as Caller;
        const file = files[pick(files.length)] as string;
        if (restarting === null && !gates && room === 100_000 && pick(30) === 0) restarting = pick(3);
        const isHeld = who.node === restarting;
        // One that goes on may crash before it serves.
        if (restarting !== null && asked && pick(8) === 0) cluster.crash(restarting);
        if (restarting !== null && asked && pick(4) === 0) {
          cluster.letGo(restarting);
          [restarting, asked] = [null, false];
        } else if (restarting !== null && !asked && cluster.serves(restarting)) {
          const crashes = pick(3) === 0;
          const result = crashes ? cluster.crash(restarting) : cluster.restart(restarting);
          if (crashes) restarts.crashes += 1;
          else restarts[result === "waits" ? "waits" : "asked"] += 1;
          if (result !== "waits") restarts[crashes ? "sharedAtCrash" : "shared"] += result;
          asked = result !== "waits";
        }
        const serves = cluster.serves(who.node);
        if (serves) cluster.askAgain(who.node);
        if (isHeld || !serves) {
          // The kernel's request is kept; a wait ends all the same.
          if (who.pending !== null) cluster.nodes[who.node]?.cancel(who.pending.id);
        } else if (who.pending !== null) {
          if (pick(few ? 2 : 4) === 0 && who.pending.ask.wait) cluster.nodes[who.node]?.cancel(who.pending.id);
        } else {
          const start = who.owner.kind === "flock" || pick(9) === 0 ? 0n : first + BigInt(pick(bytes));
          const last = start + BigInt(pick(bytes));
          const end = who.owner.kind === "flock" || pick(5) === 0 || last > maxOffset ? maxOffset : last;
          const op = (["lock", "lock", "unlock", "unlock", "test"] as const)[pick(who.owner.kind === "flock" ? 4 : 5)] ?? "test";
          const range = { type: pick(2) === 0 ? "read" : "write", start, end } as const;
          if (pick(4) === 0) cluster.release(who, file);
          else cluster.ask(who, { file, op, range, pid: who.node, wait: op === "lock" && pick(2) === 0 });
        }
        const steps = pick(6);
        for (let step = 0; step < steps; step++) cluster.step();
        if (pick(40) === 0) passes(cluster, pick(2000));
        if (pick(40) === 0 && cluster.serves(who.node)) cluster.nodes[who.node]?.share(file);
        if (pick(20) === 0 && cluster.serves(who.node)) cluster.nodes[who.node]?.forget(file);
        if (pick(40) === 0) cluster.sentence(pick(9), pick(2) === 0 ? "deadlock" : "overtake");
        if (gates && pick(cluster.blocked ? 30 : 50) === 0) cluster.blocked = !cluster.blocked;
        if (pick(100) === 0 && restarting === null) {
          cluster.blocked = false;
          cluster.settle();
          cluster.judgeWaits();
        }
      }
      cluster.blocked = false;
      if (restarting !== null && asked) cluster.letGo(restarting);
      else if (restarting !== null) cluster.nodes[restarting]?.thaw();
      cluster.settle();
      for (const node of [0, 1, 2]) cluster.askAgain(node);
      // Whoever waits is told to stop, then all is unlocked.
      for (const who of callers) if (who.pending?.ask.wait === true) cluster.nodes[who.node]?.cancel(who.pending.id);
      cluster.settle();
      expect(callers.filter(({ pending }) => pending !== null)).toEqual([]);
      for (const file of files) {
        for (const who of callers) {
          cluster.release(who, file);
          cluster.settle();
        }
      }
      passes(cluster, RETURN_AFTER_MS);
      expect(callers.filter(({ pending }) => pending !== null)).toEqual([]);
      expect([cluster.inService(), ...cluster.nodes.map(({ locks }) => locks)]).toEqual([0, 0, 0, 0]);
      for (const { files: left } of cluster.nodes) for (const { state } of left.values()) expect(state).toBe("local");
    },
  );

  it("and processes were restarted, had to wait for it, and crashed, with locks in the service, many times", () => {
    expect(Object.values(restarts).filter((count) => count <= 50)).toEqual([]);
  });
});
