/**
 * `coverlay setup`: a new cluster. Asks what it was not told, writes cluster.yaml and the key on this node, looks whether all is well, and prints
 * the commands for every node. It copies nothing, enables nothing, and starts nothing. `setup join`: the same for a node that has the files.
 */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import path from "node:path";
import type { Argv, CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type ClusterConfig, decodeClusterConfig } from "../../dlmd/config/cluster-config.ts";
import { readClusterConfig } from "../../dlmd/driver/cluster-files.ts";
import { askDlmd, defaultRunDir } from "../query/dlmd-query.ts";
import { type DoctorReport, LOOK_LIMIT_MS, examine } from "../setup/doctor.ts";
import { describeFindings, exitStatusOf, worstFirst } from "../setup/finding.ts";
import { lookAtDisk } from "../setup/look-disk.ts";
import { ownAddresses } from "../setup/look-machine.ts";
import {
  type SetupAnswers,
  type SetupPlace,
  type Step,
  allSteps,
  clusterYaml,
  describeSteps,
  markOf,
  nodeSteps,
  notes,
} from "../setup/plan.ts";
import { writeNewCluster } from "../setup/write-config.ts";
import { hearSignals, interruptedError, unlessAborted } from "./interrupt.ts";
import { type LongWork, longWork } from "./long-work.ts";
import { onceEach } from "./node-options.ts";
import { requireRoot } from "./mount.ts";
import { print, printJson, runCommand, usageError } from "./output.ts";
import { openTerminal } from "./terminal.ts";

const UNITS = ["/etc/systemd/system/dlmd.service", "/usr/lib/systemd/system/dlmd.service", "/lib/systemd/system/dlmd.service"];
const DEFAULT_MOUNT_POINT = "/shared";

interface CommonArguments {
  readonly config: string;
  readonly mountPoint: string | undefined;
  readonly json: boolean;
}

interface SetupArguments extends CommonArguments {
  readonly cluster: string | undefined;
  readonly node: readonly string[];
  readonly device: string | undefined;
  readonly volume: string | undefined;
  readonly multicast: string | undefined;
  readonly multicastPort: number;
  readonly peerPort: number;
  readonly yes: boolean;
  readonly force: boolean;
}

/** Asks a person; the default is taken for an empty line. */
type Ask = (question: string, defaultAnswer: string) => Promise<string>;

/** "node1=10.0.0.1" as often as there are nodes, separated by commas or white space. */
function parseNodes(words: readonly string[]): SetupAnswers["nodes"] {
  const each = words.flatMap((word) => word.split(/[\s,]+/)).filter((word) => word !== "");
  return each.map((word) => {
    const [, name, address] = /^([^=]+)=([^=]+)$/.exec(word) ?? [];
    if (name === undefined || address === undefined) {
      throw usageError(`--node ${word}: NAME=ADDRESS is expected`, "Such as --node node1=10.0.0.1 --node node2=10.0.0.2.");
    }
    return { name, address };
  });
}

/** A volume that is marked for this cluster already keeps its names. */
async function volumeOf(
  { device, name, mountPoint }: { readonly device: string; readonly name: string; readonly mountPoint: string },
  cluster: string,
  { say, signal }: LongWork,
): Promise<SetupAnswers["volume"]> {
  say(`looking at ${device}`);
  const mark = markOf(device, await unlessAborted(lookAtDisk(device, [], LOOK_LIMIT_MS), signal), cluster);
  return { name, uuid: randomUUID(), ...mark, device, mountPoint };
}

async function answersOf(args: SetupArguments, ask: Ask | null, work: LongWork): Promise<SetupAnswers> {
  const missing = (option: string, example: string): OperatingError =>
    usageError(
      `--${option} is needed, because ${args.yes ? "--yes asks nothing" : "there is no terminal to ask at"}`,
      `Such as: coverlay setup ${example} --yes`,
    );
  const wanted = async (given: string | undefined, option: string, question: string, normal: string, example: string): Promise<string> => {
    if (given !== undefined) return given;
    if (ask === null) throw missing(option, example);
    return ask(question, normal);
  };
  const optional = async (given: string | undefined, question: string, normal: string): Promise<string> =>
    given ?? (ask === null ? normal : ask(question, normal));
  const example = "--cluster demo --node node1=10.0.0.1 --node node2=10.0.0.2 --node node3=10.0.0.3 --device /dev/sdb1";
  const cluster = await wanted(args.cluster, "cluster", "Name of the cluster (a-z, 0-9, -)", "demo", example);
  const given = args.node.length === 0 ? undefined : args.node.join(" ");
  const nodes = parseNodes([await wanted(given, "node", "Nodes, as NAME=ADDRESS, separated by spaces", "", example)]);
  const device = await optional(args.device, "Device of the volume, the same path on every node (empty: none yet)", "");
  const multicast = await optional(args.multicast, "Multicast group, such as 239.192.77.1, or none", "none");
  const volume = device === "" ? null : await optional(args.volume, "Name of the volume", "data");
  const mountPoint = device === "" ? "" : await optional(args.mountPoint, "Where it is mounted", DEFAULT_MOUNT_POINT);
  return {
    cluster,
    nodes,
    multicast,
    multicastPort: args.multicastPort,
    peerPort: args.peerPort,
    volume: volume === null ? null : await volumeOf({ device, name: volume, mountPoint: path.resolve(mountPoint) }, cluster, work),
  };
}

