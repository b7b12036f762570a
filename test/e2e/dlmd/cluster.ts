/**
 * dlmds as real processes for a test: temporary run directories, a configuration and a key, addresses on the loopback
 * device or network namespaces of their own. `close` ends everything, also after a failure.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { expect } from "vitest";
import type { DlmClient, DlmClientHandlers, Lock, LockStatus, Lockspace, ViewInfo } from "../../../dlmd/client/api.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { writeClusterKey } from "../../../dlmd/driver/cluster-files.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { dist } from "../../built.ts";
import { startWatchdog } from "../watchdog.ts";

export const dlmdProgram: string = path.join(dist, "dlmd/main.js");
/** A busy test machine must not look dead. */
export const TIMEOUT_MS = 3000;

/** Each process that runs test files has ports of its own, below those that the kernel gives to connections. */
const PORTS_EACH = 6_000;
/** Far above any step on a loaded machine, and below a test's own limit, which does not say for what it waited. */
const LONGEST_WAIT_MS = 120_000;
let nextPorts = 20_000 + (Number(process.env["VITEST_POOL_ID"] ?? 0) % 2) * PORTS_EACH + ((process.pid * 8) % (PORTS_EACH - 400));

export interface ClusterOptions {
  readonly nodes: number;
  /** Network namespaces on a bridge, with multicast; else 127.0.0.1, .2 ... with unicast. */
  readonly namespaces?: boolean;
  /** More lines of cluster.yaml. */
  readonly more?: readonly string[];
  /** More keys of a node in cluster.yaml, such as `fence: [[x]]`. */
  readonly nodeKeys?: string;
  /** A compiled dlmd; else this tree's own, built if need be. */
  readonly program?: string;
}

/** A dlmd that runs. */
export interface RunningNode {
  readonly name: string;
  readonly socketPath: string;
  readonly child: ChildProcess;
  /** Resolves with the exit status, or null after a signal. */
  readonly exited: Promise<number | null>;
}

export interface TestCluster {
  readonly dir: string;
  readonly configFile: string;
  runDir(nodeid: number): string;
  /** Its network namespace; "" without namespaces. */
  namespace(nodeid: number): string;
  /** The JSON log of that node, parsed. */
  log(nodeid: number): Record<string, unknown>[];
  start(
    nodeid: number,
    options?: { readonly configFile?: string; readonly stateDir?: string; readonly newConfig?: boolean },
  ): Promise<RunningNode>;
  /** Starts all and connects a client to each; resolves when every one sees all of them running. */
  startAll(): Promise<TestClient[]>;
  connect(nodeid: number, handlers?: Partial<DlmClientHandlers>): Promise<TestClient>;
  /** What the nodes logged but for details, for a test that failed. */
  story(): string;
  /** A signal after which it still runs, or not at once. */
  signal(nodeid: number, signal: NodeJS.Signals): void;
  kill(nodeid: number, signal: NodeJS.Signals): Promise<number | null>;
  close(): Promise<void>;
}

/** Waits for things that callbacks tell. */
export class Happenings {
  #waiting: (() => void)[] = [];

