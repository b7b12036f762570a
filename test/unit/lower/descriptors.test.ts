/** How many files an owner can open is said at the start, if they are fewer than it may be asked for. */
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { MAX_OPEN_HANDLES, raiseDescriptors } from "../../../overlay/lower/local/open-handles.ts";

it.each([
  [20_000, [{ descriptors: 20_000, wanted: 1_048_576 }]],
  [MAX_OPEN_HANDLES, []],
  [1_048_576, []],
])("%i descriptors", (allowed, expected) => {
  const warned: object[] = [];
  const log = { ...silentLog, warn: (fields: object): void => void warned.push(fields) };
  expect([raiseDescriptors({ setMaxDescriptors: () => allowed }, log), warned]).toEqual([allowed, expected]);
});