/** Runs `use` with a person at the terminal, or with null. */
async function withTerminal<T>(mayAsk: boolean, { say, signal }: LongWork, use: (ask: Ask | null) => Promise<T>): Promise<T> {
  if (!mayAsk || !process.stdin.isTTY) return use(null);
  const terminal = openTerminal(process.stdin, process.stderr);
  try {
    return await use(async (question, normal) => {
      say("");
      const answer = await unlessAborted(terminal.ask(question, normal), signal);
      if (answer === null) throw declined();
      return answer;
    });
  } finally {
    terminal.close();
  }
}

function declined(): OperatingError {
  return new OperatingError("nothing was written", { code: "declined", hint: "Run it again, with other answers." });
}

/** A cluster that runs goes by what was agreed on, and a new file would be refused. */
async function requireNoDlmd(): Promise<void> {
  const runs = await askDlmd(defaultRunDir(), null).then(
    ({ info }) => info.clusterName,
    (error: unknown) => {
      // One that does not answer, or refuses, runs.
      if (error instanceof OperatingError && error.code === "dlmd-not-running") return null;
      throw error;
    },
  );
  if (runs === null) return;
  throw new OperatingError(`dlmd of cluster ${runs} runs on this machine`, {
    code: "cluster-runs",
    hint: "To change that cluster: coverlay config apply. For another one: stop dlmd on every node first.",
  });
}

function placeOf(configFile: string, config: ClusterConfig): SetupPlace {
  const addresses = ownAddresses();
  const self = config.nodes.find(({ address }) => addresses.includes(address));
  if (self === undefined) {
    throw new OperatingError(`this machine has ${addresses.join(", ")}: none of these is the address of a node`, {
      code: "unknown-node",
      hint: "Run it on one of the nodes, or correct the addresses.",
    });
  }
  const keyFile = path.resolve(path.dirname(configFile), config.keyFile);
  return { configFile, keyFile, self: self.name, hasUnit: UNITS.some((unit) => existsSync(unit)) };
}

async function look(configFile: string, device: string | null, { say, signal }: LongWork): Promise<DoctorReport> {
  say("looking at this machine, its disks and the other nodes");
  const devices = device === null ? [] : [device];
  const paths = { configFile, root: "/", fstab: "/etc/fstab", runDir: defaultRunDir() };
  // No dlmd runs that could be asked to check another machine.
  const more = { node: null, limitMs: LOOK_LIMIT_MS, isBefore: true, isHere: false, say: () => undefined };
  const { findings, self } = await unlessAborted(examine({ ...paths, ...more, devices }), signal);
  return { findings: worstFirst(findings), self };
}

/** What was found and what is to do; the exit status. */
function show(
  json: boolean,
  { findings, self }: DoctorReport,
  steps: readonly Step[],
  files: readonly string[],
  words: readonly string[],
): number {
  const status = exitStatusOf(findings);
  if (json) printJson({ status, files, findings, steps, notes: words });
  else {
    for (const file of files) print(`written: ${file}`);
    print(describeFindings(findings, self));
    if (status === 2) print("\nMend what has failed first; coverlay doctor --before looks again. Then:");
    print(describeSteps(steps));
    print(["", ...words].join("\n"));
  }
  return status;
}

/** What is on the disk by then. Exported for tests. */
export function interruptedSetup(files: readonly string[]): OperatingError {
  if (files.length === 0) return interruptedError("nothing was written", "Run it again.");
  return interruptedError(
    `${files.join(" and ")}: written, and not looked at`,
    "coverlay doctor --before looks whether all is well, coverlay setup join says what to run on this node.",
  );
}

async function setup(args: SetupArguments): Promise<number> {
  requireRoot("set up a cluster");
  const configFile = path.resolve(args.config);
  let files: readonly string[] = [];
  const { answers, place, found } = await longWork(
    args.json,
    () => interruptedSetup(files),
    async (work) => {
      work.say("asking whether a dlmd runs here");
      await unlessAborted(requireNoDlmd(), work.signal);
      const told = await agreeOn(args, configFile, work);
      const at = placeOf(configFile, told.config);
      await hearSignals();
      work.signal.throwIfAborted();
      files = writeNewCluster({ configFile, text: told.text, keyFile: at.keyFile }, args.force);
      return { answers: told.answers, place: at, found: await look(configFile, told.answers.volume?.device ?? null, work) };
    },
  );
  return show(args.json, found, allSteps(answers, place), files, notes(answers));
}

