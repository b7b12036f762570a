/**
 * Asks the dlmd of a node over its local socket. Connections are short: a client that stays takes part in the recovery of
 * the cluster (hazard C7), and one that only looks must never hold it up.
 */
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { ClusterInfo, DlmClient, InspectRequest, ViewInfo } from "../../dlmd/client/api.ts";
import { connectDlm } from "../../dlmd/client/client.ts";

/** dlmd answers from memory. */
const ANSWER_TIMEOUT_MS = 5000;
/** After a life of dlmd has ended. */
const ASK_AGAIN_MS = 100;
/** A life of dlmd has ended, or has not begun for longer than one connection waits. */
const MAY_COME_BACK: ReadonlySet<string> = new Set(["disconnected", "dlmd-not-answering"]);

export const DEFAULT_RUN_DIR = "/run/coverlay";

/** The run directory of this node: --run-dir, or what a lab puts in the environment, or the default. */
export function defaultRunDir(): string {
  return process.env["COVERLAY_RUN_DIR"] ?? DEFAULT_RUN_DIR;
}

export function dlmdSocketPath(runDir: string): string {
  return path.join(runDir, "dlmd.sock");
}

export interface DlmdAnswer {
  readonly info: ClusterInfo;
  readonly view: ViewInfo;
  /** The answer to `what`; null where nothing was asked. */
  readonly answer: unknown;
}

/** Connects, asks, and leaves. Throws OperatingError ("dlmd-not-running", "dlmd-silent" ...). */
export async function askDlmd(runDir: string, what: "status" | "nodes" | null): Promise<DlmdAnswer> {
  return askClient(runDir, (client) => (what === null ? Promise.resolve(null) : client.query(what)));
}

/** Incarnation of the dlmd that runs here, if it serves locks; null: it does not. Never rejects. */
export async function dlmdThere(runDir: string): Promise<string | null> {
  try {
    const { info, view } = await askDlmd(runDir, null);
    return view.quorate && view.running ? info.incarnation : null;
  } catch {
    // It does not run yet, or does not answer: it is asked again.
    return null;
  }
}

/** Asks the dlmds of the whole cluster about locks; `wanted` may need the names of the nodes. Throws OperatingError. */
export async function askCluster(runDir: string, wanted: (info: ClusterInfo) => InspectRequest): Promise<DlmdAnswer> {
  return askClient(runDir, async (client) => client.inspect(wanted(client.info)));
}

/** The name of a node; its nodeid where the configuration has none. */
export function nodeName({ nodes }: ClusterInfo): (nodeid: number) => string {
  return (nodeid) => nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid);
}

/** One question after the other, over one connection. */
export async function askClusterAll(
  runDir: string,
  wanted: readonly InspectRequest[],
): Promise<{ readonly info: ClusterInfo; readonly answers: readonly unknown[] }> {
  const { info, answer } = await askClient(runDir, async (client) => {
    const answers: unknown[] = [];
    for (const one of wanted) answers.push(await client.inspect(one));
    return answers;
  });
  return { info, answers: answer as unknown[] };
}

export interface NodeSeen extends DlmdAnswer {
  readonly nodes: unknown;
  /** Locks that somebody has waited for so long, in the whole cluster. */
  readonly waits: unknown;
  /** Who is the owner of each volume, or becoming it (volume/owner-election.ts). */
  readonly owners: unknown;
}

/** All that the dlmd of this node knows, in one connection, within that time. Throws OperatingError. */
export async function askNode(runDir: string, waitingMs: number, limitMs: number): Promise<NodeSeen> {
  let [nodes, waits, owners]: unknown[] = [];
  const everywhere = { lockspace: "", resource: "", nodeid: 0, waitingMs: null };
  const found = await askClient(
    runDir,
    async (client) => {
      const asked = [
        client.query("nodes"),
        client.inspect({ ...everywhere, waitingMs }),
        client.inspect({ ...everywhere, resource: "next" }),
      ];
      const [status, ...rest] = await Promise.all([client.query("status"), ...asked]);
      [nodes, waits, owners] = rest;
      return status;
    },
    limitMs,
  );
  return { ...found, nodes, waits, owners };
}

