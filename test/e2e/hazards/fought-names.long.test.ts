/** F32: names of a directory that nodes change one after the other. What a node knew of them when it had the lock before is told only where it is still so. */
import { expect, it } from "vitest";
import { hazardLab, scale } from "./hazard-lab.ts";

const NAMES = 12;
const ROUNDS = 60 * scale;
/** Of a round, on one node, before the others look. */
const CHANGES = 5;

const hazard = hazardLab();

const CHANGE = `
def inode(name):
    try: return os.stat(dir + "/" + name).st_ino
    except FileNotFoundError: return None
for what, name, other in changes:
    f, g = dir + "/" + name, dir + "/" + other
    if inode(name) is None: put(f, b"new")
    elif what == 0: os.unlink(f)
    elif what == 1: os.rename(f, g)
    elif inode(other) is None: os.link(f, g)
result = [inode(name) for name in names]
`;

it("each node sees which names there are, and of which files, after any changes of the others", async () => {
  const actors = hazard.all.map((nodeid) => hazard.actor(nodeid));
  const names = Array.from({ length: NAMES }, (_, at) => `n${at}`);
  const dir = "fought";
  await actors[0]?.run(`os.mkdir(dir)`, { dir });
  // A row of numbers that looks random, and is the same each time (Numerical Recipes).
  let seed = 1;
  const upTo = (count: number): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((seed / 2 ** 32) * count);
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    const by = upTo(actors.length);
    const changes = Array.from({ length: CHANGES }, () => [upTo(3), names[upTo(NAMES)], names[upTo(NAMES)]]);
    const made = await actors[by]?.run<(number | null)[]>(CHANGE, { dir, names, changes });
    const at = upTo(actors.length);
    const seen = await actors[at]?.run<(number | null)[]>(CHANGE, { dir, names, changes: [] });
    expect({ round, by, at, seen }).toEqual({ round, by, at, seen: made });
  }
});
