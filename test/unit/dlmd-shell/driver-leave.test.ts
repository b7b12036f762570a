/** A node that is put out of the cluster begins another life; one that leaves meanwhile has left, and begins none (driver/driver.ts). */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import { startingConfig } from "../../../dlmd/driver/config-keeper.ts";
import { type Driver, socketPathOf, startDriver } from "../../../dlmd/driver/driver.ts";
import type { Life, LifeHost } from "../../../dlmd/driver/life.ts";
import type { Effect, NodeEvent } from "../../../dlmd/node-api.ts";
import { peerProcesses } from "../../../dlmd/server/peer-process.ts";
import { createKeyring, type Keyring } from "../../../dlmd/tls/keyring.ts";

interface PlayedLife {
  readonly host: LifeHost;
  /** First keys of its time, the latest at the end. */
  readonly keys: string[];
  readonly steps: string[];
  closed: boolean;
}
const lives: PlayedLife[] = [];
let endLease: () => Promise<void>;
let onBegin: () => Promise<void>;
let onClose: () => Promise<void>;
let onOpen: () => Promise<void>;
let onStep: (event: NodeEvent) => Effect[];
let onAnnounce: () => Effect[];
let stopAgents: () => Promise<void>;

vi.mock("../../../dlmd/fence-agent/fence-agents.ts", () => ({
  createFenceAgents: () => ({ look: () => Promise.resolve(), stopAll: () => stopAgents() }),
}));
vi.mock("../../../dlmd/driver/life.ts", () => ({
  async beginLife({ keyring }: { readonly keyring: Keyring }, host: LifeHost): Promise<Life> {
    const played: PlayedLife = { host, keys: [keyring.first.id], steps: [], closed: false };
    const setKeyring = ({ first }: Keyring): void => void played.keys.push(first.id);
    lives.push(played);
    await onBegin();
    const step = (event: NodeEvent): Effect[] => {
      played.steps.push(event.kind);
      if (event.kind === "announce-leave") return onAnnounce();
      return onStep(event);
    };
    return {
      incarnation: String(lives.length),
      node: { step, nextDeadline: () => null, query: () => null },
      datagrams: { flush: () => {}, setKeyring },
      heartbeats: { progressed: () => {}, endLease: () => endLease() },
      peers: { flush: () => {}, setKeyring: () => {} },
      setNodes: () => {},
      corosync: { open: () => onOpen() },
      close: () => onClose().then(() => void (played.closed = true)),
    } as unknown as Life;
  },
}));

const text = "cluster: lab\nversion: 1\nnodes:\n  - { nodeid: 1, name: node1, address: 127.0.0.1 }\n";
let dir: string;
let driver: Driver;
const begin = (leastMs: number, configuration: string, nowMs: () => number, fatal: (error: Error) => void): Promise<Driver> =>
  startDriver({
    kept: startingConfig(null, configuration, "cluster.yaml", leastMs),
    keptFile: path.join(dir, "config.json"),
    configFile: path.join(dir, "cluster.yaml"),
    minTimeoutMs: leastMs,
    self: { nodeid: 1, name: "node1", address: "127.0.0.1", votes: 1 },
    keyring: createKeyring([new Uint8Array(32)]),
    runDir: dir,
    stateDir: dir,
    createNode: () => expect.fail("the life is played"),
    nowMs,
    log: silentLog,
    metrics: createMetrics(),
    processes: peerProcesses(),
    runCheck: () => expect.fail("nobody asks"),
    onView: () => {},
    onStep: () => {},
    fatal,
  });
