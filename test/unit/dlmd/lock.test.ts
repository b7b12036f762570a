/** Queues, conversions, blocking ASTs, cancel and value blocks at a master, through a node that is alone in its cluster. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { FORCEUNLOCK, IVVALBLK, MAYKEEP, NOQUEUE, NOQUEUEBAST, VALBLK } from "../../../dlmd/wire/flag.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { lockspacesPerClient } from "../../../dlmd/wire/peer-gone.ts";
import { createBench } from "./bench-node.ts";

const { NL, CR, CW, PR, PW, EX } = Mode;

describe("queues", () => {
  it("grants compatible locks at once and queues the others, first come first served", () => {
    const b = createBench([1, 2, 3, 4]);
    b.lock(1, 1, PR);
    b.lock(2, 1, EX);
    b.lock(3, 1, PR);
    expect(b.told()).toEqual(["1:1 granted PR", "1:1 bast EX"]);
    b.unlock(1, 1);
    expect(b.told()).toEqual(["2:1 granted EX", "2:1 bast PR", "1:1 unlocked NL"]);
    b.lock(4, 1, PR);
    b.unlock(2, 1);
    expect(b.told()).toEqual(["3:1 granted PR", "4:1 granted PR", "2:1 unlocked NL"]);
  });

  it("a new request waits behind waiters even if it is compatible with what is granted", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PR);
    b.lock(2, 1, EX);
    b.told();
    b.lock(3, 1, CR);
    expect(b.told()).toEqual([]);
  });

  it("conversions go before waiters", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, CR);
    b.lock(2, 1, CR);
    b.lock(3, 1, EX);
    b.convert(1, 1, EX);
    b.told();
    b.unlock(2, 1);
    expect(b.told()).toEqual(["1:1 granted EX", "1:1 bast EX", "2:1 unlocked NL"]);
  });

  it("NOQUEUE: again, nothing queued; with NOQUEUEBAST the holders are told", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PR);
    b.told();
    b.lock(2, 1, EX, NOQUEUE);
    expect(b.told()).toEqual(["2:1 again NL"]);
    b.lock(2, 1, EX, NOQUEUE | NOQUEUEBAST);
    expect(b.told()).toEqual(["2:1 again NL", "1:1 bast EX"]);
    b.lock(3, 1, PR);
    expect(b.told()).toEqual(["3:1 granted PR"]);
    b.convert(3, 1, EX, NOQUEUE);
    expect(b.told()).toEqual(["3:1 again PR"]);
  });
});

describe("conversions", () => {
  it("in place, past the waiters, if compatible with all that is granted", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, NL);
    b.lock(2, 1, PR);
    b.lock(3, 1, EX);
    b.told();
    b.convert(1, 1, PR);
    expect(b.told()).toEqual(["1:1 granted PR", "1:1 bast EX"]);
  });

  it("down takes effect at once and lets waiters in", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    b.told();
    b.convert(1, 1, PR);
    expect(b.told()).toEqual(["1:1 granted PR", "2:1 granted PR"]);
  });

  it("a conversion between PR and CW may let others in", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, PR);
    b.lock(2, 1, CW);
    b.told();
    b.convert(1, 1, CW);
    expect(b.told()).toEqual(["1:1 granted CW", "2:1 granted CW"]);
  });

  it("deadlock: the newcomer is refused and keeps its mode", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, PR);
    b.lock(2, 1, PR);
    b.convert(1, 1, EX);
    b.told();
    b.convert(2, 1, EX);
    expect(b.told()).toEqual(["2:1 deadlock PR"]);
    b.unlock(2, 1);
    expect(b.told()).toEqual(["1:1 granted EX", "2:1 unlocked NL"]);
  });

  it("cancel: back to the granted mode, and the next in line is looked at", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PR);
    b.lock(2, 1, EX);
    b.lock(3, 1, PR);
    b.told();
    b.cancel(2, 1);
    expect(b.told()).toEqual(["2:1 canceled NL", "3:1 granted PR"]);
    b.convert(3, 1, EX);
    b.cancel(3, 1);
    // 1:1 was told of EX already, and has the same mode since.
    expect(b.told()).toEqual(["3:1 canceled PR"]);
    b.cancel(3, 1);
    expect(b.told()).toEqual([]);
  });
});

describe("blocking ASTs", () => {
  it("are not repeated while the holder has been told of as much, and come again after it got a new mode", () => {
    const b = createBench([1, 2, 3, 4]);
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    b.lock(3, 1, EX);
    expect(b.told()).toEqual(["1:1 granted EX", "1:1 bast PR"]);
    b.convert(1, 1, PR);
    expect(b.told()).toEqual(["1:1 granted PR", "1:1 bast EX", "2:1 granted PR", "2:1 bast EX"]);
    b.lock(4, 1, EX);
    expect(b.told()).toEqual([]);
  });

  it("PR and CW do not stand for each other", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    b.told();
    b.cancel(2, 1);
    b.lock(3, 1, CW);
    expect(b.told()).toEqual(["2:1 canceled NL", "1:1 bast CW"]);
  });

  it("a holder granted while others wait learns of it with the grant", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, EX);
    b.lock(2, 1, EX);
    b.lock(3, 1, EX);
    b.told();
    b.unlock(1, 1);
    expect(b.told()).toEqual(["2:1 granted EX", "2:1 bast EX", "1:1 unlocked NL"]);
  });
});

describe("value block", () => {
  const one = new Uint8Array([1, 1]);
  const two = new Uint8Array([2, 2]);

  it("is written on the way down and read on the way up; the sequence counts writes", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, EX, VALBLK);
    expect(b.last(1, 1)).toMatchObject({ lvbRead: true, lvb: null, lvbValid: true });
    b.convert(1, 1, NL, VALBLK, one);
    b.lock(2, 1, PR, VALBLK);
    expect(b.last(2, 1)).toMatchObject({ lvbRead: true, lvb: one, lvbValid: true });
    b.convert(2, 1, NL, VALBLK, two);
    b.convert(1, 1, CR, VALBLK);
    expect(b.last(1, 1).lvb).toEqual(one);
    b.lock(2, 2, NL);
    expect(b.last(2, 2)).toMatchObject({ lvbRead: false, lvb: null });
  });

  it("NL to NL reads it again", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, NL, VALBLK);
    b.lock(2, 1, PW, VALBLK);
    b.unlock(2, 1, VALBLK, two);
    b.convert(1, 1, NL, VALBLK);
    expect(b.last(1, 1)).toMatchObject({ lvbRead: true, lvb: two, lvbValid: true });
  });

  it("IVVALBLK marks it not valid, a write makes it valid again", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, NL);
    b.lock(2, 1, EX, VALBLK);
    b.convert(2, 1, EX, VALBLK, one);
    b.convert(2, 1, NL, VALBLK | IVVALBLK);
    b.convert(1, 1, PR, VALBLK);
    expect(b.last(1, 1)).toMatchObject({ lvb: one, lvbValid: false });
    b.convert(1, 1, NL);
    b.convert(2, 1, EX, VALBLK);
    b.unlock(2, 1, VALBLK, two);
    b.convert(1, 1, PR, VALBLK);
    expect(b.last(1, 1)).toMatchObject({ lvb: two, lvbValid: true });
  });

  it("a client that dies as a writer leaves it not valid", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, NL);
    b.lock(2, 1, EX, VALBLK);
    b.gone(2);
    b.request(1, { kind: "gone-ack", goneId: 1 });
    b.convert(1, 1, PR, VALBLK);
    expect(b.last(1, 1).lvbValid).toBe(false);
  });

  it("a client that dies as a writer leaves it not valid, also if its last request was refused and not about the block", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, CR);
    b.lock(2, 1, PW, VALBLK);
    b.convert(2, 1, EX, NOQUEUE);
    expect(b.last(2, 1)).toMatchObject({ status: "again", mode: PW });
    b.gone(2);
    b.request(1, { kind: "gone-ack", goneId: 1 });
    b.convert(1, 1, PR, VALBLK);
    expect(b.last(1, 1).lvbValid).toBe(false);
  });

  it("is forgotten with the last lock", () => {
    const b = createBench([1]);
    b.lock(1, 1, EX, VALBLK);
    b.unlock(1, 1, VALBLK, one);
    b.lock(1, 2, PR, VALBLK);
    expect(b.last(1, 2)).toMatchObject({ lvb: null, lvbValid: true });
  });
});

describe("clients", () => {
  it("C7: the locks of a client that is gone are released when every client has let go of it", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    b.told();
    b.gone(1);
    expect(b.told()).toEqual([]);
    b.request(2, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual([]);
    b.request(3, { kind: "gone-ack", goneId: 1 });
    expect(b.told()).toEqual(["2:1 granted PR"]);
  });

  it("C7: one that dies instead of answering has answered", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    b.request(2, { kind: "cancel", lockId: 9 });
    b.told();
    b.gone(1);
    b.request(2, { kind: "gone-ack", goneId: 1 });
    b.gone(3);
    b.request(2, { kind: "gone-ack", goneId: 2 });
    expect(b.told()).toEqual(["2:1 granted PR"]);
  });

  it("wrong requests end with an error each, and change nothing", () => {
    const b = createBench([1, 2], { locksPerClient: 2 });
    const errno = (lockId: number): number | undefined => b.last(1, lockId).error?.errno;
    b.lock(1, 1, PR);
    b.lock(1, 1, PR);
    expect(errno(1)).toBe(E.EEXIST);
    b.convert(1, 7, PR);
    expect(errno(7)).toBe(E.ENOENT);
    b.unlock(1, 7);
    expect(errno(7)).toBe(E.ENOENT);
    b.lock(1, 2, 9 as Mode);
    expect(errno(2)).toBe(E.EINVAL);
    b.lock(1, 2, PR, 0x4000_0000);
    expect(errno(2)).toBe(E.EINVAL);
    b.request(1, { kind: "lock", lockspaceId: 1, lockId: 2, resource: "x".repeat(65), mode: PR, flags: 0 });
    expect(errno(2)).toBe(E.EINVAL);
    b.request(1, { kind: "lock", lockspaceId: 1, lockId: 2, resource: "é".repeat(33), mode: PR, flags: 0 });
    expect(errno(2)).toBe(E.EINVAL);
    b.request(1, { kind: "lock", lockspaceId: 5, lockId: 2, resource: "r", mode: PR, flags: 0 });
    expect(errno(2)).toBe(E.ENOENT);
    b.convert(1, 1, CR, VALBLK, new Uint8Array(257));
    expect(errno(1)).toBe(E.EINVAL);
    b.lock(2, 1, PR);
    b.convert(1, 1, EX);
    b.convert(1, 1, NL);
    expect(errno(1)).toBe(E.EBUSY);
    b.unlock(1, 1);
    expect(errno(1)).toBe(E.EBUSY);
    b.cancel(1, 1);
    b.lock(1, 3, CW, NOQUEUE);
    b.lock(1, 4, PR);
    b.lock(1, 5, PR);
    expect(errno(5)).toBe(E.ENOLCK);
    b.unlock(2, 1);
    expect(b.last(2, 1).status).toBe("unlocked");
  });

  it("H2: what goes down or away in silence is done, and not answered; what is neither ends with an error", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, EX);
    b.lock(2, 1, PR);
    b.told();
    b.request(1, { kind: "convert", lockId: 1, mode: PR, flags: 0, lvb: null, silent: true });
    expect(b.told()).toEqual(["2:1 granted PR"]);
    b.request(1, { kind: "convert", lockId: 1, mode: EX, flags: 0, lvb: null, silent: true });
    expect([b.told(), b.last(1, 1).error?.errno]).toEqual([["1:1 error PR"], E.EINVAL]);
    b.convert(1, 1, EX);
    b.told();
    b.request(1, { kind: "unlock", lockId: 1, flags: FORCEUNLOCK, lvb: null, silent: true });
    expect([b.told(), b.last(1, 1).error?.errno]).toEqual([["1:1 error PR"], E.EBUSY]);
    b.cancel(1, 1);
    b.convert(2, 1, NL);
    b.convert(2, 1, EX);
    b.told();
    b.request(1, { kind: "unlock", lockId: 1, flags: 0, lvb: null, silent: true });
    expect(b.told()).toEqual(["2:1 granted EX"]);
    // Its number is free.
    b.lock(1, 1, NL);
    expect(b.told()).toEqual(["1:1 granted NL"]);
  });

  it("a client opens 64 lockspaces, and not one more", () => {
    const b = createBench([1]);
    const opened = (lockspaceId: number): unknown => {
      b.request(1, { kind: "open", lockspaceId, name: `space ${lockspaceId}` });
      return b.effects.flatMap((effect) => (effect.kind === "client-events" ? effect.events : []));
    };
    for (let lockspaceId = 2; lockspaceId <= lockspacesPerClient; lockspaceId++) {
      expect(opened(lockspaceId)).toEqual([{ kind: "opened", lockspaceId, error: "" }]);
    }
    const error = `more than ${lockspacesPerClient} lockspaces open`;
    expect(opened(lockspacesPerClient + 1)).toEqual([{ kind: "opened", lockspaceId: lockspacesPerClient + 1, error }]);
  });

  it("PW beside CR, CW beside CW", () => {
    const b = createBench([1, 2, 3]);
    b.lock(1, 1, PW);
    b.lock(2, 1, CR);
    b.lock(3, 1, CW);
    expect(b.told()).toEqual(["1:1 granted PW", "2:1 granted CR", "1:1 bast CW"]);
  });

  it("locks can be seen", () => {
    const b = createBench([1, 2]);
    b.lock(1, 1, PR, MAYKEEP);
    b.lock(2, 1, EX);
    expect(b.inspected(11)).toMatchObject({
      truncated: false,
      resources: [
        {
          lockspace: "space",
          resource: "r",
          masterNodeid: 1,
          lvb: null,
          grantQueue: [
            {
              nodeid: 1,
              clientId: 1,
              lockId: 1,
              granted: "PR",
              requested: null,
              waitingMs: null,
              orphan: false,
              asked: "EX",
              askedMs: 10,
              mayKeep: true,
            },
          ],
          convertQueue: [],
          waitQueue: [
            {
              nodeid: 1,
              clientId: 2,
              lockId: 1,
              granted: null,
              requested: "EX",
              waitingMs: 10,
              orphan: false,
              asked: null,
              askedMs: null,
              mayKeep: false,
            },
          ],
        },
      ],
    });
    expect(b.node.query("status", 11)).toMatchObject({ quorumReason: "1 of 1 votes, quorate because 1 >= 1", state: "running", locks: 2 });
  });
});