  happened(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** Rejects with the condition's text after two minutes: a test that hangs says for what it waits. */
  async until(condition: () => boolean): Promise<void> {
    const here = new Error(`not reached within ${LONGEST_WAIT_MS} ms: ${String(condition)}`);
    let failed: Error | null = null;
    const limit = setTimeout(() => {
      failed = here;
      this.happened();
    }, LONGEST_WAIT_MS);
    try {
      while (!condition()) {
        if (failed !== null) throw failed as Error;
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      clearTimeout(limit);
    }
  }
}

/** A lock whose results and blocking ASTs can be waited for. */
export class TestLock {
  readonly lock: Lock;
  readonly statuses: LockStatus[] = [];
  readonly basts: Mode[] = [];
  readonly #happenings = new Happenings();
  #taken = 0;

  constructor(space: Lockspace, resource: string) {
    this.lock = space.createLock(resource, {
      ast: (_, status) => {
        this.statuses.push(status);
        this.#happenings.happened();
      },
      bast: (_, wanted) => {
        this.basts.push(wanted);
        this.#happenings.happened();
      },
    });
  }

  /** The status of the next request that ends. */
  async result(): Promise<LockStatus> {
    const at = this.#taken++;
    await this.#happenings.until(() => this.statuses.length > at);
    return this.statuses[at] as LockStatus;
  }

  request(mode: Mode, flags = 0, lvb?: Uint8Array): Promise<LockStatus> {
    this.lock.request(mode, flags, lvb);
    return this.result();
  }

  unlock(flags = 0, lvb?: Uint8Array): Promise<LockStatus> {
    this.lock.unlock(flags, lvb);
    return this.result();
  }

  async bast(): Promise<Mode> {
    await this.#happenings.until(() => this.basts.length > 0);
    return this.basts[0] as Mode;
  }
}

export class TestClient {
  readonly client: DlmClient;
  readonly views: Happenings;
  readonly ended: { reason: Error | null };

  constructor(client: DlmClient, views: Happenings, ended: { reason: Error | null }) {
    this.client = client;
    this.views = views;
    this.ended = ended;
  }

  async lock(resource: string): Promise<TestLock> {
    return new TestLock(await this.client.lockspace("test"), resource);
  }

  /** Waits for a view of exactly these members; `running`: that serves locks. */
  async seen(members: readonly number[], running = true): Promise<ViewInfo> {
    const wanted = members.join();
    const isSeen = (): boolean => this.client.view.members.join() === wanted && this.client.view.running === running;
    await this.views.until(() => this.ended.reason !== null || isSeen());
    if (!isSeen()) throw new Error(`the client waited for the view ${wanted}; its dlmd ended the connection`, { cause: this.ended.reason });
    return this.client.view;
  }

  async disconnected(): Promise<Error> {
    await this.views.until(() => this.ended.reason !== null);
    return this.ended.reason as Error;
  }
}

/** Namespaces with one interface each (10.77.0.1, .2 ...), on a bridge that has a namespace of its own: nothing appears on the host. */
export function makeNamespaces(names: readonly string[], hub: string): void {
  const ip = (...words: string[]): void => void execFileSync("ip", words, { stdio: "pipe" });
  ip("netns", "add", hub);
  ip("-n", hub, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0");
  ip("-n", hub, "link", "set", "bridge", "up");
  names.forEach((name, at) => {
    ip("netns", "add", name);
    ip("-n", name, "link", "add", "net0", "type", "veth", "peer", "name", `port${at}`, "netns", hub);
    ip("-n", hub, "link", "set", `port${at}`, "master", "bridge", "up");
    ip("-n", name, "addr", "add", `10.77.0.${at + 1}/24`, "dev", "net0");
    ip("-n", name, "link", "set", "net0", "up");
    ip("-n", name, "link", "set", "lo", "up");
  });
}

export function removeNamespaces(names: readonly string[]): void {
  for (const name of names) if (existsSync(`/run/netns/${name}`)) execFileSync("ip", ["netns", "del", name]);
}

function writeCluster(dir: string, nodes: number, namespaces: boolean, more: readonly string[], nodeKeys: string): string {
  const port = nextPorts;
  nextPorts += 2;
  const address = (nodeid: number): string => (namespaces ? `10.77.0.${nodeid}` : `127.0.0.${nodeid}`);
  const rows = Array.from(
    { length: nodes },
    (_, at) => `  - { nodeid: ${at + 1}, name: node${at + 1}, address: ${address(at + 1)}${nodeKeys} }`,
  );
  const lines = [
    "cluster: test",
    "version: 1",
    `multicast: { group: ${namespaces ? "239.192.77.1" : "none"}, port: ${port} }`,
    `peerPort: ${port + 1}`,
    `timeoutMs: ${TIMEOUT_MS}`,
    "nodes:",
    ...rows,
    ...more,
  ];
  writeFileSync(path.join(dir, "cluster.yaml"), `${lines.join("\n")}\n`);
  writeClusterKey(path.join(dir, "cluster.key"));
  return path.join(dir, "cluster.yaml");
}

/** Resolves at the line `ready`; rejects with what it said if it ends before. */
function untilReady(child: ChildProcess): Promise<void> {
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => (said = `${said}${chunk.toString()}`.slice(-4096)));
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    lines.on("line", (line) => {
      if (line === "ready") resolve();
    });
    child.once("error", reject);
    child.once("close", (status) => reject(new Error(`dlmd ended with ${status} before it was ready:\n${said}`)));
  });
}

/** The last one may be half written. */
function wholeLines(text: string): string[] {
  const end = text.lastIndexOf("\n");
  return end === -1 ? [] : text.slice(0, end).split("\n");
}

function parsed(line: string): Record<string, unknown> {
  return JSON.parse(line) as Record<string, unknown>;
}

/** A node that ended early has made no file, and a test may have removed it. */
function textOf(file: string): string {
  return existsSync(file) ? readFileSync(file, "utf8") : "";
}

/** A full disk has cut some. */
function parsedIfWhole(line: string): Record<string, unknown> {
  try {
    return parsed(line);
  } catch {
    return { level: "cut", line };
  }
}

