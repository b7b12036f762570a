/** What `coverlay lab status` and the live view say of a node whose overlay does not answer. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { overlaySocketPath } from "../../../overlay/query/overlay-query.ts";
import { type NodeReport, observe } from "../../../overlay/lab/observe.ts";
import type * as processes from "../../../overlay/lab/processes.ts";
import type { LabState, ProcessRef } from "../../../overlay/lab/state.ts";
import { labState } from "./lab-state.ts";

const own = vi.hoisted((): ProcessRef => ({ pid: process.pid, startTicks: "1" }));
const played = vi.hoisted(() => ({ mountinfo: "" }));
vi.mock("../../../overlay/lab/processes.ts", async (importOriginal) => ({
  ...(await importOriginal<typeof processes>()),
  isAlive: () => true,
  findProcesses: () => [own],
}));
vi.mock("node:fs", async (importOriginal) => {
  const fs = await importOriginal<typeof import("node:fs")>();
  const read = (file: string, options: BufferEncoding): string | Buffer =>
    file === "/proc/self/mountinfo" ? played.mountinfo : fs.readFileSync(file, options);
  return { ...fs, readFileSync: read };
});

const CONNECTION = 65535;
let dir: string;
let server: Server;
/** A question has come. */
let asked: Promise<void>;
let answer: (text: string) => void;
beforeEach(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "lab-observe-"));
  const runDir = `${dir}/node1/run`;
  mkdirSync(runDir, { recursive: true });
  writeFileSync(`${runDir}/overlay-${CONNECTION}.json`, JSON.stringify(file()));
  played.mountinfo = `91 27 0:${CONNECTION} / ${dir}/node1/mnt rw - fuse.clustered /dev/x rw\n`;
  asked = new Promise((resolve) => {
    server = createServer((socket) => {
      socket.on("error", () => undefined);
      answer = (text) => socket.end(text);
      socket.once("data", () => resolve());
    });
  });
  await new Promise<void>((resolve) => server.listen(overlaySocketPath(runDir, CONNECTION), resolve));
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});
afterEach(async () => {
  vi.useRealTimers();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  rmSync(dir, { recursive: true });
});

function file(): object {
  return { pid: process.pid, role: "owner", mountpoint: `${dir}/node1/mnt`, volume: "lab", device: "/dev/x" };
}

const lab = (): LabState => labState(dir, {}, { device: "/dev/x", dlmd: own });

it("an overlay that has not answered within LOOK_TIMEOUT_MS is shown as not answering", async () => {
  let reports: NodeReport[] = [];
  const observing = observe(lab(), false).then((found) => (reports = found));
  await asked;
  await vi.advanceTimersByTimeAsync(899);
  expect(reports).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  await observing;
  // Its role is that of its file.
  expect(reports).toMatchObject([{ state: "not answering", role: "owner", ops: null }]);
});

it("one that answers just before is up", async () => {
  const observing = observe(lab(), false);
  await asked;
  await vi.advanceTimersByTimeAsync(899);
  answer(`${JSON.stringify({ ...file(), ops: 7 })}\n`);
  expect(await observing).toMatchObject([{ state: "up", role: "owner", ops: 7 }]);
});
