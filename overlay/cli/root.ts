/** The command line of coverlay as a whole: what commands there are, how a wrong one is answered. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import yargs, { type Argv } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { configCommand } from "./config.ts";
import { fenceCommand } from "./fence.ts";
import { keygenCommand } from "./keygen.ts";
import { labCommand } from "./lab.ts";
import { locksCommand } from "./locks.ts";
import { mountCommand } from "./mount.ts";
import { nodesCommand } from "./nodes.ts";
import { describeError, usageError } from "./output.ts";
import { installMountHelperCommand } from "../mount-helper/command.ts";
import { serveCommand } from "./serve.ts";
import { statusCommand } from "./status.ts";
import { umountCommand } from "./umount.ts";
import { volumeCommand } from "./volume.ts";
import { whyCommand } from "./why.ts";

const exitStatuses = `Exit status: 0 done; 1 it failed, or the command line is wrong; 32 a mount was refused.
Errors say what was expected and found, and what to do; with --json they are one JSON object on stderr.`;

/** The version in package.json, which stands above the sources and above the compiled tree. */
export function packageVersion(): string {
  const candidates = ["../../package.json", "../../../package.json"].map((at) => fileURLToPath(new URL(at, import.meta.url)));
  const found = candidates.find((file) => existsSync(file));
  if (found === undefined) {
    throw new OperatingError(`package.json expected at ${candidates.join(" or ")}`, {
      code: "no-package",
      hint: "Install coverlay again.",
    });
  }
  return String((JSON.parse(readFileSync(found, "utf8")) as { version?: unknown }).version);
}

/** `args`: the words after the program's name. Its `parseAsync` runs the command. */
export function coverlayCli(args: readonly string[]): Argv {
  return yargs(args)
    .scriptName("coverlay")
    .usage("$0 COMMAND: one ordinary file system, mounted on several machines at once")
    .parserConfiguration({ "populate--": true })
    .command(statusCommand)
    .command(nodesCommand)
    .command(locksCommand)
    .command(whyCommand)
    .command(fenceCommand)
    .command(volumeCommand)
    .command(mountCommand)
    .command(umountCommand)
    .command(labCommand)
    .command(configCommand)
    .command(keygenCommand)
    .command(installMountHelperCommand)
    .command(serveCommand)
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
      throw (
        error ?? usageError(message ?? "the command line is wrong", "`coverlay --help`, or --help after a command, shows what there is.")
      );
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
    await coverlayCli(args).parseAsync();
  } catch (error) {
    const { text, exitStatus } = describeError(error, ownWords(args).includes("--json"));
    process.stderr.write(text);
    process.exitCode = exitStatus;
  }
}
