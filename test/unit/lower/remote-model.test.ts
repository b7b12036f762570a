/**
 * Callers and owners under a seed, with real connections: these are cut at any byte, answers are kept back or lost, owners end in every way, also while open files are
 * being opened there. Programs of each caller compare all that they are told with a model of their own files. COVERLAY_REMOTE_SEEDS takes "1-1000".
 */
import { expect, it } from "vitest";
import type { Log } from "../../../dlmd/base/log.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { seededRandom } from "../../seeded-random.ts";
import { CutPath } from "./cut-path.ts";
import { caller, errnoOf, name, type Owner, remoteLab, until } from "./remote-lab.ts";
import { moody, words } from "./remote-mood.ts";
import { Program } from "./remote-program.ts";
import { World } from "./remote-world.ts";

const lab = remoteLab();
const [FIRST, LAST] = (process.env["COVERLAY_REMOTE_SEEDS"] ?? "1-8").split("-").map(Number) as [number, number];
const STEPS = 60;
/** Turns of the loop until what may never come is waited for no more. */
const SOON_TURNS = 2000;
/** So many reach what each of a few does not. */
const ENOUGH_SEEDS = 16;

const WAYS = ["farewell", "clean", "dies", "lets go"] as const;
type Way = (typeof WAYS)[number];

/** Of what is said of a seed that fails, the last lines. */
const SAID_LINES = 400;

function logOf(world: World, who: string): Log {
  const say = (context: object, text: string): void => world.say(who, `${text} ${words(context)}`);
  return { debug: say, info: say, warn: say, error: say };
}

/** Seeds beside each other begin alike: the generator hardly mixes its seed. */
const spread = (seed: number): number => Math.imul(seed, 0x9e3779b1);

