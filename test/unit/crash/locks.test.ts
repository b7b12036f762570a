/** File locks in a journal: whole whenever the process dies, and who held them holds them (hazard F40). */
import { beforeEach, expect, it } from "vitest";
import { JOURNAL_BYTES, JOURNAL_LOCKED_FILES_MAX, JOURNAL_LOCKS_BYTES_MAX, TABLES } from "../../../overlay/crash/layout.ts";
import { JournalLocks, LOCK_BYTES_MIN } from "../../../overlay/crash/locks.ts";
import type { FileLockRow } from "../../../overlay/file-lock/api.ts";

const NOW = 1_000_000;
const OWNER = 0xffff_ffff_ffff_fff1n;

let memory: ArrayBuffer;
let locks: JournalLocks;

function row(file: string, ranges = 1): FileLockRow {
  const held = Array.from({ length: ranges }, (_, n) => ({
    owner: { kind: "posix", owner: OWNER } as const,
    range: { type: "write", start: BigInt(10 * n), end: BigInt(10 * n + 5) } as const,
    pid: 42,
    heldMs: 100,
  }));
  return { file, shared: ranges > 1, held, users: [{ owner: { kind: "posix", owner: OWNER }, handles: [3, 4] }] };
}

/** As the next process finds them, so much later. */
const found = (laterMs = 0): FileLockRow[] => new JournalLocks(memory).goOn(NOW + laterMs);

beforeEach(() => {
  memory = new ArrayBuffer(JOURNAL_BYTES);
  locks = new JournalLocks(memory);
});

it("are there with their owners of 64 bits, their handles, and for how long they have been held", () => {
  locks.set("f12.7", row("f12.7", 2), NOW);
  const [one] = row("f12.7").held;
  expect(found(50)).toEqual([{ ...row("f12.7", 2), held: row("f12.7", 2).held.map((lock) => ({ ...lock, heldMs: 150 })) }]);
  expect(one?.heldMs).toBe(100);
});

it("of a file that is locked no more there are none, and its row is used again", () => {
  locks.set("f12.7", row("f12.7"), NOW);
  locks.set("f12.7", null, NOW);
  expect(found()).toEqual([]);
  for (let times = 0; times < 3 * JOURNAL_LOCKED_FILES_MAX; times += 1) locks.set("f13.7", row("f13.7"), NOW);
  expect([locks.areBeyond, found().map(({ file }) => file)]).toEqual([false, ["f13.7"]]);
});

it("of two rows of a file the later one counts: the process died between writing it and freeing the other", () => {
  locks.set("f12.7", row("f12.7", 1), NOW);
  const words = new Uint32Array(memory, TABLES.locks.at, 1);
  const [first] = words;
  locks.set("f12.7", row("f12.7", 3), NOW);
  expect(words[0]).toBe(0);
  words[0] = first as number;
  expect(found()).toMatchObject([{ file: "f12.7", held: [{}, {}, {}] }]);
});

it("so it does after more changes than 32 bits count", () => {
  locks.set("f12.7", row("f12.7", 1), NOW);
  new Float64Array(memory, TABLES.locks.at, 2)[1] = 0xffff_ffff;
  const next = new JournalLocks(memory);
  next.goOn(NOW);
  next.set("f13.7", row("f13.7"), NOW);
  expect(found().map(({ file }) => file)).toEqual(["f12.7", "f13.7"]);
  const words = new Uint32Array(memory, TABLES.locks.at, 1);
  next.set("f12.7", row("f12.7", 3), NOW);
  expect(words[0]).toBe(0);
  words[0] = 1;
  expect(found()).toMatchObject([{ file: "f12.7", held: [{}, {}, {}] }, { file: "f13.7" }]);
});

it("of a process of an older version, which numbers them elsewhere, the later one counts, too", () => {
  locks.set("f12.7", row("f12.7", 1), NOW);
  locks.set("f12.7", row("f12.7", 3), NOW);
  const { at, rowBytes } = TABLES.locks;
  for (const [place, seq] of [6, 7].entries()) {
    new Uint32Array(memory, at + place * rowBytes, 1)[0] = seq;
    new Float64Array(memory, at + place * rowBytes, 2)[1] = 0;
  }
  expect(found()).toMatchObject([{ file: "f12.7", held: [{}, {}, {}] }]);
});

it("go on in the rows of the process before", () => {
  locks.set("f12.7", row("f12.7"), NOW);
  locks.set("f13.7", row("f13.7"), NOW);
  const next = new JournalLocks(memory);
  next.goOn(NOW);
  next.set("f12.7", null, NOW);
  next.set("f13.7", row("f13.7", 4), NOW);
  expect(found()).toMatchObject([{ file: "f13.7", held: [{}, {}, {}, {}] }]);
});

it("more than a row takes is beyond, and what was written down of that file counts no more; until it is less", () => {
  const many = Math.ceil(JOURNAL_LOCKS_BYTES_MAX / 80);
  locks.set("f12.7", row("f12.7"), NOW);
  locks.set("f12.7", row("f12.7", many), NOW);
  expect(locks.areBeyond).toBe(true);
  locks.set("f12.7", row("f12.7", 2), NOW);
  expect([locks.areBeyond, found()]).toMatchObject([false, [{ held: [{}, {}] }]]);
});

it(`more than ${JOURNAL_LOCKED_FILES_MAX} files are beyond`, () => {
  for (let n = 0; n < JOURNAL_LOCKED_FILES_MAX; n += 1) locks.set(`f${n}.1`, row(`f${n}.1`), NOW);
  expect(locks.areBeyond).toBe(false);
  locks.set("f12345678.1", row("f12345678.1"), NOW);
  expect(locks.areBeyond).toBe(true);
  locks.set("f12345678.1", null, NOW);
  expect(locks.areBeyond).toBe(false);
});

it("of a file with more locks than fit in any case no text is made", () => {
  const many = row("f", 1 + JOURNAL_LOCKS_BYTES_MAX / LOCK_BYTES_MIN);
  const untold = { ...many, users: new Proxy([], { get: () => expect.fail("it is made into text") }) };
  locks.set("f", untold, NOW);
  expect([locks.areBeyond, found()]).toEqual([true, []]);
});
