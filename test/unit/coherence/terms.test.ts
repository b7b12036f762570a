/** With what terms a reply tells of an inode, and what is noted of that (hazards F4, F5, F6): overlay/coherence/terms.ts. */
import { describe, expect, it } from "vitest";
import { Cover, type Inode, type InodeKind, type Since } from "../../../overlay/coherence/cover.ts";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import { Terms } from "../../../overlay/coherence/terms.ts";

const SINCE = 5 as Since;
const CALLER = 42;

function inodeOf(ino: number, kind: InodeKind): Inode {
  const id = { ino, generation: 7 };
  return { fuseNodeid: ino, id, kind, nlookup: 1, openCount: 0, mappableCount: 0, cover: new Cover(id, kind) };
}

/** Being given up, the lock was here since `heldSince`; null: it is gone. */
function bench(given: { readonly heldSince?: number | null; readonly known?: boolean } = {}) {
  const { heldSince = null, known = true } = given;
  const noted: string[] = [];
  const terms = new Terms({
    names: { tellEntry: (_dir, name, _child, revalidated) => noted.push(`${name.toString()}${revalidated === true ? " again" : ""}`) > 0 },
    sizes: { known: () => known, told: (_inode, size) => void noted.push(`size ${size}`), toldSentinel: () => void noted.push("doubt") },
    since: () => 9 as Since,
    attrValid: (_inode, caller, since) => noted.push(`attributes to ${caller} since ${since}`) > 0,
    stillHeld: (_inode, since) => heldSince !== null && (since === null || heldSince <= since),
  });
  return { terms, noted };
}

const dir = inodeOf(1, "directory");
const file = inodeOf(2, "file");
const name = { dir, name: Buffer.from("name") };

describe("an inode that is pinned", () => {
  it("is told with validity of its name and its attributes, and with its size", () => {
    const { terms, noted } = bench();
    expect(terms.of(file, 100, CALLER, SINCE, { ...name, revalidated: true })).toEqual({ entryValid: true, attrValid: true, size: 100 });
    expect(noted).toEqual(["name again", "attributes to 42 since 5", "size 100"]);
  });

  it("is told without validity where the reply tells no name, no moment, or a name that may be another's", () => {
    const { terms, noted } = bench();
    expect(terms.of(file, 100, CALLER, null, null)).toEqual({ entryValid: false, attrValid: false, size: 100 });
    expect(terms.of(file, 100, CALLER, null, { ...name, stands: false }).entryValid).toBe(false);
    expect(noted).toEqual(["size 100", "name", "size 100"]);
  });

  it("and new here has no size yet that is noted", () => {
    const { terms, noted } = bench();
    expect(terms.ofNew(file, 100, CALLER, true, name)).toEqual({ entryValid: true, attrValid: true, size: 100 });
    expect(noted).toEqual(["name", "attributes to 42 since 9"]);
  });
});

describe("an inode that is not pinned", () => {
  it("is told with the sentinel, which is noted; a directory with its own size", () => {
    const { terms, noted } = bench();
    expect(terms.ofUnpinned(file, 100, SINCE, name, null)).toEqual({ entryValid: true, attrValid: false, size: SENTINEL_SIZE });
    expect(noted).toEqual(["name", "doubt", `size ${SENTINEL_SIZE}`]);
    expect(terms.ofUnpinned(dir, 4096, SINCE, name, null).size).toBe(4096);
    expect(terms.ofNew(file, 100, CALLER, false, null)).toEqual({ entryValid: false, attrValid: false, size: SENTINEL_SIZE });
  });

  it("is told with its size while the kernel may have its pages, and with the kernel's own where that may be another", () => {
    const { terms, noted } = bench({ heldSince: 5 });
    expect(terms.ofUnpinned(file, 100, SINCE, name, null).size).toBe(100);
    expect(terms.ofUnpinned(file, 100, SINCE, name, 7).size).toBe(7);
    expect(noted).toEqual(["name", "size 100", "name"]);
  });

  it.each<[string, Parameters<typeof bench>[0], boolean]>([
    ["gone", {}, false],
    ["here all the time", { heldSince: 5 }, false],
    ["here since later", { heldSince: 6 }, true],
    ["here, and the size not known", { heldSince: 5, known: false }, true],
  ])("whose lock is %s: the kernel's size is looked at, or not", (_what, given, looks) => {
    const { terms } = bench(given);
    expect(terms.mustLook(file, SINCE)).toBe(looks);
    expect(terms.mayTell(file, { pinned: false, trip: true }, SINCE)).toBe(!looks);
    expect(terms.mustLook({ ...file, nlookup: 0 }, SINCE)).toBe(false);
    expect(terms.mustLook(dir, SINCE)).toBe(false);
  });
});

it("a child that is pinned may be told of at once if its lock took no trip and its size is known", () => {
  expect(bench().terms.mayTell(file, { pinned: true, trip: false }, SINCE)).toBe(true);
  expect(bench().terms.mayTell(file, { pinned: true, trip: true }, SINCE)).toBe(false);
  expect(bench({ known: false }).terms.mayTell(file, { pinned: true, trip: false }, SINCE)).toBe(false);
});
