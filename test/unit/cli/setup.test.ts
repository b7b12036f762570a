/** `coverlay setup` and `doctor` before they look at anything: what they refuse, and that --yes asks nothing. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { type Server, createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { runCli } from "../../../overlay/cli/root.ts";

let dir: string;
let stderr = "";
let server: Server | null = null;

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-setup-"));
  stderr = "";
  vi.stubEnv("COVERLAY_RUN_DIR", dir);
  vi.spyOn(process, "geteuid").mockReturnValue(0);
  vi.spyOn(process.stdout, "write").mockImplementation(() => true);
  vi.spyOn(process.stderr, "write").mockImplementation((text) => ((stderr += String(text)), true));
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  process.exitCode = undefined;
  await new Promise<void>((resolve) => (server === null ? resolve() : server.close(() => resolve())));
  server = null;
  rmSync(dir, { recursive: true });
});

async function refusal(...words: string[]): Promise<string> {
  await runCli(words);
  expect(process.exitCode).not.toBe(0);
  return stderr;
}

it.each([
  ["setup", "--cluster", "a", "--cluster", "b"],
  ["setup", "--mount-point", "/a", "--mount-point", "/b"],
  ["setup", "--peer-port", "1", "--peer-port", "2"],
  ["setup", "join", "--mount-point", "/a", "--mount-point", "/b"],
  ["doctor", "--config", "/a", "--config", "/b"],
  ["doctor", "--limit", "1", "--limit", "2"],
])("an option that is given twice is refused: %s %s %s %s %s", async (...words) => {
  expect(await refusal(...words)).toMatch(/^coverlay: --[a-z-]+ is given more than once\n/);
});

it.each(["0", "-1", "3601", "3000000", "Infinity", "soon"])("--limit %s of doctor is refused; 3600 is not", async (word) => {
  const words = ["doctor", "--config", path.join(dir, "none"), "--root", dir, "--limit"];
  expect(await refusal(...words, word)).toMatch(/^coverlay: --limit .*: seconds above 0, up to 3600, expected/);
  stderr = "";
  expect(await refusal(...words, "3600")).toBe("");
});

it("with --yes nothing is asked at a terminal, and what is missing is named", async () => {
  const { isTTY } = process.stdin;
  process.stdin.isTTY = true;
  try {
    const said = await refusal("setup", "--yes", "--config", path.join(dir, "new/cluster.yaml"));
    expect(said).toContain("--cluster is needed, because --yes asks nothing");
  } finally {
    process.stdin.isTTY = isTTY;
  }
  expect(readdirSync(dir)).toEqual([]);
});

it("a dlmd that does not answer as it should runs: nothing is written", async () => {
  const listening = createServer((socket) => socket.on("error", () => undefined).destroy());
  server = listening;
  await new Promise<void>((resolve) => listening.listen(path.join(dir, "dlmd.sock"), resolve));
  const config = path.join(dir, "new/cluster.yaml");
  const said = await refusal("setup", "--yes", "--config", config, "--cluster", "demo", "--node", "node1=10.99.7.77");
  expect(said).not.toContain("10.99.7.77");
  expect(said).toMatch(/^coverlay: .*dlmd/);
  expect(readdirSync(dir)).toEqual(["dlmd.sock"]);
});
