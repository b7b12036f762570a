/** `coverlay mount` on a node of a lab, with options of mount(8). */
import { expect } from "vitest";
import { type RunResult, run } from "../../overlay/lab/command.ts";
import { netnsArguments } from "../../overlay/lab/layout.ts";
import { until } from "./actor.ts";
import { coverlay, coverlayProgram, type NodePlace } from "./lab.ts";

/** Any exit status. */
export function mountOn({ mount, runDir, netns }: NodePlace, device: string, ...options: readonly string[]): Promise<RunResult> {
  const words = [process.execPath, coverlayProgram, "mount", device, mount, "-o", [`runDir=${runDir}`, ...options].join(",")];
  return run("nsenter", netnsArguments(netns, words));
}

/** Unmounts it before. Gives what it says. */
export async function mountAgain(node: NodePlace, device: string, ...options: readonly string[]): Promise<string> {
  // Programs that were killed have it as their working directory for a moment still.
  await until(`${node.mount} is unmounted`, async () => (await coverlay(["umount", node.mount])).status === 0);
  const { status, stdout, stderr } = await mountOn(node, device, ...options);
  expect([status, stderr]).toEqual([0, ""]);
  return stdout;
}
