/**
 * The lab that the tests of hazards F1 to F20 work in: three nodes of one volume, of which each test chooses by role, programs on
 * them, and the means to hold what is under way: an overlay that is stopped keeps its locks, and whoever wants them waits.
 */
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll } from "vitest";
import { queryOverlayStatus } from "../../../overlay/query/overlay-query.ts";
import { type Actor, type ActorOptions, endActors, startActor, until } from "../actor.ts";
import { type TestLab, startLab } from "../lab.ts";

/** Sizes of the tests with many rounds are multiplied by this. */
export const scale: number = Number(process.env["COVERLAY_HAZARD_SCALE"] ?? 1);

const LOG_LINES = 25;

export interface HazardLab {
  /** The node that has the lower mounted, and two that do not. */
  readonly owner: number;
  readonly remotes: readonly [number, number];
  readonly all: readonly [number, number, number];
  mount(nodeid: number): string;
  /** A program on that node, in the directory `below` its mount point. */
  actor(nodeid: number, options?: Omit<ActorOptions, "cwd"> & { readonly below?: string }): Actor;
  /** SIGSTOP to its overlay: it answers nothing, and gives no lock back. Resolves when every thread of it stands still. */
  hold(nodeid: number): Promise<void>;
  letGo(nodeid: number): void;
  /** Requests of the node's kernel that are not answered, as the kernel counts them. */
  waiting(nodeid: number): number;
  untilWaiting(nodeid: number, requests: number): Promise<void>;
  /** The same by operation, as the node's overlay counts them. */
  underWay(nodeid: number): Promise<Readonly<Record<string, number>>>;
  /** So many of each at least are under way at once. */
  untilUnderWay(nodeid: number, wanted: Readonly<Record<string, number>>): Promise<void>;
  counters(nodeid: number): Promise<Record<string, number>>;
  /** Calls of that node to the owner that somebody waited for. */
  trips(nodeid: number): Promise<number>;
  readonly lab: TestLab;
}

/** The last lines of the node's logs. */
function logs(runDir: string): string {
  const files = readdirSync(runDir)
    .filter((file) => file.endsWith(".log"))
    .map((file) => path.join(runDir, file));
  files.push(path.join(runDir, "../dlmd.log"));
  return files.map((file) => `${file}:\n${readFileSync(file, "utf8").split("\n").slice(-LOG_LINES).join("\n")}`).join("\n");
}

/**
 * The threads of a stopped overlay that may still go on, each with its state and where in the kernel it is. One that waits for an answer
 * of its own mount (a look at what its kernel has) cannot stop there, and cannot go on either: the one to answer stands still.
 */
function threadsGoingOn(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((tid) => {
    const dir = `/proc/${pid}/task/${tid}`;
    const [, name = "?", state = "?"] = /\((.*)\) (\S)/s.exec(readFileSync(`${dir}/stat`, "latin1")) ?? [];
    if (state === "T") return [];
    const stack = readFileSync(`${dir}/stack`, "latin1");
    return state === "D" && stack.includes("request_wait_answer") ? [] : [`${tid} (${name}) ${state}\n${stack}`];
  });
}

/** Brings a lab up before the tests of the file, and takes it down after them, whatever they left. */
export function hazardLab(): HazardLab {
  let lab: TestLab | null = null;
  let owner = 0;
  const held = new Set<number>();
  const connections = new Map<number, number>();
  const here = (): TestLab => {
    if (lab === null) throw new Error("the lab is not up");
    return lab;
  };
  const overlayPid = (nodeid: number): number => {
    const pid = here().overlayPid(nodeid);
    if (pid === null) throw new Error(`node ${nodeid} has no overlay`);
    return pid;
  };
  const counters = async (nodeid: number): Promise<Record<string, number>> =>
    (await queryOverlayStatus(here().node(nodeid).runDir))["counters"] as Record<string, number>;
  const letGo = (nodeid: number): void => {
    if (held.delete(nodeid)) process.kill(overlayPid(nodeid), "SIGCONT");
  };
  const connection = (nodeid: number): number => {
    const found = connections.get(nodeid);
    if (found === undefined) throw new Error(`node ${nodeid} has no connection`);
    return found;
  };
  const waiting = (nodeid: number): number => Number(readFileSync(`/sys/fs/fuse/connections/${connection(nodeid)}/waiting`, "utf8"));

  const underWay = async (nodeid: number): Promise<Readonly<Record<string, number>>> =>
    (await queryOverlayStatus(here().node(nodeid).runDir))["underWay"] as Record<string, number>;

  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
    owner = await lab.owner();
    for (const { nodeid, runDir } of lab.nodes) {
      const { connection } = await queryOverlayStatus(runDir);
      connections.set(nodeid, Number(connection));
    }
  });
  // Every test: no overlay died, and none met a bug of its own.
  afterEach(async () => {
    for (const nodeid of held) letGo(nodeid);
    endActors();
    for (const { node, runDir } of here().nodes) {
      const status = await queryOverlayStatus(runDir).catch((error: unknown) => ({ problem: String(error) }));
      const bugs = "counters" in status ? (status.counters as Record<string, number>)["bugs"] : status;
      if (bugs !== 0) throw new Error(`${node}: ${JSON.stringify(bugs)}\n${logs(runDir)}`);
    }
  });
  afterAll(async () => {
    for (const nodeid of held) letGo(nodeid);
    endActors();
    await lab?.end();
  });

  return {
    get lab(): TestLab {
      return here();
    },
    get owner(): number {
      return owner;
    },
    get remotes(): readonly [number, number] {
      const [first, second] = [1, 2, 3].filter((nodeid) => nodeid !== owner);
      return [first ?? 0, second ?? 0];
    },
    get all(): readonly [number, number, number] {
      return [1, 2, 3];
    },
    mount: (nodeid) => here().node(nodeid).mount,
    actor: (nodeid, { below = ".", ...options } = {}) => startActor({ ...options, cwd: `${here().node(nodeid).mount}/${below}` }),
    hold: async (nodeid) => {
      const pid = overlayPid(nodeid);
      held.add(nodeid);
      process.kill(pid, "SIGSTOP");
      await until(
        `the overlay of node ${nodeid} stands still`,
        () => threadsGoingOn(pid).length === 0,
        () => threadsGoingOn(pid).join("\n"),
      );
    },
    letGo,
    waiting,
    untilWaiting: (nodeid, requests) =>
      until(
        `${requests} requests of node ${nodeid} wait`,
        () => waiting(nodeid) >= requests,
        () => `${waiting(nodeid)} wait`,
      ),
    underWay,
    untilUnderWay: async (nodeid, wanted) => {
      let seen: Readonly<Record<string, number>> = {};
      await until(
        `under way on node ${nodeid}: ${JSON.stringify(wanted)}`,
        async () => {
          seen = await underWay(nodeid);
          return Object.entries(wanted).every(([op, count]) => (seen[op] ?? 0) >= count);
        },
        () => `under way: ${JSON.stringify(seen)}`,
      );
    },
    counters,
    trips: async (nodeid) => (await counters(nodeid))["lowerTripsAwaited"] ?? Number.NaN,
  };
}
