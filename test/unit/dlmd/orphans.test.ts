/** C6: a persistent lock outlives its client, is adopted by its owner, stolen by nobody, and can be purged. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { ORPHAN, PERSISTENT, VALBLK } from "../../../dlmd/wire/flag.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type Bench, createBench } from "./bench-node.ts";

const { NL, PR, EX } = Mode;
const me = { uid: 1000, pid: 11, owner: "mine" };

/** Client 1 holds "r" at EX, persistent, and is gone; client 2 waits for it. */
function left(): Bench {
  const b = createBench([]);
  b.connect(1, me);
  b.connect(2, { uid: 1000, pid: 12, owner: "other" });
  b.lock(1, 1, EX, PERSISTENT | VALBLK);
  b.convert(1, 1, EX, VALBLK | PERSISTENT, new Uint8Array([7]));
  b.told();
  b.gone(1);
  b.lock(2, 1, PR, VALBLK);
  return b;
}

function orphans(b: Bench): unknown[] {
  return b
    .inspected()
    .resources.flatMap(({ grantQueue }) => grantQueue)
    .filter(({ orphan }) => orphan);
}

describe("an orphan", () => {
  it("stays held, and can be seen; nobody is asked to let go of its client", () => {
    const b = left();
    expect(b.told()).toEqual([]);
    expect(b.effects).toEqual([]);
    expect(orphans(b)).toMatchObject([{ clientId: 1, granted: "EX" }]);
  });

  it("of a client that converted to what it had, the adopter hears for what others wait all the same", () => {
    const b = createBench([2]);
    b.connect(1, me);
    b.lock(1, 1, EX, PERSISTENT);
    b.lock(2, 1, PR);
    expect(b.told()).toContain("1:1 bast PR");
    b.convert(1, 1, EX);
    b.gone(1);
    b.connect(3, me);
    b.told();
    b.lock(3, 1, EX, ORPHAN);
    expect(b.told()).toEqual(["3:1 granted EX", "3:1 bast PR"]);
  });

  it("is adopted by a client of the same owner, with its block, and hears what it missed", () => {
    const b = left();
    b.connect(3, { ...me, pid: 13 });
    b.lock(3, 9, EX, ORPHAN | VALBLK | PERSISTENT);
    expect(b.told()).toEqual(["3:9 granted EX", "3:9 bast PR"]);
    expect(b.last(3, 9)).toMatchObject({ lvbRead: true, lvb: new Uint8Array([7]) });
    expect(orphans(b)).toEqual([]);
    b.convert(3, 9, NL);
    expect(b.told()).toEqual(["3:9 granted NL", "2:1 granted PR"]);
    expect(b.node.query("status", 1)).toMatchObject({ clients: 2 });
  });

  it("wrong mode: EAGAIN; none there: ENOENT; another key, another user, or no key: ENOENT", () => {
    const b = left();
    b.connect(3, me);
    b.lock(3, 1, PR, ORPHAN);
    expect(b.last(3, 1).error?.errno).toBe(E.EAGAIN);
    b.request(3, { kind: "lock", lockspaceId: 1, lockId: 1, resource: "elsewhere", mode: EX, flags: ORPHAN });
    expect(b.last(3, 1).error?.errno).toBe(E.ENOENT);
    b.lock(2, 2, EX, ORPHAN);
    expect(b.last(2, 2).error?.errno).toBe(E.ENOENT);
    b.connect(4, { ...me, uid: 1001 });
    b.lock(4, 1, EX, ORPHAN);
    expect(b.last(4, 1).error?.errno).toBe(E.ENOENT);
    expect(orphans(b)).toHaveLength(1);
  });

  it("of a client without a key is nobody's", () => {
    const b = createBench([]);
    const keyless = { uid: 1000, pid: 1, owner: "" };
    b.connect(1, keyless);
    b.lock(1, 1, EX, PERSISTENT);
    b.gone(1);
    b.connect(2, keyless);
    b.lock(2, 1, EX, ORPHAN);
    expect(b.last(2, 1).error?.errno).toBe(E.ENOENT);
  });

  it("what it had asked for is taken back; what is not persistent is released when all have let go", () => {
    const b = createBench([]);
    b.connect(1, me);
    b.connect(2);
    b.lock(1, 1, PR, PERSISTENT);
    b.request(1, { kind: "lock", lockspaceId: 1, lockId: 2, resource: "s", mode: EX, flags: 0 });
    b.lock(2, 1, PR);
    b.request(2, { kind: "lock", lockspaceId: 1, lockId: 2, resource: "s", mode: EX, flags: 0 });
    b.convert(1, 1, EX);
    b.told();
    b.gone(1);
    b.convert(2, 1, NL);
    expect(b.told()).toEqual(["2:1 granted NL"]);
    b.request(2, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual(["2:2 granted EX"]);
    b.connect(3, me);
    b.lock(3, 1, PR, ORPHAN);
    expect(b.told()).toEqual(["3:1 granted PR"]);
  });
});

describe("purge", () => {
  it("by the pid of the dead, when all have let go of it; its block is not valid then", () => {
    const b = left();
    b.request(2, { kind: "purge", purgeId: 1, lockspaceId: 1, nodeid: 1, pid: 99 });
    expect(b.told()).toEqual(["2 purged 0"]);
    b.request(2, { kind: "purge", purgeId: 2, lockspaceId: 1, nodeid: 1, pid: 11 });
    expect(b.told()).toEqual(["2 purged 1"]);
    b.request(2, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual(["2:1 granted PR"]);
    expect(b.last(2, 1).lvbValid).toBe(false);
    expect(orphans(b)).toEqual([]);
  });

  it("not of another user, unless it is root's; not on a node that is not there; not of the living", () => {
    const b = left();
    b.connect(3, { uid: 1001, pid: 1, owner: "" });
    b.request(3, { kind: "purge", purgeId: 1, lockspaceId: 1, nodeid: 1, pid: 11 });
    b.request(3, { kind: "purge", purgeId: 2, lockspaceId: 1, nodeid: 9, pid: 11 });
    b.request(3, { kind: "purge", purgeId: 3, lockspaceId: 5, nodeid: 1, pid: 11 });
    b.connect(4, { uid: 0, pid: 1, owner: "" });
    b.request(4, { kind: "purge", purgeId: 4, lockspaceId: 1, nodeid: 1, pid: 12 });
    expect(b.told()).toEqual([
      "3 purged 0",
      "3 purged 0 node 9 is not in the view: what it left behind is gone with it",
      "3 purged 0 lockspace 5 is not open",
      "4 purged 0",
    ]);
    b.request(4, { kind: "purge", purgeId: 5, lockspaceId: 1, nodeid: 1, pid: 0 });
    expect(b.told()).toEqual(["4 purged 1"]);
  });
});
