/** What is known of directories made here: never a name that is missing and may be there, never attributes that may be others. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DIRECTORIES_MAX,
  type DirectoryChange,
  HELD_NAMES_ALL_MAX,
  HELD_NAMES_MAX,
  HeldDirectories,
} from "../../../overlay/lower/held-directories.ts";
import { attrOf } from "../op/scripted-lower.ts";

const id = { ino: 12, generation: 7 };
const bytes = (name: string): Buffer => Buffer.from(name, "latin1");
const attr = attrOf(id, { mode: 0o040755 });

function made(hold = 3): HeldDirectories {
  const directories = new HeldDirectories();
  directories.made(id, hold);
  return directories;
}

describe("names", () => {
  it("that were never given are not there, under the hold in which the directory was made", () => {
    const directories = made();
    expect(directories.isAbsent(id, bytes("a"), 3)).toBe(true);
    directories.begin(id, bytes("a"));
    expect(directories.isAbsent(id, bytes("a"), 3)).toBe(false);
    expect(directories.isAbsent(id, bytes("\xe4"), 3)).toBe(true);
    // Of a directory that was not made here nothing is known, nor of an older one with the same number.
    expect(directories.isAbsent({ ino: 13, generation: 7 }, bytes("b"), 3)).toBe(false);
    expect(directories.isAbsent({ ino: 12, generation: 6 }, bytes("b"), 3)).toBe(false);
  });

  it("are not known where the lock is on its way, and for good when it was elsewhere", () => {
    const directories = made();
    expect(directories.isAbsent(id, bytes("a"), 0)).toBe(false);
    expect(directories.isAbsent(id, bytes("a"), 3)).toBe(true);
    expect(directories.isAbsent(id, bytes("a"), 4)).toBe(false);
    expect(directories.isAbsent(id, bytes("a"), 3)).toBe(false);
  });

  it("are not known of a directory with too many, nor in all of too many directories", () => {
    const directories = made();
    for (let at = 0; at <= HELD_NAMES_MAX; at += 1) directories.begin(id, bytes(`n${at}`));
    expect(directories.isAbsent(id, bytes("none"), 3)).toBe(false);
    const at = (ino: number): { ino: number; generation: number } => ({ ino, generation: 1 });
    const per = HELD_NAMES_MAX;
    const full = Math.ceil(HELD_NAMES_ALL_MAX / per);
    for (let ino = 100; ino <= 100 + full; ino += 1) {
      directories.made(at(ino), 1);
      for (let no = 0; no < per; no += 1) directories.begin(at(ino), bytes(`n${no}`));
    }
    expect(directories.isAbsent(at(100), bytes("none"), 1)).toBe(false);
    expect(directories.isAbsent(at(100 + full), bytes("none"), 1)).toBe(true);
    for (let ino = 1000; ino < 1000 + DIRECTORIES_MAX; ino += 1) directories.made(at(ino), 1);
    expect(directories.isAbsent(at(100 + full), bytes("none"), 1)).toBe(false);
    expect(directories.isAbsent(at(1000), bytes("none"), 1)).toBe(true);
  });

  it("go with the directory, and with the owner", () => {
    const directories = made();
    directories.forget(id);
    expect(directories.isAbsent(id, bytes("a"), 3)).toBe(false);
    directories.made(id, 5);
    directories.clear();
    expect(directories.isAbsent(id, bytes("a"), 5)).toBe(false);
  });
});

describe("attributes", () => {
  it("are those of after the last change, if nothing was changed beside it", () => {
    const directories = made();
    expect(directories.attr(id, 3)).toBeNull();
    const first = directories.begin(id, bytes("a"));
    directories.end(first, attr);
    expect(directories.attr(id, 3)).toBe(attr);
    expect(directories.attr(id, 0)).toBeNull();
    const second = directories.begin(id, bytes("b"));
    expect(directories.attr(id, 3)).toBeNull();
    directories.end(second, null);
    expect(directories.attr(id, 3)).toBeNull();
    expect(directories.attr(id, 4)).toBeNull();
  });

  it("are not those that came with an answer if another change began before or after that one did", () => {
    const directories = made();
    const [one, two] = [directories.begin(id, bytes("a")), directories.begin(id, null)];
    directories.end(one, attr);
    directories.end(two, attr);
    expect(directories.attr(id, 3)).toBeNull();
    const three = directories.begin(id, null);
    directories.end(three, attr);
    expect(directories.attr(id, 3)).toBe(attr);
  });
});

/** A directory at the owner, and calls whose requests and answers arrive in any order. */
it("says nothing false, whatever the order in which the owner does things and answers", () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("send" as const), name: fc.integer({ min: 0, max: 3 }), adds: fc.boolean() }),
    fc.record({ do: fc.constant("execute" as const), which: fc.nat() }),
    fc.record({ do: fc.constant("answer" as const), which: fc.nat() }),
    fc.record({ do: fc.constant("lose" as const), which: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const directories = made();
      const names = new Set<number>();
      let mtime = 0;
      const sent: { change: DirectoryChange | null; name: number; adds: boolean }[] = [];
      const executed: { change: DirectoryChange | null; mtime: number }[] = [];
      for (const one of steps) {
        if (one.do === "send") sent.push({ change: directories.begin(id, bytes(`${one.name}`)), name: one.name, adds: one.adds });
        else if (one.do === "execute") {
          const [call] = sent.splice(one.which % Math.max(1, sent.length), 1);
          if (call === undefined) continue;
          mtime += 1;
          if (call.adds) names.add(call.name);
          else names.delete(call.name);
          executed.push({ change: call.change, mtime });
        } else {
          const [call] = executed.splice(one.which % Math.max(1, executed.length), 1);
          if (call !== undefined) directories.end(call.change, one.do === "lose" ? null : { ...attr, mtimeSec: call.mtime });
        }
        for (const name of names) expect(directories.isAbsent(id, bytes(`${name}`), 3)).toBe(false);
        expect([null, mtime]).toContain(directories.attr(id, 3)?.mtimeSec ?? null);
      }
    }),
    { numRuns: 500 },
  );
});
