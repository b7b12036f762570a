/** The end of a session's state: in which order, and what is not waited for where another process goes on (hazard F35). */
import { expect, it } from "vitest";
import type { Lower } from "../../../overlay/lower/lower.ts";
import { endState, type SessionState } from "../../../overlay/session/session-state.ts";

it.each([false, true])("ends what uses the locks before it closes, and says whether another process goes on: %s", async (isGiven) => {
  const steps: string[] = [];
  const step = (what: string) => (): Promise<void> => {
    steps.push(what);
    return Promise.resolve();
  };
  const ahead = { stop: step("ahead") };
  const mount = {
    moved: { end: step("moved") },
    writesBehind: { idle: step("behind") },
    handles: { takeAll: () => [{ lowerHandle: 7, writeToken: false }] },
    walkAhead: ahead,
    changesAhead: ahead,
    filesAhead: ahead,
    inodes: { clear: step("inodes") },
  };
  const state = {
    mount,
    dispatch: { drained: step("drained") },
    coherence: { close: (given: boolean) => step(`close, given: ${given}`)() },
  } as unknown as SessionState;
  const lower = { close: (handle: number) => void steps.push(`close ${handle}`) } as unknown as Lower;
  await endState(state, lower, isGiven);
  expect(steps).toEqual(["moved", "drained", "behind", "close 7", "ahead", "ahead", "ahead", "inodes", `close, given: ${isGiven}`]);
});
