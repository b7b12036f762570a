/** `coverlay doctor`: whether all is well with this node, and with the others as far as they can be looked at from here. */
import path from "node:path";
import type { CommandModule } from "yargs";
import { LOOK_LIMIT_MS, examine } from "../setup/doctor.ts";
import { describeFindings, exitStatusOf, worstFirst } from "../setup/finding.ts";
import { nodeOptions } from "./node-options.ts";
import { toldToAnother } from "../setup/judge-others.ts";
import { interruptedError, unlessAborted } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
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
  readonly here: boolean;
  readonly asked: boolean;
  readonly runDir: string;
  readonly json: boolean;
}

/** As that of status. Node.js takes a time of over 2^31 ms for none. */
const LIMIT_SECONDS_MAX = 3600;

const details = `Each finding says what was expected, what was found, and what to do. Nothing is changed or written.
All nodes are looked at: each dlmd that runs checks its own machine, and tells of its devices, fstab, kernel and memory. A node whose dlmd cannot be
asked is a finding too: run it there with --here. --device, --root and --fstab are of this machine alone.
Exit status: 0 all is well; 1 a warning, or something that could not be looked at; 2 a failure; 8 interrupted.`;

export const doctorCommand: CommandModule<object, DoctorArguments> = {
  command: "doctor",
  describe: "check all nodes of the cluster: configuration, keys, ports, clocks, disks, fstab; says what to do",
  builder: (yargs) =>
    nodeOptions(yargs, ["device"])
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
      .option("here", {
        type: "boolean",
        default: false,
        describe: "check this node alone, and the others as far as they are seen from it",
      })
      .option("asked", { type: "boolean", default: false, hidden: true, describe: "for dlmd, which another node asks" })
      .option("before", {
        type: "boolean",
        default: false,
        describe: "dlmd is to run nowhere yet: closed ports are well, and nodes without it are not looked at",
      })
      .example("$0 doctor", "all checks of all nodes, and of their network")
      .example("$0 doctor --device /dev/sdb1", "and of a device that is not mounted here")
      .example("$0 doctor --here", "on a node whose dlmd does not run, or cannot be asked")
      .example("$0 doctor --before", "after the files are on the machines, before dlmd is started")
      .example("$0 doctor --json | jq '.findings[] | select(.status != \"ok\")'", "for programs")
      .epilogue(details),
  handler: ({ config, node, device, root, fstab, limit, before, here, asked, runDir, json }) =>
    runCommand(json, async () => {
      requireRoot("look at devices and keys");
      if (!(limit > 0 && limit <= LIMIT_SECONDS_MAX))
        throw usageError(`--limit ${limit}: seconds above 0, up to ${LIMIT_SECONDS_MAX}, expected`, "`coverlay doctor --limit 10`");
      const { findings, self } = await longWork(
        json || asked,
        () => interruptedError("not all was looked at", "Nothing is changed by that: run it again."),
        ({ say, signal }) => {
          const examined = examine({
            configFile: config,
            node: node ?? null,
            devices: device,
            runDir: path.resolve(runDir),
            root,
            fstab: fstab ?? path.join(root, "etc/fstab"),
            limitMs: limit * 1000,
            isBefore: before,
            isHere: here || asked,
            say: (nodes) => say(`waiting for the checks of ${nodes.join(", ")}`),
          });
          return unlessAborted(examined, signal);
        },
      );
      if (asked) {
        printJson({ node: self, findings: toldToAnother(findings) });
        return;
      }
      const status = exitStatusOf(findings);
      if (json) printJson({ node: self, status, findings: worstFirst(findings) });
      else print(describeFindings(worstFirst(findings), self));
      return status;
    }),
};
