/** Ctrl-C while a command waits for what goes on by itself. */
import { createServer } from "node:net";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { askHandover } from "../../../overlay/cli/handover.ts";
import { interruptedError, interruptibly } from "../../../overlay/cli/interrupt.ts";
import { overlaySocketPath } from "../../../overlay/query/overlay-query.ts";
import { refusal } from "../../refusal.ts";

const goesOn = (): ReturnType<typeof interruptedError> => interruptedError("the move goes on", "look");
const signals = ["SIGINT", "SIGTERM"] as const;

it.each(signals)("%s ends it with words and status 8, also while an overlay does not answer", async (signal) => {
  const before = process.listenerCount(signal);
  const runDir = mkdtempSync(path.join(os.tmpdir(), "coverlay-interrupt-"));
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => void process.emit(signal));
  });
  await new Promise<void>((resolve) => void server.listen(overlaySocketPath(runDir, 7), resolve));
  try {
    const error = await refusal(interruptibly(goesOn, (end) => askHandover(runDir, 7, 0, end)));
    expect(error).toMatchObject({ message: "interrupted: the move goes on", code: "interrupted", exitStatus: 8 });
  } finally {
    await new Promise((resolve) => void server.close(resolve));
    rmSync(runDir, { recursive: true });
  }
  expect(process.listenerCount(signal)).toBe(before);
});

it("what ends by itself is not changed", async () => {
  expect(await interruptibly(goesOn, async (end) => end.aborted)).toBe(false);
  expect(signals.map((signal) => process.listenerCount(signal))).toEqual(signals.map(() => expect.any(Number)));
});
