/** The options of commands that look at one node. */
import type { Argv } from "yargs";
import { defaultRunDir } from "../query/dlmd-query.ts";
import { usageError } from "./output.ts";

export interface NodeOptions {
  readonly runDir: string;
  readonly json: boolean;
}

/** --run-dir, of which every command that looks at a node has the same. */
export function runDirOption<T>(yargs: Argv<T>): Argv<T & Pick<NodeOptions, "runDir">> {
  const named = yargs.option("run-dir", {
    type: "string",
    default: defaultRunDir(),
    requiresArg: true,
    describe: "where this node's dlmd and mounts have their sockets",
  });
  // Else it would be the directory in which the command was typed.
  return named.check(({ runDir }) => {
    if (runDir === "") throw usageError("--run-dir is empty", "Give a directory, or leave the option out.");
    return true;
  }) as unknown as Argv<T & Pick<NodeOptions, "runDir">>;
}

/** That and --json. None of them may be given twice, but for `lists`. */
export function nodeOptions<T>(yargs: Argv<T>, lists: readonly string[] = []): Argv<T & NodeOptions> {
  return runDirOption(onceEach(yargs, lists)).option("json", { type: "boolean", default: false, describe: "print JSON" });
}

/** Refuses an option that is given twice, unless it is one of `lists`: yargs would make a list of the two. `below`: also for commands of the command. */
export function onceEach<T>(yargs: Argv<T>, lists: readonly string[], below = false): Argv<T> {
  return yargs.check((given) => {
    // Words that are no options stand in lists of their own.
    const twice = Object.entries(given).find(([name, value]) => Array.isArray(value) && ![...lists, "_", "--"].includes(name));
    if (twice !== undefined) throw usageError(`--${twice[0]} is given more than once`, "Give it once.");
    return true;
  }, below);
}
