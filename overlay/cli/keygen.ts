/**
 * `coverlay keygen FILE`: a new cluster key, readable by its owner only. Whoever has it is a member of the cluster, so an
 * existing file is never overwritten. The other forms replace the key of a running cluster step by step: a key file may hold several,
 * dlmd speaks with the first, accepts all, and reads the file again when it changes.
 */
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import {
  MAX_CLUSTER_KEYS,
  type StoredKey,
  generateClusterKey,
  readKeyring,
  readKeys,
  replaceKeys,
  writeClusterKey,
} from "../../dlmd/driver/cluster-files.ts";
import { clusterKeyId } from "../../dlmd/tls/keyring.ts";
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

/** The one that was added last; null: the file does not say which. */
function newestOf(keys: readonly StoredKey[]): StoredKey | null {
  const serial = Math.max(...keys.map((key) => key.serial));
  const newest = keys.filter((key) => key.serial === serial);
  return newest.length === 1 ? (newest[0] as StoredKey) : null;
}

const idOf = (key: StoredKey): string => clusterKeyId(key.bytes);

function addKey(file: string, keys: readonly StoredKey[]): string {
  if (keys.length >= MAX_CLUSTER_KEYS) {
    throw new OperatingError(`${file} has ${keys.length} keys already, at most ${MAX_CLUSTER_KEYS} are allowed`, {
      code: "too-many-keys",
      hint: "Finish the last change first: --promote, then --prune.",
    });
  }
  const serial = Math.max(...keys.map((key) => key.serial)) + 1;
  replaceKeys(file, [...keys, { bytes: generateClusterKey(), serial }]);
  return "a new key is in it, and accepted. Copy it to every node; then --promote.";
}

function promoteKey(file: string, keys: readonly StoredKey[]): string {
  const newest = newestOf(keys);
  if (keys.length < 2) {
    throw new OperatingError(`${file} has one key only: there is none to promote`, { code: "one-key", hint: "Use --add first." });
  }
  if (newest === null) {
    throw new OperatingError(`${file} does not say which of its keys (${keys.map(idOf).join(", ")}) is the newest`, {
      code: "no-newest-key",
      hint: "It was written by version 0.1.0. Put the line of the key to speak with first, with an editor.",
    });
  }
  if (newest === keys[0]) {
    throw new OperatingError(`the newest key of ${file}, ${idOf(newest)}, is spoken with already`, {
      code: "promoted-already",
      hint: "Copy the file to every node; then --prune. Promoting another one would bring an old key back.",
    });
  }
  replaceKeys(file, [newest, ...keys.filter((key) => key !== newest)]);
  return "the newest key is spoken with now. Copy it to every node; then --prune.";
}

function pruneKeys(file: string, keys: readonly StoredKey[]): string {
  const newest = newestOf(keys);
  const first = keys[0] as StoredKey;
  if (newest !== null && newest !== first) {
    throw new OperatingError(`--prune would remove the newest key of ${file}, ${idOf(newest)}, and leave ${idOf(first)}`, {
      code: "not-promoted",
      hint: "--promote comes first. To give the newest key up, remove its line with an editor.",
    });
  }
  replaceKeys(file, [first]);
  return "only the first key is left. Copy it to every node.";
}

export const keygenCommand: CommandModule<object, KeygenArguments> = {
  command: "keygen <file>",
  describe: "make a new cluster key, or replace the one of a running cluster",
  builder: (yargs) =>
    yargs
      .positional("file", { type: "string", demandOption: true, describe: "the key file; without options it must not exist yet" })
      .option("add", { type: "boolean", describe: "put a new key at the end of the file: accepted, not spoken with" })
      .option("promote", { type: "boolean", describe: "put the newest key first: it is spoken with; refused if it is first already" })
      .option("prune", { type: "boolean", describe: "remove all keys but the first" })
      .option("show", { type: "boolean", describe: "print the ids of the keys, which are no secret" })
      .option("json", { type: "boolean", default: false, describe: "print JSON" })
      .conflicts({ add: ["promote", "prune", "show"], promote: ["prune", "show"], prune: "show" })
      .example("$0 keygen /etc/coverlay/cluster.key", "a key for a new cluster")
      .example("scp /etc/coverlay/cluster.key node2:/etc/coverlay/", "every node has the same one")
      .epilogue(rotation),
  handler: ({ file, add, promote, prune, show, json }) =>
    runCommand(json, async () => {
      let said = "a new cluster key. Copy it to every node, mode 0600, and tell nobody else.";
      if (add === true) said = addKey(file, readKeys(file));
      else if (promote === true) said = promoteKey(file, readKeys(file));
      else if (prune === true) said = pruneKeys(file, readKeys(file));
      else if (show !== true) writeClusterKey(file);
      const ids = readKeyring(file).all.map(({ id }) => id);
      if (json) printJson({ file, keys: ids });
      else if (show === true) print(ids.map((id, at) => `${id}  ${at === 0 ? "spoken with" : "accepted"}`).join("\n"));
      else print(`${file}: ${said} Keys: ${ids.join(", ")}.`);
    }),
};
