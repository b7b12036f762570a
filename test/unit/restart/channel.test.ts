/** What the other process has said counts, though this one stood still beyond the limit before it could read it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Duplex, Readable } from "node:stream";
import { expect, it } from "vitest";
import { Channel } from "../../../overlay/restart/channel.ts";

const LIMIT_MS = 300;

it.each([
  ["serving", true],
  ["nothing", false],
])("this process stands still, and the other one says %s meanwhile: heard is %s", async (said, isHeard) => {
  const says = said === "serving" ? `require("fs").writeSync(3, '{"say":"serving"}\\n')` : "";
  const script = `process.stdout.write("ready"); process.stdin.once("data", () => { ${says} })`;
  const other = spawn(process.execPath, ["-e", script], { stdio: ["pipe", "pipe", "inherit", "pipe"] });
  await once(other.stdout as Readable, "data");
  try {
    const channel = new Channel(other.stdio[3] as Duplex);
    const answer = channel.expect("serving", LIMIT_MS).then(
      ({ say }) => say,
      (error: unknown) => (error as { code?: string }).code,
    );
    other.stdin?.write("go");
    // Behind the poll of this turn, so that timers come first in the next one: as after SIGCONT.
    await new Promise<void>((resolve) =>
      setImmediate(() => {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LIMIT_MS + 1000);
        resolve();
      }),
    );
    expect(await answer).toBe(isHeard ? "serving" : "restart-late");
    channel.close();
  } finally {
    other.kill("SIGKILL");
    await once(other, "exit");
  }
});
