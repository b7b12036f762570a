/**
 * `coverlay config check FILE`, `show`, `apply FILE`: the cluster's configuration. `check` needs no dlmd; `apply` gives a new version to
 * every node in order, and returns when it is in force.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { readSmallText } from "../../dlmd/base/small-file.ts";
import { type ShownConfig, askAdmin } from "../../dlmd/client/admin.ts";
import { type ClusterConfig, decodeClusterConfig } from "../../dlmd/config/cluster-config.ts";
import { fencingMistakes } from "../../dlmd/fence-agent/check.ts";
import { MetadataShelf } from "../../dlmd/fence-agent/metadata-shelf.ts";
import { askDlmd, nodeName } from "../query/dlmd-query.ts";
import { type ApplyState, followApply, interruptedApply } from "./apply-follow.ts";
import { interruptedError, unlessAborted } from "./interrupt.ts";
import { longWork } from "./long-work.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand } from "./output.ts";

interface FileArguments {
  readonly file: string;
}

function readText(file: string): string {
  try {
    return readSmallText(file);
  } catch (cause) {
    throw new OperatingError(`a configuration expected in ${file}, found: ${(cause as Error).message}`, {
      code: "no-cluster-configuration",
      hint: "examples/cluster.yaml is one to start from; `coverlay config show` prints the one in force.",
      cause,
    });
  }
}

/** Agents and files of options are those of this node. Throws OperatingError "bad-fencing" with every mistake. */
async function checkFencing(config: ClusterConfig, file: string): Promise<void> {
  const mistakes = await fencingMistakes(config, new MetadataShelf());
  if (mistakes.length === 0) return;
  const lines = mistakes.map(
    ({ device, node, expected, found }) =>
      `  fence device ${device}${node === "" ? "" : ` for ${node}`}: expected ${expected}, found ${found}`,
  );
  throw new OperatingError(`${file} is a configuration, but a node could not be fenced from here:\n${lines.join("\n")}`, {
    code: "bad-fencing",
    hint: "Correct that, and check on every node: each may have to fence another one. `AGENT -o metadata` says what an agent takes.",
  });
}

const checkCommand: CommandModule<object, FileArguments & { readonly json: boolean }> = {
  command: "check <file>",
  describe: "whether a file is a configuration, and its fence agents can be used on this node; every mistake at once",
  builder: (yargs) =>
    yargs
      .positional("file", { type: "string", demandOption: true, describe: "a cluster.yaml" })
      .option("json", { type: "boolean", default: false, describe: "print JSON" })
      .example("$0 config check /etc/coverlay/cluster.yaml", "before dlmd is started with it, on every node"),
  handler: ({ file, json }) =>
    runCommand(json, async () => {
      const config = decodeClusterConfig(readText(file), file);
      await longWork(
        json,
        () => interruptedError(`${file} was not checked to its end`, "Nothing is changed by that: check it again."),
        ({ say, signal }) => {
          say(`asking the fence agents of ${file} what they take`);
          return unlessAborted(checkFencing(config, file), signal);
        },
      );
      if (json) printJson(config);
      else print(`${file}: version ${config.version} of cluster ${config.cluster}, ${config.nodes.length} nodes, can be used`);
    }),
};

const showCommand: CommandModule<object, NodeOptions> = {
  command: "show",
  describe: "the configuration in force, as it was written; a change that is not decided yet",
  builder: (yargs) => nodeOptions(yargs).example("$0 config show --json | jq .pending", "a change that is not decided yet"),
  handler: ({ runDir, json }) =>
    runCommand(json, async () => {
      const shown = (await askAdmin(runDir, { what: "config-show" })) as ShownConfig;
      if (json) return printJson(shown);
      print(shown.text.trimEnd());
      if (shown.pending !== null) {
        print(
          `# Version ${shown.pending.version} is proposed and not decided: it waits until all members of the view, and majorities of the`,
        );
        print("# old and the new votes, have it on disk.");
      }
    }),
};

async function lookAtApply(runDir: string): Promise<ApplyState> {
  const { version, pending } = (await askAdmin(runDir, { what: "config-show" })) as ShownConfig;
  const { info, view } = await askDlmd(runDir, null);
  const members = view.members.map(nodeName(info)).join(", ");
  return { inForce: version, pending: pending?.version ?? null, view: `members: ${members}; ${view.quorumReason}` };
}

function apply(runDir: string, { text, source, wanted }: { text: string; source: string; wanted: number }, json: boolean): Promise<number> {
  let seen: ApplyState | null = null;
  return longWork(
    json,
    () => interruptedApply(wanted, seen),
    ({ say, signal }) =>
      followApply(wanted, {
        apply: async () => {
          const answer = (await askAdmin(runDir, { what: "config-apply", text, source })) as { readonly version: number };
          return answer.version;
        },
        look: async () => (seen = await lookAtApply(runDir)),
        // The answer is waited for, not this.
        sleep: (ms) => sleep(ms, undefined, { ref: false }),
        say,
        signal,
      }),
  );
}

const applyCommand: CommandModule<object, FileArguments & NodeOptions> = {
  command: "apply <file>",
  describe: "give a new configuration to every node; returns when it is in force",
  builder: (yargs) =>
    nodeOptions(
      yargs.positional("file", { type: "string", demandOption: true, describe: "the changed cluster.yaml, its version raised by one" }),
    )
      .example("$0 config apply new.yaml", "as `coverlay config show` printed it, changed, its version raised by one")
      .epilogue(
        "It says on standard error for what it waits. Ctrl-C ends the command, and not the change, which may still come into force: coverlay config show. Exit status: 0 it is in force; 1 it is refused, or not decided within 30 s; 8 interrupted.",
      ),
  handler: ({ file, runDir, json }) =>
    runCommand(json, async () => {
      const text = readText(file);
      const config = decodeClusterConfig(text, file, 1);
      const version = await apply(runDir, { text, source: file, wanted: config.version }, json);
      if (json) printJson({ version });
      else print(`version ${version} is in force`);
    }),
};

export const configCommand: CommandModule = {
  command: "config",
  describe: "the cluster's configuration: check a file, show it, change it while the cluster runs",
  builder: (yargs) =>
    yargs
      .command(checkCommand)
      .command(showCommand)
      .command(applyCommand)
      .demandCommand(1, "check, show or apply is needed")
      .example("$0 config show > new.yaml", "what is in force; change it, and raise its version by one")
      .example("$0 config apply new.yaml", "one node added or removed, or one vote, at a time")
      .epilogue(
        "While the cluster runs: nodes (one at a time, a removed one stopped before), votes, quorum options, volumes. For the rest stop dlmd everywhere, put the file on every node, and start each with --new-config.",
      ),
  handler: () => undefined,
};
