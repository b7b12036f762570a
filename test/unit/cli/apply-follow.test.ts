/** `config apply` says for what the cluster waits, and at Ctrl-C what may still happen. */
import { expect, it } from "vitest";
import { type ApplyPort, type ApplyState, followApply, interruptedApply, LOOK_EVERY_MS } from "../../../overlay/cli/apply-follow.ts";
import { refusal } from "../../refusal.ts";

const at = (inForce: number, pending: number | null = null): ApplyState => ({ inForce, pending, view: "members: a, b; 2 of 3 votes" });

/** `states`: one for each look; after the last one the cluster has decided, or `end` is called. */
function port(states: readonly (ApplyState | Error)[], end?: AbortController) {
  const seen = { said: [] as string[], pausedMs: 0 };
  let decide: (version: number) => void = () => undefined;
  const decided = new Promise<number>((resolve) => (decide = resolve));
  let turn = 0;
  const steps: ApplyPort = {
    apply: () => decided,
    look: () => {
      const state = states[turn++];
      return state instanceof Error || state === undefined ? Promise.reject(state ?? new Error("no more")) : Promise.resolve(state);
    },
    sleep: (ms) => {
      seen.pausedMs += ms;
      if (turn >= states.length) {
        if (end === undefined) decide(2);
        else end.abort(interruptedApply(2, at(1, 2)));
      }
      return Promise.resolve();
    },
    say: (words) => void seen.said.push(words),
    signal: (end ?? new AbortController()).signal,
  };
  return { ...seen, seen, steps };
}

it("each look says how far it is, LOOK_EVERY_MS apart; a dlmd that does not answer a look says nothing", async () => {
  const { seen, steps } = port([at(1), new Error("silent"), at(1, 2), at(2)]);
  expect(await followApply(2, steps)).toBe(2);
  expect(seen.pausedMs).toBe(4 * LOOK_EVERY_MS);
  expect(LOOK_EVERY_MS).toBe(1000);
  expect(seen.said).toEqual([
    "proposing version 2",
    "version 2 is not proposed yet; members: a, b; 2 of 3 votes",
    "version 2 is proposed, and waits until all members and the majorities have it on disk; members: a, b; 2 of 3 votes",
    "version 2 is in force here",
  ]);
});

it("a refusal is thrown as it is, and a signal ends it", async () => {
  const { steps } = port([at(1)]);
  await expect(followApply(2, { ...steps, apply: () => Promise.reject(new Error("refused")) })).rejects.toThrow("refused");
  const end = new AbortController();
  const error = await refusal(followApply(2, port([at(1, 2)], end).steps));
  expect(error).toMatchObject({ code: "interrupted", exitStatus: 8 });
  expect(end.signal.aborted).toBe(true);
});

it.each([
  [null, "interrupted: version 2 was given to dlmd: it may still come into force, and this node cannot take it back"],
  [at(1), "interrupted: version 2 was given to dlmd: it may still come into force, and this node cannot take it back"],
  [at(1, 2), "interrupted: version 2 is proposed, and not decided: it may still come into force, and this node cannot take it back"],
  [at(2), "interrupted: version 2 is in force"],
])("interrupted after %j", (state, words) => {
  expect(interruptedApply(2, state)).toMatchObject({ message: words, exitStatus: 8 });
});
