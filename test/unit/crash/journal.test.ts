/** The journal of a mount's process: what a process after a crash reads is what the one before had, however far that had come (hazards F38, F39). */
import { createHash } from "node:crypto";
import { beforeEach, describe, expect, it } from "vitest";
import { AfterCrash } from "../../../overlay/crash/after-crash.ts";
import { type JournalBefore, readJournal } from "../../../overlay/crash/before.ts";
import { Journal } from "../../../overlay/crash/journal.ts";
import {
  AT,
  CONSTANTS_AT,
  JOURNAL_BYTES,
  JOURNAL_FILES_MAX,
  JOURNAL_LOST_MAX,
  JOURNAL_VERSION,
  JOURNAL_VERSION_BEFORE,
  TABLES,
} from "../../../overlay/crash/layout.ts";
import { RESENT } from "../../../overlay/fuse/unique.ts";
import { HandleTable, type OpenFile } from "../../../overlay/inode/handles.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { type FileId, type LowerHandle } from "../../../overlay/lower/lower.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import { Call, REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { crashConstants } from "./constants.ts";
import { type Log, silentLog } from "../../../dlmd/base/log.ts";

const S_IFREG = 0o100644;

const warned: string[] = [];
const log: Log = { ...silentLog, warn: (_, message) => void warned.push(message) };
let memory: ArrayBuffer;
let journal: Journal;

function tableOf(of: Journal): InodeTable {
  return new InodeTable({
    root: { ino: 2, generation: 0 },
    journal: of,
    createCover: (id, kind) => new Cover(id, kind),
    dropped: () => undefined,
  });
}

function told(table: InodeTable, id: FileId): InodeRecord {
  const record = table.remember(id, S_IFREG);
  table.telling(record);
  table.told(record, true);
  table.leave(record);
  return record;
}

function fileOf(fh: number, inode: InodeRecord, lowerHandle: number): OpenFile {
  const flags = { writable: true, cached: true, writeToken: true, mappable: false, directory: false, manyNew: false, endCookie: null };
  return { fh, inode, lowerHandle: lowerHandle as LowerHandle, ...flags };
}

/** As the next process finds it. */
function found(): JournalBefore {
  return readJournal(memory);
}

beforeEach(() => {
  memory = new ArrayBuffer(JOURNAL_BYTES);
  journal = new Journal(memory, log);
  journal.setConstants(crashConstants);
});

describe("inodes", () => {
  it("are there with their lookups before the kernel is told of them", () => {
    const table = tableOf(journal);
    const record = table.remember({ ino: 12, generation: 7 }, S_IFREG);
    table.telling(record);
    expect(found().inodes).toMatchObject([{ fuseNodeid: record.fuseNodeid, id: { ino: 12, generation: 7 }, kind: "file", nlookup: 1 }]);
  });

  it("are counted back where the kernel has not taken the reply", () => {
    const table = tableOf(journal);
    const record = told(table, { ino: 12, generation: 7 });
    table.telling(record);
    expect(found().inodes[0]?.nlookup).toBe(2);
    table.told(record, false);
    expect(found().inodes[0]?.nlookup).toBe(1);
  });

  it("are counted past what 32 bits hold, up and down", () => {
    const all = 2 ** 32;
    const table = tableOf(journal);
    const record = told(table, { ino: 12, generation: 7 });
    const other = told(table, { ino: 13, generation: 7 });
    // As after so many replies.
    for (const one of [record, other]) {
      one.nlookup = all - 1;
      journal.counted(one, one.nlookup);
    }
    table.telling(record);
    expect(found().inodes.map(({ nlookup }) => nlookup)).toEqual([all, all - 1]);
    table.told(record, false);
    expect(found().inodes[0]?.nlookup).toBe(all - 1);
    for (let time = 0; time < 3; time += 1) table.tell(record, () => true);
    expect(found().inodes[0]?.nlookup).toBe(all + 2);
    table.forget(record.fuseNodeid, 5);
    expect(found().inodes[0]?.nlookup).toBe(all - 3);
    // After a planned restart it is entered as it is, in a row that had another one.
    table.forget(record.fuseNodeid, all - 3);
    journal.restoredInode({ ...record, row: -1, nlookup: 3 * all + 1 });
    expect(found().inodes).toMatchObject([
      { row: 0, nlookup: 3 * all + 1 },
      { row: 1, nlookup: all - 1 },
    ]);
  });

  it("go when the kernel has forgotten them, and their rows are used again", () => {
    const table = tableOf(journal);
    const first = told(table, { ino: 12, generation: 7 });
    told(table, { ino: 13, generation: 7 });
    table.forget(first.fuseNodeid, 1);
    expect(found().inodes.map(({ id }) => id.ino)).toEqual([13]);
    told(table, { ino: 14, generation: 7 });
    expect(found().inodes.map(({ id, row }) => [id.ino, row])).toEqual([
      [14, 0],
      [13, 1],
    ]);
  });

  it("one that is open stays when it is forgotten", () => {
    const table = tableOf(journal);
    const record = told(table, { ino: 12, generation: 7 });
    table.opened(record, false);
    journal.giving(2, fileOf(9, record, 5));
    table.forget(record.fuseNodeid, 1);
    expect(found().inodes).toMatchObject([{ nlookup: 0 }]);
    journal.closed(9);
    // A process that dies now leaves a row that is nobody's.
    expect(found()).toMatchObject({ inodes: [], rows: { freeInodes: [0] } });
    table.closed(record, false);
    expect(found()).toMatchObject({ inodes: [], rows: { freeInodes: [0] } });
  });

  it("the next process goes on in the same rows, and what the kernel may not have is given up when it does not know it", () => {
    const before = tableOf(journal);
    told(before, { ino: 12, generation: 7 });
    const gone = told(before, { ino: 13, generation: 7 });
    before.forget(gone.fuseNodeid, 1);
    const { inodes, nextCounted, rows } = found();
    const next = new Journal(memory, log);
    next.goOn(rows);
    const table = tableOf(next);
    table.restore(inodes, nextCounted);
    const [record] = table.withIno(12);
    expect(record).toMatchObject({ nlookup: 1, unsure: 1, row: 0 });
    told(table, { ino: 15, generation: 1 });
    expect(found().inodes.map(({ id, row }) => [id.ino, row])).toEqual([
      [12, 0],
      [15, 1],
    ]);
    if (record !== undefined) table.unknown(record);
    expect(found().inodes.map(({ id }) => id.ino)).toEqual([15]);
    expect(table.withIno(12)).toEqual([]);
  });

  it("one that is told under two names in one reply has two lookups more", () => {
    const table = tableOf(journal);
    const record = table.remember({ ino: 12, generation: 7 }, S_IFREG);
    for (let names = 0; names < 2; names += 1) table.telling(record);
    expect(found().inodes[0]?.nlookup).toBe(2);
    table.told(record, true);
    table.told(record, false);
    table.leave(record);
    expect([record.nlookup, found().inodes[0]?.nlookup]).toEqual([1, 1]);
  });

  it("a row that is nobody's is empty in the next process, and whoever has its number then has one row", () => {
    const before = tableOf(journal);
    const records = [12, 11].map((ino) => before.remember({ ino, generation: 7 }, S_IFREG));
    for (const record of records) {
      before.telling(record);
      before.told(record, true);
      // An operation has it still.
      before.forget(record.fuseNodeid, 1);
    }
    const { inodes, nextCounted, rows } = found();
    const next = new Journal(memory, log);
    next.goOn(rows);
    const table = tableOf(next);
    table.restore(inodes, nextCounted);
    const again = told(table, { ino: 12, generation: 7 });
    next.giving(2, fileOf(9, again, 5));
    expect(found().inodes.map(({ id, nlookup }) => [id.ino, nlookup])).toEqual([[12, 1]]);
  });

  it("a FORGET of more than this process has given is of what was taken off before it came", () => {
    const before = tableOf(journal);
    for (let times = 0; times < 2; times += 1) told(before, { ino: 12, generation: 7 });
    const { inodes, nextCounted, rows } = found();
    const next = new Journal(memory, log);
    next.goOn(rows);
    const table = tableOf(next);
    table.restore(inodes, nextCounted);
    const [old] = table.withIno(12);
    if (old === undefined) throw new Error("it is there");
    table.unknown(old);
    const record = told(table, { ino: 12, generation: 7 });
    table.forget(record.fuseNodeid, 2);
    expect(record.nlookup).toBe(1);
    table.forget(record.fuseNodeid, 1);
    expect(table.withIno(12)).toEqual([]);
  });

  it("a FORGET takes what this process has told first: what is left the kernel may not have", () => {
    const before = tableOf(journal);
    told(before, { ino: 12, generation: 7 });
    const { inodes, nextCounted, rows } = found();
    const next = new Journal(memory, log);
    next.goOn(rows);
    const table = tableOf(next);
    table.restore(inodes, nextCounted);
    const record = told(table, { ino: 12, generation: 7 });
    table.forget(record.fuseNodeid, 1);
    expect(record).toMatchObject({ nlookup: 1, unsure: 1 });
    table.unknown(record);
    expect(table.withIno(12)).toEqual([]);
  });
});

describe("handles", () => {
  it("are there before the kernel has them, and which one it may not have", () => {
    const inode = told(tableOf(journal), { ino: 12, generation: 7 });
    journal.openedAtOwner({ handle: 5 as LowerHandle, id: inode.id, flags: 2, directory: false });
    journal.giving(1000 + RESENT, fileOf(9, inode, 5));
    const { fuseNodeid } = inode;
    const flags = { writable: true, cached: true, writeToken: true, mappable: false };
    expect(found()).toMatchObject({
      giving: { request: 1000, fh: 9 },
      nextFh: 10,
      handles: [{ fh: 9, fuseNodeid, lowerHandle: 5, ...flags }],
    });
    journal.given();
    expect(found()).toMatchObject({ giving: null, handles: [{ fh: 9 }], files: [{ handle: 5, id: inode.id, flags: 2, directory: false }] });
    journal.closed(9);
    journal.closedAtOwner(5);
    expect(found()).toMatchObject({ handles: [], files: [], nextFh: 10 });
  });

  it("of answers that wait for the lease are not there before these leave, and never where an error leaves instead", () => {
    const inode = told(tableOf(journal), { ino: 12, generation: 7 });
    const handles = new HandleTable(journal);
    const atWrite: unknown[] = [];
    const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
    const open = (): Set<number> => new Set(found().handles.map(({ fh }) => fh));
    const write = (): number => atWrite.push([found().giving, open()]);
    const lease = { ...endlessLease, holds: () => false, keep: () => undefined };
    const calls = [1000, 1002, 1004].map((unique) => {
      const call = new Call(
        { op: "open", unique, uid: 0, gid: 0, pid: 42, fuseNodeid: inode.fuseNodeid },
        { buffer, write, writeWithBody: write, log: silentLog, lease },
      );
      call.late = true;
      const file = handles.add(inode, unique as LowerHandle, true, true, true, false);
      expect(handles.give(call, file, () => call.open(file.fh, 0))).toBe(true);
      return call;
    });
    expect([found().giving, found().handles, found().nextFh]).toEqual([null, [], 4]);
    calls[1]?.release();
    calls[0]?.interrupt();
    calls[2]?.giveUp();
    expect(atWrite).toEqual([
      [{ request: 1002, fh: 2 }, new Set([2])],
      [{ request: 1000, fh: 1 }, new Set([1, 2])],
      [null, new Set([1, 2])],
    ]);
    expect([found().giving, open()]).toEqual([null, new Set([1, 2])]);
  });

  it("one whose file was being closed at the owner is nobody's", () => {
    const inode = told(tableOf(journal), { ino: 12, generation: 7 });
    journal.giving(2, fileOf(9, inode, 5));
    expect(new AfterCrash(memory).state.handles).toEqual([]);
    journal.openedAtOwner({ handle: 5 as LowerHandle, id: inode.id, flags: 2, directory: false });
    const { handles, openFiles } = new AfterCrash(memory).state;
    expect([handles.map(({ fh }) => fh), openFiles.map(({ handle }) => handle)]).toEqual([[9], [5]]);
  });

  it("with more than there is room for it is not resumable any more, and says so once", () => {
    journal.resumable = true;
    for (let handle = 0; handle <= JOURNAL_FILES_MAX; handle += 1)
      journal.openedAtOwner({ handle: handle as LowerHandle, id: { ino: 1, generation: 1 }, flags: 0, directory: false });
    expect(journal).toMatchObject({ isFull: true, resumable: false });
    journal.resumable = true;
    expect(journal.resumable).toBe(false);
    expect(warned.filter((message) => message.includes("journal is full"))).toHaveLength(1);
  });
});

describe("calls", () => {
  const body = Uint8Array.of(1, 2, 3);

  it("of a request are there until it is answered, and what the owner said of them", () => {
    journal.client = 77;
    journal.begun(5, 0x21, 1000 + RESENT, null, null);
    expect(found().calls).toMatchObject([{ id: 5, type: 0x21, client: 77, request: 1000, outcome: "unknown", body: null }]);
    journal.answered(5, false, body);
    expect(found().calls).toMatchObject([{ request: 1000, outcome: "answered", body }]);
    expect(new AfterCrash(memory).made(1000)).toEqual({ type: 0x21, body });
    journal.replied(1000);
    expect(found().calls).toEqual([]);
  });

  it("a refusal is an outcome, too", () => {
    journal.begun(5, 0x21, 1000, null, null);
    journal.answered(5, true, Uint8Array.of(17, 0, 0, 0));
    expect(new AfterCrash(memory).made(1000)).toEqual({ errno: 17 });
  });

  it("says whether a request has asked for a change that may have been made (hazard F42)", () => {
    journal.begun(5, 0x21, 1000, null, null);
    expect([journal.hasChanged(1000), journal.hasChanged(2000)]).toEqual([true, false]);
    journal.answered(5, true, Uint8Array.of(17, 0, 0, 0));
    expect(journal.hasChanged(1000)).toBe(false);
    // Refused before, then made, then refused: that in the middle was made.
    for (const [id, failed] of [[6, false] as const, [7, true] as const]) {
      journal.begun(id, 0x21, 1000, null, null);
      journal.answered(id, failed, Uint8Array.of(17, 0, 0, 0));
    }
    expect(journal.hasChanged(1000)).toBe(true);
    journal.replied(1000);
    expect(journal.hasChanged(1000)).toBe(false);
    for (let request = 1; !journal.isFull; request += 1) journal.begun(request, 0x21, 10_000 + request, null, null);
    // It may be one that is not written down.
    expect(journal.hasChanged(2000)).toBe(true);
  });

  it("of two calls for one request the last one counts", () => {
    journal.begun(5, 0x21, 1000, null, null);
    journal.begun(6, 0x22, 1000, null, null);
    journal.answered(5, false, body);
    expect(found().calls).toMatchObject([{ id: 6, type: 0x22, outcome: "unknown" }]);
  });

  it("made behind: what was asked is there until it is answered, and stays if it was refused", () => {
    journal.begun(5, 0x21, 0, body, Uint8Array.of(9));
    journal.begun(6, 0x21, 0, body, null);
    expect(found().calls).toMatchObject([
      { id: 5, request: 0, body, data: Uint8Array.of(9) },
      { id: 6, request: 0, body, data: null },
    ]);
    journal.answered(5, false, body);
    journal.answered(6, true, Uint8Array.of(28, 0, 0, 0));
    expect(found().calls).toMatchObject([{ id: 6, request: 0, outcome: "failed" }]);
  });

  it("for which nothing waits are not written down", () => {
    journal.begun(5, 0x21, 0, null, null);
    expect(found().calls).toEqual([]);
  });

  it("the owner is asked for those of which nothing is known, in their order", () => {
    journal.begun(6, 0x21, 1002, null, null);
    journal.begun(5, 0x21, 1000, null, null);
    journal.begun(7, 0x21, 1004, null, null);
    journal.answered(7, false, body);
    const after = new AfterCrash(memory);
    expect(after.unknown.map(({ id }) => id)).toEqual([5, 6]);
    const next = new Journal(memory, log);
    next.goOn(after.before.rows);
    const [first, second] = after.unknown;
    if (first === undefined || second === undefined) throw new Error("two calls");
    after.settle(next, first, { failed: false, body });
    after.settle(next, second, null);
    expect([after.made(1000), after.made(1002)]).toEqual([{ type: 0x21, body }, null]);
    // And a third process, if the second one crashes now.
    expect(new AfterCrash(memory).made(1000)).toEqual({ type: 0x21, body });
    expect(new Set(found().calls.map(({ request }) => request))).toEqual(new Set([1000, 1004]));
  });
});

describe("calls of two processes", () => {
  const body = Uint8Array.of(1, 2, 3);
  const next = (client: number): [AfterCrash, Journal] => {
    const after = new AfterCrash(memory);
    const one = new Journal(memory, log);
    one.client = client;
    one.goOn(after.before.rows);
    return [after, one];
  };

  it("have the same numbers, and what became of one is not taken for the other's", () => {
    journal.client = 1;
    journal.begun(57, 0x21, 1000, null, null);
    journal.answered(57, false, body);
    const [, one] = next(2);
    one.begun(57, 0x21, 2000, null, null);
    one.replied(1000);
    one.answered(57, false, body);
    expect(found().calls).toMatchObject([{ request: 2000, outcome: "answered", client: 2 }]);
    one.replied(2000);
    one.begun(58, 0x21, 0, body, null);
    one.answered(58, false, body);
    expect(found().calls).toEqual([]);
  });

  it("what was made behind keeps its row until it is known what became of it, and gives it back once", () => {
    journal.client = 1;
    journal.begun(5, 0x21, 0, body, null);
    const [after, one] = next(2);
    one.begun(1, 0x21, 998, null, null);
    expect(found().calls.map(({ request }) => request)).toEqual([0, 998]);
    for (const call of after.unknown) after.settle(one, call, { failed: false, body });
    one.begun(2, 0x21, 1000, null, null);
    one.begun(3, 0x22, 1002, null, null);
    expect(found().calls.map(({ request }) => request)).toEqual([1000, 998, 1002]);
  });

  it("what is lost is told of by each, and with too much of it a crash ends the mount", () => {
    journal.begun(5, 0x21, 0, body, null);
    const [after, one] = next(2);
    for (const call of after.unknown) after.settle(one, call, null);
    expect(found().calls).toMatchObject([{ request: 0, outcome: "failed", body }]);
    for (let id = 1; id < JOURNAL_LOST_MAX; id += 1) {
      one.begun(id, 0x21, 0, body, null);
      one.answered(id, true, Uint8Array.of(28, 0, 0, 0));
    }
    expect(one.isFull).toBe(false);
    one.begun(1000, 0x21, 0, body, null);
    one.answered(1000, true, Uint8Array.of(28, 0, 0, 0));
    expect(one.isFull).toBe(true);
  });

  it("of a file that was removed since nothing is lost", () => {
    journal.begun(5, 0x21, 0, body, null);
    journal.answered(5, true, Uint8Array.of(116, 0, 0, 0));
    expect(found().calls).toEqual([]);
  });
});

describe("a journal that is none", () => {
  it("is refused in words", () => {
    const words = (): string => {
      try {
        readJournal(memory);
        return "";
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(words()).toBe("");
    const head = new DataView(memory);
    head.setUint32(AT.version, 99, true);
    expect(words()).toMatch(/version 99/);
    // One of a process before an upgrade is read.
    head.setUint32(AT.version, JOURNAL_VERSION_BEFORE, true);
    expect(words()).toBe("");
    head.setUint32(AT.version, JOURNAL_VERSION, true);
    head.setUint8(CONSTANTS_AT + 40, 7);
    expect(words()).toMatch(/digest/);
    head.setUint8(0, 7);
    expect(words()).toMatch(/something else/);
  });

  it("its tables follow each other and fit", () => {
    const all = Object.values(TABLES);
    expect(all.map(({ at, rowBytes }) => [at % 8, rowBytes % 8])).toEqual(all.map(() => [0, 0]));
    expect(all.slice(1).map(({ at }) => at)).toEqual(all.slice(0, -1).map(({ at, rowBytes, rows }) => at + rowBytes * rows));
    expect(JOURNAL_BYTES).toBeLessThan(1024 ** 3);
  });
});

it("which locks dlmd has kept of a file is by its name", () => {
  const inode = told(tableOf(journal), { ino: 12, generation: 7 });
  journal.servingClient = 7;
  const after = new AfterCrash(memory);
  expect(after.keptOf(inode)).toEqual({ token: false, mode: Mode.NL });
  after.inherits([
    {
      clientId: 7,
      locks: [
        { resource: `i${inode.cover.key}`, mode: Mode.EX },
        { resource: `w${inode.cover.key}`, mode: Mode.PW },
      ],
    },
  ]);
  expect(after.keptOf(inode)).toEqual({ token: true, mode: Mode.EX });
});

it("the layout is that of this version: with another one the version is another, too", () => {
  const layout = createHash("sha256")
    .update(JSON.stringify([AT, TABLES, CONSTANTS_AT, JOURNAL_BYTES]))
    .digest("hex");
  expect([JOURNAL_VERSION, layout.slice(0, 16)]).toEqual([6, "3e557344020329a4"]);
});
