/** The command `coverlay status` without a cluster: exit statuses, --check, --watch, limits, and names that would command the terminal. */
import { EventEmitter } from "node:events";
import { outliveReaders, readerGone } from "../../../overlay/cli/output.ts";
import { createServer, type Server } from "node:net";
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { runCli } from "../../../overlay/cli/root.ts";
import { watchSecondsOf } from "../../../overlay/cli/status.ts";
import { drawn, watchNode, type WatchOptions } from "../../../overlay/cli/watch.ts";
import { lookAtNode } from "../../../overlay/query/node-facts.ts";

let dir = "";
let [stdout, stderr] = ["", ""];
const servers: Server[] = [];
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "coverlay-status-"));
  [stdout, stderr] = ["", ""];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => ((stdout += String(text)), true));
  vi.spyOn(process.stderr, "write").mockImplementation((text) => ((stderr += String(text)), true));
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  process.exitCode = undefined;
  for (const server of servers.splice(0)) server.close();
  rmSync(dir, { recursive: true, force: true });
});

/** One that leads here, and that other users may not enter, as /root is; null if there is none. */
function closedFolder(): string | null {
  for (let folder = import.meta.dirname; ; folder = path.dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) return folder;
    if (folder === path.dirname(folder)) return null;
  }
}

async function status(...words: string[]): Promise<number> {
  await runCli(["status", "--run-dir", dir, ...words]);
  const found = Number(process.exitCode ?? 0);
  process.exitCode = undefined;
  return found;
}

/** A mount whose process is there, and whose socket takes questions and does not answer. */
async function silentMount(mountpoint: string): Promise<{ readonly asked: () => number }> {
  let asked = 0;
  const server = createServer((socket) => {
    socket.on("error", () => undefined).on("data", () => (asked += 1));
  });
  servers.push(server);
  await new Promise<void>((listening) => server.listen(path.join(dir, "overlay-7.sock"), listening));
  const file = { pid: process.pid, role: "remote", mountpoint, volume: "data", device: "/dev/sdb1" };
  writeFileSync(path.join(dir, "overlay-7.json"), JSON.stringify(file));
  return { asked: () => asked };
}

it("no dlmd and no mount: 1 and an error as ever; 3 with --check, and one line", async () => {
  expect(await status()).toBe(1);
  expect([stdout, stderr]).toEqual(["", expect.stringMatching(/^coverlay: dlmd expected at .*\n {2}Start dlmd/)]);
  stderr = "";
  expect(await status("--check")).toBe(3);
  expect([stdout, stderr]).toEqual([expect.stringMatching(/^unknown: dlmd-silent: dlmd expected at .*, found: no socket there\n$/), ""]);
  stdout = "";
  expect(await status("--check", "--json")).toBe(3);
  const said = JSON.parse(stdout) as unknown;
  expect(said).toMatchObject({
    level: "unknown",
    cluster: null,
    view: null,
    dlmd: null,
    overlay: null,
    overlays: [],
    error: { code: "dlmd-not-running" },
  });
  stdout = "";
  expect(await status("--json")).toBe(1);
  expect([JSON.parse(stdout), JSON.parse(stderr)]).toMatchObject([{ level: "unknown" }, { code: "dlmd-not-running" }]);
});

it("a file of a mount that cannot be read is an answer to --check, too", async () => {
  writeFileSync(path.join(dir, "overlay-7.json"), "{");
  expect(await status("--check")).toBe(3);
  expect(stdout).toMatch(/^unknown: overlay-bad-record: the record of a mount is damaged: /);
});

it.runIf(process.getuid?.() === 0)("another user is told to be root: 3 with --check, and no defect", async ({ skip }) => {
  // yargs reads its words as that user.
  const closed = closedFolder();
  skip(closed !== null, `other users may not enter ${closed}`);
  expect(await status("--check")).toBe(3); // What is loaded late, is loaded.
  const statuses: number[] = [];
  stdout = "";
  process.seteuid?.(65_534);
  try {
    statuses.push(await status("--check"), await status("--check", "--json"), await status());
  } finally {
    process.seteuid?.(0);
  }
  expect(statuses).toEqual([3, 3, 1]);
  const [line, json = ""] = stdout.split("\n");
  expect(line).toBe(`unknown: permission: ${dir} may not be read by user id 65534`);
  expect(JSON.parse(json)).toMatchObject({ level: "unknown", error: { code: "permission", hint: expect.stringMatching(/^Use sudo/) } });
  expect(stderr).toBe(`coverlay: ${dir} may not be read by user id 65534\n  Use sudo, or be the user that runs dlmd and the mounts.\n`);
});

it("--check says unknown of a defect, too, in one line: 1 would be degraded", async () => {
  rmSync(dir, { recursive: true });
  symlinkSync(dir, dir);
  expect(await status("--check")).toBe(3);
  expect(stdout).toMatch(/^unknown: internal: ELOOP.*\n$/);
  stdout = "";
  expect(await status("--check", "--json")).toBe(3);
  expect(JSON.parse(stdout)).toMatchObject({ level: "unknown", error: { code: "internal", stack: expect.any(String) } });
  expect(await status()).toBe(1);
  expect(stderr).toMatch(/^coverlay: internal error: /);
});

