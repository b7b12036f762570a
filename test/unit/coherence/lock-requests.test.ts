/** Locks that are asked for beside one that is being given up (overlay/coherence/lock-requests.ts). */
import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { LockRequests } from "../../../overlay/coherence/lock-requests.ts";
import { fail, lockspaceThatGrants } from "./shell-lab.ts";

function scene() {
  const asked: string[] = [];
  const { lockspace, handlers } = lockspaceThatGrants(asked);
  const requests = new LockRequests({ lockspace, now: () => 0, fail, told: () => undefined }, new CoherenceState());
  return { asked, locks: () => [...handlers.keys()], requests, cover: new Cover({ ino: 12, generation: 7 }, "file") };
}

it("one that was asked for early is taken over by a request for the same", () => {
  const { asked, locks, requests, cover } = scene();
  requests.requestEarly(cover, Mode.EX);
  requests.request(cover, Mode.EX, 0);
  expect([asked, [cover.lock]]).toEqual([[`lock i12.7 ${Mode.EX}`], locks()]);
});

it("one that came before anybody wanted it is given back, and is asked for again by who wants it then", async () => {
  const { asked, locks, requests, cover } = scene();
  requests.requestEarly(cover, Mode.EX);
  await new Promise(setImmediate);
  expect(asked).toEqual([`lock i12.7 ${Mode.EX}`, "unlock i12.7"]);
  cover.asking = Mode.EX;
  requests.request(cover, Mode.EX, 0);
  expect(asked.slice(2)).toEqual([`lock i12.7 ${Mode.EX}`]);
  expect(cover.lock).toBe(locks()[1]);
  await new Promise(setImmediate);
  expect(cover.mode).toBe(Mode.EX);
});
