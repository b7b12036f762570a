/** The short ones of the programs of others (test/outside): `npm run compliance` runs all of them, and on ext4 by itself. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isFor, labPlaces, missingCommand, type Place, runProgram } from "../outside/places.ts";
import { type OutsideProgram, outsidePrograms } from "../outside/programs.ts";
import { startLab, type TestLab } from "./lab.ts";

const SHORT: readonly OutsideProgram["name"][] = ["sqlite", "git", "rsync", "tar", "maildir", "overlayfs"];
const short = outsidePrograms.filter(({ name }) => SHORT.includes(name));
const PLACES: readonly Place["name"][] = ["owner", "other node", "three nodes"];
const runs = PLACES.flatMap((place) => short.filter((program) => isFor(program, { name: place })).map((program) => ({ program, place })));

describe("programs of others", () => {
  let lab: TestLab;
  let places: readonly Place[];

  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
    places = await labPlaces(lab);
  });
  afterAll(async () => lab?.end());

  it.for(runs)("$program.name: $program.what ($place)", async ({ program, place }, { skip }) => {
    const missing = missingCommand(program);
    skip(missing !== null, `${missing} is not installed`);
    const found = places.find(({ name }) => name === place);
    expect(found).toBeDefined();
    expect(await runProgram(program, found as Place)).toMatchObject({ result: "passed", said: "" });
  });

  it("are all there", () => {
    expect(short).toHaveLength(SHORT.length);
  });
});
