/** `coverlay doctor`: whether all is well with this node, and with the others as far as they can be looked at from here. */
import path from "node:path";
import type { CommandModule } from "yargs";
import { LOOK_LIMIT_MS, examine } from "../setup/doctor.ts";
import { describeFindings, exitStatusOf, worstFirst } from "../setup/finding.ts";
import { nodeOptions, onceEach } from "./node-options.ts";
import { requireRoot } from "./mount.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";

interface DoctorArguments {
  readonly config: string;
  readonly node: string | undefined;
  readonly device: readonly string[];
  readonly root: string;
  readonly fstab: string | undefined;
  readonly limit: number;
  readonly before: boolean;
  readonly runDir: string;
  readonly json: boolean;
}

const details = `Each finding says what was expected, what was found, and what to do. Nothing is changed or written.
Of other nodes it sees what their dlmds see: ports, heartbeats, multicast, configuration, key and clock. Devices, fstab, kernel and memory are
those of this machine alone: run it on each node.
Exit status: 0 all is well; 1 a warning, or something that could not be looked at; 2 a failure.`;

export const doctorCommand: CommandModule<object, DoctorArguments> = {
  command: "doctor",
  describe: "check this node and its cluster: configuration, keys, ports, clocks, disks, fstab; says what to do",
  builder: (yargs) =>
    onceEach(nodeOptions(yargs), ["device"])
      .option("config", {
        type: "string",
        default: "/etc/coverlay/cluster.yaml",
        requiresArg: true,
        describe: "the cluster's configuration",
      })
      .option("node", { type: "string", requiresArg: true, describe: "which node this is [the one whose address this machine has]" })
      .option("device", {
        type: "string",
        array: true,
        nargs: 1,
        default: [] as string[],
        describe: "a device to look at, beside those of this node's mounts and those with a path in cluster.yaml; may be given again",
      })
      .option("root", { type: "string", default: "/", requiresArg: true, describe: "another root for etc/fstab and the units of systemd" })
      .option("fstab", { type: "string", requiresArg: true, describe: "another fstab [ROOT/etc/fstab]" })
      .option("limit", {
        type: "number",
        default: LOOK_LIMIT_MS / 1000,
        requiresArg: true,
        describe: "seconds for each check, and each step of a look at a disk",
      })
      .option("before", { type: "boolean", default: false, describe: "dlmd is to run nowhere yet: closed ports are well" })
      .example("$0 doctor", "all checks of this node and of its network")
      .example("$0 doctor --device /dev/sdb1", "and of a device that is not mounted here")
      .example("$0 doctor --before", "after the files are on the machines, before dlmd is started")
      .example("$0 doctor --json | jq '.findings[] | select(.status != \"ok\")'", "for programs")
      .epilogue(details),
  handler: ({ config, node, device, root, fstab, limit, before, runDir, json }) =>
    runCommand(json, async () => {
      requireRoot("look at devices and keys");
      if (!(limit > 0)) throw usageError(`--limit ${limit}: a number of seconds above 0 is expected`, "`coverlay doctor --limit 10`");
      const { findings, self } = await examine({
        configFile: config,
        node: node ?? null,
        devices: device,
        runDir: path.resolve(runDir),
        root,
        fstab: fstab ?? path.join(root, "etc/fstab"),
        limitMs: limit * 1000,
        isBefore: before,
      });
      const status = exitStatusOf(findings);
      if (json) printJson({ node: self, status, findings: worstFirst(findings) });
      else print(describeFindings(worstFirst(findings)));
      return status;
    }),
};
