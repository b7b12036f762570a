/**
 * What each operation costs on a node that is not the owner, in messages and in trips to the owner that somebody waits for: a trip that comes back
 * fails here. Times are the bench's matter.
 */
import { describe, expect, it } from "vitest";
import { until } from "./actor.ts";
import { hazardLab } from "./hazards/hazard-lab.ts";

const FILES = 100;
/** A lock may be wanted elsewhere once, and the last file is not at rest. */
const SLACK = 0.2;

/** Of one operation. */
interface Cost {
  /** That are waited for. */
  readonly trips: number;
  /** Messages to dlmd. */
  readonly locks: number;
}

interface Row {
  readonly what: string;
  /** Where its files were made, before. */
  readonly made: "here" | "elsewhere" | "owner";
  readonly prepare?: string;
  readonly run: string;
  readonly most: Cost;
}

const ROWS: readonly Row[] = [
  { what: "create, 4 KiB, close", made: "here", run: `put(f + ".new", b"x" * 4096)`, most: { trips: 2, locks: 0 } },
  { what: "stat after a write", made: "here", prepare: `put(f, b"second")`, run: `os.stat(f)`, most: { trips: 0, locks: 0 } },
  {
    what: "open and close",
    made: "here",
    prepare: `get(f)`,
    run: `os.close(os.open(f, os.O_RDONLY))`,
    most: { trips: 0, locks: 0 },
  },
  { what: "chmod", made: "here", run: `os.chmod(f, 0o600)`, most: { trips: 1, locks: 1 } },
  { what: "rename", made: "here", run: `os.rename(f, f + ".moved")`, most: { trips: 2, locks: 1 } },
  { what: "unlink", made: "here", run: `os.unlink(f)`, most: { trips: 1, locks: 2 } },
  { what: "first stat", made: "elsewhere", run: `os.stat(f)`, most: { trips: 2, locks: 1 } },
  { what: "second stat", made: "elsewhere", prepare: `os.stat(f)`, run: `os.stat(f)`, most: { trips: 0, locks: 0 } },
  { what: "first open, read, close", made: "elsewhere", run: `get(f)`, most: { trips: 3, locks: 1 } },
  { what: "second open, read, close", made: "elsewhere", prepare: `get(f)`, run: `get(f)`, most: { trips: 0, locks: 0 } },
  { what: "first stat", made: "owner", run: `os.stat(f)`, most: { trips: 2, locks: 1 } },
  { what: "unlink", made: "elsewhere", run: `os.unlink(f)`, most: { trips: 3, locks: 5 } },
];

describe("an operation on a node that is not the owner", () => {
  const hazard = hazardLab();

  it.each(ROWS.map((row) => [row.what, row.made, row] as const))("%s, of files made %s", async (what, made, { prepare, run, most }) => {
    const [here, elsewhere] = hazard.remotes;
    const maker = { here, elsewhere, owner: hazard.owner }[made];
    const dir = `${what.replaceAll(/[ ,0-9]/g, "")}-${made}`;
    const each = (line: string): string => `for k in range(files):\n    f = "%s/f%d" % (dir, k)\n    ${line}`;
    await hazard.actor(maker).run(`os.mkdir(dir)\n${each(`put(f, b"first")`)}`, { dir, files: FILES });
    // Known to all. What the last program made is EX: whether its last reply was taken is not known as long as it does nothing.
    await until("all are registered", async () => (await hazard.counters(maker))["unregistered"] === 0);
    const actor = hazard.actor(here);
    // The directory is here.
    await actor.run("os.stat(dir)", { dir });
    if (prepare !== undefined) await actor.run(each(prepare), { dir, files: FILES });
    const before = await hazard.counters(here);
    await actor.run(each(run), { dir, files: FILES });
    const after = await hazard.counters(here);
    const grown = (name: string): number => ((after[name] ?? Number.NaN) - (before[name] ?? Number.NaN)) / FILES;
    const found: Cost = { trips: grown("lowerTripsAwaited"), locks: grown("lockMessagesSent") };
    const isEnough = found.trips <= most.trips + SLACK && found.locks <= most.locks + SLACK;
    expect(isEnough, `${JSON.stringify(found)}, at most ${JSON.stringify(most)}`).toBe(true);
  });
});
