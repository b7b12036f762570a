/** The coherence matrix, in seconds: 456 rounds. */
import { describe } from "vitest";
import { coherenceSuite } from "./coherence-suite.ts";

describe("every kind of change is seen at once", () => {
  coherenceSuite(6);
});
