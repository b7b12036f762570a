/** Runs a user's command on a node as if coverlay were not in between: its input, output, exit status and signals. */
import { spawn } from "node:child_process";
import os from "node:os";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nodeEnvironment } from "./boot.ts";
import { netnsArguments } from "./layout.ts";
import type { LabNode, LabState } from "./state.ts";

/** What a shell makes of an end by signal. */
const SIGNAL_STATUS_BASE = 128;

const passedOn: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];
/** The terminal sends these to the whole foreground group, the command included. */
const sentByTerminal: ReadonlySet<NodeJS.Signals> = new Set(["SIGINT", "SIGQUIT", "SIGHUP"]);

/** Gives the exit status; where a signal ended the command, this process ends by the same one. `start`: another one in tests. */
export function execInNode(
  lab: LabState,
  node: LabNode,
  command: string,
  args: readonly string[],
  start: typeof spawn = spawn,
): Promise<number> {
  if (node.power !== "on") {
    throw new OperatingError(`${node.node} is ${node.power}`, {
      code: "node-off",
      hint: `Boot it with \`coverlay lab start ${node.node}\`.`,
    });
  }
  const env = { ...nodeEnvironment(lab, node), PWD: node.mount };
  const terminal = process.stdin.isTTY;
  const forward = (name: NodeJS.Signals): void => {
    if (!(terminal && sentByTerminal.has(name))) child.kill(name);
  };
  // Before it starts: its first words may be answered with a signal. One that comes meanwhile is delivered in a later turn.
  for (const name of passedOn) process.on(name, forward);
  // The child enters the mount point, not this process: the mount may hang.
  const child = start("nsenter", netnsArguments(node.netns, [command, ...args], node.mount), { stdio: "inherit", env });
  const release = (): void => {
    for (const name of passedOn) process.removeListener(name, forward);
  };
  return new Promise((resolve, reject) => {
    child.on("error", (cause) => {
      release();
      reject(
        new OperatingError(`nsenter cannot be started: ${cause.message}`, { code: "no-tool", hint: "apt-get install util-linux", cause }),
      );
    });
    child.on("exit", (status, endedBy) => {
      release();
      if (endedBy !== null) process.kill(process.pid, endedBy);
      // A signal that does not end us (SIGKILL of the child by others does; a blocked one may not) still shows.
      resolve(status ?? SIGNAL_STATUS_BASE + os.constants.signals[endedBy ?? "SIGKILL"]);
    });
  });
}
