/** `lab down` after `lab up` was killed at the steps that teardown.test.ts leaves out. */
import { describe, expect, it } from "vitest";
import { killedAt } from "./up-until.ts";

const steps = [
  "begin",
  "disk",
  "network",
  "device of node1",
  "clustered bit",
  "device of node2",
  "view",
  "mount node1",
  "mount node2",
] as const;

describe("lab down", () => {
  it.each(steps)("leaves nothing after lab up was killed at: %s", async (step) => {
    expect(await killedAt(step)).toEqual([]);
  });
});
