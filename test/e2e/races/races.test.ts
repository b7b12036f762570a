/** The races, in seconds: between the owner and one other node. Other groups of nodes are in races.long.test.ts. */
import { describe } from "vitest";
import { racesSuite } from "./races-suite.ts";

describe("races", () => {
  racesSuite([[1, 2]]);
});
