/** The programs that pages and completions are made for, and what they say of themselves without the environment of this machine. */
import { dlmdCli } from "../../dlmd/arguments.ts";
import { coverlayCli } from "../../overlay/cli/root.ts";
import { type Command, recordProgram } from "./command.ts";

export interface Programs {
  readonly coverlay: Command;
  readonly dlmd: Command;
}

/** Defaults that a variable changes are those without it. */
const VARIABLES = ["COVERLAY_RUN_DIR", "TMPDIR", "TMP", "TEMP"];

export async function recordPrograms(): Promise<Programs> {
  const kept = VARIABLES.map((name) => [name, process.env[name]] as const);
  for (const name of VARIABLES) delete process.env[name];
  try {
    return {
      coverlay: await recordProgram("coverlay", "one ordinary file system, mounted on several machines at once", (cli) =>
        coverlayCli([], cli),
      ),
      dlmd: await recordProgram("dlmd", "the lock manager daemon of a node", async (cli) => dlmdCli(cli)),
    };
  } finally {
    for (const [name, value] of kept) if (value !== undefined) process.env[name] = value;
  }
}
