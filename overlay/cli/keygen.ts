/**
 * `coverlay keygen FILE`: a new cluster key, readable by its owner only. Whoever has it is a member of the cluster, so an
 * existing file is never overwritten.
 */
import type { CommandModule } from "yargs";
import { writeClusterKey } from "../../dlmd/driver/cluster-files.ts";
import { print, printJson, runCommand } from "./output.ts";

interface KeygenArguments {
  readonly file: string;
  readonly json: boolean;
}

export const keygenCommand: CommandModule<object, KeygenArguments> = {
  command: "keygen <file>",
  describe: "make a new cluster key; copy the same file to every node",
  builder: (yargs) =>
    yargs
      .positional("file", { type: "string", demandOption: true, describe: "file to write; it must not exist yet" })
      .option("json", { type: "boolean", default: false, describe: "print JSON" })
      .example("$0 keygen /etc/coverlay/cluster.key", "a key for a new cluster")
      .example("scp /etc/coverlay/cluster.key node2:/etc/coverlay/", "every node has the same one"),
  handler: ({ file, json }) =>
    runCommand(json, async () => {
      writeClusterKey(file);
      if (json) printJson({ file });
      else print(`${file}: a new cluster key. Copy it to every node, mode 0600, and tell nobody else.`);
    }),
};
