/** Hazard F5, in seconds: a page cache on a remote node, and none on the owner. The other places are in sizes.long.test.ts. */
import { describe } from "vitest";
import { sizesSuite } from "./sizes-suite.ts";

describe("F5: a file grown elsewhere", () => {
  sizesSuite(
    [
      { role: "a remote node", cached: true },
      { role: "the owner", cached: false },
    ],
    ["a remote node"],
  );
});