async function askClient(runDir: string, ask: (client: DlmClient) => Promise<unknown>, limitMs?: number): Promise<DlmdAnswer> {
  const fromMs = performance.now();
  const client = await connect(
    runDir,
    () => undefined,
    () => undefined,
    limitMs,
  );
  try {
    // What the connection took is part of it.
    const leftMs = limitMs === undefined ? ANSWER_TIMEOUT_MS : limitMs - (performance.now() - fromMs);
    const answer = await inTime(ask(client), runDir, leftMs, limitMs ?? ANSWER_TIMEOUT_MS);
    return { info: client.info, view: client.view, answer };
  } finally {
    await client.close();
  }
}

/**
 * Waits for a view of the node's dlmd that `wanted` accepts. A dlmd that ends the connection may begin a new life, as one that was cut off does when it is
 * back: that one is asked. Throws OperatingError: "no-view" or "dlmd-not-answering" after `timeoutMs`, "dlmd-not-running".
 */
export async function waitForView(
  runDir: string,
  wanted: (view: ViewInfo) => boolean,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<ViewInfo> {
  const endMs = performance.now() + timeoutMs;
  for (let leftMs = timeoutMs; ; leftMs = endMs - performance.now()) {
    try {
      return await viewOfLife(runDir, wanted, { timeoutMs, leftMs }, signal);
    } catch (error) {
      if (!(error instanceof OperatingError) || !MAY_COME_BACK.has(error.code) || performance.now() >= endMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  }
}

/** OperatingError "disconnected": that life of dlmd is over. */
async function viewOfLife(
  runDir: string,
  wanted: (view: ViewInfo) => boolean,
  { timeoutMs, leftMs }: { readonly timeoutMs: number; readonly leftMs: number },
  signal: AbortSignal | undefined,
): Promise<ViewInfo> {
  let over: Error | null = null;
  const news: { view: (view: ViewInfo) => void; failed: (reason: Error) => void } = { view() {}, failed: (reason) => void (over = reason) };
  const client = await connect(
    runDir,
    (view) => news.view(view),
    (reason) => news.failed(reason),
  );
  try {
    return await new Promise<ViewInfo>((resolve, reject) => {
      const end = (settle: () => void): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", aborted);
        settle();
      };
      const aborted = (): void => end(() => reject(new OperatingError("interrupted", { code: "interrupted", hint: "Try again." })));
      const timer = setTimeout(() => end(() => reject(noView(runDir, client.view, timeoutMs))), leftMs);
      news.view = (view) => (wanted(view) ? end(() => resolve(view)) : undefined);
      news.failed = (reason) => end(() => reject(reason));
      signal?.addEventListener("abort", aborted, { once: true });
      if (signal?.aborted === true) aborted();
      else if (over === null) news.view(client.view);
      else news.failed(over);
    });
  } finally {
    await client.close();
  }
}

function noView(runDir: string, last: ViewInfo, timeoutMs: number): OperatingError {
  const found = `members ${last.members.join(", ")}; ${last.quorumReason}; ${last.running ? "running" : "locks are being recovered"}`;
  return new OperatingError(`the cluster did not come together within ${timeoutMs / 1000} s, found: ${found}`, {
    code: "no-view",
    hint: `The log of dlmd says what it hears; its run directory is ${runDir}.`,
  });
}

async function connect(
  runDir: string,
  view: (view: ViewInfo) => void,
  disconnected: (reason: Error) => void,
  answerLimitMs?: number,
): Promise<DlmClient> {
  const options = answerLimitMs === undefined ? {} : { answerLimitMs };
  return connectDlm(dlmdSocketPath(runDir), { view, gone: async () => undefined, disconnected }, options);
}

function inTime<T>(promise: Promise<T>, runDir: string, leftMs: number, limitMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const hint = "Its log says what it is doing. If this machine is very busy, ask again.";
      reject(new OperatingError(`dlmd in ${runDir} does not answer within ${limitMs} ms`, { code: "dlmd-silent", hint }));
    }, leftMs);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
