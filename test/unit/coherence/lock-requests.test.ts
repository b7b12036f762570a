/** Locks that are asked for beside one that is being given up (overlay/coherence/lock-requests.ts). */
import { expect, it } from "vitest";
import type { Lock, Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { LockRequests } from "../../../overlay/coherence/lock-requests.ts";

/** What is asked of dlmd, which answers nothing by itself. */
function scene() {
  const asked: string[] = [];
  const locks: Lock[] = [];
  const createLock = (resource: string): Lock => {
    const at = locks.length;
    const note = (what: string): void => void asked.push(`${what} of lock ${at}`);
    const lock: Lock = {
      resource,
      mode: Mode.NL,
      exists: true,
      busy: false,
      lvb: null,
      lvbValid: false,
      error: null,
      request: (mode) => note(`request ${mode}`),
      unlock: () => note("unlock"),
      cancel: () => note("cancel"),
    };
    locks.push(lock);
    return lock;
  };
  const lockspace = { name: "played", createLock, batch: (make: () => void) => make() } as unknown as Lockspace;
  const fail = (error: Error): void => {
    throw error;
  };
  const requests = new LockRequests({ lockspace, now: () => 0, fail, told: () => undefined }, new CoherenceState());
  return { asked, locks, requests, cover: new Cover({ ino: 12, generation: 7 }, "file") };
}

it("one that was asked for early is taken over by a request for the same", () => {
  const { asked, locks, requests, cover } = scene();
  requests.requestEarly(cover, Mode.EX);
  requests.request(cover, Mode.EX, 0);
  expect([asked, cover.lock]).toEqual([[`request ${Mode.EX} of lock 0`], locks[0]]);
});

it("one that came before anybody wanted it is given back, and is asked for again by who wants it then", () => {
  const { asked, locks, requests, cover } = scene();
  requests.requestEarly(cover, Mode.EX);
  requests.ast(locks[0] as Lock, "granted", cover);
  requests.request(cover, Mode.EX, 0);
  expect([asked, cover.lock]).toEqual([[`request ${Mode.EX} of lock 0`, "unlock of lock 0", `request ${Mode.EX} of lock 1`], locks[1]]);
});
