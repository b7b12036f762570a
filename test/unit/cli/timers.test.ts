/** Times of the commands: with a clock of the test's own. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { askDlmd, askNode } from "../../../overlay/query/dlmd-query.ts";
import { serveCommand } from "../../../overlay/cli/serve.ts";

const played = vi.hoisted(() => ({ trimmed: [] as number[], closed: 0, connect: (): void => undefined }));
vi.mock("../../../dlmd/client/client.ts", () => ({
  connectDlm: () => {
    played.connect();
    return Promise.resolve({
      query: () => new Promise(() => undefined),
      inspect: () => new Promise(() => undefined),
      close: () => {
        played.closed += 1;
        return Promise.resolve();
      },
    });
  },
}));
vi.mock("../../../dlmd/base/priority.ts", () => ({ raisePriority: () => undefined }));
vi.mock("../../../native/index.ts", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  nativeAddon: () => ({
    setMaxDescriptors: () => 0,
    unshareFs: () => 0,
    setIoFlusher: () => 0,
    trimMemory: (bytes: number) => void played.trimmed.push(bytes),
  }),
}));
// Its descriptor is another one's here.
vi.mock("../../../overlay/volume/ready-pipe.ts", () => ({
  READY_FD: 3,
  ReadyPipe: class {
    fail(): void {
      // Nobody listens.
    }
  },
}));
vi.mock("node:fs", async (importOriginal) => ({ ...(await importOriginal<object>()), writeFileSync: () => undefined }));

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] }));
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

it("a dlmd that has not answered within ANSWER_TIMEOUT_MS is said to be silent", async () => {
  let error: unknown = null;
  const asked = askDlmd("/run/x", "nodes").catch((reason: unknown) => (error = reason));
  await vi.advanceTimersByTimeAsync(4999);
  expect([error, played.closed]).toEqual([null, 0]);
  await vi.advanceTimersByTimeAsync(1);
  await asked;
  expect(error).toMatchObject({ code: "dlmd-silent" });
  expect(played.closed).toBe(1);
});

it("a connection that took nearly all of the limit is part of it, and the words name the whole", async () => {
  const clock = vi.spyOn(performance, "now").mockReturnValue(1000);
  played.connect = () => void clock.mockReturnValue(1000 + 3999.5);
  let error: unknown = null;
  const asked = askNode("/run/x", 0, 4000).catch((reason: unknown) => (error = reason));
  await vi.advanceTimersByTimeAsync(1);
  await asked;
  expect(error).toMatchObject({ code: "dlmd-silent", message: "dlmd in /run/x does not answer within 4000 ms" });
});

it("the process of a mount gives back what is free beyond FREE_BYTES_MAX, every TRIM_INTERVAL_MS", async () => {
  const exit = vi.spyOn(process, "exit").mockImplementation((() => undefined) as never);
  // It ends soon, since there is no such device; the look at its memory is there before that.
  const args = { device: "/no such device", mountpoint: "/mnt", options: "", runDir: "/run/x", logLevel: "fatal" };
  await serveCommand.handler({ ...args, metadataCalls: "inline", bastLimitMs: 1000, _: [], $0: "" } as never);
  expect(exit).toHaveBeenCalledWith(32);
  vi.advanceTimersByTime(4999);
  expect(played.trimmed).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(played.trimmed).toEqual([8 * 1024 * 1024]);
});
