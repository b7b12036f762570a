/** Every flag of a request, and what does not go together (Linux fs/dlm/lock.c). */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import * as F from "../../../dlmd/wire/flag.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { createBench } from "./bench-node.ts";

const { NL, CR, CW, PR, PW, EX } = Mode;

describe("order", () => {
  it("QUECVT: a conversion waits behind others though it could be granted in place", () => {
    const b = createBench([1, 2, 3, 4]);
    b.lock(1, 1, PR);
    b.lock(2, 1, PR);
    b.lock(3, 1, NL);
    b.lock(4, 1, NL);
    b.convert(1, 1, EX);
    b.told();
    b.convert(3, 1, PR);
    expect(b.told()).toEqual(["3:1 granted PR", "3:1 bast EX"]);
    b.convert(4, 1, CR, F.QUECVT);
    expect(b.told()).toEqual([]);
    b.unlock(2, 1);
    b.unlock(3, 1);
    expect(b.told()).toContain("1:1 granted EX");
    b.convert(1, 1, NL);
    expect(b.told()).toEqual(["1:1 granted NL", "4:1 granted CR"]);
  });

  it("HEADQUE: before those who wait already", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, EX);
    b.lock(2, 1, EX);
    b.lock(3, 1, EX, F.HEADQUE);
    b.told();
    b.unlock(1, 1);
    expect(b.told()).toContain("3:1 granted EX");
  });

  it("HEADQUE: granted at once if that is all that held it back", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PR);
    b.lock(2, 1, EX);
    b.told();
    b.lock(3, 1, PR, F.HEADQUE);
    expect(b.told()).toEqual(["3:1 granted PR", "3:1 bast EX"]);
  });

  it("NOORDER: as soon as it is compatible, whatever waits", () => {
    const b = createBench([1, 2, 3, 4]);
    b.lock(1, 1, PR);
    b.lock(2, 1, EX);
    b.told();
    b.lock(3, 1, PR, F.NOORDER);
    expect(b.told()).toEqual(["3:1 granted PR", "3:1 bast EX"]);
    b.lock(4, 1, CW, F.NOORDER);
    b.unlock(3, 1);
    b.told();
    b.convert(1, 1, CR);
    expect(b.told()).toEqual(["1:1 granted CR", "1:1 bast EX", "4:1 granted CW", "4:1 bast EX"]);
  });

  it("EXPEDITE: a new lock at NL is granted whatever waits", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, EX);
    b.lock(2, 1, EX);
    b.lock(3, 1, NL);
    b.told();
    b.lock(3, 2, NL, F.EXPEDITE);
    expect(b.told()).toEqual(["3:2 granted NL"]);
  });
});

describe("alternative modes", () => {
  it("ALTPR and ALTCW: granted as that if not as asked", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PR);
    b.lock(2, 1, EX, F.ALTPR);
    expect(b.told()).toEqual(["1:1 granted PR", "2:1 granted PR altmode"]);
    b.lock(3, 1, EX, F.ALTCW);
    b.told();
    b.convert(1, 1, CW);
    b.unlock(2, 1);
    expect(b.told()).toEqual(["1:1 granted CW", "3:1 granted CW altmode", "2:1 unlocked NL"]);
  });

  it("as asked if possible", () => {
    const b = createBench([1]);
    b.lock(1, 1, EX, F.ALTPR);
    expect(b.told()).toEqual(["1:1 granted EX"]);
  });

  it("a conversion never loses by it what the lock had", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, PW);
    b.lock(2, 1, CR);
    b.told();
    b.convert(1, 1, EX, F.ALTPR);
    expect(b.told()).toEqual(["2:1 bast EX"]);
    b.cancel(1, 1);
    expect(b.told()).toEqual(["1:1 canceled PW"]);
    b.convert(1, 1, PR);
    b.told();
    b.convert(1, 1, EX, F.ALTPR);
    expect(b.told()).toEqual(["1:1 granted PR altmode"]);
  });
});

describe("conversion deadlock", () => {
  it("CONVDEADLK: gives its mode up and waits on", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, PR);
    b.lock(2, 1, PR);
    b.convert(1, 1, EX);
    b.told();
    b.convert(2, 1, EX, F.CONVDEADLK);
    expect(b.told()).toEqual(["1:1 granted EX", "1:1 bast EX"]);
    b.unlock(1, 1);
    expect(b.told()).toEqual(["2:1 granted EX demoted", "1:1 unlocked NL"]);
  });

  it("CONVDEADLK: canceled afterwards, the mode is NL", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, PR);
    b.lock(2, 1, PR);
    b.convert(1, 1, EX);
    b.convert(2, 1, EX, F.CONVDEADLK);
    b.told();
    b.cancel(2, 1);
    expect(b.told()).toEqual(["2:1 canceled NL demoted"]);
    b.convert(2, 1, CR);
    b.unlock(1, 1);
    expect(b.told().sort()).toEqual(["1:1 unlocked NL", "2:1 granted CR"]);
  });

  it("NODLCKWT: both wait until somebody gives way", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, PR);
    b.lock(2, 1, PR);
    b.convert(1, 1, EX);
    b.told();
    b.convert(2, 1, EX, F.NODLCKWT);
    expect(b.told()).toEqual([]);
    b.cancel(1, 1);
    expect(b.told()).toEqual(["1:1 canceled PR", "1:1 bast EX"]);
    b.unlock(1, 1);
    expect(b.told()).toEqual(["2:1 granted EX", "1:1 unlocked NL"]);
  });
});

