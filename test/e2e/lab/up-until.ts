/** A `lab up` that is ended in the middle. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { watch } from "node:fs";
import { readLab } from "../../../overlay/lab/state.ts";
import { coverlay, coverlayProgram, leftovers, watchedDirectory } from "../lab.ts";

/** What `lab up` of two nodes records in lab.json, in this order. */
const UP_STEPS = [
  "begin",
  "files",
  "disk",
  "network",
  "device of node1",
  "clustered bit",
  "device of node2",
  "dlmd",
  "view",
  "mount node1",
  "mount node2",
  "up",
] as const;

export type UpStep = (typeof UP_STEPS)[number];

export interface Killed {
  readonly id: string;
  /** The step at which it really was when it died. */
  readonly step: string;
}

/** Starts `lab up` and sends it `signal` as soon as lab.json says that it has begun `step`, or a later one: a short one may be over by then. */
export async function upUntil(dir: string, step: UpStep, signal: NodeJS.Signals, words: readonly string[] = []): Promise<Killed> {
  const args = [coverlayProgram, "lab", "up", "--detach", "--dir", dir, "--nodes", "2", "--size", "64M", ...words];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  let reached = false;
  const look = (): void => {
    const now = readLab(dir)?.step;
    if (reached || UP_STEPS.findIndex((one) => one === now) < UP_STEPS.indexOf(step)) return;
    reached = true;
    child.kill(signal);
  };
  const watcher = watch(dir, look);
  try {
    look();
    await once(child, "exit");
  } finally {
    watcher.close();
    child.kill("SIGKILL");
  }
  if (!reached) throw new Error(`lab up ended before its step ${step}:\n${stderr}`);
  const lab = readLab(dir);
  return { id: lab?.id ?? "", step: lab?.step ?? "gone" };
}

/** `lab up` is killed at that step. Gives what is wrong then: `lab down` must end well, leave nothing, and find no lab the second time. */
export async function killedAt(step: UpStep): Promise<string[]> {
  const { dir, end } = watchedDirectory();
  try {
    const { id } = await upUntil(dir, step, "SIGKILL");
    const down = await coverlay(["lab", "down", "--dir", dir, "--json"]);
    const left = leftovers(dir, id);
    const again = await coverlay(["lab", "down", "--dir", dir]);
    const problems = [
      [/^[0-9a-f]{6}$/.test(id), `id ${id}`],
      [down.status === 0 && down.stderr === "", `lab down: ${down.status} ${down.stderr}`],
      [again.status === 0 && again.stdout === `there is no lab in ${dir}\n`, `lab down again: ${again.status} ${again.stdout}`],
    ] as const;
    return [...problems.filter(([well]) => !well).map(([, words]) => words), ...left];
  } finally {
    await end();
  }
}
