/** A Map from numbers that keeps its room: it holds what a Map would hold. */
import { describe, expect, it } from "vitest";
import { NumberMap } from "../../../dlmd/base/number-map.ts";
import { seeded } from "../coherence/seeded.ts";

function expectSame(found: NumberMap<string>, wanted: Map<number, string>): void {
  const keys = found.keys();
  expect(found.size).toBe(wanted.size);
  expect(new Set(keys)).toEqual(new Set(wanted.keys()));
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

  it("has any number as a key, and no NaN", () => {
    const found = new NumberMap<string>();
    const numbers = [-1, -(2 ** 40), 0.5, Number.POSITIVE_INFINITY, 2 ** 60];
    for (const key of numbers) expect([found.has(key), found.get(key), found.delete(key)]).toEqual([false, undefined, false]);
    for (const key of numbers) found.set(key, `${key}`);
    expect(numbers.map((key) => found.get(key))).toEqual(numbers.map(String));
    expect(() => found.set(Number.NaN, "")).toThrow("found NaN");
    expect([found.has(Number.NaN), found.get(Number.NaN), found.delete(Number.NaN), found.size]).toEqual([false, undefined, false, 5]);
  });

  it("has 0, and undefined as a value", () => {
    const found = new NumberMap<number | undefined>();
    found.set(0, undefined);
    expect([found.has(0), found.has(1), found.size]).toEqual([true, false, 1]);
    expect([found.delete(0), found.delete(0), found.size]).toEqual([true, false, 0]);
  });

  it("keeps its room when the last entry goes", () => {
    const found = new NumberMap<number>();
    for (let key = 0; key < 30; key++) found.set(key, key);
    expect(found.room).toBe(64);
    for (let key = 0; key < 30; key++) found.delete(key);
    expect([found.size, found.room]).toEqual([0, 64]);
  });

  it("keeps its room for what comes and goes, and gives back that of a crowd", () => {
    const found = new NumberMap<number>();
    for (let key = 0; key < 100_000; key++) found.set(key, key);
    expect(found.room).toBe(262_144);
    for (let key = 0; key < 99_990; key++) found.delete(key);
    expect(found.room).toBeLessThan(1024);
    for (let key = 99_990; key < 100_000; key++) found.delete(key);
    found.clear();
    expect([found.size, found.room, found.get(1)]).toEqual([0, 16, undefined]);
  });
});
