/** What owners of this node hold of a shared file whatever dlmd's service has done of what it has not answered (hazard F45). */
import { expect, it } from "vitest";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { FileLockCore, LOCAL_WAIT_MS } from "../../../overlay/file-lock/core.ts";
import type { FileLockPort } from "../../../overlay/file-lock/core-port.ts";
import { certainlyHeldOn, type LockedFile } from "../../../overlay/file-lock/locked-file.ts";

type Type = "read" | "write";
const me = { kind: "posix", owner: 1n } as const;
const flocker = { kind: "flock", owner: 1n } as const;

/** Of a file that is shared from the beginning, or this node's alone: its service answers when it is told to. */
function shared(state: "shared" | "local" = "shared") {
  const asked: number[] = [];
  let nowMs = 0;
  const port: FileLockPort = {
    nowMs: () => nowMs,
    askState: () => undefined,
    inheritState: () => undefined,
    shareState: () => undefined,
    takeBackState: () => undefined,
    giveUpState: () => undefined,
    ask: (id) => void asked.push(id),
    cancel: () => undefined,
    answer: () => undefined,
    setTimer: () => undefined,
  };
  const core = new FileLockCore(port);
  const ask = (owner: typeof me | typeof flocker, op: "lock" | "unlock", type: Type, start = 0n, end = maxOffset): void =>
    void core.request({ file: "f", op, owner, range: { type, start, end }, pid: 1, wait: true });
  const last = (): number => asked.at(-1) as number;
  const granted = Object.assign((id = last()): void => core.serviceAnswered(id, "granted", null), { last });
  ask(me, "lock", "write", 10n, 19n);
  core.stateGranted("f", state);
  if (state === "shared") granted();
  /** Another node wants it, and waits for long. */
  const pushing = (): void => {
    core.stateWanted("f");
    nowMs += LOCAL_WAIT_MS;
    core.handleTimer("f");
  };
  const certain = (isShared = true): string[] =>
    certainlyHeldOn(core.files.get("f") as LockedFile, isShared).map(
      ({ owner: { kind }, range }) => `${kind} ${range.type} ${range.start}-${range.end}`,
    );
  return { ask, granted, certain, pushing };
}

it("what is held and nothing is asked of, and what is asked for more, is certain", () => {
  const { ask, certain } = shared();
  expect(certain()).toEqual(["posix write 10-19"]);
  ask(me, "lock", "write", 15n, 29n);
  expect(certain()).toEqual(["posix write 10-19"]);
});

it("of what is being unlocked nothing is, and the rest is", () => {
  const { ask, certain } = shared();
  ask(me, "unlock", "read", 12n, 13n);
  expect(certain()).toEqual(["posix write 10-11", "posix write 14-19"]);
});

it("of what is to be read only, that it is read: in those bytes", () => {
  const { ask, granted, certain } = shared();
  ask(me, "lock", "read", 0n, 14n);
  expect(certain()).toEqual(["posix read 10-14", "posix write 15-19"]);
  granted();
  expect(certain()).toEqual(["posix read 0-14", "posix write 15-19"]);
  // To the same, or to more: it has what it had until then.
  ask(me, "lock", "write", 0n, 14n);
  expect(certain()).toEqual(["posix read 0-14", "posix write 15-19"]);
});

it("of a flock that is converted nothing is: it is removed first; asked for once more it is", () => {
  const { ask, granted, certain } = shared();
  ask(flocker, "lock", "read");
  granted();
  expect(certain()).toContain(`flock read 0-${maxOffset}`);
  ask(flocker, "lock", "read");
  expect(certain()).toContain(`flock read 0-${maxOffset}`);
  granted();
  ask(flocker, "lock", "write");
  expect(certain()).toEqual(["posix write 10-19"]);
});

it("what is asked one after the other counts one after the other", () => {
  const { ask, certain } = shared();
  ask(me, "lock", "read", 10n, 19n);
  ask(me, "unlock", "read", 10n, 14n);
  expect(certain()).toEqual(["posix read 15-19"]);
});

it("a flock that was given after a conversion began is, as long as that waits", () => {
  const { ask, granted, certain } = shared();
  ask(flocker, "lock", "write");
  const conversion = granted.last();
  ask(flocker, "lock", "read");
  granted();
  expect(certain()).toContain(`flock read 0-${maxOffset}`);
  granted(conversion);
  expect(certain()).toContain(`flock write 0-${maxOffset}`);
});

it("of what is unlocked here, and waits for the file to get to the service, nothing is: its close has an answer", () => {
  const { ask, certain, pushing } = shared("local");
  expect(certain(false)).toEqual(["posix write 10-19"]);
  pushing();
  ask(me, "unlock", "read");
  expect([certain(false), certain(true)]).toEqual([[], []]);
});
