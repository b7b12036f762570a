/** `coverlay restart --dlmd`: all mounts pause or none, and what is waited for. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { restartAlone, restartDlmd } from "../../../overlay/cli/restart-dlmd.ts";
import { findOverlay, overlayFilePath, overlaySocketPath } from "../../../overlay/query/overlay-query.ts";
import { END_LIMIT_MS, HELLO_LIMIT_MS, REST_LIMIT_MS } from "../../../overlay/restart/give.ts";
import { HOLD_LIMIT_MS } from "../../../overlay/restart/holder.ts";
import { DEPOSIT_LIMIT_MS } from "../../../overlay/restart/pause.ts";
import { LEAVE_LIMIT_MS } from "../../../overlay/serve/holding.ts";

let runDir: string;
const servers: Server[] = [];
beforeEach(() => {
  runDir = mkdtempSync(path.join(os.tmpdir(), "restart-dlmd-"));
});
afterEach(async () => {
  vi.useRealTimers();
  for (const one of servers.splice(0)) await new Promise<void>((resolve) => one.close(() => resolve()));
  rmSync(runDir, { recursive: true, force: true });
});

function writeOverlay(connection: number, role: string, pid = process.pid): void {
  const file = { pid, role, mountpoint: `/m${connection}`, volume: "lab", device: "/dev/x" };
  writeFileSync(overlayFilePath(runDir, connection), JSON.stringify(file));
}

/** A mount that answers so. What it was asked. */
async function overlay(connection: number, answers: Readonly<Record<string, object | null>>): Promise<string[]> {
  writeOverlay(connection, "remote");
  const asked: string[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (line: Buffer) => {
      const { query } = JSON.parse(line.toString()) as { query: string };
      asked.push(query);
      // Who is not to answer that says so.
      const answer = query in answers || query !== "go-on" ? (answers[query] ?? null) : { goesOn: true };
      // It is served by another process as soon as it goes on.
      if (query === "pause" && answer !== null && "inodes" in answer) writeOverlay(connection, "paused");
      if (query === "go-on") writeOverlay(connection, "remote", process.ppid);
      if (answer !== null) socket.end(`${JSON.stringify(answer)}\n`);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(overlaySocketPath(runDir, connection), resolve));
  return asked;
}

const PAUSES = { pause: { kind: "paused", inodes: 3, files: 2 }, "go-on": { goesOn: true } };
const said: string[] = [];
const progress = { say: (words: string): void => void said.push(words), signal: new AbortController().signal };

it("restarts dlmd when every mount is paused, and tells which process serves each", async () => {
  const asked = await overlay(1, PAUSES);
  await overlay(2, PAUSES);
  const served = await restartDlmd(runDir, progress, () => {
    expect(asked).toEqual(["pause"]);
    for (const one of [1, 2]) writeOverlay(one, "remote", process.ppid);
    return Promise.resolve();
  });
  expect(served).toMatchObject([
    { mountpoint: "/m1", pid: process.ppid, inodes: 3, files: 2 },
    { mountpoint: "/m2", pid: process.ppid },
  ]);
  // It is not told to go on: it would, with the dlmd that is about to leave.
  expect(asked).toEqual(["pause"]);
});

it("restarts an owner that is alone: it pauses, is told to go on with the dlmd that runs, and is waited for", async () => {
  const asked = await overlay(1, { ...PAUSES, pause: { ...PAUSES.pause, waitedMs: 1000 } });
  const entry = findOverlay(runDir, "/m1");
  if (entry === null) throw new Error("no mount");
  const answer = await restartAlone(runDir, entry, progress.signal);
  expect(answer).toMatchObject({ kind: "done", pid: process.ppid, inodes: 3, files: 2 });
  expect([asked, answer.kind === "done" && answer.pauseMs >= 1000]).toEqual([["pause", "go-on"], true]);
});

it("tells an owner that does not answer as it should to go on, and waits for nothing when it is interrupted", async () => {
  const asked = await overlay(1, { ...PAUSES, pause: { kind: "what" } });
  const entry = findOverlay(runDir, "/m1");
  if (entry === null) throw new Error("no mount");
  await expect(restartAlone(runDir, entry, progress.signal)).rejects.toThrow("expected");
  expect(asked).toEqual(["pause", "go-on"]);
  const end = new AbortController();
  const silent = await overlay(2, { pause: PAUSES.pause, "go-on": null });
  const other = findOverlay(runDir, "/m2");
  if (other === null) throw new Error("no mount");
  const restarted = restartAlone(runDir, other, end.signal);
  await vi.waitFor(() => expect(silent).toEqual(["pause", "go-on"]));
  end.abort(new Error("interrupted"));
  await expect(restarted).rejects.toThrow("interrupted");
});

it("says that a mount has ended that could not give its disk back", async () => {
  await overlay(1, { pause: { kind: "lost", why: "the disk could not be given back: in use" } });
  await expect(restartDlmd(runDir, progress, () => Promise.resolve())).rejects.toMatchObject({
    message: expect.stringContaining("/m1 has ended: the disk could not be given back: in use") as string,
    hint: "umount -l what has ended, and mount it again; the others go on.",
  });
});

it("says why an owner that is alone is not restarted", async () => {
  const asked = await overlay(1, { pause: { kind: "refused", why: "others have it mounted" } });
  const entry = findOverlay(runDir, "/m1");
  if (entry === null) throw new Error("no mount");
  expect(await restartAlone(runDir, entry, progress.signal)).toEqual({ kind: "refused", why: "others have it mounted" });
  expect(asked).toEqual(["pause"]);
});

it.each([
  ["one is refused", { pause: { kind: "refused", why: "programs wait" } }, "/m2: programs wait"],
  ["one fails", { pause: { kind: "failed", why: "calls have not ended" } }, "/m2: calls have not ended"],
  ["one says nonsense", { pause: { kind: "what" } }, "/m2: "],
])("restarts nothing where %s, and the others go on", async (_, answers, why) => {
  const asked = await overlay(1, PAUSES);
  await overlay(2, answers);
  const restart = vi.fn<() => Promise<void>>();
  await expect(restartDlmd(runDir, progress, restart)).rejects.toThrow(why);
  expect([asked, restart.mock.calls.length]).toEqual([["pause", "go-on"], 0]);
});

it("all go on where dlmd refuses", async () => {
  const asked = await overlay(1, PAUSES);
  await expect(restartDlmd(runDir, progress, () => Promise.reject(new Error("programs would lose their locks")))).rejects.toThrow(
    "programs would lose their locks",
  );
  expect(asked).toEqual(["pause", "go-on"]);
});

it("all go on where the command is interrupted before dlmd was asked", async () => {
  const ending = new AbortController();
  const asked = await overlay(1, PAUSES);
  const restart = vi.fn<() => Promise<void>>();
  const say = (words: string): void => {
    if (words.startsWith("1 mounts")) ending.abort(new Error("interrupted"));
  };
  await expect(restartDlmd(runDir, { say, signal: ending.signal }, restart)).rejects.toThrow("interrupted");
  expect([asked, restart.mock.calls.length]).toEqual([["pause", "go-on"], 0]);
});

it("tells of each mount that did not come back, and of those that did", async () => {
  for (const one of [1, 2, 3]) await overlay(one, PAUSES);
  const restart = (): Promise<void> => {
    writeOverlay(1, "remote", process.ppid);
    for (const one of [2, 3]) rmSync(overlayFilePath(runDir, one));
    return Promise.resolve();
  };
  await expect(restartDlmd(runDir, progress, restart)).rejects.toThrow(
    "the mount on /m2 has ended, or does not answer; the mount on /m3 has ended, or does not answer; served are /m1",
  );
});

it("with nothing mounted it restarts dlmd", async () => {
  const restart = vi.fn<() => Promise<void>>(() => Promise.resolve());
  expect(await restartDlmd(runDir, progress, restart)).toEqual([]);
  expect(restart.mock.calls.length).toBe(1);
});

/** The error that comes when so much time is over, and not before. */
async function errorAfter(limitMs: number, work: () => Promise<unknown>, begun: () => boolean): Promise<string> {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  let error: unknown = null;
  const working = work().catch((reason: unknown) => {
    error = reason;
  });
  while (!begun()) await new Promise((resolve) => setImmediate(resolve));
  await vi.advanceTimersByTimeAsync(limitMs - 1);
  expect(error).toBeNull();
  await vi.advanceTimersByTimeAsync(201);
  await working;
  return String(error);
}

it("a mount is waited for until PAUSE_TIMEOUT_MS, which is beyond its own limits", async () => {
  expect(100_000).toBeGreaterThan(HELLO_LIMIT_MS + END_LIMIT_MS + 2 * REST_LIMIT_MS + DEPOSIT_LIMIT_MS + LEAVE_LIMIT_MS);
  const asked = await overlay(1, { "go-on": { goesOn: false } });
  const error = await errorAfter(
    100_000,
    () => restartDlmd(runDir, progress, () => Promise.resolve()),
    () => asked.length > 0,
  );
  expect(error).toContain("no answer within 100000 ms");
});

it("one that paused is waited for until SERVED_TIMEOUT_MS, which is beyond the time after which it ends, every SERVED_LOOK_MS", async () => {
  expect(150_000).toBeGreaterThan(HOLD_LIMIT_MS);
  await overlay(1, PAUSES);
  let restarted = false;
  const restart = (): Promise<void> => {
    restarted = true;
    return Promise.resolve();
  };
  const error = await errorAfter(
    150_000,
    () => restartDlmd(runDir, progress, restart),
    () => restarted,
  );
  expect(error).toContain("the mount on /m1 has ended, or does not answer");
});

it("one that ended is told at once", async () => {
  await overlay(1, PAUSES);
  const restart = (): Promise<void> => {
    rmSync(overlayFilePath(runDir, 1));
    return Promise.resolve();
  };
  await expect(restartDlmd(runDir, progress, restart)).rejects.toThrow("the mount on /m1 has ended");
});
