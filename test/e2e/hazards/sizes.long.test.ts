/** Hazard F5 at the places that sizes.test.ts leaves out. */
import { describe } from "vitest";
import { sizesSuite } from "./sizes-suite.ts";

describe("F5: a file grown elsewhere", () => {
  sizesSuite(
    [
      { role: "the owner", cached: true },
      { role: "a remote node", cached: false },
    ],
    ["the owner"],
  );
});
