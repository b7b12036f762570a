/**
 * What it costs to go through a tree of small directories that another node has made, on a node that is not the owner: trips to the owner that somebody waits for,
 * and messages to dlmd, for each directory. `trips.long.test.ts` has large directories.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { AFTER_HELD_UP_MS } from "../../overlay/lower/local/small-writes.ts";
import { until } from "./actor.ts";
import { hazardLab } from "./hazards/hazard-lab.ts";

const DIRECTORIES = 60;
const FILES = 5;
/** As in trips.long.test.ts: a trip that comes back is there each time, and a walk that stood still for a second on a busy machine begins anew. */
const TRIES = 3;

interface Cost {
  readonly trips: number;
  readonly locks: number;
}

const MAKE = `
os.mkdir(dir)
for d in range(directories):
    os.mkdir("%s/%03d" % (dir, d))
    for f in range(files): put("%s/%03d/%d" % (dir, d, f), b"some bytes")
`;

const each = (line: string): string => `
for d in range(directories):
    for f in range(files):
        path = "%s/%03d/%d" % (dir, d, f)
        ${line}
`;

const walked = (line: string): string => `
for top, _, names in os.walk(dir):
    for path in (top + "/" + name for name in names):
        ${line}
`;

// By itself a stat takes two trips and a lock, and a read another trip: 12 or 17 trips for a directory and its files.
const ROWS: readonly (readonly [what: string, run: string, before: string, most: Cost])[] = [
  ["stat, by the names", each("os.stat(path)"), "", { trips: 3.2, locks: 2.2 }],
  ["open, read, close, by the names", each("get(path)"), "", { trips: 4.3, locks: 2.2 }],
  ["a listing of each directory, and stat", walked("os.stat(path)"), "", { trips: 2.5, locks: 1.8 }],
  ["a listing of each directory, and open, read, close, as of tar", walked("get(path)"), "", { trips: 3.6, locks: 1.8 }],
  ["the same a second time", walked("get(path)"), walked("get(path)"), { trips: 0.1, locks: 0.1 }],
  // As git status: it looks at each file, and then for others.
  ["stat, by the names, and a listing of each directory", each("os.stat(path)") + walked("pass"), "", { trips: 3.2, locks: 2.2 }],
  // Another node gives each of the locks up, and each name is taken away by itself.
  ["rm -r", `import shutil\nshutil.rmtree(dir)`, "", { trips: 11.5, locks: 16 }],
];

const hazard = hazardLab();

it.each(ROWS)("%s: a directory costs no more than it did", async (what, run, first, most) => {
  const [here, elsewhere] = hazard.remotes;
  const cost = async (dir: string): Promise<Cost> => {
    const args = { dir, directories: DIRECTORIES, files: FILES };
    await hazard.actor(elsewhere).run(MAKE, args);
    await until("all are registered", async () => (await hazard.counters(elsewhere))["unregistered"] === 0);
    await hazard.actor(here).run(first, args);
    const before = await hazard.counters(here);
    await hazard.actor(here).run(run, args);
    const after = await hazard.counters(here);
    const grown = (name: string): number => ((after[name] ?? Number.NaN) - (before[name] ?? Number.NaN)) / DIRECTORIES;
    return { trips: grown("lowerTripsAwaited"), locks: grown("lockMessagesSent") };
  };
  const isEnough = ({ trips, locks }: Cost): boolean => trips <= most.trips && locks <= most.locks;
  const base = what.replaceAll(/[^a-z]/g, "");
  let found = await cost(base);
  for (let tries = 1; tries < TRIES && !isEnough(found); tries += 1) {
    await sleep(AFTER_HELD_UP_MS);
    found = await cost(`${base}-${tries}`);
  }
  expect(isEnough(found), `${JSON.stringify(found)}, at most ${JSON.stringify(most)}`).toBe(true);
});