it("without dlmd the mounts are shown, and what others chose as a name is escaped", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const mount = await silentMount("/mnt/\u001b[2Jx\u0007\n y");
  const shown = status();
  while (mount.asked() < 2) await new Promise((resolve) => setImmediate(resolve));
  await vi.advanceTimersByTimeAsync(4000);
  expect(await shown).toBe(1);
  expect(stdout).toContain("status   unknown\n");
  expect(stdout).toContain("/mnt/\\x1b[2Jx\\x07\\x0a y");
  // oxlint-disable-next-line no-control-regex
  expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  expect(stderr).toContain("Start dlmd");
});

it("NODE_LIMIT_MS: a mount has 4 s to answer", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const mount = await silentMount("/shared");
  let done = false;
  const look = lookAtNode(dir).finally(() => (done = true));
  while (mount.asked() < 2) await new Promise((resolve) => setImmediate(resolve));
  await vi.advanceTimersByTimeAsync(3999);
  expect(done).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect((await look).facts.mounts).toMatchObject([{ problem: expect.stringContaining("4000 ms") }]);
});

it.each([
  [[], 4000],
  [["--limit", "20"], 20_000],
  [["--limit", "0.5"], 500],
])("a mount has --limit to answer, 4 s if none is said: %j", async (words, limitMs) => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const mount = await silentMount("/shared");
  let done = false;
  const shown = status(...words).finally(() => (done = true));
  while (mount.asked() < 2) await new Promise((resolve) => setImmediate(resolve));
  await vi.advanceTimersByTimeAsync(limitMs - 1);
  expect(done).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(await shown).toBe(1);
  expect(stdout).toContain(`no answer within ${limitMs} ms`);
});

it("a dlmd that takes the connection has --limit, too, and the words say how long it was waited for", async () => {
  const server = createServer((socket) => void socket.on("error", () => undefined).resume());
  servers.push(server);
  await new Promise<void>((listening) => server.listen(path.join(dir, "dlmd.sock"), listening));
  expect(await status("--limit", "0.3", "--check")).toBe(3);
  expect(stdout).toMatch(/^unknown: dlmd-silent: .*within 300 ms/);
});

it.each(["0", "-1", "3601", "Infinity", "soon"])("--limit %s is refused; 3600 is not", async (word) => {
  expect(await status("--limit", word)).toBe(1);
  expect(stderr).toMatch(/^coverlay: --limit .*: seconds above 0, up to 3600, expected/);
  stderr = "";
  await status("--limit", "3600");
  expect(stderr).toMatch(/^coverlay: dlmd expected at/);
});

it.each([
  [undefined, null],
  ["", 2],
  ["0.2", 0.2],
  ["3600", 3600],
])("--watch %j is each %j s", (word, seconds) => expect(watchSecondsOf(word)).toBe(seconds));

it.each(["0.19", "3601", "soon", "-1", "Infinity"])("--watch %s is refused", async (word) => {
  expect(await status("--watch", word)).toBe(1);
  expect(stderr).toMatch(/^coverlay: --watch .*: seconds from 0\.2 to 3600 expected/);
});

function watching(as: WatchOptions["as"], statuses: readonly number[]): { readonly ended: Promise<number>; readonly turns: () => number } {
  let turns = 0;
  const turn = async (): Promise<{ text: string; status: number }> => {
    const taken = statuses[turns] ?? -1;
    turns += 1;
    // The signal comes while the last turn is shown.
    if (turns === statuses.length) setImmediate(() => process.emit("SIGTERM"));
    return { text: `turn ${turns}\u001b[0m`, status: taken };
  };
  return { ended: watchNode({ turn, seconds: 0.001, as }), turns: () => turns };
}

it("--watch takes turns until a signal, and ends with the status of the last one", async () => {
  const before = process.listenerCount("SIGTERM");
  const { ended, turns } = watching("blocks", [0, 3, 1]);
  expect(await ended).toBe(1);
  expect(turns()).toBe(3);
  expect(stdout.match(/^\d{4}-.*Z\nturn \d\\x1b\[0m\n\n/gm)).toHaveLength(3);
  expect(process.listenerCount("SIGTERM")).toBe(before);
});

it("--watch ends when its reader goes away", async () => {
  const output = new EventEmitter();
  outliveReaders([output]);
  let turns = 0;
  const turn = async (): Promise<{ text: string; status: number }> => {
    turns += 1;
    if (turns === 2) setImmediate(() => output.emit("error", Object.assign(new Error("write EPIPE"), { code: "EPIPE" })));
    return { text: "", status: 3 };
  };
  expect(await watchNode({ turn, seconds: 0.001, as: "lines" })).toBe(3);
  expect(turns).toBeGreaterThanOrEqual(2);
  expect(readerGone.size).toBe(0);
});

it("--watch --json gives a line for each turn", async () => {
  await watching("lines", [0, 0]).ended;
  expect(stdout).toBe("turn 1\\x1b[0m\nturn 2\\x1b[0m\n");
});

it("on a terminal a turn takes the place of the last, and is cut to the screen", () => {
  expect(drawn("a\u001b[31m\nb", 24, 80)).toBe("\u001b[Ha\\x1b[31m\u001b[K\nb\u001b[K\n\u001b[J");
  expect(drawn("abcdef", 24, 4)).toBe("\u001b[Habc…\u001b[K\n\u001b[J");
  const five = drawn("1\n2\n3\n4\n5", 5, 80);
  expect(five).toBe("\u001b[H1\u001b[K\n2\u001b[K\n3\u001b[K\n(and 2 more lines)\u001b[K\n\u001b[J");
  expect(drawn("1\n2\n3\n4", 5, 80)).not.toContain("more lines");
});
