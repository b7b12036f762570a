/** A mount that is taken out: its kernel's caches first, then its connection, whatever becomes of the caches. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { dropAndAbort } from "../../../overlay/serve/abandon.ts";

// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));

let said: string[];
const log = { ...silentLog, error: (_: object, message: string): void => void said.push(message) };
const abort = (): void => void said.push("abort");
const die = (): void => void said.push("die");

beforeEach(() => {
  said = [];
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});
afterEach(() => vi.useRealTimers());

it("ends its connection as soon as the caches are dropped", async () => {
  let dropped = (): void => undefined;
  const over = dropAndAbort(() => new Promise((resolve) => (dropped = resolve)), abort, log, die);
  await vi.advanceTimersByTimeAsync(10);
  expect(said).toEqual([]);
  dropped();
  await over;
  expect(said).toEqual(["abort"]);
});

it("ends its connection after ABANDON_LIMIT_MS, although a cache is still being dropped", async () => {
  const over = dropAndAbort(() => new Promise(() => undefined), abort, log, die);
  await vi.advanceTimersByTimeAsync(999);
  expect(said).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  await over;
  expect(said).toEqual(["abort"]);
});

it("ends its connection if the caches cannot be dropped, and says so", async () => {
  await dropAndAbort(() => Promise.reject(new Error("EIO")), abort, log, die);
  expect(said).toEqual(["dropping the kernel's caches failed", "abort"]);
});

it("the process ends if its connection cannot be aborted: it would stay the owner, without a lease", async () => {
  const noDescriptor = (): void => {
    throw new Error("EMFILE: too many open files");
  };
  await dropAndAbort(() => Promise.resolve(), noDescriptor, log, die);
  expect(said).toEqual(["the connection could not be aborted: this process ends", "die"]);
});
