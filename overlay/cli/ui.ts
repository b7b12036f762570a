/** `coverlay ui`: a live page about this node and the cluster as it sees it, for a browser on this machine. */
import type { CommandModule } from "yargs";
import type { Log } from "../../dlmd/base/log.ts";
import { lookAtNode } from "../query/node-facts.ts";
import { listOverlays } from "../query/overlay-query.ts";
import { startUi, type Ui, type UiOptions } from "../ui/server.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { EXIT, print, printJson, printProgress, runCommand, usageError } from "./output.ts";

export const UI_PORT = 7780;
const PORT_MAX = 65_535;

interface UiArguments extends NodeOptions {
  readonly port: number;
}

export const portOption: {
  readonly type: "number";
  readonly default: number;
  readonly requiresArg: true;
  readonly describe: string;
} = {
  type: "number",
  default: UI_PORT,
  requiresArg: true,
  describe: "of 127.0.0.1; 0: a free one",
};

/** Throws OperatingError "usage". */
export function checkPort(port: number): void {
  if (Number.isInteger(port) && port >= 0 && port <= PORT_MAX) return;
  throw usageError(`--port ${port}: a port from 0 to ${PORT_MAX} expected`, "Say for example --port 8080, or --port 0 for a free one.");
}

/** Of what goes wrong beside the answers. */
export const warnings: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: (fields, message) => printProgress(`coverlay: ${message}: ${JSON.stringify(fields)}`),
  error: (fields, message) => printProgress(`coverlay: ${message}: ${JSON.stringify(fields)}`),
};

/** A source that asks the dlmd and the mounts of that run directory. */
export function nodeSource(name: string, runDir: string): UiOptions["sources"][number] {
  return { name, look: async () => (await lookAtNode(runDir)).facts };
}

/** Until a signal, or until `over`. Ctrl-C ends it in good order, with 0. */
export async function serveUntilSignal(ui: Ui, json: boolean, over?: Promise<unknown>): Promise<number> {
  const signals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  let ended: () => void = () => undefined;
  const signalled = new Promise<void>((resolve) => (ended = resolve));
  for (const signal of signals) process.on(signal, ended);
  try {
    if (json) printJson({ url: ui.url });
    else print(`${ui.url}\nOpen it in a browser on this machine: the token in it is the key. Ctrl-C ends the page.`);
    await Promise.race([signalled, ui.failed, ...(over === undefined ? [] : [over])]);
    return EXIT.OK;
  } finally {
    for (const signal of signals) process.off(signal, ended);
    await ui.close();
  }
}

export const uiNotes = `The page shows names of files and of programs. Any user of this machine can connect to a port of 127.0.0.1, so the address
has a random token, which is new at each start. The browser gets it as a cookie; without it nothing is shown.
It is read only, needs no internet, and asks dlmd only while someone looks. From another machine: ssh -L 7780:127.0.0.1:7780 NODE.`;

const details = `${uiNotes}
If dlmd does not run the page says so, and goes on when it is back.
Exit status: 0 it was ended by SIGINT, SIGTERM or SIGHUP; 1 the port is in use, or the run directory cannot be read.`;

export const uiCommand: CommandModule<object, UiArguments> = {
  command: "ui",
  describe: "a live page for a browser: nodes, volumes, who waits for what, operations, history",
  builder: (yargs) =>
    nodeOptions(yargs)
      .option("port", portOption)
      .example("$0 ui", "prints the address, until Ctrl-C")
      .example("$0 ui --port 0 --json", 'for programs: a free port, and {"url": ...}')
      .epilogue(details),
  handler: ({ runDir, json, port }) =>
    runCommand(json, async () => {
      checkPort(port);
      // One that may not look is told at once, not on the page.
      listOverlays(runDir);
      const ui = await startUi({ sources: [nodeSource("this node", runDir)], title: "", port, log: warnings });
      return serveUntilSignal(ui, json);
    }),
};
