/** The question whether the owner lives, or all mounts (hazard H13), over a queue of locks as a lock manager has it. */
import { expect, it } from "vitest";
import { assert } from "../../../dlmd/base/assert.ts";
import { type Lock, LockFlag, type LockHandlers, type LockStatus, type Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { AliveLock, type AliveKind, mountsAlive, ownerAlive } from "../../../overlay/serve/alive-lock.ts";

interface Entry {
  readonly node: string;
  readonly mode: Mode;
  readonly lock: { busy: boolean; exists: boolean };
  readonly handlers: LockHandlers;
  granted: boolean;
}

/** One resource; what nodes ask for is done in `settle`, a node that stands still hears nothing. */
class Queue {
  readonly entries: Entry[] = [];
  readonly still: Set<string> = new Set();
  readonly #events: { readonly node: string; readonly run: () => void }[] = [];
  readonly #kind: AliveKind;
  batches = 0;

  constructor(kind: AliveKind) {
    this.#kind = kind;
  }

  lockspace(node: string): Lockspace {
    return {
      name: "vol",
      whenOver: () => () => undefined,
      batch: (make) => {
        this.batches += 1;
        make();
      },
      createLock: (resource: string, handlers: LockHandlers) => {
        assert(resource === this.#kind.resource, resource);
        const lock = { busy: false, exists: false, error: null } as unknown as Lock & { busy: boolean; exists: boolean };
        let entry: Entry | null = null;
        const tell = (status: LockStatus): void => {
          this.#events.push({
            node,
            run: () => {
              lock.busy = false;
              lock.exists = status === "granted";
              handlers.ast(lock, status);
            },
          });
        };
        lock.request = (mode, flags) => {
          assert(!lock.busy && !lock.exists && flags === LockFlag.PROMPT, "a lock is asked for once, and judged in every role");
          lock.busy = true;
          entry = { node, mode, lock, handlers: { ...handlers, ast: (_, status) => tell(status) }, granted: false };
          this.entries.push(entry);
        };
        lock.unlock = () => {
          assert(!lock.busy && lock.exists, "what is given up was granted");
          lock.busy = true;
          this.entries.splice(this.entries.indexOf(entry as Entry), 1);
          tell("unlocked");
        };
        lock.cancel = () => {
          if (entry === null || entry.granted) return;
          this.entries.splice(this.entries.indexOf(entry), 1);
          tell("canceled");
        };
        return lock;
      },
    };
  }

  #grant(): void {
    for (const entry of this.entries) {
      const before = this.entries.slice(0, this.entries.indexOf(entry));
      if (before.some((one) => one.mode === Mode.EX || entry.mode === Mode.EX)) {
        for (const holder of before.filter((one) => one.granted && (one.mode === Mode.EX || entry.mode === Mode.EX)))
          this.#events.push({ node: holder.node, run: () => holder.handlers.bast(holder.lock as unknown as Lock, entry.mode) });
        return;
      }
      if (entry.granted) continue;
      entry.granted = true;
      entry.handlers.ast(entry.lock as unknown as Lock, "granted");
    }
  }

  /** Everything that those do who do not stand still. */
  settle(): void {
    for (let turn = 0; turn < 500; turn++) {
      this.#grant();
      const at = this.#events.findIndex(({ node }) => !this.still.has(node));
      if (at < 0) return;
      this.#events.splice(at, 1)[0]?.run();
    }
  }

  get holders(): string[] {
    return this.entries.map(({ node, mode, granted }) => `${node} ${mode === Mode.EX ? "EX" : "PR"} ${granted ? "has" : "waits"}`);
  }
}

function scene(kind: AliveKind = ownerAlive) {
  const queue = new Queue(kind);
  const node = (name: string): AliveLock =>
    new AliveLock(kind, {
      lockspace: queue.lockspace(name),
      fail: (error) => {
        throw error;
      },
    });
  return { queue, owner: node("owner"), one: node("one"), other: node("other") };
}

