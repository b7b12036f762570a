/** `coverlay lab up`: brings a lab up and, without --detach, stays with it until it is interrupted. */
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { givenImage } from "../lab/disk.ts";
import { takeDown } from "../lab/down.ts";
import { type LowerKind, parseSize } from "../lab/layout.ts";
import { selfCommand, showLive, whatToTry } from "../lab/live.ts";
import { nodeLine } from "../lab/observe.ts";
import { type LabState, defaultLabDir, labNodes, realLabDir } from "../lab/state.ts";
import { bringUp, detach, takeBack } from "../lab/up.ts";
import { UNFOLLOWED } from "../lab/work.ts";
import type { Ui } from "../ui/server.ts";
import { startLabUiSomewhere } from "./lab-ui.ts";
import { openProgress } from "./long-work.ts";
import { EXIT, print, printJson, runCommand, usageError } from "./output.ts";

interface UpArguments {
  readonly dir: string;
  readonly json: boolean;
  readonly nodes: number;
  readonly lower: LowerKind;
  readonly size: string;
  readonly image: string | undefined;
  readonly engine: "builtin" | "corosync";
  readonly fencing: boolean;
  readonly "two-node": boolean;
  readonly detach: boolean;
  readonly ui: boolean;
}

const endings: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];

export const labUpCommand: CommandModule<{ dir: string; json: boolean }, UpArguments> = {
  command: "up",
  describe: "make the disk, the key and the configuration, start every node, mount everywhere",
  builder: (yargs) =>
    yargs
      .option("nodes", { type: "number", default: 3, requiresArg: true, describe: "number of nodes" })
      .option("lower", {
        choices: ["ext4", "xfs", "directory"] as const,
        default: "ext4" as const,
        describe: "file system below; directory: no disk, one directory (a tmpfs)",
      })
      .option("size", { type: "string", default: "2G", requiresArg: true, describe: "size of the image" })
      .option("image", { type: "string", requiresArg: true, describe: "use this file for the disk; it is overwritten, and stays" })
      .option("engine", { choices: ["builtin", "corosync"] as const, default: "builtin" as const, describe: "how dlmds agree on views" })
      .option("fencing", { type: "boolean", default: true, describe: "each node has a fence device; --no-fencing: none has one" })
      .option("two-node", { type: "boolean", default: false, describe: "one of two nodes is a quorum; the fence decides between them" })
      .option("detach", { type: "boolean", default: false, describe: "return once every mount answers; end it with lab down" })
      .option("ui", { type: "boolean", default: true, describe: "in the foreground serve a live page for a browser; --no-ui: none" })
      .example("$0 lab up", "three nodes, until Ctrl-C")
      .example("$0 lab up --nodes 5 --size 512M --dir /tmp/five", "five nodes in a directory of their own")
      .example("$0 lab up --detach --json", "for programs: an object per node, then the line ready"),
  handler: (args) => runCommand(args.json, () => labUp(args)),
};

/** Ctrl-C, and what else asks a program to end: the first one takes the lab down, later ones change nothing. */
function interruption(note: (words: string) => void): { readonly signal: AbortSignal; readonly release: () => void } {
  const controller = new AbortController();
  let hungUp = false;
  const end = (name: NodeJS.Signals): void => {
    hungUp ||= name === "SIGHUP";
    if (controller.signal.aborted) note("still taking the lab down; it leaves nothing if you let it");
    else controller.abort();
  };
  // A reader of our output that goes away, and a terminal that is closed, end the lab too: nothing of main.ts may end this process before it is down.
  const lostOutput = (): void => controller.abort();
  for (const name of endings) process.on(name, end);
  for (const stream of [process.stdout, process.stderr]) stream.removeAllListeners("error").on("error", lostOutput);
  const release = (): void => {
    for (const name of endings) process.removeListener(name, end);
    // Its terminal is gone, which Node.js would abort for at its end.
    if (hungUp) process.kill(process.pid, "SIGHUP");
  };
  return { signal: controller.signal, release };
}

async function labUp(args: UpArguments): Promise<number> {
  const sizeBytes = parseSize(args.size);
  if (sizeBytes === null) throw usageError(`--size ${args.size} is no size`, "Write it as 512M or 2G.");
  if (args.image !== undefined && args.lower === "directory") {
    throw usageError("--image is for a lab with a disk, found --lower directory", "Use --lower ext4 or xfs.");
  }
  const given = args.image === undefined ? null : givenImage(args.image);
  const dir = realLabDir(args.dir);
  const { say, note, end } = openProgress(args.json);
  const { nodes, lower, engine } = args;
  const { signal, release } = interruption(note);
  try {
    const lab = await bringUp(
      {
        dir,
        nodes,
        lower,
        engine,
        fencing: args.fencing,
        twoNode: args["two-node"],
        sizeBytes: given?.bytes ?? sizeBytes,
        image: given?.image ?? null,
      },
      { say, note, signal },
    );
    end();
    try {
      announce(lab, args.json);
      if (args.detach && !signal.aborted) {
        await detach(dir);
        return EXIT.OK;
      }
      await stay(lab, args, note, signal);
    } catch (error) {
      note("taking the lab down");
      await takeBack(dir, { ...UNFOLLOWED, say, note }, error);
      throw error;
    }
    // A terminal has shown the Ctrl-C.
    if (process.stderr.isTTY && !args.json) process.stderr.write("\n");
    note("taking the lab down");
    await takeDown(dir, { ...UNFOLLOWED, say, note });
    return EXIT.OK;
  } finally {
    end();
    release();
  }
}

/** Shows the lab until `signal` fires, or another command takes the lab down. */
async function stay(lab: LabState, args: UpArguments, note: (words: string) => void, signal: AbortSignal): Promise<void> {
  if (!args.json && !args.detach) print(`\n${whatToTry(lab, selfCommand(), args.dir === defaultLabDir())}\n`);
  const ui = args.json || args.detach || !args.ui ? null : await pageOf(lab, note);
  const { isTTY, columns } = process.stdout;
  const write = args.json ? () => undefined : (text: string) => void process.stdout.write(text);
  try {
    await showLive(lab.dir, { isTTY: isTTY || args.json, columns: columns ?? 200, write }, signal);
  } finally {
    // A page that is served keeps the process.
    await ui?.close();
  }
}

/** Without it the lab is as good. */
async function pageOf(lab: LabState, note: (words: string) => void): Promise<Ui | null> {
  try {
    const ui = await startLabUiSomewhere(lab);
    ui.failed.catch((error: unknown) => note(`the page fails: ${(error as Error).message}`));
    print(`A page about it, for a browser on this machine: ${ui.url}\n`);
    return ui;
  } catch (error) {
    if (!(error instanceof OperatingError)) throw error;
    note(`no page for a browser: ${error.message}`);
    return null;
  }
}

function announce(lab: LabState, json: boolean): void {
  for (const node of labNodes(lab)) {
    const line = nodeLine(lab, node);
    if (json) printJson(line);
    else print(`${line.node}  ${line.mount}  netns ${line.netns}  dlmd ${line.dlmdPid}  overlay ${line.overlayPid}`);
  }
  print("ready");
}
