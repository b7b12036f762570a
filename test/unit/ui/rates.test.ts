/** Operations per second and trips per operation, from what a mount counts. */
import { expect, it } from "vitest";
import { RATE_POINTS_MAX, RATED_MOUNTS_MAX, Rates } from "../../../overlay/ui/rates.ts";

const figures = (ops: number, trips = 0, messages = 0): Record<string, number> => ({
  ops,
  lowerRoundTrips: trips,
  lockMessagesSent: messages,
});

it("nothing is known before two looks; then the difference by the time between them", () => {
  const rates = new Rates();
  expect(rates.of("a")).toBeNull();
  rates.take("a", 5000, figures(1000, 10, 4));
  expect(rates.of("a")).toBeNull();
  rates.take("a", 7000, figures(1400, 110, 24));
  expect(rates.of("a")).toEqual({ opsPerS: 200, tripsPerOp: 0.25, messagesPerOp: 0.05, line: [200] });
});

it("trips per operation are of the last looks together, and not known without an operation", () => {
  const rates = new Rates();
  rates.take("a", 0, figures(0));
  rates.take("a", 1000, figures(0));
  expect(rates.of("a")).toMatchObject({ opsPerS: 0, tripsPerOp: null, messagesPerOp: null });
  rates.take("a", 2000, figures(10, 30));
  rates.take("a", 3000, figures(30, 30));
  expect(rates.of("a")).toMatchObject({ opsPerS: 20, tripsPerOp: 1, line: [0, 10, 20] });
});

it("looks that are too far apart, or a mount that counts anew, begin the line anew; two at one moment are one", () => {
  const rates = new Rates();
  rates.take("a", 0, figures(0));
  rates.take("a", 1000, figures(5));
  rates.take("a", 1099, figures(50));
  expect(rates.of("a")?.line).toEqual([5]);
  rates.take("a", 11_000, figures(15));
  expect(rates.of("a")?.line).toEqual([5, 1]);
  rates.take("a", 21_001, figures(20));
  expect(rates.of("a")).toBeNull();
  rates.take("a", 22_001, figures(21));
  expect(rates.of("a")?.line).toEqual([1]);
  rates.take("a", 23_001, figures(3));
  expect(rates.of("a")).toBeNull();
});

it("a line has its last points, and a mount beyond the limit none", () => {
  const rates = new Rates();
  for (let second = 0; second <= RATE_POINTS_MAX + 5; second++) rates.take("a", second * 1000, figures(second * second));
  const line = rates.of("a")?.line ?? [];
  expect(line).toHaveLength(RATE_POINTS_MAX);
  expect(line.at(-1)).toBe(2 * (RATE_POINTS_MAX + 5) - 1);
  for (const atMs of [0, 1000]) for (let mount = 1; mount <= RATED_MOUNTS_MAX; mount++) rates.take(`m${mount}`, atMs, figures(atMs));
  expect(rates.of(`m${RATED_MOUNTS_MAX - 1}`)).not.toBeNull();
  expect(rates.of(`m${RATED_MOUNTS_MAX}`)).toBeNull();
  rates.keepOnly(new Set(["a"]));
  expect([rates.of("m1"), rates.of("a")?.opsPerS]).toEqual([null, line.at(-1)]);
});

it("a mount that says nothing of its operations has no rate", () => {
  const rates = new Rates();
  rates.take("a", 0, { locks: 1 });
  rates.take("a", 1000, { locks: 2 });
  expect(rates.of("a")).toBeNull();
});