it("H13: an owner that lives lets everybody through who asks, as often as they ask, and has the lock again", () => {
  const { queue, owner, one, other } = scene();
  owner.serve();
  for (let round = 1; round <= 3; round++) {
    one.ask();
    other.ask();
    queue.settle();
    expect(queue.holders).toEqual(["owner EX has"]);
  }
  // It gives up and takes again in one message.
  expect(queue.batches).toBe(3);
});

it("H13: an owner that stands still keeps who asks, each with one question: that is what its dlmd judges", () => {
  const { queue, owner, one } = scene();
  owner.serve();
  queue.settle();
  queue.still.add("owner");
  one.ask();
  one.ask();
  queue.settle();
  expect(queue.holders).toEqual(["owner EX has", "one PR waits"]);
  // It goes on before it was judged.
  queue.still.clear();
  queue.settle();
  expect(queue.holders).toEqual(["owner EX has"]);
  one.ask();
  queue.settle();
  expect(queue.holders).toEqual(["owner EX has"]);
});

it("H13: an owner that has just answered can be asked again, whenever it stops", () => {
  const { queue, owner, one, other } = scene();
  owner.serve();
  queue.settle();
  one.ask();
  queue.still.add("one");
  queue.settle();
  // `one` has the lock and stands still; the owner is in line before whoever comes.
  expect(queue.holders).toEqual(["one PR has", "owner EX waits"]);
  queue.still.add("owner");
  other.ask();
  queue.still.delete("one");
  queue.settle();
  expect(queue.holders).toEqual(["owner EX has", "other PR waits"]);
});

it("H13: mounts that live let everybody through who asks for all of them, and hold the lock again", () => {
  const { queue, owner, one, other } = scene(mountsAlive);
  const all = [owner, one, other];
  for (const mount of all) mount.serve();
  for (let round = 1; round <= 3; round++) {
    for (const mount of all) mount.ask();
    queue.settle();
    expect(queue.holders.toSorted()).toEqual(["one PR has", "other PR has", "owner PR has"]);
  }
});

it("H13: of all mounts the one that stands still keeps who asks, whatever its role, and no other does", () => {
  const { queue, owner, one, other } = scene(mountsAlive);
  for (const mount of [owner, one, other]) mount.serve();
  queue.settle();
  queue.still.add("one");
  owner.ask();
  other.ask();
  queue.settle();
  expect(queue.holders.filter((line) => line.endsWith(" has"))).toEqual(["one PR has"]);
  expect(queue.holders.filter((line) => line.includes(" EX "))).toEqual(["owner EX waits", "other EX waits"]);
  queue.still.clear();
  queue.settle();
  expect(queue.holders.toSorted()).toEqual(["one PR has", "other PR has", "owner PR has"]);
});

it("has no lock when it is the owner no more, whether it had it or waited for it", () => {
  const { queue, owner, one } = scene();
  owner.serve();
  queue.settle();
  owner.stop();
  queue.settle();
  expect(queue.holders).toEqual([]);
  one.ask();
  queue.still.add("one");
  queue.settle();
  owner.serve();
  queue.settle();
  expect(queue.holders).toEqual(["one PR has", "owner EX waits"]);
  owner.stop();
  queue.still.clear();
  queue.settle();
  expect(queue.holders).toEqual([]);
  // And again, as a later owner.
  owner.serve();
  queue.settle();
  expect(queue.holders).toEqual(["owner EX has"]);
});

it("gives up what it got when it was the owner no more", () => {
  const { queue, owner } = scene();
  owner.serve();
  queue.still.add("owner");
  queue.settle();
  expect(queue.holders).toEqual(["owner EX has"]);
  owner.stop();
  queue.still.clear();
  queue.settle();
  expect(queue.holders).toEqual([]);
});

it("says what dlmd refuses", () => {
  const failures: string[] = [];
  const refused = new Error("refused");
  const lockspace: Lockspace = {
    name: "vol",
    batch: (make) => make(),
    whenOver: () => () => undefined,
    createLock: (_: string, handlers: LockHandlers) =>
      ({ request: () => handlers.ast({ error: refused } as unknown as Lock, "error") }) as unknown as Lock,
  };
  new AliveLock(ownerAlive, { lockspace, fail: (error) => void failures.push(error.message) }).ask();
  expect(failures).toEqual(["refused"]);
});
