/** Figures for Prometheus: what is shown, where, and to whom. */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { type RequestOptions, request } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import { type MetricsServer, type MetricsSource, parseMetricsAddress, serveMetrics } from "../../../dlmd/server/metrics-page.ts";

let server: MetricsServer | null = null;
let dir = "";
afterEach(async () => {
  await server?.close();
  server = null;
  if (dir !== "") rmSync(dir, { recursive: true });
  dir = "";
});

function get(options: RequestOptions): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    request(options, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    })
      .on("error", reject)
      .end();
  });
}

function source(): MetricsSource {
  const metrics = createMetrics();
  metrics.count("datagrams_sent", 7);
  return {
    metrics,
    query: (what) =>
      what === "status"
        ? { quorate: true, running: false, members: [1, 2], promisedEpoch: 5, clients: 3, locks: 41 }
        : [
            { name: "a", state: "this", heardAgoMs: 0, tcpUp: true },
            { name: "b", state: "member", heardAgoMs: 250, tcpUp: true },
            { name: "c", state: "silent", heardAgoMs: null, tcpUp: false },
          ],
  };
}

test("on a socket of its owner alone: the view, each node, and all counters", async () => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-metrics-"));
  const socketPath = path.join(dir, "metrics.sock");
  server = await serveMetrics({ path: socketPath }, source(), silentLog);
  expect(statSync(socketPath).mode & 0o777).toBe(0o600);
  const { status, text } = await get({ socketPath, path: "/metrics" });
  expect(status).toBe(200);
  for (const line of [
    "dlmd_quorate 1",
    "dlmd_running 0",
    "dlmd_view_members 2",
    "dlmd_locks 41",
    'dlmd_node_member{node="b"} 1',
    'dlmd_node_member{node="c"} 0',
    'dlmd_node_connected{node="c"} 0',
    'dlmd_node_silence_seconds{node="b"} 0.25',
    "dlmd_datagrams_sent_total 7",
  ]) {
    expect(text.split("\n")).toContain(line);
  }
  expect(text).toContain("process_resident_memory_bytes");
  expect(text.split("\n").filter((line) => line.startsWith("# TYPE dlmd_locks "))).toHaveLength(1);
  // A second reading is a reading of then, not added to the first.
  expect((await get({ socketPath, path: "/metrics" })).text.split("\n")).toContain("dlmd_datagrams_sent_total 7");
  expect((await get({ socketPath, path: "/" })).status).toBe(404);
  expect((await get({ socketPath, path: "/metrics", method: "POST" })).status).toBe(405);
});

test("between two incarnations the counters are there, and nothing is made up", async () => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-metrics-"));
  const socketPath = path.join(dir, "metrics.sock");
  server = await serveMetrics({ path: socketPath }, { metrics: createMetrics(), query: () => null }, silentLog);
  const { status, text } = await get({ socketPath, path: "/metrics" });
  expect(status).toBe(200);
  expect(text).not.toContain("dlmd_quorate");
});

test("addresses: a path or this machine alone", async () => {
  expect(parseMetricsAddress("/run/x.sock")).toEqual({ path: "/run/x.sock" });
  expect(parseMetricsAddress("9100")).toEqual({ host: "127.0.0.1", port: 9100 });
  expect(parseMetricsAddress("127.0.0.2:9100")).toEqual({ host: "127.0.0.2", port: 9100 });
  expect(parseMetricsAddress("[::1]:9100")).toEqual({ host: "::1", port: 9100 });
  for (const bad of ["", "0.0.0.0:9100", "10.0.0.1:9100", "localhost:9100", "127.0.0.1:70000", "127.0.0.1", "[::]:1"]) {
    expect(() => parseMetricsAddress(bad)).toThrow(OperatingError);
  }
  server = await serveMetrics({ host: "127.0.0.1", port: 0 }, source(), silentLog);
  const missing = { path: path.join(tmpdir(), "not-there-at-all", "metrics.sock") };
  await expect(serveMetrics(missing, source(), silentLog)).rejects.toMatchObject({ code: "metrics-unavailable" });
});
