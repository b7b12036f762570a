/** What is beyond the limits of the journal: it says that it is not all, and a crash ends the mount (hazard F39). */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { Journal } from "../../../overlay/crash/journal.ts";
import {
  JOURNAL_BODY_MAX,
  JOURNAL_BYTES,
  JOURNAL_CALLS_MAX,
  JOURNAL_FILES_MAX,
  JOURNAL_HANDLES_MAX,
  JOURNAL_HEIRS_MAX,
  JOURNAL_INODES_MAX,
} from "../../../overlay/crash/layout.ts";
import type { OpenFile } from "../../../overlay/inode/handles.ts";
import type { InodeRecord } from "../../../overlay/inode/table.ts";
import type { LowerHandle } from "../../../overlay/lower/lower.ts";

let memory: ArrayBuffer | null;
let journal: Journal;

const inode = (): InodeRecord => ({ fuseNodeid: 5, id: { ino: 5, generation: 1 }, kind: "file", nlookup: 0, row: -1 }) as InodeRecord;

beforeEach(() => {
  memory = new ArrayBuffer(JOURNAL_BYTES);
  journal = new Journal(memory, silentLog);
  journal.resumable = true;
});
afterEach(() => {
  memory = null;
});

describe.each<[string, number, (n: number) => void]>([
  ["inodes", JOURNAL_INODES_MAX, () => journal.telling(inode())],
  ["handles", JOURNAL_HANDLES_MAX, (fh) => journal.restoredHandle({ fh, inode: inode(), lowerHandle: 1 } as unknown as OpenFile)],
  [
    "files at the owner",
    JOURNAL_FILES_MAX,
    (handle) => journal.openedAtOwner({ handle: handle as LowerHandle, id: { ino: 1, generation: 1 }, flags: 0, directory: false }),
  ],
  ["changes under way", JOURNAL_CALLS_MAX, (n) => journal.begun(n, 1, 2 * n, null, null)],
])("%s", (_, most, add) => {
  it(`there is room for ${most}, and with one more a crash ends the mount`, () => {
    for (let n = 1; n <= most; n += 1) add(n);
    expect(journal).toMatchObject({ isFull: false, resumable: true });
    add(most + 1);
    expect(journal).toMatchObject({ isFull: true, resumable: false });
  });
});

it("when the changes for which there was no room are answered, and not before, a crash is a pause again", () => {
  const [known, beyond] = [2, 2 * (JOURNAL_CALLS_MAX + 1)];
  for (let request = known; request <= beyond; request += 2) journal.making(1, request, new Uint8Array(8), false);
  const now = (): unknown[] => {
    journal.resumable = true;
    return [journal.isFull, journal.resumable, journal.hasChanged(99_998)];
  };
  for (let request = known; request < beyond; request += 2) journal.replied(request);
  expect(now()).toEqual([true, false, true]);
  // The same request makes another change, which has a row and is refused.
  journal.begun(1, 1, beyond, null, null);
  journal.answered(1, true, Uint8Array.of(17, 0, 0, 0));
  expect([now(), journal.hasChanged(beyond)]).toEqual([[true, false, true], true]);
  journal.notMade(beyond);
  expect(now()).toEqual([true, false, true]);
  journal.replied(beyond);
  expect(now()).toEqual([false, true, false]);
});

it.each<[string, boolean, (id: number) => void]>([
  ["is made", false, (id) => journal.answered(id, false, new Uint8Array(0))],
  ["is not to be made", false, (id) => journal.over(id)],
  ["was of a file that is gone", false, (id) => journal.answered(id, true, Uint8Array.of(116, 0, 0, 0))],
  ["is lost, which is noted nowhere", true, (id) => journal.answered(id, true, Uint8Array.of(28, 0, 0, 0))],
])("a change that was made behind, and for which there was no room, counts until it %s", (_, stays, end) => {
  for (let id = 1; id <= JOURNAL_CALLS_MAX + 1; id += 1) journal.begun(id, 1, 0, new Uint8Array(8), null);
  for (let id = 1; id <= JOURNAL_CALLS_MAX; id += 1) journal.answered(id, false, new Uint8Array(0));
  expect(journal.isFull).toBe(true);
  end(JOURNAL_CALLS_MAX + 1);
  expect(journal.isFull).toBe(stays);
});

it("what is longer than any call is an error of this program", () => {
  journal.begun(1, 1, 0, new Uint8Array(JOURNAL_BODY_MAX), null);
  expect(() => journal.begun(2, 1, 0, new Uint8Array(JOURNAL_BODY_MAX), new Uint8Array(1))).toThrow(/a call with \d+ bytes/);
});

it("so many processes may crash one after the other before one serves, and no more", () => {
  for (let n = 1; n <= JOURNAL_HEIRS_MAX; n += 1) journal.addHeir(n);
  expect(() => journal.addHeir(JOURNAL_HEIRS_MAX + 1)).toThrow(/32 processes have not come to go on/);
  journal.servingClient = 1;
  expect(() => journal.addHeir(1)).not.toThrow();
});
