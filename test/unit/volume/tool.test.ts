/** A tool that writes to a device is waited for until it has ended, also when it was killed: its last write may come late. */
import { EventEmitter } from "node:events";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { DiskSteps } from "../../../overlay/volume/disk-steps.ts";
import { runWriterInBackground } from "../../../overlay/volume/tool.ts";

/** A child in uninterruptible sleep: SIGKILL does not end it before the disk answers. */
class Child extends EventEmitter {
  readonly pid = 77;
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  readonly signals: string[] = [];
  kill(signal: string): void {
    this.signals.push(signal);
  }
}

const started = vi.hoisted(() => ({ child: null as unknown, stdio: [] as unknown[] }));
vi.mock("node:child_process", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  spawn: (_tool: string, _args: unknown, { stdio }: { stdio: unknown[] }) => {
    started.stdio = stdio;
    return started.child;
  },
}));

beforeEach(() => {
  started.child = new Child();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => void vi.useRealTimers());

function clearing(): { readonly child: Child; readonly disk: DiskSteps; readonly ended: unknown[] } {
  const disk = new DiskSteps("/dev/x");
  const ended: unknown[] = [];
  void disk
    .carryOut("clearing MMP", (report) => runWriterInBackground("tune2fs", ["/dev/x"], "e2fsprogs", { heldFd: 9, report }))
    .then(
      (result) => ended.push(result),
      (error: unknown) => ended.push(error),
    );
  return { child: started.child as Child, disk, ended };
}

it("C11: it holds the device as descriptor 3, below those that it opens itself", () => {
  clearing();
  expect(started.stdio).toEqual(["ignore", "pipe", "pipe", 9]);
});

it("C11: it is killed after TOOL_TIMEOUT_MS, and is waited for until it has ended; the status says so", async () => {
  const { child, disk, ended } = clearing();
  await vi.advanceTimersByTimeAsync(59_999);
  expect([child.signals, disk.silence]).toEqual([[], "/dev/x: clearing MMP has taken 59 s so far"]);
  await vi.advanceTimersByTimeAsync(1);
  expect(child.signals).toEqual(["SIGKILL"]);
  await vi.advanceTimersByTimeAsync(600_000);
  expect([ended, disk.silence]).toEqual([
    [],
    "/dev/x: clearing MMP has taken 660 s so far: tune2fs does not end after SIGKILL: the disk does not answer",
  ]);
  child.emit("close", null, "SIGKILL");
  await vi.advanceTimersByTimeAsync(0);
  expect(ended).toMatchObject([{ code: "tool-failed", message: "tune2fs /dev/x did not finish: no end after 60 s" }]);
  expect([disk.silence, vi.getTimerCount()]).toEqual([null, 0]);
});

it("an error of a tool that was started is not its end", async () => {
  const { child, ended } = clearing();
  child.emit("error", new Error("kill EPERM"));
  await vi.advanceTimersByTimeAsync(0);
  expect(ended).toEqual([]);
  child.stderr.write("bad words");
  child.emit("close", 1, null);
  await vi.advanceTimersByTimeAsync(0);
  expect(ended).toMatchObject([{ status: 1, stderr: "bad words" }]);
});

it("one that cannot be started, because descriptors are all in use, has no pipes, and is an error in words", async () => {
  const child = Object.assign(new EventEmitter(), { pid: undefined, stdout: undefined, stderr: undefined });
  started.child = child;
  const { ended } = clearing();
  child.emit("error", new Error("spawn tune2fs EMFILE"));
  await vi.advanceTimersByTimeAsync(0);
  expect(ended).toMatchObject([{ code: "tool-failed", message: "tune2fs /dev/x did not finish: spawn tune2fs EMFILE" }]);
  expect(vi.getTimerCount()).toBe(0);
});
