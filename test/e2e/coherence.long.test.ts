/** The coherence matrix: 912 rounds; more from the environment. */
import { describe } from "vitest";
import { coherenceSuite } from "./coherence-suite.ts";

describe("every kind of change is seen at once", () => {
  coherenceSuite(Number(process.env["COVERLAY_MATRIX_ROUNDS"] ?? 12));
});
