/** What the programs of a cycle do, by the seed. How far they come is not the seed's: they do it until they are told to stop. Pure. */
import type { Random } from "../sim/random.ts";
import type { Action } from "./history.ts";

export interface Step {
  readonly object: string;
  readonly action: Action;
  /** Before it, in microseconds. */
  readonly pauseUs: number;
}

/** Few of each, so that the programs meet. */
export const objects: readonly string[] = ["r0", "r1", "r2", "a0", "a1", "n0", "n1", "l0", "l1"];
const names = ["a", "b", "c", "d", "e"];
/** In a directory: what is made has a tag of nine bits, the permissions. */
const MAX_TAGS = 512;
const MAX_PAUSE_US = 80_000;
/** A client whose steps are done waits to be told to stop. */
export const STEPS = 1500;

interface Weighted {
  readonly weight: number;
  readonly draw: (random: Random, client: number, index: number, freeTag: (object: string) => number | null) => readonly [string, Action];
}

const register = (random: Random): string => `r${random.int(3)}`;
const append = (random: Random): string => `a${random.int(2)}`;
const directory = (random: Random): string => `n${random.int(2)}`;

function twoNames(random: Random): { name: string; to: string } {
  const name = random.pick(names);
  return { name, to: random.pick(names.filter((other) => other !== name)) };
}

const steps: readonly Weighted[] = [
  { weight: 14, draw: (random, client, index) => [register(random), { kind: "write", value: client * 10_000 + index + 1 }] },
  { weight: 14, draw: (random) => [register(random), { kind: "read" }] },
  { weight: 4, draw: (random) => [register(random), { kind: "sync" }] },
  { weight: 12, draw: (random, client, index) => [append(random), { kind: "append", record: `${client}.${index}` }] },
  { weight: 6, draw: (random) => [append(random), { kind: "readAll" }] },
  { weight: 3, draw: (random) => [append(random), { kind: "sync" }] },
  { weight: 8, draw: (random, _client, _index, freeTag) => made(random, "create", freeTag) },
  { weight: 3, draw: (random, _client, _index, freeTag) => made(random, "mkdir", freeTag) },
  { weight: 7, draw: (random) => [directory(random), { kind: "rename", ...twoNames(random) }] },
  { weight: 4, draw: (random) => [directory(random), { kind: "link", ...twoNames(random) }] },
  { weight: 6, draw: (random) => [directory(random), { kind: "unlink", name: random.pick(names) }] },
  { weight: 3, draw: (random) => [directory(random), { kind: "rmdir", name: random.pick(names) }] },
  { weight: 9, draw: (random) => [directory(random), { kind: "look", name: random.pick(names) }] },
  { weight: 3, draw: (random) => [directory(random), { kind: "sync" }] },
  { weight: 6, draw: (random) => [`l${random.int(2)}`, { kind: "lock", shared: random.chance(0.3) }] },
];

function made(random: Random, kind: "create" | "mkdir", freeTag: (object: string) => number | null): readonly [string, Action] {
  const object = directory(random);
  const name = random.pick(names);
  const tag = freeTag(object);
  return [object, tag === null ? { kind: "look", name } : { kind, name, tag }];
}

/** Of client 0, 1 ... of so many. */
export function drawLoad(random: Random, client: number, clients: number): Step[] {
  const share = Math.floor(MAX_TAGS / clients);
  const used = new Map<string, number>();
  const freeTag = (object: string): number | null => {
    const count = used.get(object) ?? 0;
    if (count >= share) return null;
    used.set(object, count + 1);
    return client * share + count;
  };
  const total = steps.reduce((sum, { weight }) => sum + weight, 0);
  const drawn: Step[] = [];
  while (drawn.length < STEPS) {
    let at = random.int(total);
    const row = steps.find(({ weight }) => (at -= weight) < 0) as Weighted;
    const [object, action] = row.draw(random, client, drawn.length, freeTag);
    drawn.push({ object, action, pauseUs: random.int(MAX_PAUSE_US) });
    // What is locked is unlocked next: a client never waits with a lock in its hands.
    if (action.kind === "lock") drawn.push({ object, action: { kind: "unlock" }, pauseUs: random.int(MAX_PAUSE_US) });
  }
  return drawn;
}
