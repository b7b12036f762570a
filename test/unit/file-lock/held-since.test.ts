/** The age of a lock that this node kept to itself goes with it to dlmd's service, and comes back with it. */
import { expect, it } from "vitest";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { FileLockCore } from "../../../overlay/file-lock/core.ts";
import type { ServiceAsk } from "../../../overlay/file-lock/core-port.ts";

interface Bench {
  readonly core: FileLockCore;
  readonly now: { ms: number };
  readonly lock: (owner: number, start: number, wait?: boolean) => number;
  /** What the service was asked since the last time, all granted. */
  readonly served: () => string[];
}

function bench(): Bench {
  const now = { ms: 1000 };
  const asked: (ServiceAsk & { readonly id: number })[] = [];
  const core: FileLockCore = new FileLockCore({
    nowMs: () => now.ms,
    askState: () => undefined,
    inheritState: () => undefined,
    shareState: () => undefined,
    takeBackState: () => undefined,
    giveUpState: () => undefined,
    ask: (id, ask) => void asked.push({ ...ask, id }),
    cancel: () => undefined,
    answer: () => undefined,
    setTimer: () => undefined,
  });
  return {
    core,
    now,
    lock: (owner, start, wait = false) =>
      core.request({
        file: "f",
        op: "lock",
        owner: { kind: "posix", owner: BigInt(owner) },
        range: { type: "write", start: BigInt(start), end: BigInt(start + 9) },
        pid: owner,
        wait,
      }),
    served: () =>
      asked.splice(0).map(({ id, op, owner, range, heldMs }) => {
        core.serviceAnswered(id, "granted", null);
        return `${op} ${owner.owner} ${range.start}-${range.end === maxOffset ? "" : range.end} ${heldMs}`;
      }),
  };
}

it("of each lock that the service is told of, also of one that was shared and taken back in between", () => {
  const { core, now, lock, served } = bench();
  lock(1, 0);
  core.stateGranted("f", "local");
  now.ms = 5000;
  lock(2, 20);
  now.ms = 65_000;
  core.share("f");
  expect(served()).toEqual(["lock 1 0-9 64000", "lock 2 20-29 60000"]);
  // A new one begins with its grant.
  lock(3, 40);
  expect(served()).toEqual(["lock 3 40-49 null"]);
  now.ms = 70_000;
  core.handleTimer("f");
  core.stateGranted("f", "local");
  expect(served()).toEqual(["unlock 1 0- null", "unlock 2 0- null", "unlock 3 0- null"]);
  now.ms = 80_000;
  core.share("f");
  expect(served()).toEqual(["lock 1 0-9 79000", "lock 2 20-29 75000", "lock 3 40-49 15000"]);
});
