/** The commands of `coverlay lab` that do something to nodes: kill, start, stop, cut, uncut, hang, unhang, stall, unstall, partition, heal, net. */
import type { Argv, CommandModule } from "yargs";
import { assert } from "../../dlmd/base/assert.ts";
import type { OperatingError } from "../../dlmd/base/error.ts";
import { bootNodes, killProgram, signalPrograms, stopNode } from "../lab/boot.ts";
import { applyNetwork } from "../lab/network.ts";
import { cutDisk, hangDisk, letDiskGo, powerOff } from "../lab/power.ts";
import { checkRoot } from "../lab/prerequisites.ts";
import { processRef } from "../lab/processes.ts";
import {
  type LabNode,
  type LabState,
  type NodeNetwork,
  existingLab,
  labNode,
  realLabDir,
  withLabLock,
  withWorker,
  writeLab,
} from "../lab/state.ts";
import type { LabWork } from "../lab/work.ts";
import { interruptedError } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";

interface LabArguments {
  readonly dir: string;
  readonly json: boolean;
}
interface NodeArguments extends LabArguments {
  /** One name, or several with commas between. */
  readonly node: string;
}
type LabCommand<T> = CommandModule<LabArguments, T>;

const whichNodes = { type: "string", demandOption: true, describe: "node1, node2 ...; several: node1,node2" } as const;

/** Does something to those nodes, and says so. */
function onNodes(args: NodeArguments, done: string, act: (lab: LabState, nodes: readonly LabNode[]) => Promise<void>): Promise<void> {
  return runCommand(args.json, async () => {
    const names = [...new Set(args.node.split(","))];
    if (names.includes("")) {
      throw usageError(
        `names of nodes are needed, found an empty one in ${JSON.stringify(args.node)}`,
        "Name one: node1, or several: node1,node2.",
      );
    }
    checkRoot();
    const dir = realLabDir(args.dir);
    const self = processRef(process.pid);
    assert(self !== null, "this process is alive");
    await withWorker(dir, self, async (lab) => {
      await act(
        lab,
        names.map((name) => labNode(lab, name)),
      );
    });
    if (args.json) printJson({ nodes: args.node.split(","), done });
    else print(`${args.node}: ${done}`);
  });
}

/** The same for what takes long: `verb` is that of its command, and what an interrupted one leaves is not all "up", say. */
function onNodesForLong(
  args: NodeArguments,
  { verb, done, left }: { readonly verb: "start" | "stop"; readonly done: string; readonly left: string },
  act: (lab: LabState, nodes: readonly LabNode[], work: LabWork) => Promise<void>,
): Promise<void> {
  return onNodes(args, done, (lab, nodes) => {
    let step = "";
    const interrupted = (): OperatingError =>
      interruptedError(
        `not all of ${args.node} is ${done}${step === "" ? "" : `; it was at: ${step}`}`,
        `${left} Run it again, it goes on where it is: coverlay lab ${verb} ${args.node} --dir ${lab.dir}`,
      );
    return longWork(args.json, interrupted, async (work) => {
      const say = (words: string): void => work.say((step = words));
      try {
        await act(lab, nodes, { ...work, say });
      } catch (error) {
        // Of a program that was ended, or of a wait.
        work.signal.throwIfAborted();
        throw error;
      }
    });
  });
}

interface KillArguments extends NodeArguments {
  readonly what: "node" | "dlmd" | "overlay";
}

const killCommand: LabCommand<KillArguments> = {
  command: "kill <node>",
  describe: "SIGKILL; the whole node by default: all its processes, its disk and its network at once",
  builder: (yargs) =>
    yargs
      .positional("node", whichNodes)
      .option("what", { choices: ["node", "dlmd", "overlay"] as const, default: "node" as const, describe: "what of it" })
      .example("$0 lab kill node3", "node3 loses power")
      .example("$0 lab kill node1 --what overlay", "only the process that serves its mount"),
  handler: (args) =>
    onNodes(args, args.what === "node" ? "off" : `${args.what} killed`, async (lab, nodes) => {
      const { what } = args;
      if (what === "node") return powerOff(lab, nodes);
      for (const node of nodes) await killProgram(lab, node, what);
    }),
};

const startCommand: LabCommand<NodeArguments> = {
  command: "start <node>",
  describe: "boot it again: dlmd, then the mount; what runs already is left alone",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab start node2,node3", "both, so that they find a quorum together"),
  handler: (args) =>
    onNodesForLong(args, { verb: "start", done: "up", left: "A dlmd that was started runs on." }, (lab, nodes, work) =>
      bootNodes(
        lab,
        nodes.map(({ node }) => node),
        work,
      ),
    ),
};

const stopCommand: LabCommand<NodeArguments> = {
  command: "stop <node>",
  describe: "shut it down cleanly: unmount, leave the cluster",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab stop node2", "as `shutdown` would"),
  handler: (args) =>
    onNodesForLong(args, { verb: "stop", done: "stopped", left: "What was told to leave goes on." }, async (lab, nodes, work) => {
      for (const node of nodes) await stopNode(lab, node, work);
    }),
};

const cutCommand: LabCommand<NodeArguments> = {
  command: "cut <node>",
  describe: "cut its path to the disk: its I/O fails, nothing of it reaches the image",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab cut node1", "node1 loses its disk and goes on running"),
  handler: (args) =>
    onNodes(args, "cut off its disk", async (lab, nodes) => {
      for (const node of nodes) await cutDisk(lab, node, true);
    }),
};

const uncutCommand: LabCommand<NodeArguments> = {
  command: "uncut <node>",
  describe: "give its path to the disk back",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab uncut node1", "the disk is reached again"),
  handler: (args) =>
    onNodes(args, "has its disk again", async (lab, nodes) => {
      for (const node of nodes) await cutDisk(lab, node, false);
    }),
};

