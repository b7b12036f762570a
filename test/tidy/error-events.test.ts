/**
 * An "error" event that nobody listens to throws, and ends the process. A listener for one event, or one that is taken off, leaves the next
 * event without: so there is none of either. A server listens by dlmd/base/listening.ts, which stays.
 */
import { expect, it } from "vitest";
import { filesBelow, read } from "./paths.ts";

const sources = ["dlmd", "overlay", "native"].flatMap(filesBelow).filter((file) => file.endsWith(".ts"));

/** Where something else than a server of node:net listens, or the listener is there for ever. */
const LISTEN_THEMSELVES = new Set(["overlay/lab/state.ts", "overlay/serve/owned-lower.ts"]);

function having(pattern: RegExp): string[] {
  return sources.filter((file) => pattern.test(read(file)));
}

it("nothing listens to one error only", () => {
  expect(sources.length).toBeGreaterThan(300);
  expect(having(/\.(once|off|removeListener|prependOnceListener)\(\s*"error"/)).toEqual([]);
});

it("whatever listens for connections hears of each that it cannot take", () => {
  const listening = having(/\.listen\(/).filter((file) => !LISTEN_THEMSELVES.has(file));
  expect(listening).not.toEqual([]);
  expect(listening.filter((file) => !/startListening\(/.test(read(file)))).toEqual([]);
});
