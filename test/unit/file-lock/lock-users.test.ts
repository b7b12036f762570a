/** What the kernel leaves unsaid at the end of an open file. */
import { expect, it } from "vitest";
import type { LockOwner } from "../../../overlay/file-lock/api.ts";
import { LockUsers } from "../../../overlay/file-lock/lock-users.ts";

const posix = (owner: bigint): LockOwner => ({ kind: "posix", owner });
const flock = (owner: bigint): LockOwner => ({ kind: "flock", owner });

it("at RELEASE what was locked through that handle goes: OFD locks and flock", () => {
  const users = new LockUsers();
  users.used("f", 1, posix(10n));
  users.used("f", 1, flock(10n));
  users.used("f", 2, posix(20n));
  users.used("g", 3, posix(10n));
  expect(users.released("f", 1)).toEqual([posix(10n), flock(10n)]);
  expect(users.released("f", 1)).toEqual([]);
  expect(users.released("g", 2)).toEqual([]);
  expect(users.released("f", 2)).toEqual([posix(20n)]);
  expect(users.released("g", 3)).toEqual([posix(10n)]);
  expect(users.files).toBe(0);
});

it("a process that has closed the file through one handle and locked it anew through another keeps that when the first ends", () => {
  const users = new LockUsers();
  users.used("f", 1, posix(10n));
  users.used("f", 2, posix(10n));
  users.closed("f", 10n);
  expect(users.files).toBe(0);
  users.closed("f", 10n);
  users.used("f", 2, posix(10n));
  expect(users.released("f", 1)).toEqual([]);
  users.closed("f", 10n);
  expect(users.files).toBe(0);
});

it.each([posix(10n), flock(10n)])(
  "an open file that has the number of one before, whose RELEASE comes later, keeps what it has locked (F49, $kind)",
  (owner) => {
    const users = new LockUsers();
    users.used("f", 1, owner);
    users.used("f", 2, owner);
    expect(users.released("f", 1)).toEqual([]);
    expect(users.released("f", 2)).toEqual([owner]);
    expect(users.files).toBe(0);
  },
);

it("an open file that is closed before the RELEASE of the one whose number it had gives up its flock at once (F49)", () => {
  const users = new LockUsers();
  users.used("f", 1, flock(10n));
  users.used("f", 2, flock(10n));
  expect(users.released("f", 2)).toEqual([flock(10n)]);
  expect(users.released("f", 1)).toEqual([]);
});

it("a close is of POSIX locks only", () => {
  const users = new LockUsers();
  users.used("f", 1, flock(10n));
  users.closed("f", 10n);
  expect(users.released("f", 1)).toEqual([flock(10n)]);
});
