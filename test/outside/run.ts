/** `npm run compliance`: outside programs over coverlay, and over ext4 by itself, as a table. */
import { parseArgs } from "node:util";
import { startLab } from "../e2e/lab.ts";
import { isFor, labPlaces, type Outcome, type Place, runProgram, withPlainExt4 } from "./places.ts";
import { type OutsideProgram, outsidePrograms } from "./programs.ts";

const HELP = `Usage: npm run compliance -- [--only NAME[,NAME...]] [--json]

Runs outside programs over a lab of three nodes, and over ext4 by itself. Root.

  --only NAMES  these alone: ${outsidePrograms.map(({ name }) => name).join(", ")}
  --json        an object per run, one a line, instead of a table
  --help        this text

Exit status: 0 if none failed, 1 if one did, 2 for a wrong command line.
`;

function refuse(message: string): never {
  process.stderr.write(`${message}\n\n${HELP}`);
  process.exit(2);
}

interface Words {
  readonly only: readonly string[] | null;
  readonly json: boolean;
}

function readWords(): Words {
  try {
    const { values } = parseArgs({
      options: { only: { type: "string" }, json: { type: "boolean", default: false }, help: { type: "boolean", default: false } },
    });
    if (values.help) {
      process.stdout.write(HELP);
      process.exit(0);
    }
    return { only: values.only?.split(",") ?? null, json: values.json };
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function chosen(only: readonly string[] | null): readonly OutsideProgram[] {
  const unknown = only?.find((name) => !outsidePrograms.some((program) => program.name === name));
  if (unknown !== undefined) refuse(`there is no program ${unknown}`);
  return outsidePrograms.filter(({ name }) => only === null || only.includes(name));
}

const { only, json } = readWords();
const programs = chosen(only);
const outcomes: Outcome[] = [];

function tell(outcome: Outcome): void {
  outcomes.push(outcome);
  const { program, place, result, ms, said } = outcome;
  if (json) process.stdout.write(`${JSON.stringify(outcome)}\n`);
  else
    process.stdout.write(`${program.padEnd(12)}${place.padEnd(13)}${result.padEnd(9)}${(ms / 1000).toFixed(1).padStart(6)} s  ${said}\n`);
}

async function runAll(place: Place): Promise<void> {
  for (const program of programs.filter((one) => isFor(one, place))) tell(await runProgram(program, place));
}

if (!json) for (const { name, what } of programs) process.stdout.write(`${name.padEnd(12)}${what}\n`);
// What takes a lab down waits for processes that keep no event loop alive.
const alive = setInterval(() => undefined, 60_000);
await withPlainExt4(runAll);
const lab = await startLab({ nodes: 3, size: "2G" });
try {
  for (const place of await labPlaces(lab)) await runAll(place);
} finally {
  await lab.end();
  clearInterval(alive);
}
process.exitCode = outcomes.some(({ result }) => result === "failed") ? 1 : 0;