describe("ends", () => {
  it("CANCEL with an unlock takes the request back", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    b.told();
    b.unlock(2, 1, F.CANCEL);
    expect(b.told()).toEqual(["2:1 canceled NL"]);
    b.unlock(1, 1, F.CANCEL);
    expect(b.told()).toEqual([]);
  });

  it("FORCEUNLOCK: waiting, converting, or neither", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PR);
    b.lock(2, 1, EX);
    b.lock(3, 1, PR);
    b.told();
    b.unlock(2, 1, F.FORCEUNLOCK);
    expect(b.told()).toEqual(["2:1 canceled NL", "2:1 unlocked NL", "3:1 granted PR"]);
    b.convert(1, 1, EX);
    b.told();
    b.unlock(1, 1, F.FORCEUNLOCK);
    expect(b.told()).toEqual(["1:1 canceled PR", "1:1 unlocked NL"]);
    b.unlock(3, 1, F.FORCEUNLOCK);
    expect(b.told()).toEqual(["3:1 unlocked NL"]);
  });

  it.each([
    ["PW with VALBLK", PW, 0, F.VALBLK, [7], true],
    ["PW with IVVALBLK", PW, 0, F.IVVALBLK, [1], false],
    ["PW without a flag", PW, 0, 0, [1], true],
    ["PR, which may not write", PR, 0, F.VALBLK, [1], true],
    ["PW that CONVDEADLK may have given away", PW, F.CONVDEADLK, F.VALBLK, [1], true],
  ] as const)("FORCEUNLOCK writes the block as its mode says: %s", (_, mode, converting, unlocking, block, valid) => {
    const b = createBench([1, 2, 3]);
    b.lock(2, 1, CR);
    b.lock(1, 1, PW);
    b.convert(1, 1, mode, F.VALBLK, Uint8Array.of(1));
    b.convert(1, 1, EX, converting);
    b.told();
    b.unlock(1, 1, F.FORCEUNLOCK | unlocking, Uint8Array.of(7));
    expect(b.told().at(-1)).toBe("1:1 unlocked NL");
    b.lock(3, 1, PR, F.VALBLK);
    const { lvb, lvbValid } = b.last(3, 1);
    expect([[...(lvb ?? [])], lvbValid]).toEqual([block, valid]);
  });

  it("a time-out takes the request back, and only that", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PR);
    b.request(2, { kind: "lock", lockspaceId: 1, lockId: 1, resource: "r", mode: EX, flags: 0, timeoutMs: 100 });
    b.request(3, { kind: "lock", lockspaceId: 1, lockId: 1, resource: "r", mode: PR, flags: 0, timeoutMs: 500 });
    b.told();
    expect(b.node.nextDeadline()).toBeLessThanOrEqual(101);
    b.at(100);
    expect(b.told()).toEqual([]);
    b.at(101);
    expect(b.told()).toEqual(["2:1 timeout NL", "3:1 granted PR"]);
    b.request(3, { kind: "convert", lockId: 1, mode: EX, flags: 0, lvb: null, timeoutMs: 10 });
    b.at(120);
    expect(b.told()).toEqual(["3:1 timeout PR"]);
    b.at(900);
    expect(b.told()).toEqual([]);
  });
});

describe("what does not go together is EINVAL", () => {
  const b = createBench([1]);
  b.lock(1, 1, PR);
  const errno = (lockId: number): number | undefined => b.last(1, lockId).error?.errno;
  const locks: [string, number, Mode][] = [
    ["CANCEL", F.CANCEL, PR],
    ["CONVERT", F.CONVERT, PR],
    ["QUECVT", F.QUECVT, PR],
    ["CONVDEADLK", F.CONVDEADLK, PR],
    ["FORCEUNLOCK", F.FORCEUNLOCK, PR],
    ["EXPEDITE above NL", F.EXPEDITE, PR],
    ["EXPEDITE and NOQUEUE", F.EXPEDITE | F.NOQUEUE, NL],
    ["an unknown flag", 0x4000_0000, NL],
  ];
  it.each(locks)("a new lock with %s", (_, flags, mode) => {
    b.lock(1, 2, mode, flags);
    expect(errno(2)).toBe(E.EINVAL);
  });

  const converts: [string, number, Mode][] = [
    ["CANCEL", F.CANCEL, EX],
    ["EXPEDITE", F.EXPEDITE, EX],
    ["ORPHAN", F.ORPHAN, EX],
    ["CONVDEADLK and NOQUEUE", F.CONVDEADLK | F.NOQUEUE, EX],
    ["MAYKEEP and PROMPT", F.MAYKEEP | F.PROMPT, EX],
    ["QUECVT to the same mode", F.QUECVT, PR],
    ["QUECVT down", F.QUECVT, CR],
  ];
  it.each(converts)("a conversion with %s", (_, flags, mode) => {
    b.convert(1, 1, mode, flags);
    expect(errno(1)).toBe(E.EINVAL);
  });

  it.each([
    ["NOQUEUE", F.NOQUEUE],
    ["CANCEL and FORCEUNLOCK", F.CANCEL | F.FORCEUNLOCK],
  ])("an unlock with %s", (_, flags) => {
    b.unlock(1, 1, flags);
    expect(errno(1)).toBe(E.EINVAL);
  });

  it("CONVERT may be said of a conversion, QUECVT of one that gains something", () => {
    b.convert(1, 1, CW, F.CONVERT | F.QUECVT);
    expect(b.last(1, 1)).toMatchObject({ status: "granted", mode: CW });
  });
});
