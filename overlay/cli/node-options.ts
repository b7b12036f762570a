/** The options of commands that look at one node. */
import type { Argv } from "yargs";
import { defaultRunDir } from "../query/dlmd-query.ts";

export interface NodeOptions {
  readonly runDir: string;
  readonly json: boolean;
}

/** --run-dir and --json, of which every command that looks at a node has the same. */
export function nodeOptions<T>(yargs: Argv<T>): Argv<T & NodeOptions> {
  return yargs
    .option("run-dir", {
      type: "string",
      default: defaultRunDir(),
      requiresArg: true,
      describe: "where this node's dlmd and mounts have their sockets",
    })
    .option("json", { type: "boolean", default: false, describe: "print JSON" }) as unknown as Argv<T & NodeOptions>;
}
