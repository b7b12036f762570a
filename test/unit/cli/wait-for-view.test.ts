/** A command that waits for a view of a dlmd which begins a new life meanwhile, as one that was cut off does when it is back. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import type { DlmClientHandlers, ViewInfo } from "../../../dlmd/client/api.ts";
import { waitForView } from "../../../overlay/query/dlmd-query.ts";

const played = vi.hoisted(() => ({ lives: [] as ((handlers: DlmClientHandlers) => ViewInfo)[], closed: 0 }));
vi.mock("../../../dlmd/client/client.ts", () => ({
  connectDlm: async (_: string, handlers: DlmClientHandlers) => {
    const view = played.lives.length > 1 ? played.lives.shift() : played.lives[0];
    return {
      view: view?.(handlers),
      close: async () => {
        played.closed += 1;
      },
    };
  },
}));

const LIMIT_MS = 5000;
const viewOf = (quorate: boolean): ViewInfo =>
  ({ quorate, members: [], quorumReason: "0 of 3 votes", running: quorate }) as unknown as ViewInfo;
const ended = (code: string): OperatingError => new OperatingError("dlmd ended the connection", { code, hint: "" });
const wait = (): Promise<unknown> =>
  waitForView("/run/x", ({ quorate }) => quorate, LIMIT_MS).then(
    ({ quorate }) => quorate,
    (error: OperatingError) => error.code,
  );

beforeEach(() => {
  played.closed = 0;
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => void vi.useRealTimers());

it("asks the next life of a dlmd that ends the connection, while it is being made or later", async () => {
  played.lives = [
    (handlers) => {
      handlers.disconnected(ended("disconnected"), true);
      return viewOf(true);
    },
    (handlers) => {
      setTimeout(() => handlers.disconnected(ended("disconnected"), true), 1000);
      return viewOf(false);
    },
    () => viewOf(true),
  ];
  const waited = wait();
  await vi.advanceTimersByTimeAsync(2000);
  expect([await waited, played.closed]).toEqual([true, 3]);
});

it("asks again where the next life takes longer than one connection waits for its welcome", async () => {
  played.lives = [
    () => {
      throw ended("dlmd-not-answering");
    },
    () => viewOf(true),
  ];
  const waited = wait();
  await vi.advanceTimersByTimeAsync(1000);
  expect([await waited, played.closed]).toEqual([true, 1]);
});

it("ends with what a connection ended with that no new life follows", async () => {
  played.lives = [
    (handlers) => {
      setTimeout(() => handlers.disconnected(ended("dlmd-bad-answer"), true), 1000);
      return viewOf(false);
    },
  ];
  const waited = wait();
  await vi.advanceTimersByTimeAsync(1000);
  expect(await waited).toBe("dlmd-bad-answer");
});

it("has one limit for all lives together", async () => {
  played.lives = [
    (handlers) => {
      setTimeout(() => handlers.disconnected(ended("disconnected"), true), 900);
      return viewOf(false);
    },
  ];
  let answer: unknown = null;
  void wait().then((code) => (answer = code));
  await vi.advanceTimersByTimeAsync(LIMIT_MS - 100);
  expect(answer).toBeNull();
  await vi.advanceTimersByTimeAsync(200);
  expect(answer).toBe("no-view");
});
