/** What is locked here has room in the service, which is told of it later: the core's limits against dlmd's own. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { FileLockStatus } from "../../../dlmd/client/file-lock-api.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { FileLockCore, LOCAL_WAIT_MS, PUSH_AGAIN_MS } from "../../../overlay/file-lock/core.ts";
import type { FileLockAsk } from "../../../overlay/file-lock/core-port.ts";
import { LoneService } from "../plock/lone-service.ts";

type Asked = FileLockAsk & { readonly id: number };

function bench(locks: number) {
  const now = { ms: 0 };
  const timers: number[] = [];
  const did: string[] = [];
  const asked: Asked[] = [];
  const answers = new Map<number, FileLockStatus>();
  const core: FileLockCore = new FileLockCore(
    {
      nowMs: () => now.ms,
      askState: () => undefined,
      inheritState: () => undefined,
      shareState: (file) => did.push(`share ${file}`),
      takeBackState: () => undefined,
      giveUpState: (file) => did.push(`give up ${file}`),
      ask: (id, ask) => asked.push({ ...ask, id }),
      cancel: () => undefined,
      answer: (id, { status }) => answers.set(id, status),
      setTimer: (_, delayMs) => timers.push(now.ms + delayMs),
    },
    { locks },
  );
  const request = (op: "lock" | "unlock", file: string, owner: number, start: number, end: number): number =>
    core.request({
      file,
      op,
      owner: { kind: "posix", owner: BigInt(owner) },
      range: { type: op === "lock" ? "write" : "read", start: BigInt(start), end: BigInt(end) },
      pid: 1,
      wait: false,
    });
  /** The file is wanted, and its locks stay: the core begins to tell the service. */
  const push = (file: string): void => {
    core.stateWanted(file);
    now.ms += LOCAL_WAIT_MS;
    core.handleTimer(file);
  };
  return { core, now, timers, did, asked, answers, request, push };
}

it("an unlock that splits a shared lock is refused where it would take the room of what is kept here", () => {
  const { core, did, asked, answers, request, push } = bench(100);
  const service = new LoneService({ fileLocksPerClient: 100 });
  const statuses = new Map<number | null, FileLockStatus>([
    [0, "granted"],
    [E.ENOLCK, "limit"],
  ]);
  /** dlmd answers all that it was asked. */
  const serve = (): FileLockStatus[] =>
    asked.splice(0).map(({ id, file, op, owner, range, pid, wait }) => {
      const given = service.ask({ file, op, ownerKind: owner.kind, owner: owner.owner, pid, ...range, wait });
      const status = statuses.get(service.errno(given)) as FileLockStatus;
      core.serviceAnswered(id, status, null);
      return status;
    });
  for (let at = 0; at < 60; at++) {
    request("lock", "here", 1, 10 * at, 10 * at + 2);
    if (at === 0) core.stateGranted("here", "local");
  }
  for (let at = 0; at < 35; at++) {
    request("lock", "shared", 2, 10 * at, 10 * at + 2);
    if (at === 0) core.stateGranted("shared", "shared");
    serve();
  }
  expect(core.locks).toBe(95);
  for (let at = 0; at < 35; at++) {
    const id = request("unlock", "shared", 2, 10 * at + 1, 10 * at + 1);
    serve();
    expect(answers.get(id)).toBe("limit");
  }
  // One that does not split needs no room, and makes some.
  const whole = request("unlock", "shared", 2, 0, 12);
  serve();
  expect([answers.get(whole), core.locks]).toEqual(["granted", 93]);
  push("here");
  expect(asked.length).toBe(60);
  expect(new Set(serve())).toEqual(new Set(["granted"]));
  expect(did).toEqual(["share here"]);
});

it("what is told to the service is not counted twice: meanwhile other files can be locked", () => {
  const { core, asked, answers, request, push } = bench(100);
  for (let at = 0; at < 60; at++) {
    request("lock", "f", 1, 2 * at, 2 * at);
    if (at === 0) core.stateGranted("f", "local");
  }
  push("f");
  expect(asked.length).toBe(60);
  const id = request("lock", "g", 1, 0, 0);
  core.stateGranted("g", "local");
  expect(answers.get(id)).toBe("granted");
});

it("a request without an answer counts as all that it may add", () => {
  const { core, asked, answers, request } = bench(20);
  const ids = Array.from({ length: 10 }, (_, at) => request("lock", "f", 1, 2 * at, 2 * at));
  core.stateGranted("f", "shared");
  // All ten wait for the file's state and count; so each is refused until fewer do.
  expect([asked.length, ids.filter((id) => answers.get(id) === "limit").length]).toEqual([8, 2]);
});

it("what the service has no room for stays here, is taken out of it, and is told again after PUSH_AGAIN_MS", () => {
  const { core, now, timers, did, asked, answers, request, push } = bench(100);
  request("lock", "f", 1, 0, 0);
  core.stateGranted("f", "local");
  request("lock", "f", 2, 5, 5);
  push("f");
  const [one, two] = asked.splice(0) as [Asked, Asked];
  const unlock = request("unlock", "f", 1, 0, 0);
  core.serviceAnswered(one.id, "granted", null);
  core.serviceAnswered(two.id, "limit", null);
  // No other node gets in; and nothing is granted here before the service has none of it.
  expect([did, answers.has(unlock)]).toEqual([[], false]);
  const taken = asked.splice(0);
  expect(taken.map(({ op, owner, range }) => [op, owner.owner, range.end])).toEqual([
    ["unlock", 1n, maxOffset],
    ["unlock", 2n, maxOffset],
  ]);
  for (const { id } of taken) core.serviceAnswered(id, "granted", null);
  expect([answers.get(unlock), core.locks, core.files.get("f")?.state]).toEqual(["granted", 1, "local"]);
  expect(timers.at(-1)).toBe(now.ms + PUSH_AGAIN_MS);
  now.ms += PUSH_AGAIN_MS - 1;
  core.handleTimer("f");
  expect(asked).toEqual([]);
  now.ms += 1;
  core.handleTimer("f");
  const [again] = asked.splice(0) as [Asked];
  expect([again.op, again.owner.owner]).toEqual(["lock", 2n]);
  core.serviceAnswered(again.id, "granted", null);
  expect([did, core.files.get("f")?.state]).toEqual([["share f"], "shared"]);
});
