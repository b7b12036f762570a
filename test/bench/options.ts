/** The command line of `npm run bench`. */
import { parseArgs } from "node:util";
import { OperatingError } from "../../dlmd/base/error.ts";
import { FULL, QUICK, SYSTEM_NAMES, type SystemName } from "./system.ts";
import { STEPS } from "./steps.ts";

/** What is measured apart from the steps. */
const SECTIONS: readonly string[] = ["handover", "long-handover", "messages", "long-sqlite", "memory", "directory", "tls", "stages"];

export interface BenchOptions {
  readonly quick: boolean;
  /** File; "-": stdout; null: none. */
  readonly json: string | null;
  /** Names of steps and sections; null: all. */
  readonly only: ReadonlySet<string> | null;
  readonly systems: ReadonlySet<SystemName>;
  /** Where the disks are made; null: chosen. */
  readonly dir: string | null;
  readonly rounds: number | null;
  /** The scheduler puts everything where it likes. */
  readonly free: boolean;
  readonly help: boolean;
}

export const USAGE: string = `npm run bench -- [--quick] [--json FILE] [--only NAMES] [--systems NAMES] [--dir DIR] [--rounds N] [--free]

  --quick          fewer and smaller: about three minutes instead of fifteen
  --json FILE      the results as JSON too; - is stdout, and the table goes to stderr
  --only NAMES     of ${[...STEPS.map(({ name }) => name), ...SECTIONS].join(", ")}
  --systems NAMES  of ${SYSTEM_NAMES.join(", ")}
  --dir DIR        where the two disk images are made (default: /dev/shm if it has the room, else the temporary directory)
  --rounds N       instead of ${FULL.rounds} (${QUICK.rounds} with --quick)
  --free           the scheduler puts all processes where it likes; without it nodes and servers have processors of their own, and programs others

Exit status 1: something failed, a read was stale, or something cached cost a message. A target that was missed: 0.`;

function listOf<T extends string>(option: string, text: string | undefined, known: readonly T[]): ReadonlySet<T> | null {
  if (text === undefined) return null;
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.filter((name) => !known.includes(name as T));
  if (unknown.length > 0) {
    throw new OperatingError(`--${option}: ${unknown.join(", ")} is none of ${known.join(", ")}`, { code: "usage", hint: "See --help." });
  }
  return new Set(names as T[]);
}

/** Throws OperatingError "usage". */
export function parseOptions(args: readonly string[]): BenchOptions {
  const values = parsed(args);
  const rounds = values.rounds === undefined ? null : Number(values.rounds);
  if (rounds !== null && !(Number.isSafeInteger(rounds) && rounds > 0)) {
    throw new OperatingError(`--rounds: expected a positive number, found ${values.rounds}`, { code: "usage", hint: "See --help." });
  }
  return {
    quick: values.quick === true,
    json: values.json ?? null,
    only: listOf("only", values.only, [...STEPS.map(({ name }) => name), ...SECTIONS]),
    systems: listOf("systems", values.systems, SYSTEM_NAMES) ?? new Set(SYSTEM_NAMES),
    dir: values.dir ?? null,
    rounds,
    free: values.free === true,
    help: values.help === true,
  };
}

interface Values {
  readonly quick?: boolean | undefined;
  readonly json?: string | undefined;
  readonly only?: string | undefined;
  readonly systems?: string | undefined;
  readonly dir?: string | undefined;
  readonly rounds?: string | undefined;
  readonly free?: boolean | undefined;
  readonly help?: boolean | undefined;
}

function parsed(args: readonly string[]): Values {
  const word = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    const options = {
      quick: flag,
      json: word,
      only: word,
      systems: word,
      dir: word,
      rounds: word,
      free: flag,
      help: { ...flag, short: "h" },
    } as const;
    return parseArgs({ args: [...args], options, strict: true }).values;
  } catch (error) {
    throw new OperatingError((error as Error).message, { code: "usage", hint: "See --help.", cause: error });
  }
}
