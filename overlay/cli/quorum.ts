/** `coverlay quorum reset`: nodes that went on without the others, and for which these wait, are gone for good. */
import { userInfo } from "node:os";
import type { CommandModule } from "yargs";
import { askAdmin } from "../../dlmd/client/admin.ts";
import { askDlmd } from "../query/dlmd-query.ts";
import { type NodeOptions, nodeOptions } from "./node-options.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";

interface ResetArguments extends NodeOptions {
  readonly yes: boolean;
}

const resetCommand: CommandModule<object, ResetArguments> = {
  command: "reset",
  describe: "count the votes of all nodes again, because those that are waited for are gone for good",
  builder: (yargs) =>
    nodeOptions(yargs)
      .option("yes", { type: "boolean", default: false, describe: "they are off, and do not come back with what they have stored" })
      .example("$0 quorum reset --yes", "node3, which left last, has burnt")
      .epilogue(
        "Run it on every node that is there. Exit status: 0 the votes of all nodes count here again; 1 nothing was changed, and why: this node has the quorum, say, or had nothing to reset. A node that is waited for had the quorum when the others had left. If it runs now, there are two quorums, and data is lost. If it is repaired, empty its state directory before its dlmd is started.",
      ),
  handler: ({ runDir, json, yes }) =>
    runCommand(json, async () => {
      if (!yes) {
        throw usageError(
          "--yes is needed: if one of the nodes that are waited for runs now, or comes back with its state, there are two quorums",
          "coverlay status says for which nodes it waits. Start them; or switch them off for good, and say --yes.",
        );
      }
      const { info } = await askDlmd(runDir, null);
      const { was } = (await askAdmin(runDir, { what: "quorum-reset", by: userInfo().username })) as { was: readonly number[] };
      const names = was.map((nodeid) => info.nodes.find((node) => node.nodeid === nodeid)?.name ?? `node ${nodeid}`);
      if (json) printJson({ was });
      else print(`the votes of all nodes count here again, not only those of ${names.join(", ")}: run it on every node that is there`);
    }),
};

export const quorumCommand: CommandModule = {
  command: "quorum",
  describe: "go on without nodes that are waited for and are gone for good",
  builder: (yargs) =>
    yargs
      .command(resetCommand)
      .demandCommand(1, "reset is needed")
      .example("$0 quorum reset --yes", "on every node that is there")
      .epilogue("coverlay status says who has the quorum, and why."),
  handler: () => undefined,
};
