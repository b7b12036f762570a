/** What file locks promise, case by case, on one node. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { flock, LoneService, ofd, posix } from "./lone-service.ts";

describe("waiting", () => {
  it("goes in order, and readers who come later do not starve a writer", () => {
    const lone = new LoneService();
    lone.lock("f", posix(1), "read", 0n);
    const writer = lone.lock("f", posix(2), "write", 0n);
    const reader = lone.lock("f", posix(3), "read", 0n);
    expect(lone.errno(reader)).toBe(null);
    // What does not wait is judged by held locks alone.
    expect(lone.errno(lone.lock("f", posix(4), "read", 0n, maxOffset, false))).toBe(0);
    lone.unlock("f", posix(4));
    lone.unlock("f", posix(1));
    expect([lone.errno(writer), lone.errno(reader)]).toEqual([0, null]);
    lone.unlock("f", posix(2));
    expect(lone.errno(reader)).toBe(0);
  });

  it("nobody waits behind who waits for him", () => {
    const lone = new LoneService();
    lone.lock("f", posix(1), "read", 0n, 9n);
    lone.lock("f", posix(2), "write", 0n, 20n);
    expect(lone.errno(lone.lock("f", posix(1), "read", 5n, 15n))).toBe(0);
  });

  it("whom only the order makes wait in a circle may overtake", () => {
    const lone = new LoneService();
    lone.lock("a", posix(1), "write", 0n);
    lone.lock("b", posix(3), "read", 0n);
    const writer = lone.lock("b", posix(2), "write", 0n);
    // 3 waits for 1; now 1 wants to read what 3 reads, and stands behind 2, who waits for 3.
    const third = lone.lock("a", posix(3), "write", 0n);
    expect(lone.errno(lone.lock("b", posix(1), "read", 0n))).toBe(0);
    expect([lone.errno(writer), lone.errno(third)]).toEqual([null, null]);
  });

  it.each(["write", "read"] as const)(
    "many that wait to %s separate ranges of one lock are each served by the unlock of theirs",
    (type) => {
      // More than a holder is asked about one by one (table.ts, #attachedTo).
      const lone = new LoneService();
      lone.lock("f", posix(99), "write", 0n, 999n);
      const waits = Array.from({ length: 40 }, (_, at) => lone.lock("f", posix(at), type, BigInt(at * 10), BigInt(at * 10 + 9)));
      lone.unlock("f", posix(99), 100n, 109n);
      expect(waits.map((id) => lone.errno(id))).toEqual(waits.map((_, at) => (at === 10 ? 0 : null)));
      lone.unlock("f", posix(99));
      expect(waits.map((id) => lone.errno(id))).toEqual(waits.map(() => 0));
    },
  );

  it("a canceled request ends with EINTR once, and lets those behind it go", () => {
    const lone = new LoneService();
    lone.lock("f", posix(1), "read", 0n);
    const writer = lone.lock("f", posix(2), "write", 0n);
    const reader = lone.lock("f", posix(3), "read", 0n);
    lone.cancel(writer);
    lone.cancel(writer);
    expect([lone.errno(writer), lone.errno(reader)]).toEqual([E.EINTR, 0]);
    lone.cancel(reader);
    expect(lone.held("f").length).toBe(2);
  });
});

describe("deadlock", () => {
  it("the request that closes a circle over two files is the victim", () => {
    const lone = new LoneService();
    lone.lock("a", posix(1), "write", 0n);
    lone.lock("b", posix(2), "write", 0n);
    const first = lone.lock("b", posix(1), "write", 0n);
    const second = lone.lock("a", posix(2), "write", 0n);
    expect([lone.errno(first), lone.errno(second)]).toEqual([null, E.EDEADLK]);
    lone.unlock("b", posix(2));
    expect(lone.errno(first)).toBe(0);
  });

  it("two readers who both want to write", () => {
    const lone = new LoneService();
    lone.lock("a", posix(1), "read", 0n);
    lone.lock("a", posix(2), "read", 0n);
    const first = lone.lock("a", posix(1), "write", 0n);
    expect(lone.errno(lone.lock("a", posix(2), "write", 0n))).toBe(E.EDEADLK);
    expect(lone.errno(first)).toBe(null);
  });

  it("is not looked for among open files", () => {
    const lone = new LoneService();
    lone.lock("a", ofd(1), "write", 0n);
    lone.lock("b", posix(2), "write", 0n);
    const first = lone.lock("b", ofd(1), "write", 0n);
    expect([lone.errno(lone.lock("a", posix(2), "write", 0n)), lone.errno(first)]).toEqual([null, null]);
  });
});

describe("kinds", () => {
  it("posix and ofd exclude each other, flock has a space of its own", () => {
    const lone = new LoneService();
    lone.lock("f", posix(1), "write", 0n);
    expect(lone.errno(lone.lock("f", ofd(1), "read", 5n, 5n, false))).toBe(E.EAGAIN);
    expect(lone.errno(lone.lock("f", flock(1), "write", 0n, 0n, false))).toBe(0);
    expect(lone.held("f", "flock")).toEqual([`flock/1 write 0-${maxOffset}`]);
    expect(lone.test("f", ofd(1), "read", 5n, 5n).conflict?.owner).toEqual({ nodeid: 1, clientId: 1, kind: "posix", owner: 1n });
  });

  it("a conversion of flock that fails has lost what it had", () => {
    const lone = new LoneService();
    lone.lock("f", flock(1), "read", 0n);
    lone.lock("f", flock(2), "read", 0n);
    expect(lone.errno(lone.lock("f", flock(1), "write", 0n, maxOffset, false))).toBe(E.EAGAIN);
    expect(lone.held("f", "flock")).toEqual([`flock/2 read 0-${maxOffset}`]);
  });
});

describe("the end of an owner", () => {
  it("close unlocks without an answer; the end of a process ends its requests too", () => {
    const lone = new LoneService();
    lone.lock("a", posix(1), "write", 0n);
    lone.lock("b", posix(2), "write", 0n);
    const waits = lone.lock("b", posix(1), "write", 0n);
    const answered = lone.results.size;
    lone.service.request(lone.client, { kind: "plock-release", lockspaceId: 7, file: "a", ownerKind: "posix", owner: 1n });
    expect([lone.held("a"), lone.errno(waits), lone.results.size]).toEqual([[], null, answered]);
    lone.service.request(lone.client, { kind: "plock-release", lockspaceId: 7, file: null, ownerKind: "posix", owner: 1n });
    expect(lone.errno(waits)).toBe(E.EINTR);
  });

  it("a client's end takes all of it", () => {
    const lone = new LoneService();
    const other = lone.connect(2);
    lone.lock("f", posix(1), "write", 0n);
    const ask = { file: "f", op: "lock", ownerKind: "posix", owner: 1n, pid: 5, type: "write", start: 0n, end: 9n, wait: true } as const;
    const waits = lone.ask(ask, other);
    const behind = lone.lock("f", posix(2), "read", 0n);
    lone.service.releaseClient(lone.client);
    expect([lone.errno(waits), lone.errno(behind)]).toEqual([0, E.EINTR]);
    lone.service.releaseClient(other);
    expect(lone.service.master.files.size).toBe(0);
  });
});

describe("limits", () => {
  it("ENOLCK for a file that has enough, and for a client that has enough", () => {
    const lone = new LoneService({ fileLocksPerFile: 10 });
    for (let i = 0; i < 9; i++) expect(lone.errno(lone.lock("f", posix(1), "read", BigInt(i * 2), BigInt(i * 2)))).toBe(0);
    expect(lone.errno(lone.lock("f", posix(1), "read", 100n))).toBe(E.ENOLCK);
    expect(lone.errno(lone.lock("g", posix(1), "read", 100n))).toBe(0);
    const poor = new LoneService({ fileLocksPerClient: 10 });
    for (let i = 0; i < 9; i++) poor.lock("f", posix(1), "read", BigInt(i * 3), BigInt(i * 3 + 2));
    expect(poor.held("f").length).toBe(1);
    for (let i = 0; i < 9; i++) poor.lock(`g${i}`, posix(1), "read", 0n);
    expect(poor.errno(poor.lock("h", posix(1), "read", 0n))).toBe(E.ENOLCK);
    // An unlock is refused only if it would split.
    expect(poor.errno(poor.unlock("f", posix(1), 5n, 5n))).toBe(E.ENOLCK);
    expect(poor.errno(poor.unlock("f", posix(1), 0n, 20n))).toBe(0);
  });

  it("bad requests", () => {
    const lone = new LoneService();
    expect(lone.errno(lone.lock("", posix(1), "read", 0n))).toBe(E.EINVAL);
    expect(lone.errno(lone.lock("é".repeat(33), posix(1), "read", 0n))).toBe(E.EINVAL);
    expect(lone.errno(lone.lock("f", posix(1), "read", 5n, 4n))).toBe(E.EINVAL);
    expect(lone.errno(lone.lock("f", posix(1), "read", 0n, maxOffset + 1n))).toBe(E.EINVAL);
    expect(lone.test("f", flock(1), "read", 0n).errno).toBe(E.EINVAL);
    expect(lone.service.master.files.size).toBe(0);
  });
});

it("ten thousand ranges on one file, and as many that wait for one byte: what were quadratic would not end in time", () => {
  const lone = new LoneService();
  const count = 10_000;
  for (let i = 0; i < count; i++) lone.lock("f", posix(i % 50), "write", BigInt(i * 2), BigInt(i * 2), false);
  expect(lone.table("f")?.size).toBe(count);
  for (let i = 0; i < count; i++) lone.lock("g", posix(i), "write", 0n);
  for (let i = 0; i < count; i++) lone.unlock("g", posix(i));
  expect(lone.results.size).toBe(3 * count);
  expect(lone.table("g")).toBe(undefined);
});
