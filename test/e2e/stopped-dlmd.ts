/** A dlmd that stands still, as one whose machine does: one at a time. */
import { readFileSync } from "node:fs";
import path from "node:path";
import type { TestLab } from "./lab.ts";

let stopped: number | null = null;

export function stopDlmd(lab: TestLab, nodeid: number): void {
  stopped = Number(readFileSync(path.join(lab.node(nodeid).runDir, "dlmd.pid"), "utf8"));
  process.kill(stopped, "SIGSTOP");
}

/** Nothing, if none stands still. */
export function goOn(): void {
  if (stopped !== null) process.kill(stopped, "SIGCONT");
  stopped = null;
}
