/** A program can neither name nor read nor change the locks of another one on its node, whoever it is: locks are those of a connection. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { ORPHAN, VALBLK } from "../../../dlmd/wire/flag.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type Bench, createBench } from "./bench-node.ts";

const { NL, PR, EX } = Mode;
const secret = new Uint8Array([42]);

/** Client 1 holds "r" at EX as its lock 5, with a value block. Client 2 runs as the same user, with the same owner key; 3 is root. */
function held(): Bench {
  const b = createBench([]);
  b.connect(1, { uid: 1000, pid: 11, owner: "mine" });
  b.connect(2, { uid: 1000, pid: 12, owner: "mine" });
  b.connect(3, { uid: 0, pid: 13, owner: "" });
  b.lock(1, 5, EX, VALBLK);
  b.convert(1, 5, EX, VALBLK, secret);
  b.told();
  return b;
}

/** Still lock 5 of client 1, and nobody else's. */
function untouched(b: Bench): void {
  expect(b.inspected().resources.flatMap(({ grantQueue }) => grantQueue)).toMatchObject([{ clientId: 1, lockId: 5, granted: "EX" }]);
  expect(b.told().filter((word) => word.startsWith("1:"))).toEqual([]);
}

describe.each([2, 3])("client %i, with the number of another program's lock", (other) => {
  it("can not convert it: ENOENT", () => {
    const b = held();
    b.convert(other, 5, NL, VALBLK, new Uint8Array([1]));
    expect(b.last(other, 5)).toMatchObject({ status: "error", error: { errno: E.ENOENT }, lvbRead: false });
    untouched(b);
  });

  it("can not unlock it, nor force it off: ENOENT", () => {
    const b = held();
    b.unlock(other, 5);
    expect(b.last(other, 5)).toMatchObject({ status: "error", error: { errno: E.ENOENT } });
    untouched(b);
  });

  it("cancels nothing of it", () => {
    const b = held();
    b.lock(1, 6, PR);
    b.told();
    b.cancel(other, 6);
    expect(b.told()).toEqual([]);
    b.cancel(1, 6);
    expect(b.told()).toEqual(["1:6 canceled NL"]);
  });

  it("can not adopt it while its program lives: ENOENT, though the owner key is the same", () => {
    const b = held();
    b.lock(other, 9, EX, ORPHAN | VALBLK);
    expect(b.last(other, 9)).toMatchObject({ status: "error", error: { errno: E.ENOENT }, lvbRead: false });
    untouched(b);
  });

  it("reads no value block that is written under EX: its own lock waits, and what it is told has none of it", () => {
    const b = held();
    b.lock(other, 5, PR, VALBLK);
    b.told();
    expect(JSON.stringify(b.effects)).not.toContain("42");
    b.unlock(1, 5, VALBLK, secret);
    // By the rules of the lock manager, and when the other program let it: that is sharing.
    expect(b.last(other, 5)).toMatchObject({ status: "granted", lvbRead: true, lvb: secret });
  });

  it("uses the same number for a lock of its own, and does not touch the other's", () => {
    const b = held();
    b.request(other, { kind: "lock", lockspaceId: 1, lockId: 5, resource: "elsewhere", mode: EX, flags: 0 });
    expect(b.last(other, 5)).toMatchObject({ status: "granted" });
    b.unlock(other, 5);
    expect(b.last(other, 5)).toMatchObject({ status: "unlocked" });
    untouched(b);
  });
});
