/** What dlmd makes, and what it leaves alone: folders of its own, sockets at a path of a command line. */
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { spawnSync } from "node:child_process";
import { type Server, createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics } from "../../../dlmd/base/metric.ts";
import { createPinoLog } from "../../../dlmd/base/pino-log.ts";
import { makeOwnDirectory } from "../../../dlmd/driver/own-directory.ts";
import { serveMetrics } from "../../../dlmd/server/metrics-page.ts";
import { listenOnOwnSocket } from "../../../dlmd/server/own-socket.ts";

let dir: string;
const servers: Server[] = [];
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-own-"));
});
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
  rmSync(dir, { recursive: true });
});

const modeOf = (file: string): number => statSync(file).mode & 0o7777;
function refusal(folder: string): OperatingError | null {
  try {
    makeOwnDirectory("run directory", folder, "--run-dir");
  } catch (error) {
    if (error instanceof OperatingError) return error;
    throw error;
  }
  return null;
}
const socketAt = (socketPath: string): Promise<void> => {
  const server = createServer();
  servers.push(server);
  return listenOnOwnSocket(server, {
    path: socketPath,
    other: "another dlmd",
    code: "cannot-listen",
    option: "--run-dir",
    failed: () => undefined,
  });
};

/** A socket whose process was killed. */
function leftBehind(): string {
  const left = path.join(dir, "left.sock");
  const listens = `require("node:net").createServer().listen(${JSON.stringify(left)}, () => process.kill(process.pid, "SIGKILL"))`;
  expect(spawnSync(process.execPath, ["-e", listens]).signal).toBe("SIGKILL");
  expect(lstatSync(left).isSocket()).toBe(true);
  return left;
}
const answers = (socketPath: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection(socketPath);
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
    socket.on("connect", () => socket.destroy());
  });

test("a folder that is not there is made for its owner alone, and taken again", () => {
  const made = path.join(dir, "a/b");
  expect(refusal(made)).toBeNull();
  expect([modeOf(path.dirname(made)), modeOf(made)]).toEqual([0o700, 0o700]);
  expect(refusal(made)).toBeNull();
});

test.each([0o755, 0o711, 0o1777, 0o770])("a folder of mode %o that is there is refused, and its mode stays", (mode) => {
  const there = path.join(dir, "there");
  mkdirSync(there);
  chmodSync(there, mode);
  expect(refusal(there)).toMatchObject({ code: "open-run-dir", hint: expect.stringContaining(`chmod 700 ${there}`) as string });
  expect(modeOf(there)).toBe(mode);
});

test("where something else stands no other user helps: it is to be looked at", () => {
  const file = path.join(dir, "file");
  writeFileSync(file, "");
  const nowhere = path.join(dir, "nowhere");
  symlinkSync(path.join(dir, "gone/on"), nowhere);
  for (const place of [file, path.join(file, "below"), nowhere])
    expect(refusal(place)).toMatchObject({
      code: "no-run-dir",
      hint: expect.stringContaining(`Look what stands there (ls -ld ${place})`) as string,
    });
});

test.skipIf(process.geteuid?.() !== 0)("a folder of another user is refused, whatever its mode", () => {
  const there = path.join(dir, "there");
  mkdirSync(there, { mode: 0o700 });
  chownSync(there, 1234, 1234);
  expect(refusal(there)?.message).toContain("found user id 1234, mode 0700");
});

test("a file where a socket should be is never deleted", async () => {
  const file = path.join(dir, "figures");
  writeFileSync(file, "dear to somebody");
  await expect(socketAt(file)).rejects.toMatchObject({ code: "cannot-listen" });
  const metrics = serveMetrics({ path: file }, { metrics: createMetrics(), query: () => null }, silentLog);
  await expect(metrics).rejects.toMatchObject({
    code: "metrics-unavailable",
    message: `a socket expected at ${file}, found something else`,
  });
  expect(readFileSync(file, "utf8")).toBe("dear to somebody");
});

test("a socket on which something answers is not taken; one that was left behind is, mode 0600", async () => {
  const socketPath = path.join(dir, "a.sock");
  await socketAt(socketPath);
  expect(modeOf(socketPath)).toBe(0o600);
  await expect(socketAt(socketPath)).rejects.toMatchObject({ code: "already-running" });
  const left = leftBehind();
  await socketAt(left);
  expect(modeOf(left)).toBe(0o600);
});

test("of two that take one that was left behind at once, one has it, and the end of the other one takes it from nobody", async () => {
  const left = leftBehind();
  const results = await Promise.allSettled([socketAt(left), socketAt(left)]);
  const refused = results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  expect(refused).toEqual([
    expect.objectContaining({ code: "already-running", message: `another dlmd begins to listen on ${left} just now` }),
  ]);
  const [loser] = servers.splice(
    results.findIndex(({ status }) => status === "rejected"),
    1,
  );
  await new Promise((resolve) => loser?.close(resolve));
  expect(await answers(left)).toBe(true);
  // It is known now that something answers.
  await expect(socketAt(left)).rejects.toMatchObject({ message: `another dlmd answers on ${left}` });
});

test("a place whose lock cannot be had is not taken", async () => {
  const left = leftBehind();
  mkdirSync(`${left}.lock`);
  await expect(socketAt(left)).rejects.toMatchObject({ code: "cannot-listen", message: expect.stringContaining("EISDIR") });
  expect(lstatSync(left).isSocket()).toBe(true);
});

test("a log on a full disk ends no program, and is for its owner alone", () => {
  const full = createPinoLog("info", "/dev/full");
  const stderr = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  for (let line = 0; line < 3; line++) full.info({ line }, "said");
  const told = stderr.mock.calls.filter(([text]) => String(text).includes("cannot be written"));
  stderr.mockRestore();
  expect(told.map(([text]) => text)).toEqual(["the log /dev/full cannot be written: ENOSPC: no space left on device, write\n"]);
  const file = path.join(dir, "log.json");
  createPinoLog("error", file).error({}, "said");
  expect(modeOf(file)).toBe(0o600);
  expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ msg: "said" });
});
