/** Hazard F4, on one node: attributes that were told before a change, and are taken after it. */
import { describe, expect, it } from "vitest";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { attributesChanged, tellAttributes } from "../../../overlay/coherence/kernel/told-attributes.ts";

const ALICE = 100;
const BOB = 200;

describe("attributes told as valid", () => {
  const state = new CoherenceState();
  const cover = new Cover({ ino: 5, generation: 1 }, "directory");

  it("are outdated by another thread's change, and not by the teller's own", () => {
    expect(tellAttributes(cover, ALICE, state.moment)).toBe(true);
    expect(attributesChanged(state, cover, ALICE)).toBe(false);
    expect(tellAttributes(cover, ALICE, state.moment)).toBe(true);
    expect(attributesChanged(state, cover, BOB)).toBe(true);
    expect(cover.attrTold).toBe(false);
  });

  it("are outdated once", () => {
    expect(attributesChanged(state, cover, BOB)).toBe(false);
  });

  it("of two threads, or one that is not known, are outdated by whoever changes them", () => {
    tellAttributes(cover, ALICE, state.moment);
    tellAttributes(cover, BOB, state.moment);
    expect(attributesChanged(state, cover, ALICE)).toBe(true);
    tellAttributes(cover, ALICE, state.moment);
    tellAttributes(cover, BOB, state.moment);
    expect(attributesChanged(state, cover, BOB)).toBe(true);
    tellAttributes(cover, 0, state.moment);
    expect(attributesChanged(state, cover, 0)).toBe(true);
  });

  it("that were read before a change are not told as valid after it; of another inode they are", () => {
    const other = new Cover({ ino: 6, generation: 1 }, "file");
    const since = state.moment;
    attributesChanged(state, cover, BOB);
    expect(tellAttributes(cover, ALICE, since)).toBe(false);
    expect(cover.attrTold).toBe(false);
    expect(tellAttributes(other, ALICE, since)).toBe(true);
    expect(tellAttributes(cover, ALICE, state.moment)).toBe(true);
  });
});
