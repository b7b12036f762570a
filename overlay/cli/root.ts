/** The command line of coverlay as a whole: what commands there are, how a wrong one is answered. */
import yargs, { type Argv } from "yargs";
import { describeError, usageError } from "./output.ts";
import { packageVersion } from "./version.ts";

const exitStatuses = `Exit status: 0 done; 1 it failed, or the command line is wrong; 8 interrupted; 32 a mount, or a change of a volume, was refused.
Errors say what was expected and found, and what to do; with --json they are one JSON object on stderr.`;

/**
 * Adds a command to the command line. Its file is loaded only if it is run, or help is wanted for all: a mount starts two processes of
 * this program one after the other, and to load everything would take longer than all else that they do.
 */
type AddCommand = (cli: Argv) => Promise<Argv>;

const commands: Readonly<Record<string, AddCommand>> = {
  status: async (cli) => cli.command((await import("./status.ts")).statusCommand),
  metrics: async (cli) => cli.command((await import("./metrics.ts")).metricsCommand),
  ui: async (cli) => cli.command((await import("./ui.ts")).uiCommand),
  setup: async (cli) => cli.command((await import("./setup.ts")).setupCommand),
  doctor: async (cli) => cli.command((await import("./doctor.ts")).doctorCommand),
  nodes: async (cli) => cli.command((await import("./nodes.ts")).nodesCommand),
  locks: async (cli) => cli.command((await import("./locks.ts")).locksCommand),
  why: async (cli) => cli.command((await import("./why.ts")).whyCommand),
  fence: async (cli) => cli.command((await import("./fence.ts")).fenceCommand),
  quorum: async (cli) => cli.command((await import("./quorum.ts")).quorumCommand),
  volume: async (cli) => cli.command((await import("./volume.ts")).volumeCommand),
  mount: async (cli) => cli.command((await import("./mount.ts")).mountCommand),
  handover: async (cli) => cli.command((await import("./handover.ts")).handoverCommand),
  restart: async (cli) => cli.command((await import("./restart.ts")).restartCommand),
  umount: async (cli) => cli.command((await import("./umount.ts")).umountCommand),
  lab: async (cli) => cli.command((await import("./lab.ts")).labCommand),
  config: async (cli) => cli.command((await import("./config.ts")).configCommand),
  keygen: async (cli) => cli.command((await import("./keygen.ts")).keygenCommand),
  "install-mount-helper": async (cli) => cli.command((await import("../mount-helper/command.ts")).installMountHelperCommand),
  serve: async (cli) => cli.command((await import("./serve.ts")).serveCommand),
  collect: async (cli) => cli.command((await import("./collect.ts")).collectCommand),
};

/** The command that the first word names; all, if it names none. For the version alone no command is needed. */
function wanted(args: readonly string[]): readonly AddCommand[] {
  if (args.length === 1 && args[0] === "--version") return [];
  const named = Object.entries(commands).find(([name]) => name === args[0]);
  return named === undefined ? Object.values(commands) : [named[1]];
}

/**
 * `args`: the words after the program's name. Its `parseAsync` runs the command. `empty`: yargs, or what takes down the definitions of all
 * commands, for the man pages and the completions.
 */
export async function coverlayCli(args: readonly string[], empty: Argv = yargs(args)): Promise<Argv> {
  let cli: Argv = empty
    .scriptName("coverlay")
    .usage("$0 COMMAND: one ordinary file system, mounted on several machines at once")
    .parserConfiguration({ "populate--": true });
  for (const add of wanted(args)) cli = await add(cli);
  return cli
    .demandCommand(1, "a command is needed")
    .recommendCommands()
    .strict()
    .version(packageVersion())
    .help()
    .alias("help", "h")
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .example("$0 lab up", "a whole cluster on this machine, to try it")
    .example("$0 status", "this node, and the cluster as it sees it")
    .epilogue(exitStatuses)
    .exitProcess(false)
    .fail((message: string | null, error: Error | undefined) => {
      // yargs throws what it calls a YError for some mistakes, and gives a message alone for others.
      if (error !== undefined && error !== null && error.name !== "YError") throw error;
      const wrong = message ?? error?.message ?? "the command line is wrong";
      throw usageError(wrong, "`coverlay --help`, or --help after a command, shows what there is.");
    });
}

/** The words before --, which are ours; those after it belong to a command that is run. */
function ownWords(args: readonly string[]): readonly string[] {
  const end = args.indexOf("--");
  return end < 0 ? args : args.slice(0, end);
}

/** Runs the command line; sets the exit status. */
export async function runCli(args: readonly string[]): Promise<void> {
  try {
    const cli = await coverlayCli(args);
    await cli.parseAsync();
  } catch (error) {
    const { text, exitStatus } = describeError(error, ownWords(args).includes("--json"));
    process.stderr.write(text);
    process.exitCode = exitStatus;
  }
}
