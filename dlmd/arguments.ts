/** The command line of dlmd. */
import yargs, { type Argv } from "yargs";
import { type LogLevel, logLevels } from "./base/pino-log.ts";

export const DEFAULT_RUN_DIR = "/run/coverlay";
/** Not under /run, which a restart of the machine empties. */
export const DEFAULT_STATE_DIR = "/var/lib/coverlay";

export interface Arguments {
  readonly config: string;
  readonly node: string | undefined;
  readonly runDir: string;
  readonly stateDir: string | undefined;
  readonly newConfig: boolean;
  readonly logLevel: LogLevel;
  readonly jsonLog: string | undefined;
  readonly metrics: string | undefined;
}

/** The command line as yargs has it; the man page and the completions are made of it, too. */
export function dlmdCli(cli: Argv): Argv<Arguments> {
  return cli
    .scriptName("dlmd")
    .usage(
      "$0 --config FILE [options]\n\nThe lock manager daemon of a node. Runs in the foreground, and prints `ready` when programs may connect.",
    )
    .option("config", { type: "string", default: "/etc/coverlay/cluster.yaml", describe: "the cluster's configuration", requiresArg: true })
    .option("node", {
      type: "string",
      describe: "which node of the configuration this is [the one whose address this machine has]",
      requiresArg: true,
    })
    .option("run-dir", {
      type: "string",
      default: DEFAULT_RUN_DIR,
      describe: "where the sockets, the pid and the state are: made with mode 0700, refused if others may enter it",
      requiresArg: true,
    })
    .option("state-dir", {
      type: "string",
      describe: `where what must outlive a restart of the machine is [${DEFAULT_STATE_DIR}; with another --run-dir, that]`,
      requiresArg: true,
    })
    .option("new-config", {
      type: "boolean",
      default: false,
      describe:
        "the configuration file is new: take it instead of what was agreed on. Only with dlmd stopped on every node, or where the others refuse this node's file: its log says so",
    })
    .option("log-level", { choices: logLevels, default: "info" as const, describe: "what to log to stderr" })
    .option("json-log", { type: "string", describe: "log to this file too, as JSON lines", requiresArg: true })
    .option("metrics", {
      type: "string",
      describe:
        "where Prometheus reads GET /metrics: a socket's path (no other file is replaced), a loopback ADDRESS:PORT, or none [RUN-DIR/metrics.sock]",
      requiresArg: true,
    })
    .example("$0", "this machine's node of /etc/coverlay/cluster.yaml")
    .example("$0 --config cluster.yaml --node node1 --run-dir /tmp/node1", "one of several nodes on one machine")
    .example("$0 --metrics 127.0.0.1:9177", "figures for Prometheus on a port of this machine")
    .example("$0 --log-level debug --json-log /var/log/dlmd.json", "more to read")
    .epilogue(
      "SIGTERM and SIGINT leave the cluster cleanly. Exit status: 0 after that, 1 if it could not start, 70 if it gave up, 74 if a disk cannot keep what this node must know.",
    )
    .parserConfiguration({ "duplicate-arguments-array": false })
    .strict()
    .version(false)
    .wrap(110) as unknown as Argv<Arguments>;
}

/** `words`: those after the program's name. A wrong one ends the process with status 1. */
export async function parseArguments(words: readonly string[]): Promise<Arguments> {
  return dlmdCli(yargs([...words])).parseAsync();
}
