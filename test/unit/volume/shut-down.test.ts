import { expect, it } from "vitest";
import { ShutDown } from "../../../overlay/volume/shut-down.ts";

it("is run once, and all who asked for it wait for the end of that run", async () => {
  let runs = 0;
  let end = (): void => {};
  const shutDown = new ShutDown(() => {
    runs += 1;
    return new Promise((resolve) => (end = resolve));
  });
  const ended: string[] = [];
  const watch = shutDown.run().then(() => ended.push("watch"));
  const release = shutDown.run().then(() => ended.push("release"));
  await Promise.resolve();
  expect([runs, ended]).toEqual([1, []]);
  end();
  await Promise.all([watch, release]);
  expect([runs, ended]).toEqual([1, ["watch", "release"]]);
});

it("is not run any more once its descriptor may be closed", async () => {
  let runs = 0;
  const shutDown = new ShutDown(async () => void (runs += 1));
  shutDown.forbid();
  await shutDown.run();
  expect(runs).toBe(0);
});
