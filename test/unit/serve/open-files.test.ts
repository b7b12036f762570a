/** H10: whose files are open at this owner, and what is removed when all are. When that is, is the group's: test/unit/dlmd/mount-group.test.ts. */
import { describe, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { GoneClient } from "../../../dlmd/client/api.ts";
import type { OwnerWait } from "../../../overlay/lower/owner-wait.ts";
import { OpenFiles, type Ways } from "../../../overlay/serve/open-files.ts";

const member = (nodeid: number, clientId = 1) => ({ nodeid, incarnation: `i${nodeid}`, clientId });
const [self, two] = [member(1), member(2)];

interface Parts {
  ways: { -readonly [K in keyof Ways]: Ways[K] };
  files: OpenFiles;
  done: string[];
  claimed: { nodeid: number; clientId: number }[];
  guard: { why: string | null };
}

function owner(): Parts {
  const done: string[] = [];
  const claimed: Parts["claimed"] = [];
  const guard: { why: string | null } = { why: null };
  const owned: Ways["owned"] = {
    local: { recoverOrphans: async () => done.push("dropped"), orphanCount: 3 },
    server: {
      hasClaimed: (one) => claimed.some((by) => by.nodeid === one.nodeid && by.clientId === one.clientId),
      closeSessions: async (gone: readonly GoneClient[]) => void done.push(`closed ${gone.map(({ nodeid }) => nodeid).join()}`),
    },
    disk: { guard },
  };
  const ways: Parts["ways"] = { owned, remote: null, ownGuard: null, isAwaited: false };
  return { ways, files: new OpenFiles(silentLog, () => ways), done, claimed, guard };
}

const turn = (): Promise<void> => new Promise(setImmediate);
const wait = (inOwnersHands: boolean): OwnerWait => ({ id: 1, call: "open", waitedMs: 5, calls: 1, inOwnersHands, trouble: null });

describe("all files of a mounter are open at this owner", () => {
  it("when it has said so itself; a mount of the same node says nothing for it", () => {
    const { files, claimed } = owner();
    expect(files.hasReopened(two, self)).toBe(false);
    claimed.push(member(2, 9));
    expect(files.hasReopened(two, self)).toBe(false);
    claimed.push(two);
    expect(files.hasReopened(two, self)).toBe(true);
    expect(files.hasReopened(member(1, 2), self)).toBe(false);
  });

  it("if they are this mount's own, in the lower itself; those that it reaches as a caller have to be opened as any", () => {
    const { files, ways, claimed } = owner();
    expect(files.hasReopened(self, self)).toBe(true);
    // It gave its first lower up, and owns again: its remote lower is made after that.
    ways.ownGuard = { isGiven: true };
    expect(files.hasReopened(self, self)).toBe(false);
    [ways.ownGuard, ways.remote] = [null, { ownerWait: null, ownerThere: true }];
    expect(files.hasReopened(self, self)).toBe(false);
    claimed.push(self);
    expect(files.hasReopened(self, self)).toBe(true);
  });

  it("never where this node is no owner", () => {
    const { files, ways, claimed } = owner();
    claimed.push(two);
    ways.owned = null;
    expect([files.hasReopened(self, self), files.hasReopened(two, self), files.describe([])]).toEqual([false, false, null]);
  });
});

describe("what a dead mounter left", () => {
  it("is in order when its sessions are closed, and after that what nobody has open is removed", async () => {
    const { files, done } = owner();
    await files.recover([two], false);
    expect(done).toEqual(["closed 2", "dropped"]);
    expect(files.describe([3])).toEqual({ kept: 3, waitsFor: [3] });
  });

  it("is in order at a cold start when the sessions are closed: nobody is blocked for the removal, and one removal goes on at a time", async () => {
    const { files, done, ways } = owner();
    const removals: { readonly resolve: (dropped: number) => void; readonly reject: (error: Error) => void }[] = [];
    const recoverOrphans = (): Promise<number> => new Promise((resolve, reject) => removals.push({ resolve, reject }));
    if (ways.owned !== null) ways.owned = { ...ways.owned, local: { recoverOrphans, orphanCount: 3 } };
    const settled = files.settle();
    await files.recover([two], true);
    expect([done, removals.length]).toEqual([["closed 2"], 1]);
    const recovered = files.recover([two], false);
    removals[0]?.resolve(1);
    await settled;
    await turn();
    expect(removals).toHaveLength(2);
    // Nobody waits for this one; what it fails with goes to the log, and the next one begins.
    removals[1]?.reject(new Error("EIO"));
    await turn();
    expect(removals).toHaveLength(3);
    removals[2]?.resolve(1);
    await recovered;
  });

  it("is not put in order by an owner that has given up its disk, or the role", async () => {
    const { files, done, guard, ways } = owner();
    guard.why = "EIO";
    await expect(files.recover([two], false)).rejects.toThrow("given up");
    ways.owned = null;
    await expect(files.recover([two], false)).rejects.toThrow("given up");
    await files.settle();
    expect(done).toEqual([]);
  });
});

it("nothing is removed before a process that goes on after a crash has its own files open (hazard F41)", async () => {
  const { files, done } = owner();
  let open = (): void => undefined;
  files.ownOpened = new Promise((resolve) => {
    open = resolve;
  });
  const settled = files.settle();
  await turn();
  expect(done).toEqual([]);
  open();
  await settled;
  expect(done).toEqual(["dropped"]);
});

it("a mount is cut off when neither its calls nor a connection are in the owner's hands", () => {
  const { files, ways } = owner();
  const seen = [null, wait(true), wait(false)].flatMap((ownerWait) =>
    [true, false].map((ownerThere) => {
      ways.remote = { ownerWait, ownerThere };
      return files.isCutOff;
    }),
  );
  expect(seen).toEqual([false, true, false, false, true, true]);
  ways.remote = null;
  expect(files.isCutOff).toBe(false);
});

it("nothing is removed while a mount is away of which this owner knows no files; then it is, unless this owner has ended (hazard F44)", async () => {
  const { files, done, ways } = owner();
  ways.isAwaited = true;
  await files.settle();
  await files.recover([two], false);
  files.awaitedChanged();
  await turn();
  expect(done).toEqual(["closed 2"]);
  ways.isAwaited = false;
  files.awaitedChanged();
  await turn();
  expect(done).toEqual(["closed 2", "dropped"]);
  files.awaitedChanged();
  ways.isAwaited = true;
  await files.settle();
  files.ownerEnds();
  ways.isAwaited = false;
  files.awaitedChanged();
  await turn();
  expect(done).toEqual(["closed 2", "dropped"]);
});