interface Agreed {
  readonly answers: SetupAnswers;
  readonly text: string;
  readonly config: ClusterConfig;
}

/** Nothing is written before a person has said yes, or --yes was given. */
function agreeOn(args: SetupArguments, configFile: string, work: LongWork): Promise<Agreed> {
  return withTerminal(!args.yes, work, async (ask) => {
    const answers = await answersOf(args, ask, work);
    const text = clusterYaml(answers, "cluster.key");
    const config = decodeClusterConfig(text, "the new configuration");
    if (args.yes) return { answers, text, config };
    if (ask === null) throw usageError("--yes is needed, because there is no terminal to ask at", "It writes the files without asking.");
    work.say("");
    process.stderr.write(`\n${text}\n`);
    if ((await ask(`Write this to ${configFile}, with a key beside it? (yes/no)`, "no")) !== "yes") throw declined();
    return { answers, text, config };
  });
}

async function join({ config: file, mountPoint, json }: CommonArguments): Promise<number> {
  requireRoot("look at devices and keys");
  const configFile = path.resolve(file);
  const report = await longWork(
    json,
    () => interruptedError("not all was looked at", "Nothing is changed by that: run it again."),
    (work) => look(configFile, null, work),
  );
  const { config } = readClusterConfig(configFile);
  const place = placeOf(configFile, config);
  const [volume] = config.volumes;
  const found =
    volume?.path === undefined
      ? null
      : { name: volume.name, uuid: volume.uuid, device: volume.path, mountPoint: path.resolve(mountPoint ?? DEFAULT_MOUNT_POINT) };
  return show(json, report, nodeSteps(place.self, found, place), [], []);
}

function common<T>(yargs: Argv<T>): Argv<T & CommonArguments> {
  return onceEach(yargs, ["node"])
    .option("config", {
      type: "string",
      default: "/etc/coverlay/cluster.yaml",
      requiresArg: true,
      describe: "the file to write, or to read",
    })
    .option("mount-point", { type: "string", requiresArg: true, describe: `where the volume is mounted [${DEFAULT_MOUNT_POINT}]` })
    .option("json", { type: "boolean", default: false, describe: "print JSON" }) as unknown as Argv<T & CommonArguments>;
}

const joinCommand: CommandModule<object, CommonArguments> = {
  command: "join",
  describe: "a node that has the configuration and the key: whether all is well, and what to run there",
  builder: (yargs) => common(yargs).example("$0 setup join", "on each other node, after the files were copied"),
  handler: (args) => runCommand(args.json, () => join(args)),
};

const details = `It writes cluster.yaml and, if there is none, the key: on this node alone. Then it looks as \`coverlay doctor --before\` does, and prints what
to run on each node. It copies nothing, changes no disk, and starts nothing. A cluster.yaml that is there is kept, unless --force is given; a key is
always kept.
Ctrl-C ends it at any time, and it says whether the files are written.
Exit status: 0 all is well; 1 a warning, or it could not be done; 2 a check has failed: the files are there, and the findings say what to mend; 8 interrupted.`;

export const setupCommand: CommandModule<object, SetupArguments> = {
  command: "setup",
  describe: "a new cluster: writes its configuration and key here, checks, and prints the commands for every node",
  builder: (yargs) =>
    common(yargs)
      .command(joinCommand)
      .option("cluster", { type: "string", requiresArg: true, describe: "the name of the new cluster" })
      .option("node", {
        type: "string",
        array: true,
        nargs: 1,
        default: [] as string[],
        describe: "NAME=ADDRESS of a node; once for each, this one included",
      })
      .option("device", { type: "string", requiresArg: true, describe: "the device of the volume: the same path on every node" })
      .option("volume", { type: "string", requiresArg: true, describe: "the name of the volume [data]" })
      .option("multicast", {
        type: "string",
        requiresArg: true,
        describe: "a multicast group, or none: each node sends to each address [none]",
      })
      .option("multicast-port", { type: "number", default: 7700, requiresArg: true, describe: "UDP between lock managers" })
      .option("peer-port", {
        type: "number",
        default: 7701,
        requiresArg: true,
        describe: "TCP between lock managers, and UDP for heartbeats",
      })
      .option("yes", { type: "boolean", default: false, describe: "ask nothing, and write" })
      .option("force", { type: "boolean", default: false, describe: "replace a cluster.yaml that is there" })
      .example("$0 setup", "asks what it needs")
      .example("$0 setup --cluster demo --node node1=10.0.0.1 --node node2=10.0.0.2 --device /dev/sdb1 --yes", "without a question")
      .epilogue(details) as unknown as Argv<SetupArguments>,
  handler: (args) => runCommand(args.json, () => setup(args)),
};
