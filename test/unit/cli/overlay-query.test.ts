import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, rmdirSync, symlinkSync, writeFileSync } from "node:fs";
import { type Server, type Socket, createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { findMount } from "../../../overlay/cli/handover.ts";
import {
  findOverlay,
  listOverlays,
  queryOverlays,
  queryOverlayStatus,
  readOverlayFile,
  removeGoneOverlays,
} from "../../../overlay/query/overlay-query.ts";
import { requestsOf } from "../../../overlay/cli/why-process.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { parseMountinfo } from "../../../dlmd/base/mount-table.ts";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { serveStatus, type StatusAnswers } from "../../../overlay/serve/status-server.ts";

const status = { pid: 7, role: "owner", mountpoint: "/mnt", volume: "lab", device: "/dev/loop0", ops: 12, locks: 3, more: { kept: true } };

let runDir: string;
let server: Server | null = null;
beforeEach(() => {
  runDir = mkdtempSync(path.join(os.tmpdir(), "overlay-query-"));
});
/** As the overlay of that connection writes it. */
function writeOverlay(connection: number, change: object = {}): void {
  writeFileSync(`${runDir}/overlay-${connection}.json`, JSON.stringify({ ...status, ...change }));
}
afterEach(async () => {
  await new Promise<void>((resolve) => (server === null ? resolve() : server.close(() => resolve())));
  server = null;
  rmSync(runDir, { recursive: true, force: true });
});

function serve(answer: (socket: Socket, question: string) => void): Promise<void> {
  writeOverlay(57);
  server = createServer((socket) => {
    socket.on("error", () => undefined); // The other side may leave first.
    socket.on("data", (data: Buffer) => answer(socket, data.toString()));
  });
  return new Promise((resolve) => server?.listen(`${runDir}/overlay-57.sock`, resolve));
}

describe("a question to the overlay", () => {
  it("is one JSON line, and so is the answer, in however many pieces it comes", async () => {
    let asked = "";
    await serve((socket, question) => {
      asked = question;
      const text = `${JSON.stringify(status)}\n`;
      socket.write(text.slice(0, 10));
      setImmediate(() => socket.write(text.slice(10)));
    });
    expect(await queryOverlayStatus(runDir)).toEqual(status);
    expect(asked).toBe('{"query":"status"}\n');
  });

  it.each<[string, (socket: Socket) => void, string]>([
    ["silence", () => undefined, "overlay-silent"],
    ["the end of the connection", (socket) => socket.end(), "overlay-silent"],
    ["no JSON", (socket) => socket.write("hello\n"), "overlay-bad-answer"],
    ["an answer without a role", (socket) => socket.write('{"pid":1}\n'), "overlay-bad-answer"],
    ["a refusal", (socket) => socket.write('{"error":"unknown query"}\n'), "overlay-refused"],
  ])("that is met with %s is an error of its own", async (_, answer, code) => {
    await serve(answer);
    await expect(queryOverlayStatus(runDir, 200)).rejects.toMatchObject({ name: "OperatingError", code });
  });

  it("finds no overlay where none listens", async () => {
    await expect(queryOverlayStatus(runDir)).rejects.toMatchObject({ code: "no-overlay" });
    writeOverlay(57);
    await expect(queryOverlayStatus(runDir)).rejects.toMatchObject({ code: "no-overlay" });
    expect(await queryOverlays(path.join(runDir, "missing"))).toEqual([]);
  });
});

/** The mount table with a mount of connection 58. */
const at = (mountPoint: string) => parseMountinfo(`40 27 0:58 / ${mountPoint} rw - fuse.clustered /dev/sda rw`);
const records = (): string => path.join(runDir, "records");
/** As the overlay of connection 58 writes it for the whole machine. */
function writeRecord(change: object): void {
  mkdirSync(records(), { recursive: true });
  writeFileSync(path.join(records(), "0:58.json"), JSON.stringify({ source: "/dev/sda", mountPoint: "/mnt", runDir, ...change }));
}

/** A process that has ended. */
function endedPid(): number {
  return spawnSync("true").pid;
}

describe("overlay-N.json", () => {
  it("is read, or null", () => {
    expect(readOverlayFile(runDir)).toBeNull();
    writeOverlay(57);
    expect(readOverlayFile(runDir)).toMatchObject({ pid: 7, role: "owner" });
  });

  it("is refused when damaged, and makes way for a new mount", () => {
    writeFileSync(`${runDir}/overlay-57.json`, "{");
    const isNamed = { code: "overlay-bad-record", hint: expect.stringContaining("The mount itself goes on") as string };
    expect(() => readOverlayFile(runDir)).toThrow(expect.objectContaining(isNamed) as Error);
    writeFileSync(`${runDir}/overlay-57.json`, "{}");
    expect(() => readOverlayFile(runDir)).toThrow(/^[^\n]*expected number[^\n]*at pid[^\n]*$/);
    rmSync(`${runDir}/overlay-57.json`);
    mkdirSync(`${runDir}/overlay-57.json`);
    expect(() => readOverlayFile(runDir)).toThrow(expect.objectContaining(isNamed) as Error);
    rmdirSync(`${runDir}/overlay-57.json`);
    expect(spawnSync("mkfifo", [`${runDir}/overlay-57.json`]).status).toBe(0);
    expect(() => readOverlayFile(runDir)).toThrow(expect.objectContaining(isNamed) as Error);
    rmSync(`${runDir}/overlay-57.json`);
    writeFileSync(`${runDir}/overlay-57.json`, "{");
    removeGoneOverlays(runDir);
    expect(readdirSync(runDir)).toEqual([]);
  });

  it("is one for each mount: all are listed, and one is chosen by its mount point", async () => {
    await serve((socket) => socket.write(`${JSON.stringify(status)}\n`));
    writeOverlay(9, { mountpoint: "/other", volume: "second" });
    expect(listOverlays(runDir).map(({ connection, file }) => [connection, file.mountpoint])).toEqual([
      [9, "/other"],
      [57, "/mnt"],
    ]);
    expect(() => readOverlayFile(runDir)).toThrow(/this node has several mounts: \/other, \/mnt/);
    expect(readOverlayFile(runDir, "/other")).toMatchObject({ volume: "second" });
    expect(readOverlayFile(runDir, "/third")).toBeNull();
    expect(await queryOverlayStatus(runDir, 1000, "/mnt")).toEqual(status);
    await expect(queryOverlayStatus(runDir, 1000, "/third")).rejects.toMatchObject({ code: "no-overlay" });
  });

  it("of a process that is gone is not believed, and is removed when another mount begins", async () => {
    writeOverlay(57, { pid: process.pid, startTime: startTimeOf(process.pid) });
    writeOverlay(58, { pid: endedPid(), startTime: "1" });
    writeOverlay(59, { pid: process.pid, startTime: "1" });
    expect(listOverlays(runDir).map(({ alive }) => alive)).toEqual([true, false, false]);
    expect(readOverlayFile(runDir)).toMatchObject({ pid: process.pid });
    removeGoneOverlays(runDir);
    expect(readdirSync(runDir)).toEqual(["overlay-57.json"]);
  });

  it("of a process that is gone is told while its mount is there, whatever path leads to it, and not for a mount that got its number", async () => {
    const pid = endedPid();
    writeOverlay(58, { pid, startTime: "1" });
    const gone = [{ mountpoint: "/mnt", role: "gone", problem: expect.stringContaining(`process ${pid} is gone`) as string }];
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toMatchObject(gone);
    // The kernel's path has no symbolic links.
    writeRecord({ pid, startTime: "1" });
    expect(await queryOverlays(runDir, 100, at("/disks/mnt"), records())).toMatchObject(gone);
    expect(await queryOverlays(runDir, 100, [], records())).toEqual([]);
    writeRecord({ pid: process.pid, startTime: startTimeOf(process.pid), runDir: "/run/another" });
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toEqual([]);
  });

  it("of a process that is gone stays until its mount does, though another mount begins meanwhile", async () => {
    const pid = endedPid();
    writeOverlay(58, { pid, startTime: "1" });
    writeRecord({ pid, startTime: "1" });
    removeGoneOverlays(runDir, at("/mnt"), records());
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toMatchObject([{ mountpoint: "/mnt", volume: "lab", role: "gone" }]);
    removeGoneOverlays(runDir, [], records());
    expect(readdirSync(runDir)).toEqual(["records"]);
  });

  it("that is missing is no reason to be silent of a mount: its record says whose it is", async () => {
    const pid = endedPid();
    writeRecord({ pid, startTime: "1" });
    const mount = { mountpoint: "/mnt", volume: "/dev/sda", device: "/dev/sda" };
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toMatchObject([{ ...mount, pid, role: "gone" }]);
    // Its number was another's before, which left a file.
    writeOverlay(58, { pid: endedPid(), startTime: "2" });
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toMatchObject([{ ...mount, pid, role: "gone" }]);
    rmSync(path.join(runDir, "overlay-58.json"));
    writeRecord({ pid: process.pid, startTime: startTimeOf(process.pid) });
    const silent = { role: "unknown", problem: expect.stringContaining(`${runDir}/overlay-58.json is not there`) as string };
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toMatchObject([{ ...mount, pid: process.pid, ...silent }]);
    // One run directory, by another path.
    const link = path.join(runDir, "link");
    symlinkSync(runDir, link);
    writeRecord({ pid, startTime: "1", runDir: link });
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toMatchObject([{ ...mount, pid, role: "gone" }]);
    writeRecord({ pid, startTime: "1", runDir: "/run/another" });
    expect(await queryOverlays(runDir, 100, at("/mnt"), records())).toEqual([]);
  });

  it.each([
    [true, ["overlay-58.json"]],
    [false, []],
  ])("of an overlay that ends, and leaves its mount behind: %s", async (isLeft, left) => {
    const answers = { summary: () => ({ ...status, pid: process.pid }) } as unknown as StatusAnswers;
    const overlay = await serveStatus(runDir, 58, answers, silentLog);
    overlay.close(isLeft);
    expect(readdirSync(runDir)).toEqual(left);
  });

  it("stands for its overlay while that does not answer", async () => {
    await serve(() => undefined);
    const [silent, ...more] = await queryOverlays(runDir, 100);
    expect(silent).toMatchObject({ mountpoint: "/mnt", problem: expect.stringContaining("no answer within 100 ms") as string });
    expect(more).toEqual([]);
  });
});

it("why PID hears the mounts that answer, and names the one that does not", async () => {
  const own = { pid: process.pid, startTime: startTimeOf(process.pid) };
  const answer = { nodeid: 1, clientId: 3, lockspace: "vol-u", mountpoint: "/mnt", requests: [], count: 0, longest: null };
  await serve((socket) => void socket.end(`${JSON.stringify(answer)}\n`));
  writeOverlay(57, own);
  const silent = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", () => socket.end());
  });
  await new Promise<void>((resolve) => void silent.listen(`${runDir}/overlay-58.sock`, resolve));
  writeOverlay(58, { ...own, mountpoint: "/hangs" });
  try {
    const { mounts, unheard } = await requestsOf(runDir);
    expect(mounts).toEqual([answer]);
    expect(unheard).toEqual([{ mountpoint: "/hangs", why: expect.stringContaining("it closed the connection") as string }]);
  } finally {
    await new Promise((resolve) => void silent.close(resolve));
  }
});

it("of two mounts of one place, of which one was taken out of the tree, a command means the one that is seen there", () => {
  const own = { pid: process.pid, startTime: startTimeOf(process.pid), mountpoint: "/shared" };
  for (const connection of [61, 62, 63]) writeOverlay(connection, own);
  const seen = (connection: number): ReturnType<typeof parseMountinfo> =>
    parseMountinfo(`30 1 0:${connection} / /shared rw - fuse.clustered /dev/loop0 rw`);
  for (const connection of [61, 62, 63]) {
    const found = [findOverlay(runDir, "/shared", seen(connection)), findMount(runDir, "/shared", seen(connection))];
    expect(found.map((one) => one?.connection)).toEqual([connection, connection]);
    expect(findMount(runDir, "lab", seen(connection)).connection).toBe(connection);
  }
  // All were taken out.
  expect(findOverlay(runDir, "/shared", [])?.connection).toBe(61);
  expect(findOverlay(runDir, "/other", [])).toBeNull();
});
