/** The coherence matrix over corosync, one round of each change in each direction. */
import { describe } from "vitest";
import { coherenceSuite } from "./coherence-suite.ts";

describe("every kind of change is seen at once, over corosync", () => {
  coherenceSuite(1, "corosync");
});