const hangCommand: LabCommand<NodeArguments> = {
  command: "hang <node>",
  describe: "its disk does not answer: its I/O waits",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab hang node1", "node1 waits for its disk, and nothing fails"),
  handler: (args) =>
    onNodes(args, "its disk does not answer", async (lab, nodes) => {
      for (const node of nodes) await hangDisk(lab, node);
    }),
};

const unhangCommand: LabCommand<NodeArguments> = {
  command: "unhang <node>",
  describe: "its disk answers again: what waited goes on",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab unhang node1", "what node1 has written comes to the disk now"),
  handler: (args) =>
    onNodes(args, "its disk answers", async (lab, nodes) => {
      for (const node of nodes) letDiskGo(lab, node);
    }),
};

interface StallArguments extends NodeArguments {
  readonly what: "dlmd" | "overlay" | undefined;
}

const stallCommand: LabCommand<StallArguments> = {
  command: "stall <node>",
  describe: "SIGSTOP: its dlmd and its overlay stand still, or one of them",
  builder: (yargs) =>
    yargs
      .positional("node", whichNodes)
      .option("what", { choices: ["dlmd", "overlay"] as const, describe: "only this one" })
      .example("$0 lab stall node1 --what overlay", "its mount answers nobody"),
  handler: (args) =>
    onNodes(args, `${args.what ?? "dlmd and overlay"} stalled`, async (lab, nodes) => {
      for (const node of nodes) signalPrograms(lab, node, args.what ?? null, "SIGSTOP");
    }),
};

const unstallCommand: LabCommand<NodeArguments> = {
  command: "unstall <node>",
  describe: "SIGCONT: what stands still goes on",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab unstall node1", "both programs, as far as they are still there"),
  handler: (args) =>
    onNodes(args, "goes on", async (lab, nodes) => {
      for (const node of nodes) signalPrograms(lab, node, null, "SIGCONT");
    }),
};

/** Makes the network what it would be with those nodes changed; if it cannot be had, what it was. */
function changeNetwork({ dir }: LabState, nodes: readonly LabNode[], change: Partial<NodeNetwork>): Promise<void> {
  const nodeids = new Set(nodes.map(({ nodeid }) => nodeid));
  // Rules are made of the whole state, so two commands at once must see each other's.
  return withLabLock(dir, async () => {
    const before = existingLab(dir);
    const changed = before.nodes.map((node) => (nodeids.has(node.nodeid) ? { ...node, network: { ...node.network, ...change } } : node));
    const after = { ...before, nodes: changed };
    try {
      await applyNetwork(after);
    } catch (error) {
      await applyNetwork(before);
      throw error;
    }
    writeLab(after);
  });
}

const partitionCommand: LabCommand<NodeArguments> = {
  command: "partition <node>",
  describe: "part it from the others; a group (node1,node2) stays together",
  builder: (yargs) =>
    yargs.positional("node", whichNodes).example("$0 lab partition node1,node2", "{1,2} and the rest no longer hear each other"),
  handler: (args) =>
    onNodes(args, "partitioned", async (lab, nodes) => {
      if (nodes.length === lab.nodes.length)
        throw usageError(
          `a part of the ${lab.nodes.length} nodes of the lab is needed, found all of them`,
          "They stay together, and there is nobody that they could be parted from.",
        );
      await changeNetwork(lab, nodes, { group: nodes.map(({ node }) => node).join(",") });
    }),
};

const healCommand: LabCommand<NodeArguments> = {
  command: "heal <node>",
  describe: "join it to the network again",
  builder: (yargs) => yargs.positional("node", whichNodes).example("$0 lab heal node1,node2", "everybody hears everybody"),
  handler: (args) => onNodes(args, "healed", (lab, nodes) => changeNetwork(lab, nodes, { group: "" })),
};

interface NetArguments extends NodeArguments {
  readonly loss: number;
  readonly delay: number;
}

const netCommand: LabCommand<NetArguments> = {
  command: "net <node>",
  describe: "a bad network; --loss 0 --delay 0 takes it back",
  builder: (yargs) =>
    yargs
      .positional("node", whichNodes)
      .option("loss", { type: "number", default: 0, requiresArg: true, describe: "percent of packets lost, in each direction" })
      .option("delay", {
        type: "number",
        default: 0,
        requiresArg: true,
        describe: "milliseconds that each packet takes longer, in each direction",
      })
      .example("$0 lab net node2 --loss 5", "5% of what node2 sends and receives is lost")
      .example("$0 lab net node2 --delay 0.5", "a round trip to node2 takes a millisecond more"),
  handler: (args) =>
    onNodes(args, `${args.loss}% loss, ${args.delay} ms delay`, async (lab, nodes) => {
      const { loss, delay } = args;
      if (!(loss >= 0 && loss <= 100)) throw usageError("--loss is a percentage from 0 to 100", "For example --loss 5.");
      if (!(delay >= 0 && delay <= 60_000)) throw usageError("--delay is 0 to 60000 milliseconds", "For example --delay 20.");
      await changeNetwork(lab, nodes, { lossPercent: loss, delayMs: delay });
    }),
};

/** Adds the commands to `coverlay lab`. */
export function nodeCommands(yargs: Argv<LabArguments>): Argv<LabArguments> {
  return yargs
    .command(killCommand)
    .command(startCommand)
    .command(stopCommand)
    .command(cutCommand)
    .command(uncutCommand)
    .command(hangCommand)
    .command(unhangCommand)
    .command(stallCommand)
    .command(unstallCommand)
    .command(partitionCommand)
    .command(healCommand)
    .command(netCommand);
}
