/**
 * dlmd's figures for Prometheus (text exposition format 0.0.4): over HTTP, on a unix socket in the run directory, or on a
 * loopback port. GET /metrics and nothing else; nobody else's address, because there is no password.
 *
 * dlmd's own registry is made anew for each reading: what is shown is what the core says then, and nothing is kept twice.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import { isIPv4, isIPv6 } from "node:net";
import { Counter, Gauge, Registry, collectDefaultMetrics } from "prom-client";
import { OperatingError } from "../base/error.ts";
import { logNotTaken, startListening } from "../base/listening.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metric.ts";
import type { QueryWhat } from "../wire/program.ts";
import type { NodeAnswer, StatusAnswer } from "../query/answer.ts";
import { listenOnOwnSocket } from "./own-socket.ts";

/** Readers at a time; a further one is sent away. */
const MAX_CONNECTIONS = 16;
const REQUEST_TIMEOUT_MS = 5000;
/** Node.js looks for requests that are over time so often; by default every 30 s only. */
const CHECK_EVERY_MS = 1000;

/** A path beginning with "/", or a loopback address and port. */
export type MetricsAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/** "/run/x.sock", "127.0.0.1:9100", "[::1]:9100", "9100" (127.0.0.1). Throws OperatingError "bad-metrics-address". */
export function parseMetricsAddress(text: string): MetricsAddress {
  const refuse = (why: string): OperatingError =>
    new OperatingError(`metrics address ${text}: ${why}`, {
      code: "bad-metrics-address",
      hint: "A path such as /run/coverlay/metrics.sock, or a port of this machine alone such as 127.0.0.1:9100. For other machines put a proxy before it that asks who they are.",
    });
  if (text.startsWith("/")) return { path: text };
  const [, bracketed, plain, digits = ""] = /^(?:(?:\[([^\]]+)\]|([^:]+)):)?(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain ?? "127.0.0.1";
  const port = Number(digits);
  if (digits === "" || port > 65_535) throw refuse("expected a path, or ADDRESS:PORT with a port up to 65535");
  const loopback = (isIPv4(host) && host.startsWith("127.")) || (isIPv6(host) && host === "::1");
  if (!loopback) throw refuse(`a loopback address expected, found ${host}`);
  return { host, port };
}

export interface MetricsSource {
  readonly metrics: Metrics;
  /** As NodeCore answers; null between two incarnations. */
  readonly query: (what: QueryWhat) => unknown;
}

/** dlmd's part of the page. */
export async function renderMetrics({ metrics, query }: MetricsSource): Promise<string> {
  const registry = new Registry();
  const gauge = (name: string, help: string, value: number | boolean | undefined): void => {
    if (value !== undefined) new Gauge({ name: `dlmd_${name}`, help, registers: [registry] }).set(Number(value));
  };
  const status = (query("status") ?? {}) as Partial<StatusAnswer>;
  gauge("quorate", "1: the node's view has quorum", status.quorate);
  gauge("running", "1: the lock service runs", status.running);
  gauge("view_members", "nodes in the view", status.members?.length);
  gauge("promised_epoch", "highest epoch promised; grows with every view", status.promisedEpoch);
  gauge("config_version", "version of cluster.yaml", status.configVersion);
  gauge("clients", "programs connected", status.clients);
  gauge("locks", "locks of this node's programs", status.locks);
  gauge("gone_waits", "programs that lockspaces wait for until they have let go of nodes that are gone", status.goneWaits?.length);
  const peers = (query("nodes") ?? []) as readonly NodeAnswer[];
  const member = new Gauge({ name: "dlmd_node_member", help: "1: in the view", labelNames: ["node"], registers: [registry] });
  const link = new Gauge({ name: "dlmd_node_connected", help: "1: TCP is up", labelNames: ["node"], registers: [registry] });
  const silence = new Gauge({
    name: "dlmd_node_silence_seconds",
    help: "since its last heartbeat",
    labelNames: ["node"],
    registers: [registry],
  });
  for (const { name, state, tcpUp, heardAgoMs } of peers) {
    member.set({ node: name }, Number(state === "member" || (state === "this" && status.members !== undefined)));
    if (state !== "this") link.set({ node: name }, Number(tcpUp));
    if (heardAgoMs !== null) silence.set({ node: name }, heardAgoMs / 1000);
  }
  for (const [name, value] of Object.entries(metrics.snapshot())) {
    new Counter({ name: `dlmd_${name}_total`, help: name.replaceAll("_", " "), registers: [registry] }).inc(value);
  }
  return registry.metrics();
}

export interface MetricsServer {
  close(): Promise<void>;
}

async function answer(request: IncomingMessage, response: ServerResponse, source: MetricsSource, own: Registry): Promise<void> {
  const [path] = (request.url ?? "").split("?");
  if (path !== "/metrics" || request.method !== "GET") {
    response.writeHead(path === "/metrics" ? 405 : 404, { "content-type": "text/plain" }).end("expected: GET /metrics\n");
    return;
  }
  const text = `${await renderMetrics(source)}\n${await own.metrics()}`;
  response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
}

/** Rejects with OperatingError "metrics-unavailable" if it cannot listen there. */
export async function serveMetrics(address: MetricsAddress, source: MetricsSource, log: Log): Promise<MetricsServer> {
  // The process's own (memory, event loop, collections) are watched all the time: made once.
  const own = new Registry();
  collectDefaultMetrics({ register: own });
  const limits = { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS, connectionsCheckingInterval: CHECK_EVERY_MS };
  const server = createServer(limits, (request, response) => {
    answer(request, response, source, own).catch((error: unknown) => {
      log.error({ error: (error as Error).message }, "metrics could not be shown");
      response.destroy();
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  const failed = logNotTaken(log, "a connection for the metrics");
  await ("path" in address ? listenOnPath(server, address.path, failed) : listenOnPort(server, address, failed));
  return {
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  };
}

function listenOnPath(server: Server, path: string, failed: (error: Error) => void): Promise<void> {
  return listenOnOwnSocket(server, { path, other: "another program", code: "metrics-unavailable", option: "--metrics", failed });
}

async function listenOnPort(
  server: Server,
  address: { readonly host: string; readonly port: number },
  failed: (error: Error) => void,
): Promise<void> {
  try {
    await startListening(server, (listening) => server.listen(address, listening), failed);
  } catch (error) {
    throw new OperatingError(`metrics: cannot listen on ${address.host}:${address.port}: ${(error as Error).message}`, {
      code: "metrics-unavailable",
      hint: "Name another place with --metrics, or none with --metrics none.",
      cause: error,
    });
  }
}
