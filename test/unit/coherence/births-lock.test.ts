/** Hazard F51: the lock under which inodes are born that only their maker knows, and who finds an inode by its number. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { Lock, LockHandlers, Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import { BIRTHS_KEY, BIRTHS_REST_MS } from "../../../overlay/coherence/births-lock.ts";
import { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { runBirths } from "./births-model.ts";
import { bear, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

const CW = `lock i${BIRTHS_KEY} ${Mode.CW}`;
const PR = `lock i${BIRTHS_KEY} ${Mode.PR}`;
const UNLOCK = `unlock i${BIRTHS_KEY}`;

const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const waiter = (): Waiter => ({ interrupted: false, onInterrupt: null });

class Rig {
  readonly asked: string[] = [];
  readonly shell: CoherenceShell;
  #held: (() => void)[] | null = null;
  readonly #locks = new Map<Lock, LockHandlers>();
  #ino = 10;
  nowMs = 0;

  /** A lock manager that grants whatever is asked for; but not while it is held. */
  constructor() {
    const { lockspace, handlers } = lockspaceThatGrants(this.asked);
    this.#locks = handlers;
    const createLock = <A>(resource: string, given: LockHandlers<A | undefined>, astarg?: A): Lock => {
      const ast: LockHandlers<A | undefined>["ast"] = (lock, status, of) => {
        if (this.#held === null || status !== "granted") given.ast(lock, status, of);
        else this.#held.push(() => given.ast(lock, status, of));
      };
      return lockspace.createLock(resource, { ast, bast: (lock, wanted, of) => given.bast(lock, wanted, of) }, astarg);
    };
    const space: Lockspace = { ...lockspace, createLock };
    this.shell = shellOver(space, {}, undefined, undefined, undefined, undefined, () => this.nowMs);
  }

  /** Another node wants it: who has it in that mode is told. */
  wanted(mode: Mode): void {
    for (const [lock, of] of this.#locks)
      if (lock.resource === `i${BIRTHS_KEY}` && lock.mode === mode) of.bast(lock, mode === Mode.CW ? Mode.PR : Mode.CW);
  }

  /** Grants nothing from now on, until what it gives is called. */
  hold(): () => void {
    this.#held = [];
    return () => {
      const grants = this.#held ?? [];
      this.#held = null;
      for (const grant of grants) grant();
    };
  }

  make(): boolean {
    return bear(this.shell, inodeOf(this.shell, (this.#ino += 1), "file"));
  }

  async makes(): Promise<void> {
    this.make();
    await soon();
    this.asked.length = 0;
  }

  look(call: Waiter = waiter()): Promise<string> {
    return Promise.resolve(this.shell.operations.untilBirthsKnown(call)).then(() => "known");
  }
}

it("an inode is born when the lock has come, which the first creation asks for, once", async () => {
  const rig = new Rig();
  expect([rig.make(), rig.make(), rig.asked]).toEqual([false, false, [CW]]);
  await soon();
  expect([rig.make(), rig.shell.counters.unregistered, rig.asked.length]).toEqual([true, 1, 1]);
  await rig.shell.close();
  expect(rig.asked.at(-1)).toBe(UNLOCK);
});

it("a maker gives it up when all that was born is known to dlmd, and nothing is born from then on", async () => {
  const rig = new Rig();
  await rig.makes();
  const { shell, asked } = rig;
  const open = inodeOf(shell, 30, "file");
  expect([rig.make(), bear(shell, open)]).toEqual([true, true]);
  // Its write token is implied by that lock for as long as that does not leave.
  expect(await shell.operations.openForWrite(open, waiter())).toBe("cached");
  const grant = rig.hold();
  rig.wanted(Mode.CW);
  await soon();
  expect(asked).toEqual([`lock i12.7 ${Mode.PR}`, `lock i30.7 ${Mode.EX}`]);
  expect(rig.make()).toBe(false);
  // It comes twice.
  rig.wanted(Mode.CW);
  grant();
  await soon();
  expect(asked.slice(2)).toEqual([UNLOCK]);
  await shell.close();
});

it("a maker gives it up at once if all is known, and asks for it again BIRTHS_REST_MS later", async () => {
  const rig = new Rig();
  await rig.makes();
  rig.wanted(Mode.CW);
  await soon();
  rig.nowMs = BIRTHS_REST_MS - 1;
  expect([rig.make(), rig.asked]).toEqual([false, [UNLOCK]]);
  rig.nowMs = BIRTHS_REST_MS;
  expect([rig.make(), rig.asked]).toEqual([false, [UNLOCK, CW]]);
  await soon();
  expect(rig.make()).toBe(true);
  await rig.shell.close();
});

it("what was made while the lock was away for a moment is not born: somebody may have found it by its number", async () => {
  const rig = new Rig();
  await rig.makes();
  const since = rig.shell.operations.since();
  rig.wanted(Mode.CW);
  await soon();
  rig.nowMs = BIRTHS_REST_MS;
  await rig.makes();
  expect(rig.shell.operations.enterNew(inodeOf(rig.shell, 30, "file"), since)).toBe(false);
  expect([rig.make(), rig.asked]).toEqual([true, []]);
  await rig.shell.close();
});

it("who has found an inode by its number goes on when PR is here, and so does whoever found one meanwhile; it stays until a maker wants it", async () => {
  const rig = new Rig();
  const grant = rig.hold();
  const call = waiter();
  const looks = [rig.look(call), rig.look()];
  await soon();
  expect([rig.asked, call.lockKey]).toEqual([[PR], BIRTHS_KEY]);
  grant();
  expect([await Promise.all(looks), call.lockKey]).toEqual([["known", "known"], null]);
  // In the turn.
  expect(rig.shell.operations.untilBirthsKnown(waiter())).toBeUndefined();
  expect(rig.asked).toEqual([PR]);
  rig.wanted(Mode.PR);
  const next = rig.look();
  expect(rig.asked).toEqual([PR, UNLOCK]);
  expect(await next).toBe("known");
  expect(rig.asked).toEqual([PR, UNLOCK, PR]);
  await rig.shell.close();
  expect(rig.asked.at(-1)).toBe(UNLOCK);
});

it("who is killed while it waits is told, and the others go on", async () => {
  const rig = new Rig();
  const grant = rig.hold();
  const call = waiter();
  const looks = [rig.look(call), rig.look()] as const;
  await soon();
  call.onInterrupt?.();
  await expect(looks[0]).rejects.toMatchObject({ errno: E.EINTR });
  grant();
  expect(await looks[1]).toBe("known");
  await expect(rig.look({ interrupted: true, onInterrupt: null })).rejects.toMatchObject({ errno: E.EINTR });
  await rig.shell.close();
});

it("nothing is asked for or given up without the lease, and nothing counts as known", async () => {
  const rig = new Rig();
  const { shell, asked } = rig;
  await rig.makes();
  shell.suspend();
  rig.wanted(Mode.CW);
  expect([asked, rig.make()]).toEqual([[], false]);
  shell.resume(false);
  await soon();
  expect(asked.splice(0)).toEqual([UNLOCK]);
  expect(await rig.look()).toBe("known");
  shell.suspend();
  const waits = rig.look();
  const killed = waiter();
  const alone = rig.look(killed);
  rig.nowMs = BIRTHS_REST_MS;
  rig.make();
  await soon();
  killed.onInterrupt?.();
  await expect(alone).rejects.toMatchObject({ errno: E.EINTR });
  expect(asked).toEqual([PR]);
  shell.resume(false);
  expect([await waits, asked]).toEqual(["known", [PR, CW]]);
  shell.suspend();
  rig.wanted(Mode.PR);
  expect(asked).toEqual([PR, CW]);
  shell.resume(false);
  await soon();
  expect(asked).toEqual([PR, CW, UNLOCK]);
  await shell.close();
});

it("stays where the mount keeps its locks", async () => {
  const rig = new Rig();
  await rig.makes();
  rig.shell.keepLocks();
  rig.wanted(Mode.CW);
  expect([rig.asked, rig.make()]).toEqual([[], false]);
  await rig.shell.close();
  expect(rig.asked).toEqual([]);
});

it("what comes after the end of the mount is given back", async () => {
  const rig = new Rig();
  rig.make();
  await rig.shell.close();
  await soon();
  expect([rig.asked, rig.make()]).toEqual([[CW, UNLOCK], false]);
});

it("when dlmd has died nobody goes on by number, and what is born is (hazard F42)", async () => {
  const rig = new Rig();
  await rig.makes();
  rig.hold();
  const waits = rig.look();
  await soon();
  rig.shell.beAlone();
  await expect(waits).rejects.toMatchObject({ errno: E.EINTR });
  await expect(rig.look()).rejects.toMatchObject({ errno: E.EINTR });
  expect([rig.make(), rig.asked]).toEqual([true, [PR]]);
});

it("when the mount is lost, whoever waits is told EIO, and so is who comes", async () => {
  const rig = new Rig();
  rig.hold();
  const waits = rig.look();
  await soon();
  rig.shell.failWaiters();
  await expect(waits).rejects.toMatchObject({ errno: E.EIO });
  await expect(rig.look()).rejects.toMatchObject({ errno: E.EIO });
});

const SEEDS = Number(process.env["COVERLAY_BIRTHS_SEEDS"] ?? 60);

it("model: whoever has found an inode by its number goes on when no node has it as its own, and none has it so afterwards", async () => {
  let [born, told, looks] = [0, 0, 0];
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const result = await runBirths(seed, 3, 600);
    expect(result, `seed ${seed}`).toMatchObject({ violation: null, unfinished: 0 });
    born += result.born;
    told += result.told;
    looks += result.looks;
  }
  // All of it happens.
  expect(Math.min(born, told, looks)).toBeGreaterThan(2 * SEEDS);
});
