/** `coverlay lab`: a whole cluster on this machine. The command line is a contract: it is added to, not changed. */
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { takeDown } from "../lab/down.ts";
import { execInNode } from "../lab/exec.ts";
import { observe, ownerOf } from "../lab/observe.ts";
import { checkRoot } from "../lab/prerequisites.ts";
import { defaultLabDir, existingLab, labNode, realLabDir } from "../lab/state.ts";
import { interruptedError } from "./interrupt.ts";
import { nodeCommands } from "./lab-node.ts";
import { labUiCommand } from "./lab-ui.ts";
import { labUpCommand } from "./lab-up.ts";
import { longWork } from "./long-work.ts";
import { onceEach } from "./node-options.ts";
import { print, printJson, runCommand, table, usageError } from "./output.ts";

interface LabArguments {
  readonly dir: string;
  readonly json: boolean;
}

const statusCommand: CommandModule<LabArguments, LabArguments> = {
  command: "status",
  describe: "each node: what runs, its role, its view of the cluster",
  builder: (yargs) => yargs.example("$0 lab status --json", 'one object; its nodes are under "nodes"'),
  handler: ({ dir, json }) => runCommand(json, () => showStatus(realLabDir(dir), json)),
};

async function showStatus(dir: string, json: boolean): Promise<void> {
  checkRoot();
  const lab = existingLab(dir);
  const nodes = await observe(lab, true);
  if (json) {
    printJson({ dir, id: lab.id, cluster: `lab-${lab.id}`, phase: lab.phase, lower: lab.lower, owner: ownerOf(lab), nodes });
    return;
  }
  print(`lab-${lab.id} in ${dir}: ${lab.phase}${lab.phase === "making" ? ` (${lab.step})` : ""}, ${lab.lower}`);
  const rows = nodes.map(({ node, state, role, ops, locks, device, cut, hung, stalled, network, view, mount }) => [
    node,
    state,
    role ?? "-",
    view === null ? "no view" : `${view.quorate ? "quorate" : "no quorum"} {${view.members.join(",")}}`,
    `ops ${ops ?? "-"}`,
    `locks ${locks ?? "-"}`,
    `${device ?? "no disk"}${cut ? " (cut)" : ""}${hung ? " (hangs)" : ""}`,
    `${mount}${stalled.map((program) => `  ${program} stalled`).join("")}${network.group === "" ? "" : "  partitioned"}${network.lossPercent > 0 ? `  ${network.lossPercent}% loss` : ""}`,
  ]);
  print(table(rows));
}

const ownerCommand: CommandModule<LabArguments, LabArguments> = {
  command: "owner",
  describe: "print the name of the node that has the volume's lower mounted",
  builder: (yargs) => yargs.example("$0 lab kill $($0 lab owner)", "power off the owner"),
  handler: ({ dir, json }) =>
    runCommand(json, async () => {
      checkRoot();
      const owner = ownerOf(existingLab(realLabDir(dir)));
      if (owner === null) {
        throw new OperatingError("no node owns the volume now", {
          code: "no-owner",
          hint: "`coverlay lab status` shows what each node does.",
        });
      }
      if (json) printJson({ owner });
      else print(owner);
    }),
};

interface ExecArguments extends LabArguments {
  readonly node: string;
  readonly "--"?: readonly string[] | undefined;
}

const execCommand: CommandModule<LabArguments, ExecArguments> = {
  command: "exec <node>",
  describe: "run a command in the node's network namespace, in its mount point; its exit status passes",
  builder: (yargs) =>
    yargs
      .usage("$0 lab exec <node> [--dir DIR] -- CMD ARG...")
      .positional("node", { type: "string", demandOption: true, describe: "node1, node2 ..." })
      .example("$0 lab exec node2 -- ls -l", "what node2 sees")
      .example("$0 lab exec node1 -- bash", "a shell on node1"),
  handler: (args) =>
    runCommand(args.json, async () => {
      checkRoot();
      const [command, ...rest] = args["--"] ?? [];
      if (command === undefined) throw usageError("lab exec needs a command", "Write it after --: coverlay lab exec node1 -- ls -l");
      const lab = existingLab(realLabDir(args.dir));
      return execInNode(lab, labNode(lab, args.node), command, rest);
    }),
};

const downCommand: CommandModule<LabArguments, LabArguments> = {
  command: "down",
  describe: "take the lab down, in whatever state it is, and leave nothing",
  builder: (yargs) => yargs.example("$0 lab down --dir /tmp/other-lab", "a lab in a directory of its own"),
  handler: ({ dir, json }) =>
    runCommand(json, async () => {
      checkRoot();
      const real = realLabDir(dir);
      const again = `Run it again, it goes on where it is: coverlay lab down --dir ${real}`;
      const there = await longWork(
        json,
        () => interruptedError(`the lab in ${real} is not down, and a part of it may be gone`, again),
        (work) => takeDown(real, work),
      );
      if (json) printJson({ dir: real, down: true, found: there });
      else print(there ? `the lab in ${real} is down` : `there is no lab in ${real}`);
    }),
};

const notes = `Each node is a network namespace on a bridge (which has a namespace of its own, so nothing of this
machine's network is touched), with its own dlmd, its own loop device over one shared image, and its
own mount point DIR/nodeN/mnt, which can be seen from here. DIR also has cluster.yaml, the key, the
logs nodeN/dlmd.log and nodeN/mount.log, and lab.json, which records what was made. A clean
shutdown is \`stop\`, a loss of power \`kill\`; \`start\` boots either again. Several labs run side by
side, each in a DIR of its own. Needs root, /dev/fuse and loop devices.`;

export const labCommand: CommandModule<object, LabArguments> = {
  command: "lab",
  describe: "a whole cluster on this machine: try coverlay, break it, watch it",
  builder: (yargs) =>
    nodeCommands(
      onceEach(yargs, [], true)
        .check(({ dir }) => {
          if (dir !== "") return true;
          throw usageError("--dir is empty", "Name the directory of the lab, or leave --dir out.");
        })
        .option("dir", { type: "string", default: defaultLabDir(), requiresArg: true, describe: "directory of the lab" })
        .option("json", { type: "boolean", default: false, describe: "print JSON" })
        .command(labUpCommand)
        .command(execCommand)
        .command(statusCommand)
        .command(ownerCommand)
        .command(labUiCommand),
    )
      .command(downCommand)
      .demandCommand(
        1,
        "lab needs a command: up, exec, status, owner, ui, kill, start, stop, cut, uncut, hang, unhang, stall, unstall, partition, heal, net or down",
      )
      .example("$0 lab up", "three nodes over one ext4, until Ctrl-C")
      .example("$0 lab up --detach && $0 lab exec node1 -- bash", "in the background, with a shell on node1")
      .epilogue(notes),
  handler: () => undefined,
};