beforeEach(async () => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-driver-"));
  lives.length = 0;
  endLease = onBegin = onClose = onOpen = stopAgents = () => Promise.resolve();
  onAnnounce = () => [{ kind: "may-leave" }];
  // Nobody hears it leave; another node that has gone is the news that the cluster went on without this one.
  onStep = ({ kind }) => (kind === "peer-down" ? [{ kind: "evicted", reason: "played" }] : []);
  driver = await begin(
    1500,
    text,
    () => 0,
    (error) => expect.fail(error.message),
  );
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Far longer than the rest of a leaving takes here. */
const slow = (): Promise<void> => sleep(100);
const evict = (): void => lives[0]?.host.step({ kind: "peer-down", nodeid: 2, incarnation: "aa", unreadable: null });

test("while it waits for the others to know", async () => {
  const asked = new Promise<void>((resolve) => {
    const before = onStep;
    onStep = (event) => {
      if (event.kind === "leave") resolve();
      return before(event);
    };
  });
  const left = driver.leave();
  await asked;
  evict();
  await left;
  expect(lives).toMatchObject([{ closed: true }]);
});

test("while its vote is needed still", async () => {
  const announced = new Promise<void>((resolve) => {
    onAnnounce = () => {
      resolve();
      return [];
    };
  });
  const left = driver.leave();
  await announced;
  evict();
  await left;
  expect(lives).toMatchObject([{ closed: true }]);
  expect(lives[0]?.steps).not.toContain("leave");
});

test("while its lease ends", async () => {
  endLease = () => {
    evict();
    return new Promise(() => {});
  };
  await driver.leave();
  expect(lives).toMatchObject([{ closed: true }]);
  expect(lives[0]?.steps).not.toContain("leave");
});

test("its lease goes on, and so its heartbeats, until the others do not need its vote", async () => {
  let ended = 0;
  endLease = () => {
    ended++;
    return Promise.resolve();
  };
  onStep = ({ kind }) => (kind === "leave" ? [{ kind: "left" }] : kind === "peer-down" ? [{ kind: "may-leave" }] : []);
  const announced = new Promise<void>((resolve) => {
    onAnnounce = () => {
      resolve();
      return [];
    };
  });
  const left = driver.leave();
  await announced;
  await slow();
  const steps = (): string[] => (lives[0]?.steps ?? []).filter((kind) => kind !== "tick");
  expect([ended, steps()]).toEqual([0, ["announce-leave"]]);
  lives[0]?.host.step({ kind: "peer-down", nodeid: 2, incarnation: "aa", unreadable: null });
  await left;
  expect([ended, steps()]).toEqual([1, ["announce-leave", "peer-down", "leave"]]);
});

test("its fence agents have ended before it says that it leaves", async () => {
  let end: () => void = () => {};
  const asked = new Promise<void>((resolve) => {
    stopAgents = () => {
      resolve();
      return new Promise((ended) => (end = ended));
    };
  });
  onStep = ({ kind }) => (kind === "leave" ? [{ kind: "left" }] : []);
  const left = driver.leave();
  await asked;
  await slow();
  expect(lives[0]?.steps).not.toContain("leave");
  stopAgents = () => Promise.resolve();
  end();
  await left;
  expect(lives[0]?.steps).toContain("leave");
});

test("while its programs are told", async () => {
  onClose = slow;
  const left = driver.leave();
  evict();
  await left;
  expect(lives).toMatchObject([{ closed: true }]);
});

test("one that leaves between two lives leaves in the next", async () => {
  onBegin = slow;
  onStep = ({ kind }) => (kind === "leave" ? [{ kind: "left" }] : kind === "peer-down" ? [{ kind: "evicted", reason: "played" }] : []);
  evict();
  await vi.waitUntil(() => lives.length === 2);
  await driver.leave();
  expect(lives).toMatchObject([{ closed: true }, { closed: true }]);
  expect(lives[1]?.steps).toContain("leave");
});

test("a node that can keep nothing, and whose lease cannot be ended on that disk either, ends all the same", async () => {
  onStep = ({ kind }) => (kind === "leave" ? [{ kind: "left" }] : []);
  await driver.leave();
  lives.length = 0;
  const timeoutMs = 200;
  let end: (error: Error) => void = () => {};
  const ended = new Promise<Error>((resolve) => (end = resolve));
  await begin(timeoutMs, `${text}timeoutMs: ${timeoutMs}\n`, () => performance.now(), end);
  endLease = () => new Promise(() => {});
  const lineage = { id: { epoch: 0, proposer: 0, incarnation: "" }, members: [], electorate: null };
  onStep = ({ kind }) => (kind === "peer-down" ? [{ kind: "persist", promisedEpoch: 7, lineage }] : []);
  rmSync(dir, { recursive: true });
  evict();
  expect((await ended).message).toContain("this node's state cannot be kept in");
  expect(lives[0]?.steps).not.toContain("leave");
});

test("keys that change while the next life begins are those of that life", async () => {
  const now = createKeyring([new Uint8Array(32).fill(7)]);
  const opened = new Promise<void>((resolve) => {
    onOpen = () => Promise.resolve(resolve());
  });
  onBegin = () => Promise.resolve(driver.setKeyring(now));
  evict();
  await opened;
  expect(lives.map(({ keys }) => keys.at(-1))).toEqual([lives[0]?.keys[0], now.first.id]);
  onStep = ({ kind }) => (kind === "leave" ? [{ kind: "left" }] : []);
  await driver.leave();
});

test("a program that connects while the next life waits for corosync is told of once", async () => {
  const connects = (): number => lives[1]?.steps.filter((kind) => kind === "client-connected").length ?? 0;
  onOpen = async () => {
    // Never welcomed: the life is played.
    connectDlm(socketPathOf(dir), { view() {}, gone: async () => {}, disconnected() {} }).catch(() => undefined);
    await vi.waitFor(() => expect(connects()).toBe(1));
  };
  evict();
  await vi.waitFor(() => expect(lives[1]?.steps).toContain("tick"));
  expect(connects()).toBe(1);
  onStep = ({ kind }) => (kind === "leave" ? [{ kind: "left" }] : []);
  await driver.leave();
});
