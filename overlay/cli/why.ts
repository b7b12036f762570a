/** `coverlay why`: who has a lock, who waits for it, since when, and what for, in words, asked of the whole cluster. */
import type { CommandModule } from "yargs";
import { decodeClusterLocks } from "../query/cluster-locks.ts";
import { askCluster, nodeName } from "../query/dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { EXIT, print, printJson, runCommand, usageError } from "./output.ts";
import { whyPath } from "./why-path.ts";
import { whyProcess } from "./why-process.ts";
import { describeWhy } from "./why-words.ts";

interface WhyArguments extends NodeOptions {
  readonly names: readonly string[];
}

export const whyCommand: CommandModule<object, WhyArguments> = {
  command: "why <names..>",
  describe: "a file, a process or a lock: who has it, who waits for it, since when, and what for; exit status 1 if nobody does",
  builder: (yargs) =>
    nodeOptions(yargs, ["names"])
      .positional("names", {
        type: "string",
        array: true,
        demandOption: true,
        describe: "a PATH in a mount (with a slash in it), a PID of this node, or [LOCKSPACE] RESOURCE; without a lockspace: in any",
      })
      .usage("$0 why PATH | PID | [LOCKSPACE] RESOURCE")
      .example("$0 why /shared/dir/file", "its locks: node, process, program and bytes of each holder and waiter")
      .example("$0 why 4711", "the process waits: for which file, and whose lock")
      .example("$0 why my-program job", "the lock `job` of the lockspace `my-program`")
      .example("$0 why job", "a lock of that name in any lockspace")
      .example("$0 why job --json | jq '.resources[].waitQueue[].waitingMs'", "for programs")
      .epilogue("The lock's master and the nodes of its holders are asked, from whichever node. Who does not answer within 2 s is named."),
  handler: ({ runDir, json, names }) =>
    runCommand(json, async () => {
      const [only, ...others] = names.map(String);
      if (only !== undefined && others.length === 0 && only.includes("/")) return whyPath(runDir, only, json);
      if (only !== undefined && others.length === 0 && /^\d+$/.test(only)) return whyProcess(runDir, Number(only), json);
      const [resource, lockspace = "", ...rest] = names.map(String).toReversed();
      if (resource === undefined || resource === "" || rest.length > 0) {
        throw usageError(`[LOCKSPACE] RESOURCE expected, found ${names.length} names`, "Quote a name that has blanks.");
      }
      const { answer, info } = await askCluster(runDir, () => ({ lockspace, resource, nodeid: 0, waitingMs: null }));
      const locks = decodeClusterLocks(answer);
      if (json) printJson(locks);
      else print(describeWhy(locks, nodeName(info)));
      return locks.resources.length + locks.files.length > 0 ? EXIT.OK : EXIT.FAILURE;
    }),
};
