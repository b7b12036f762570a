/**
 * A node's cable at the hub: straight into the bridge, or a long one: then a process (cable-process.ts) carries each frame between the node's
 * port and a TAP device in the bridge, and takes its time. That needs nothing of the kernel but TAP devices and packet sockets (netem, which
 * does the same, is missing in many kernels), and the node's own interface, with its addresses and groups, stays as it is.
 */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { OperatingError } from "../../dlmd/base/error.ts";
import { must } from "./command.ts";
import { hubName, netnsArguments } from "./layout.ts";
import { findProcesses, markedEnvironment, signalProcess, waitGone } from "./processes.ts";
import type { LabNode, LabState } from "./state.ts";

export const BRIDGE = "br0";

const PROGRAM: string = fileURLToPath(new URL("./cable-process.js", import.meta.url));
/** After SIGKILL, on a busy machine. */
const END_TIMEOUT_MS = 10_000;

/** Makes the cable as long as lab.json says. */
export async function setCableDelay(lab: LabState, node: LabNode): Promise<void> {
  const name = `cable-${node.node}`;
  const { delayMs } = node.network;
  const hub = hubName(lab.id);
  const wanted = `${name}=${delayMs}`;
  const running = findProcesses({ netns: new Set(), marks: [`${lab.id}:${name}=`] });
  // Each look goes through all processes of the machine: nearly always there are none.
  const same = running.length === 0 ? [] : findProcesses({ netns: new Set(), marks: [`${lab.id}:${wanted}\0`] });
  const others = running.filter(({ pid }) => !same.some((process) => process.pid === pid));
  for (const ref of others) signalProcess(ref, "SIGKILL");
  const left = await waitGone(others, END_TIMEOUT_MS);
  if (left.length > 0)
    throw new OperatingError(`the long cable of ${node.node} (process ${left[0]?.pid}) does not end after SIGKILL`, {
      code: "unkillable",
      hint: `It waits in the kernel: /proc/${left[0]?.pid}/stack says where.`,
    });
  if (delayMs === 0) {
    await must("ip", ["-n", hub, "link", "set", node.port, "master", BRIDGE]);
    return;
  }
  const tap = `long${node.nodeid}`;
  if (same.length === 0) await startCable(lab, node, tap, wanted);
  await must("ip", ["-n", hub, "link", "set", node.port, "nomaster"]);
  await must("ip", ["-n", hub, "link", "set", tap, "master", BRIDGE, "up"]);
}

/** Resolves once the process has both ends. */
function startCable(lab: LabState, node: LabNode, tap: string, mark: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const command = [process.execPath, PROGRAM, node.port, tap, String(node.network.delayMs)];
    const child = spawn("nsenter", netnsArguments(hubName(lab.id), command), {
      cwd: "/",
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: markedEnvironment(lab.id, mark),
    });
    let said = "";
    const fail = (why: string): void =>
      reject(
        new OperatingError(`the packets of ${node.node} cannot be delayed: ${why}`, {
          code: "no-long-cable",
          hint: "Delay needs TAP devices (/dev/net/tun; modprobe tun) and packet sockets (modprobe af_packet). --loss works without.",
        }),
      );
    child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString("utf8")));
    child.on("error", (error) => fail(error.message));
    child.once("close", () => fail(said.trim() === "" ? "its process ended" : said.trim()));
    child.stdout.once("data", () => {
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      resolve();
    });
  });
}
