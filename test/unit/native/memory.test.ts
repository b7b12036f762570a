/** What malloc(3) keeps of what was freed between what was not. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const addon = fileURLToPath(new URL("../../../native/build/Release/coverlay.node", import.meta.url));

/** In a process of its own, which collects when it is told to. Large ones are below malloc's threshold for a mapping of their own. */
const script = `
const { trimMemory } = require(process.argv[1]);
const small = [];
let large = [];
for (let at = 0; at < 400; at += 1) {
  large.push(Buffer.allocUnsafeSlow(100 * 1024).fill(1));
  small.push(Buffer.allocUnsafeSlow(200));
}
large = null;
gc();
setTimeout(() => {
  gc();
  const resident = () => process.memoryUsage.rss();
  const steps = [resident()];
  const too = trimMemory(Number.MAX_SAFE_INTEGER);
  steps.push(resident());
  trimMemory(1);
  steps.push(resident());
  console.log(JSON.stringify({ too, steps, small: small.length }));
}, 50);
`;

it("goes back when it is asked for, and not if it is less than that", () => {
  const env = { ...process.env, MALLOC_ARENA_MAX: "2" };
  const said = execFileSync(process.execPath, ["--expose-gc", "-e", script, addon], { env, encoding: "utf8" });
  const { too, steps } = JSON.parse(said) as { too: number; steps: [number, number, number] };
  expect(too).toBe(0);
  expect(steps[0] - steps[1]).toBeLessThan(5e6);
  expect(steps[1] - steps[2]).toBeGreaterThan(20e6);
});
