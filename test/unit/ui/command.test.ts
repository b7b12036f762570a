/** `coverlay ui` as a command: its port. test/e2e/ui.long.test.ts has what it does. */
import { createServer } from "node:net";
import { expect, it } from "vitest";
import { startLabUiSomewhere } from "../../../overlay/cli/lab-ui.ts";
import { checkPort, UI_PORT } from "../../../overlay/cli/ui.ts";
import type { LabState } from "../../../overlay/lab/state.ts";

it("takes ports from 0 to PORT_MAX", () => {
  for (const port of [0, 1, 7780, 65_535]) expect(() => checkPort(port)).not.toThrow();
  for (const port of [-1, 65_536, 1.5, Number.NaN]) expect(() => checkPort(port)).toThrow(/a port from 0 to 65535 expected/);
});

it("beside a lab the page takes another port if its own is in use", async () => {
  const other = createServer();
  // A lab of this machine may have it: then it is in use, too.
  await new Promise<void>((resolve) => {
    other.on("error", () => resolve());
    other.listen(UI_PORT, "127.0.0.1", () => resolve());
  });
  const ui = await startLabUiSomewhere({ id: "abcdef", nodes: [] } as unknown as LabState);
  try {
    expect([ui.port > 0, ui.port === UI_PORT]).toEqual([true, false]);
  } finally {
    await ui.close();
    await new Promise((resolve) => other.close(resolve));
  }
});
