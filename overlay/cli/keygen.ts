/**
 * `coverlay keygen FILE`: a new cluster key, readable by its owner only. Whoever has it is a member of the cluster, so an
 * existing file is never overwritten. The other forms replace the key of a running cluster step by step: a key file may hold several,
 * dlmd speaks with the first, accepts all, and reads the file again when it changes.
 */
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { MAX_CLUSTER_KEYS, generateClusterKey, readKeyring, replaceKeys, writeClusterKey } from "../../dlmd/driver/cluster-files.ts";
import { print, printJson, runCommand } from "./output.ts";

interface KeygenArguments {
  readonly file: string;
  readonly add: boolean | undefined;
  readonly promote: boolean | undefined;
  readonly prune: boolean | undefined;
  readonly show: boolean | undefined;
  readonly json: boolean;
}

const rotation = `A new key for a running cluster; wait after each step until every node has the file (\`coverlay keygen --show\`):
  1. on one node   coverlay keygen --add FILE       the new key is accepted; copy FILE to every node
  2. there         coverlay keygen --promote FILE   the new key is spoken with; copy FILE to every node
  3. there         coverlay keygen --prune FILE     the old key is worth nothing; copy FILE to every node
dlmd reads the file again by itself, or at SIGHUP. Nothing stops meanwhile.`;

/** What is to be done with an existing file, in the words of the next step. */
function change(file: string, { add, promote, prune }: KeygenArguments): string {
  const { all } = readKeyring(file);
  const keys = all.map(({ bytes }) => bytes);
  if (add === true) {
    if (keys.length >= MAX_CLUSTER_KEYS) {
      throw new OperatingError(`${file} has ${keys.length} keys already, at most ${MAX_CLUSTER_KEYS} are allowed`, {
        code: "too-many-keys",
        hint: "Finish the last change first: --promote, then --prune.",
      });
    }
    replaceKeys(file, [...keys, generateClusterKey()]);
    return "a new key is in it, and accepted. Copy it to every node; then --promote.";
  }
  if (promote === true) {
    const newest = keys.at(-1) as Uint8Array;
    if (keys.length < 2) {
      throw new OperatingError(`${file} has one key only: there is none to promote`, { code: "one-key", hint: "Use --add first." });
    }
    replaceKeys(file, [newest, ...keys.slice(0, -1)]);
    return "the newest key is spoken with now. Copy it to every node; then --prune.";
  }
  if (prune === true) replaceKeys(file, keys.slice(0, 1));
  return "only the first key is left. Copy it to every node.";
}

export const keygenCommand: CommandModule<object, KeygenArguments> = {
  command: "keygen <file>",
  describe: "make a new cluster key, or replace the one of a running cluster",
  builder: (yargs) =>
    yargs
      .positional("file", { type: "string", demandOption: true, describe: "the key file; without options it must not exist yet" })
      .option("add", { type: "boolean", describe: "put a new key at the end of the file: accepted, not spoken with" })
      .option("promote", { type: "boolean", describe: "put the last key first: it is spoken with" })
      .option("prune", { type: "boolean", describe: "remove all keys but the first" })
      .option("show", { type: "boolean", describe: "print the ids of the keys, which are no secret" })
      .option("json", { type: "boolean", default: false, describe: "print JSON" })
      .conflicts({ add: ["promote", "prune", "show"], promote: ["prune", "show"], prune: "show" })
      .example("$0 keygen /etc/coverlay/cluster.key", "a key for a new cluster")
      .example("scp /etc/coverlay/cluster.key node2:/etc/coverlay/", "every node has the same one")
      .epilogue(rotation),
  handler: (args) =>
    runCommand(args.json, async () => {
      const { file, add, promote, prune, show, json } = args;
      let said = "a new cluster key. Copy it to every node, mode 0600, and tell nobody else.";
      if (add === true || promote === true || prune === true) said = change(file, args);
      else if (show !== true) writeClusterKey(file);
      const ids = readKeyring(file).all.map(({ id }) => id);
      if (json) printJson({ file, keys: ids });
      else if (show === true) print(ids.map((id, at) => `${id}  ${at === 0 ? "spoken with" : "accepted"}`).join("\n"));
      else print(`${file}: ${said} Keys: ${ids.join(", ")}.`);
    }),
};
