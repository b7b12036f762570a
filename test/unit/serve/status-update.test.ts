/** The file that tells of a mount: one that cannot be written ends nothing. */
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { serveStatus, type StatusAnswers } from "../../../overlay/serve/status-server.ts";

it("what cannot be written is logged, and written when there is room again", async () => {
  const runDir = mkdtempSync(path.join(os.tmpdir(), "coverlay-status-"));
  const warnings: string[] = [];
  let role = "waiting";
  const answers = { summary: () => ({ role }) } as unknown as StatusAnswers;
  const log = { ...silentLog, warn: (_: object, words: string) => void warnings.push(words) };
  const server = await serveStatus(runDir, 41, answers, log);
  const shown = (): unknown => (JSON.parse(readFileSync(path.join(runDir, "overlay-41.json"), "utf8")) as { role: string }).role;
  try {
    // As a file system that is full: the next file cannot be made.
    mkdirSync(path.join(runDir, "overlay-41.json.new"));
    role = "owner";
    for (const _ of [1, 2]) server.update();
    expect([shown(), warnings]).toEqual(["waiting", ["the status of this mount could not be written"]]);
    rmdirSync(path.join(runDir, "overlay-41.json.new"));
    server.update();
    expect(shown()).toBe("owner");
  } finally {
    server.close(false);
    rmSync(runDir, { recursive: true, force: true });
  }
});
