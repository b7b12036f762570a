/** A Map from numbers that keeps its room: it holds what a Map would hold. */
import { describe, expect, it } from "vitest";
import { NumberMap } from "../../../dlmd/base/number-map.ts";
import { seeded } from "../coherence/seeded.ts";

function expectSame(found: NumberMap<string>, wanted: Map<number, string>): void {
  const keys = [...wanted.keys()].sort((one, other) => one - other);
  expect(found.size).toBe(wanted.size);
  expect(found.keys()).toEqual(keys);
  expect(found.values()).toEqual(keys.map((key) => wanted.get(key)));
}

describe("a map from numbers", () => {
  it.each([
    { what: "few numbers that come and go", keys: 12, scale: 1 },
    { what: "many", keys: 900, scale: 1 },
    { what: "numbers whose low halves are the same", keys: 200, scale: 0x1_0000_0000 },
    { what: "the largest numbers", keys: 2000, scale: 2 ** 42 },
  ])("holds what a Map holds: $what", ({ keys, scale }) => {
    for (let seed = 1; seed <= 5; seed++) {
      const random = seeded(seed);
      const [found, wanted] = [new NumberMap<string>(), new Map<number, string>()];
      for (let step = 0; step < 3000; step++) {
        const key = Math.floor(random() * keys) * scale;
        // It fills, and empties.
        const enters = random() < (step < 1500 ? 0.7 : 0.3);
        if (enters) found.set(key, `${key}@${step}`);
        if (enters) wanted.set(key, `${key}@${step}`);
        expect(!enters && found.delete(key)).toBe(!enters && wanted.delete(key));
        const asked = Math.floor(random() * keys) * scale;
        expect(found.get(asked)).toBe(wanted.get(asked));
        expect(found.has(asked)).toBe(wanted.has(asked));
      }
      expectSame(found, wanted);
      for (const key of wanted.keys()) found.delete(key);
      expectSame(found, new Map());
    }
  });

  it("finds what came behind an entry that goes, past the end of its table, too", () => {
    // Sixteen places, eight entries: any eight numbers leave such rows somewhere.
    for (let first = 0; first < 2000; first++) {
      const found = new NumberMap<number>();
      const keys = Array.from({ length: 8 }, (_, at) => first * 7 + at * at * 31);
      for (const key of keys) found.set(key, key);
      expect(found.room).toBe(16);
      for (const [at, key] of keys.entries()) {
        found.delete(key);
        expect(keys.filter((one) => found.get(one) === one)).toEqual(keys.slice(at + 1));
      }
    }
  });

  it("has 0, and undefined as a value", () => {
    const found = new NumberMap<number | undefined>();
    found.set(0, undefined);
    expect([found.has(0), found.has(1), found.size]).toEqual([true, false, 1]);
    expect([found.delete(0), found.delete(0), found.size]).toEqual([true, false, 0]);
  });

  it("keeps its room for what comes and goes, and gives back that of a crowd", () => {
    const found = new NumberMap<number>();
    for (let key = 0; key < 100_000; key++) found.set(key, key);
    expect(found.room).toBe(262_144);
    for (let key = 0; key < 99_990; key++) found.delete(key);
    expect(found.room).toBeLessThan(1024);
    const { room } = found;
    for (let key = 99_990; key < 100_000; key++) found.delete(key);
    found.set(1, 1);
    expect(found.room).toBeLessThanOrEqual(room);
    found.clear();
    expect([found.size, found.room, found.get(1)]).toEqual([0, 16, undefined]);
  });
});
