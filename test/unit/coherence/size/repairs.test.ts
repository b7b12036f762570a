/** Several repairs of one file's size at once (size/repairs.ts). */
import { describe, expect, it } from "vitest";
import { Cover } from "../../../../overlay/coherence/cover.ts";
import { newRepair, SizeRepairs } from "../../../../overlay/coherence/size/repairs.ts";

const file = new Cover({ ino: 4, generation: 1 }, "file");

describe("repairs under way", () => {
  it("are all remembered, whichever ends first", () => {
    const repairs = new SizeRepairs();
    const [first, second] = [newRepair(false), newRepair(false)];
    repairs.add(file, first);
    repairs.add(file, second);
    expect(repairs.latest(file)).toBe(second);
    repairs.remove(file, second);
    expect(repairs.latest(file)).toBe(first);
    expect(repairs.none).toBe(false);
    repairs.remove(file, first);
    expect(repairs.latest(file)).toBeUndefined();
    expect(repairs.none).toBe(true);
  });

  it("have asked as often as the kernel did; whose a GETATTR is can be told of a single one", () => {
    const repairs = new SizeRepairs();
    const [caller, first, second] = [newRepair(true), newRepair(false), newRepair(false)];
    repairs.add(file, caller);
    expect(repairs.asker(file)).toBeUndefined();
    repairs.add(file, first);
    expect(repairs.asker(file)).toBe(first);
    repairs.add(file, second);
    expect(repairs.asker(file)).toBeUndefined();
    repairs.noteAsked(file);
    expect([caller.asked, first.asked, second.asked]).toEqual([true, true, false]);
    repairs.noteAsked(file);
    expect([caller.asked, first.asked, second.asked]).toEqual([true, true, true]);
  });
});
