/** Changes of a file, told once they have settled: the file system and the clock are the test's. */
import { EventEmitter } from "node:events";
import { afterEach, expect, test, vi } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { watchFile } from "../../../dlmd/driver/file-watch.ts";

const watcher = vi.hoisted(() => ({ events: null as EventEmitter | null }));
vi.mock("chokidar", () => ({
  watch() {
    const events = new EventEmitter();
    watcher.events = events;
    queueMicrotask(() => events.emit("ready"));
    return Object.assign(events, { close: () => Promise.resolve() });
  },
}));
afterEach(() => void vi.useRealTimers());

test("changes within 100 ms of each other are told once, 100 ms after the last of them; nothing is told after close", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  let told = 0;
  const watch = await watchFile("/etc/coverlay/cluster.yaml", () => void told++, silentLog);
  for (const kind of ["change", "add", "change"]) {
    watcher.events?.emit(kind);
    vi.advanceTimersByTime(99);
    expect(told).toBe(0);
  }
  vi.advanceTimersByTime(1);
  expect(told).toBe(1);
  vi.advanceTimersByTime(1000);
  expect(told).toBe(1);
  watcher.events?.emit("change");
  vi.advanceTimersByTime(100);
  expect(told).toBe(2);
  watcher.events?.emit("change");
  await watch.close();
  vi.advanceTimersByTime(1000);
  expect(told).toBe(2);
});
