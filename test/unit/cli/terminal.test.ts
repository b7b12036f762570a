/** Answers that come before their questions, and an end of the input that comes before the last of them. */
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { expect, it } from "vitest";
import { openTerminal } from "../../../overlay/cli/terminal.ts";

const CTRL_D = "\u0004";

it("lines wait for their questions, also those that stand before the end; after it nothing is read, and so the process can end", async () => {
  const input = new PassThrough();
  const output = new PassThrough();
  const terminal = openTerminal(input, output, true);
  const paused = once(input, "pause");
  input.write(`one\r\rno\r${CTRL_D}`);
  expect(await terminal.ask("First", "")).toBe("one");
  await paused;
  expect(await terminal.ask("Second", "normal")).toBe("normal");
  expect(await terminal.ask("Third", "")).toBe("no");
  expect(await terminal.ask("Fourth", "normal")).toBeNull();
  terminal.close();
  expect(input.isPaused()).toBe(true);
  expect(String(output.read())).toContain("Fourth [normal]: ");
});
