/** Limits of questions between the command and an overlay: at them all is well, one beyond it what their comments say happens. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { askGrow } from "../../../overlay/cli/grow.ts";
import { askHandover, describeHandover } from "../../../overlay/cli/handover.ts";
import { askRestart, describeRestart } from "../../../overlay/cli/restart.ts";
import { HELLO_LIMIT_MS, READY_LIMIT_MS, REST_LIMIT_MS, SERVING_LIMIT_MS } from "../../../overlay/restart/give.ts";
import type { HandOverAnswer, HandOverStage } from "../../../overlay/serve/hand-over.ts";
import { type OverlayStatus, overlaySocketPath, queryOverlayStatus } from "../../../overlay/query/overlay-query.ts";
import { DISK_ANSWER_LIMIT_MS } from "../../../overlay/volume/disk-steps.ts";
import { serveStatus, type StatusAnswers } from "../../../overlay/serve/status-server.ts";

const status = { pid: 7, role: "owner", mountpoint: "/mnt", volume: "lab", device: "/dev/loop0" };
const CONNECTION = 57;

let runDir: string;
let server: Server | null;
beforeEach(() => {
  runDir = mkdtempSync(path.join(os.tmpdir(), "overlay-limits-"));
  server = null;
});
afterEach(async () => {
  vi.useRealTimers();
  await new Promise<void>((resolve) => (server === null ? resolve() : server.close(() => resolve())));
  rmSync(runDir, { recursive: true, force: true });
});

async function overlayThat(answers: (socket: Socket) => void): Promise<void> {
  writeFileSync(`${runDir}/overlay-${CONNECTION}.json`, JSON.stringify(status));
  const listening = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => answers(socket));
  });
  server = listening;
  await new Promise<void>((resolve) => listening.listen(overlaySocketPath(runDir, CONNECTION), resolve));
}

/** What is said of one that does not answer, when `limitMs` are over, and not before. */
async function errorAfter(limitMs: number, ask: () => Promise<unknown>): Promise<unknown> {
  let asked: () => void = () => undefined;
  const question = new Promise<void>((resolve) => {
    asked = resolve;
  });
  await overlayThat(() => asked());
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  let error: unknown = null;
  const asking = ask().catch((reason: unknown) => {
    error = reason;
  });
  await question;
  await vi.advanceTimersByTimeAsync(limitMs - 1);
  expect(error).toBeNull();
  await vi.advanceTimersByTimeAsync(1);
  await asking;
  return error;
}

const silent = { code: "overlay-silent" };

it("an overlay that has not answered within QUERY_TIMEOUT_MS is said to be silent", async () => {
  expect(await errorAfter(5000, () => queryOverlayStatus(runDir))).toMatchObject(silent);
});

it("a hand-over is waited for until ANSWER_TIMEOUT_MS, which is beyond the overlay's own limit", async () => {
  expect(await errorAfter(40_000, () => askHandover(runDir, CONNECTION, 2))).toMatchObject(silent);
});

it("a restart is waited for until its ANSWER_TIMEOUT_MS, which is beyond the overlay's own limits", async () => {
  expect(105_000).toBeGreaterThan(HELLO_LIMIT_MS + 2 * REST_LIMIT_MS + READY_LIMIT_MS + SERVING_LIMIT_MS);
  expect(await errorAfter(105_000, () => askRestart(runDir, CONNECTION))).toMatchObject(silent);
});

it("the beginning of a growth is waited for until BEGIN_ANSWER_MS, which is beyond two answers of the disk", async () => {
  expect(15_000).toBeGreaterThan(2 * DISK_ANSWER_LIMIT_MS);
  expect(await errorAfter(15_000, () => askGrow(runDir, CONNECTION))).toMatchObject(silent);
});