async function run(seed: number, world: World): Promise<void> {
  const random = seededRandom(spread(seed));
  const pause = async (turns: number): Promise<void> => {
    for (let count = random.below(turns); count > 0; count--) await new Promise((resolve) => setImmediate(resolve));
  };
  const begin = async (number: number, after: { cleanAfter?: number; letGoAfter?: number } = {}): Promise<Owner> => {
    // As serve/open-files.ts: once all have opened their files, what nobody has open goes.
    const claimed = (): void => {
      if (callers.every((one) => made.server.hasClaimed(one))) void made.lower.recoverOrphans();
    };
    const received = (): void => hears();
    const mayServe = (): boolean => serves;
    const made = await lab.owner(number, (local) => moody(local, random, world), undefined, { ...after, claimed, received, mayServe });
    await made.lower.openOrphans(false);
    return made;
  };
  const callers = [2, 3].map((nodeid) => ({ nodeid, incarnation: "i1", clientId: 3 + nodeid }));
  /** The owner's node has its lease. */
  let serves = true;
  /** A message of a caller has come to the owner. */
  let hears = (): void => undefined;
  const mayServeAgain = (): void => {
    serves = true;
    owner.server.resume();
  };
  let epoch = 1;
  let owner = await begin(epoch);
  const cut = (): void => {
    world.cuts += 1;
  };
  let path = new CutPath(owner.address, random, cut);
  await path.listen();
  const lowers: RemoteLower[] = [];
  const programs: Program[] = [];
  for (const [node, identity] of callers.entries()) {
    // Some of what is waited for goes on until the next owner has gone, too.
    const onOwnerDied = async (): Promise<void> => {
      const { epoch: seen } = world;
      const most = random.below(2) === 0 ? 30 : 1000;
      for (let turns = 0; turns < most && world.epoch === seen; turns++) await pause(3);
      await pause(20);
    };
    const lower = lab.remote(identity, logOf(world, `caller ${identity.nodeid}`), { onOwnerDied, holds: { grants: () => 1, of: () => 1 } });
    await lower.connect(path.address, epoch);
    lowers.push(lower);
    for (let at = 0; at < 2; at++) {
      const called = `n${node}p${at}`;
      const { id } = await lower.mkdir(lower.root, name(called), 0o755, caller);
      programs.push(
        new Program(called, lower, seededRandom(spread(seed * 16 + node * 4 + at + 1)), world, id, `${lab.place.path}/${called}`),
      );
    }
  }
  await lowers[0]?.syncfs();
  world.running = programs.length;
  const work = programs.map(async (program) => {
    try {
      for (let at = 0; at < STEPS; at++) {
        await program.step();
        world.steps += 1;
        // Some do nothing for long: an owner ends, and the next one comes, while nothing of them is under way. Then it is certain what is lost.
        if (random.below(3) === 0) await pause(random.below(8) === 0 ? 300 : 3);
      }
    } finally {
      world.running -= 1;
    }
  });
  const found = (): void => {
    for (const lower of lowers) lower.ownerFound(path.address, epoch);
  };
  const next = async (way = WAYS[random.below(WAYS.length)] as Way): Promise<void> => {
    world.count(way);
    world.say("world", `the owner ends: ${way}`);
    if (way === "dies" || way === "lets go") world.deaths += 1;
    world.epoch += 1;
    if (way === "farewell") await owner.server.close();
    else {
      // Its answers are lost, or some of them.
      if (random.below(2) === 0) path.cut();
      await owner.server.abandon();
    }
    path.cut();
    for (const lower of lowers) if (random.below(4) > 0) lower.ownerLost();
    await owner.server.close();
    await owner.lower.shutdown();
    await path.close();
    const before = epoch;
    epoch += 1;
    serves = random.below(2) === 0;
    owner = await begin(
      epoch,
      way === "farewell" || way === "clean" ? { cleanAfter: before } : way === "lets go" ? { letGoAfter: before } : {},
    );
    path = new CutPath(owner.address, random, cut);
    await path.listen();
    world.say("world", `owner ${epoch} is there`);
    found();
    world.count("owners");
    // Its callers have said HELLO by then, mostly.
    await pause(200);
    mayServeAgain();
  };
  const all = Promise.all(work).catch((error: unknown) => {
    world.failed = error;
  });
  /** What comes mostly. */
  const soon = async (isThere: () => boolean): Promise<void> => {
    for (let turns = 0; !isThere() && turns < SOON_TURNS && world.goesOn; turns++) await pause(3);
  };
  const trouble = (what: string): void => {
    world.count(what);
    world.say("world", what);
  };
  /**
   * Hazard F23. Answers are lost with their connection. The owner goes on with what came behind those calls, answers that over the next connection, and ends. Mostly its
   * lease lapses meanwhile: then it does not hear that it is asked again.
   */
  const loseAnswers = async (): Promise<void> => {
    const muster = world.callTogether();
    const enough = 1 + random.below(programs.length);
    await soon(() => muster.ready >= enough);
    path.holdAnswers();
    const gate = world.shutGate(1 + random.below(3));
    muster.go();
    await soon(() => path.heldBytes > 0);
    await pause(60);
    const lost = path.heldBytes > 0;
    path.cut();
    const answers = lowers.map(({ counters }) => counters.roundTrips);
    const hello = { heard: false, lapses: random.below(4) > 0 };
    hears = () => {
      hello.heard = true;
      if (hello.lapses) serves = false;
    };
    await soon(() => hello.heard);
    gate.open();
    const came = (): boolean => lowers.some(({ counters }, at) => counters.roundTrips > (answers[at] as number));
    await soon(came);
    await pause(20);
    hears = () => undefined;
    const way = random.below(2) === 0 ? "clean" : (WAYS[random.below(WAYS.length)] as Way);
    trouble(lost && came() ? lostThen(way) : "none lost, or none came later");
    await next(way);
    mayServeAgain();
  };
  while (world.goesOn) {
    // Some steps are made between two troubles, mostly.
    const { steps } = world;
    const some = random.below(24);
    await soon(() => world.steps - steps >= some);
    switch (random.below(14)) {
      case 0:
        await next();
        // The second one comes while the first one's files are being opened.
        if (random.below(2) === 0) {
          await pause(60);
          await next();
        }
        break;
      case 7:
      case 8:
        await loseAnswers();
        break;
      case 6:
        trouble("lapse");
        serves = false;
        await pause(100);
        mayServeAgain();
        break;
      case 1:
      case 2:
        trouble("cut");
        path.cut();
        break;
      case 3:
      case 4:
        trouble("cut at a byte");
        path.cutAfter(random.below(3000));
        break;
      case 5:
        trouble("answers held");
        path.holdAnswers();
        await pause(40);
        if (random.below(2) === 0) path.cut();
        else path.letGo();
        break;
      default:
    }
  }
  await all;
  if (world.failed !== null) throw world.failed;
  world.ended = true;
  path.letGo();
  for (const program of programs) await program.end();
  for (const lower of lowers) {
    await errnoOf(() => lower.syncfs());
    // What was closed a moment ago is told in one call with others.
    await until(() => lower.ownerWait === null && lower.openHandles === 0);
  }
  await until(() => owner.server.sessions.every(({ openHandles, runningCalls }) => openHandles + runningCalls === 0));
  await until(() => owner.lower.openHandles === 0);
  for (const lower of lowers) lower.shutdown();
  await path.close();
  await owner.server.close();
  await owner.lower.shutdown();
}

const lostThen = (way: string): string => `lost, and later ones came: ${way}`;

/** In all seeds, how often. */
const reached = new Map<string, number>();
const seeds = Array.from({ length: LAST - FIRST + 1 }, (_, at) => FIRST + at);
/**
 * What a seed does depends on the clock, too. Each fault that was found so far came once in some hundred seeds, and the last one was one of this model: so it
 * runs where it is asked for.
 */
const isAsked = process.env["COVERLAY_REMOTE_SEEDS"] !== undefined;
for (const seed of seeds) {
  it(`seed ${seed}`, async ({ onTestFailed, skip }) => {
    skip(!isAsked, "it is a hunt whose runs depend on the clock: COVERLAY_REMOTE_SEEDS=1-8 runs it");
    const world = new World();
    onTestFailed(() => {
      process.stderr.write(`${[`seed ${seed}`, ...world.said.slice(-SAID_LINES)].join("\n")}\n`);
    });
    await run(seed, world);
    expect(world.goesOn).toBe(false);
    for (const [what, times] of world.counts) reached.set(what, (reached.get(what) ?? 0) + times);
  });
}

it("they reach owners that end after later answers than the lost ones have come", ({ skip }) => {
  skip(!isAsked || seeds.length < ENOUGH_SEEDS, `of COVERLAY_REMOTE_SEEDS, ${ENOUGH_SEEDS} or more`);
  expect(["clean", "dies"].filter((way) => !reached.has(lostThen(way)))).toEqual([]);
});
