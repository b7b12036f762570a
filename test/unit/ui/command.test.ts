/** `coverlay ui` as a command: its port. test/e2e/ has what it does. */
import { expect, it } from "vitest";
import { checkPort } from "../../../overlay/cli/ui.ts";

it("takes ports from 0 to PORT_MAX", () => {
  for (const port of [0, 1, 7780, 65_535]) expect(() => checkPort(port)).not.toThrow();
  for (const port of [-1, 65_536, 1.5, Number.NaN]) expect(() => checkPort(port)).toThrow(/a port from 0 to 65535 expected/);
});