it("what a restart came to, in words", () => {
  const done = { kind: "done", pid: 77, pauseMs: 120, inodes: 5, files: 2, requests: 1 } as const;
  expect(describeRestart(done, "/shared", true)).toBe("process 77 serves /shared now; calls waited for 120 ms");
  expect(() => describeRestart(done, "/shared", false)).toThrow("/shared was unmounted while it was restarted");
  const why = "programs hold file locks";
  expect(() => describeRestart({ kind: "refused", why }, "/shared", true)).toThrow("/shared is not restarted: programs hold file locks");
  expect(() => describeRestart({ kind: "failed", why: "it died" }, "/shared", true)).toThrow("/shared is not restarted: it died");
  expect(() => describeRestart({ kind: "lost", why: "it died" }, "/shared", true)).toThrow("the mount on /shared has ended: it died");
});

it("what a hand-over came to, in words", () => {
  const words = (answer: HandOverAnswer): string => describeHandover(answer, "data", (nodeid) => `node${nodeid}`);
  const done = { kind: "done", from: 1, to: 2, owner: 2, pauseMs: 310, why: "" } as const;
  expect(words(done)).toBe("node2 has volume data mounted now, before it node1; calls waited for 310 ms");
  expect(() => words({ ...done, owner: 1 })).toThrow("node2 did not mount volume data: node1 has it now; calls waited for 310 ms");
  expect(() => words({ kind: "under-way", from: 1, to: 2, why: "the owner is changing" })).toThrow(
    "volume data has no owner yet after 30 s: the owner is changing",
  );
  expect(() => words({ kind: "refused", why: "node1 is the owner already", nobodyElse: false })).toThrow(
    "volume data is not handed over: node1 is the owner already",
  );
});

it("a hand-over without a quorum has its own code, and the hint says how far it has come", () => {
  const error = (stage: HandOverStage): unknown => {
    try {
      return describeHandover({ kind: "no-quorum", stage, why: "the cluster has no quorum: 1 of 3 votes" }, "data", String);
    } catch (thrown) {
      return thrown;
    }
  };
  for (const [stage, end] of [
    ["not-asked", "shows who is missing."],
    ["asked", "The owner was asked and has not answered: it may still hand the volume over then."],
    ["begun", "The owner has begun: the volume has a new owner then."],
  ] as const) {
    expect(error(stage)).toMatchObject({
      code: "no-quorum",
      message: "volume data is not handed over: the cluster has no quorum: 1 of 3 votes",
      hint: expect.stringMatching(new RegExp(`^Start dlmd on more nodes, .*${end}$`)),
    });
  }
});

it("an answer of more than MAX_ANSWER_BYTES is not read to its end", async () => {
  const limit = 64 * 1024 * 1024;
  const answer = (bytes: number): Promise<OverlayStatus> => {
    const text = Buffer.alloc(bytes, " ");
    text.write(JSON.stringify(status));
    text.write("\n", bytes - 1);
    server?.close();
    rmSync(overlaySocketPath(runDir, CONNECTION), { force: true });
    return overlayThat((socket) => void socket.write(text)).then(() => queryOverlayStatus(runDir, 60_000));
  };
  expect(await answer(limit)).toEqual(status);
  await expect(answer(limit + 1)).rejects.toMatchObject({ code: "overlay-silent" });
});

it("a question of more than MAX_QUESTION_BYTES without a line end is not waited for", async () => {
  const answers = { summary: () => status, status: () => status } as Partial<StatusAnswers> as StatusAnswers;
  const overlay = await serveStatus(runDir, CONNECTION, answers, silentLog);
  const ask = (pieces: readonly string[]): Promise<object> =>
    new Promise((resolve, reject) => {
      const socket = createConnection(overlaySocketPath(runDir, CONNECTION), () => {
        for (const piece of pieces) socket.write(piece);
      });
      socket.on("error", reject);
      socket.on("data", (chunk: Buffer) => {
        socket.destroy();
        resolve(JSON.parse(chunk.toString()) as object);
      });
    });
  const question = '{"query":"status"}';
  expect(await ask([question.padEnd(4096), "\n"])).toEqual(status);
  expect(await ask(["x".repeat(4097)])).toHaveProperty("error");
  overlay.close(false);
});
