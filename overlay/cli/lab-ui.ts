/** The live page about a whole lab: `coverlay lab ui`, and beside a `lab up` in the foreground. */
import type { CommandModule } from "yargs";
import { assert } from "../../dlmd/base/assert.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { checkRoot } from "../lab/prerequisites.ts";
import { processRef } from "../lab/processes.ts";
import { type LabState, labNodes, realLabDir, withWorker } from "../lab/state.ts";
import { startUi, type Ui } from "../ui/server.ts";
import { runCommand } from "./output.ts";
import { checkPort, nodeSource, portOption, serveUntilSignal, UI_PORT, uiNotes, warnings } from "./ui.ts";

interface LabUiArguments {
  readonly dir: string;
  readonly json: boolean;
  readonly port: number;
}

/** Throws as startUi. */
export function startLabUi(lab: LabState, port: number): Promise<Ui> {
  const sources = labNodes(lab).map(({ node, runDir }) => nodeSource(node, runDir));
  return startUi({ sources, title: `lab-${lab.id}`, port, log: warnings });
}

/** Beside a lab in the foreground: a port that is in use is no reason to have no page. */
export async function startLabUiSomewhere(lab: LabState): Promise<Ui> {
  try {
    return await startLabUi(lab, UI_PORT);
  } catch (error) {
    if (!(error instanceof OperatingError)) throw error;
    return startLabUi(lab, 0);
  }
}

export const labUiCommand: CommandModule<{ dir: string; json: boolean }, LabUiArguments> = {
  command: "ui",
  describe: "a live page for a browser: all nodes, who waits for what, operations, history",
  builder: (yargs) =>
    yargs
      .option("port", portOption)
      .example("$0 lab ui", "prints the address, until Ctrl-C, or until the lab is taken down")
      .epilogue(uiNotes),
  handler: ({ dir, json, port }) =>
    runCommand(json, async () => {
      checkPort(port);
      checkRoot();
      const self = processRef(process.pid);
      assert(self !== null, "this process is alive");
      // As a worker of the lab it is ended by `lab down`.
      return withWorker(realLabDir(dir), self, async (lab) => serveUntilSignal(await startLabUi(lab, port), json));
    }),
};