/** Writes what a cluster needs; starts nothing yet. */
export function createCluster({ nodes, namespaces = false, more = [], nodeKeys = "", program: given }: ClusterOptions): TestCluster {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-dlmd-"));
  const configFile = writeCluster(dir, nodes, namespaces, more, nodeKeys === "" ? "" : `, ${nodeKeys}`);
  const namespaceNames = namespaces ? Array.from({ length: nodes }, (_, at) => `cvy-${process.pid}-${nextPorts}-${at + 1}`) : [];
  const hub = `cvy-${process.pid}-${nextPorts}-hub`;
  // Daemons end with this process (setpriv, below).
  const watchdog = startWatchdog('rm -rf --one-file-system "$1"; shift; for netns; do ip netns del "$netns"; done', [
    dir,
    ...(namespaces ? [...namespaceNames, hub] : []),
  ]);
  if (namespaces) {
    try {
      makeNamespaces(namespaceNames, hub);
    } catch (error) {
      removeNamespaces([...namespaceNames, hub]);
      throw error;
    }
  }
  const running = new Map<number, RunningNode>();
  const clients: DlmClient[] = [];
  const runDir = (nodeid: number): string => path.join(dir, `node${nodeid}`);

  const runningNode = (nodeid: number): RunningNode => {
    const node = running.get(nodeid);
    if (node === undefined) throw new Error(`node ${nodeid} was not started`);
    // setpriv and nsenter replace themselves with the program, so their pid is dlmd's own.
    return node;
  };
  const start: TestCluster["start"] = async (nodeid, options = {}) => {
    mkdirSync(runDir(nodeid), { recursive: true, mode: 0o700 });
    // Not `ip netns exec`: its mount namespace would keep what others have mounted, and unmount meanwhile.
    const inside = namespaces ? ["nsenter", `--net=/run/netns/${namespaceNames[nodeid - 1]}`] : [];
    const [program, ...words] = [
      "setpriv",
      "--pdeathsig=KILL",
      ...inside,
      process.execPath,
      "--enable-source-maps",
      given ?? dlmdProgram,
      `--config=${options.configFile ?? configFile}`,
      `--node=node${nodeid}`,
      `--run-dir=${runDir(nodeid)}`,
      ...(options.stateDir === undefined ? [] : [`--state-dir=${options.stateDir}`]),
      ...(options.newConfig === true ? ["--new-config"] : []),
      "--log-level=debug",
      `--json-log=${path.join(runDir(nodeid), "log.json")}`,
    ];
    // A session of its own, as it has where it is a service: only then its priority counts among those of other sessions.
    const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"], detached: true });
    const exited = new Promise<number | null>((resolve) => child.once("close", (status) => resolve(status)));
    const node = { name: `node${nodeid}`, socketPath: path.join(runDir(nodeid), "dlmd.sock"), child, exited };
    running.set(nodeid, node);
    await untilReady(child);
    return node;
  };
  const connect: TestCluster["connect"] = async (nodeid, handlers = {}) => {
    const views = new Happenings();
    const ended: { reason: Error | null } = { reason: null };
    const client = await connectDlm(path.join(runDir(nodeid), "dlmd.sock"), {
      view(view) {
        handlers.view?.(view);
        views.happened();
      },
      gone: handlers.gone ?? (async () => {}),
      disconnected(reason, told) {
        ended.reason = reason;
        handlers.disconnected?.(reason, told);
        views.happened();
      },
    });
    clients.push(client);
    return new TestClient(client, views, ended);
  };

  return {
    dir,
    configFile,
    runDir,
    namespace: (nodeid) => namespaceNames[nodeid - 1] ?? "",
    log(nodeid) {
      return wholeLines(readFileSync(path.join(runDir(nodeid), "log.json"), "utf8")).map(parsed);
    },
    start,
    story() {
      const told = [...running.keys()].flatMap((nodeid) =>
        wholeLines(textOf(path.join(runDir(nodeid), "log.json")))
          .map(parsedIfWhole)
          .filter(({ level }) => level !== "debug")
          .map((line) => `${String(line["time"])} node${nodeid} ${JSON.stringify({ ...line, time: undefined })}`),
      );
      return told.sort().join("\n");
    },
    async startAll() {
      const nodeids = Array.from({ length: nodes }, (_, at) => at + 1);
      await Promise.all(nodeids.map((nodeid) => start(nodeid)));
      const connected = await Promise.all(nodeids.map((nodeid) => connect(nodeid)));
      try {
        await Promise.all(connected.map((client) => client.seen(nodeids)));
      } catch (error) {
        throw new Error(`the nodes did not form one view:\n${this.story()}`, { cause: error });
      }
      return connected;
    },
    connect,
    signal: (nodeid, signal) => void runningNode(nodeid).child.kill(signal),
    kill(nodeid, signal) {
      const node = runningNode(nodeid);
      node.child.kill(signal);
      return node.exited;
    },
    async close() {
      await Promise.allSettled(clients.map((client) => client.close()));
      for (const node of running.values()) node.child.kill("SIGKILL");
      await Promise.all([...running.values()].map((node) => node.exited));
      removeNamespaces([...namespaceNames, hub]);
      rmSync(dir, { recursive: true });
      await watchdog.callOff();
    },
  };
}

/** Nodes 1 to 3, the first with those options, a client of the first that has EX of "r" in `lock`, and one of the second. */
export async function threeWithLock(
  cluster: TestCluster,
  options: Parameters<TestCluster["start"]>[1] = {},
): Promise<{ readonly first: RunningNode; readonly here: TestClient; readonly there: TestClient; readonly lock: TestLock }> {
  const [first] = await Promise.all([cluster.start(1, options), cluster.start(2), cluster.start(3)]);
  const [here, there] = await Promise.all([cluster.connect(1), cluster.connect(2)]);
  await Promise.all([here.seen([1, 2, 3]), there.seen([1, 2, 3])]);
  const lock = await here.lock("r");
  expect(await lock.request(Mode.EX)).toBe("granted");
  return { first, here, there, lock };
}
