#!/usr/bin/env node
/**
 * The lab's fence agent: a program as those of Debian's fence-agents, asked by the lock managers as any other. `off` first cuts the node's path
 * to the disk, then does what `lab kill` does. `on` gives cable and disk back, if nothing of the node is left.
 *
 * Exit status: 0 done, or on; 2 `status` of a node that is off; 1 it failed, with words on stderr.
 */
import { assertNever } from "../../dlmd/base/assert.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { FENCE_METADATA, type FenceRequest, parseFenceRequest } from "./fence-request.ts";
import { fenceOff, isOff, powerOn } from "./power.ts";
import { processRef } from "./processes.ts";
import { existingLab, labNode, labNodes, type LabState, realLabDir, withWorker } from "./state.ts";

/** FenceAgentAPI: the status "off". */
const STATUS_OFF = 2;

/** A program without input may leave it open. */
async function input(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) text += String(chunk);
  return text;
}

function say(words: string): void {
  process.stdout.write(`${words}\n`);
}

/** Changes the lab: `lab down` waits for it, or ends it. */
async function change(dir: string, act: (lab: LabState) => Promise<void>): Promise<void> {
  const self = processRef(process.pid);
  if (self === null) throw new Error(`process ${process.pid} is not in /proc`);
  await withWorker(dir, self, act);
}

async function perform({ action, plug, dir: given }: FenceRequest): Promise<number> {
  const dir = realLabDir(given);
  switch (action) {
    case "metadata":
      process.stdout.write(FENCE_METADATA);
      return 0;
    case "monitor":
      say(`lab-${existingLab(dir).id}`);
      return 0;
    case "list":
      for (const { node } of labNodes(existingLab(dir))) say(`${node},`);
      return 0;
    case "status": {
      const lab = existingLab(dir);
      const off = isOff(lab, labNode(lab, plug));
      say(`Status: ${off ? "OFF" : "ON"}`);
      return off ? STATUS_OFF : 0;
    }
    case "off":
      await change(dir, async (lab) => {
        const left = await fenceOff(lab, labNode(lab, plug));
        if (left !== null) process.stderr.write(`${plug} is fenced; but ${left}\n`);
      });
      say("Success: Powered OFF");
      return 0;
    case "on":
      await change(dir, (lab) => powerOn(lab, labNode(lab, plug)));
      say("Success: Powered ON");
      return 0;
    default:
      return assertNever(action, "action");
  }
}

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const parsed = parseFenceRequest(words, words.length > 0 ? "" : await input());
  if (parsed.kind === "wrong") {
    process.stderr.write(`fence_lab: ${parsed.why}\n`);
    return 1;
  }
  for (const key of parsed.ignored) process.stderr.write(`fence_lab: the option ${key} is not known, and ignored\n`);
  return perform(parsed.request);
}

try {
  process.exitCode = await main();
} catch (error) {
  const hint = error instanceof OperatingError ? ` ${error.hint}` : "";
  process.stderr.write(`fence_lab: ${error instanceof Error ? error.message : String(error)}${hint}\n`);
  process.exitCode = 1;
}
