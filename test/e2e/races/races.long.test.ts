/** The races between two nodes of which none is the owner, and between all three. */
import { describe } from "vitest";
import { racesSuite } from "./races-suite.ts";

describe("races", () => {
  racesSuite([
    [2, 3],
    [1, 2, 3],
  ]);
});
