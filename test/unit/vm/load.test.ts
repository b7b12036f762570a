import { describe, expect, it } from "vitest";
import { loadFaults } from "../../vm/load.ts";

const lines = (...numbers: readonly number[]): string => numbers.map((number) => `${number}\n`).join("");

describe("the load of the machines", () => {
  it("finds nothing wrong where each synced number is there, in order", () => {
    expect(loadFaults({ file: lines(1, 2, 3), synced: lines(1, 2, 3), unsure: "" })).toEqual([]);
  });

  it("a number whose append or sync failed may be there, or not", () => {
    expect(loadFaults({ file: lines(1, 2, 4), synced: lines(1, 4), unsure: lines(2, 3) })).toEqual([]);
  });

  it("the number that was written when it was stopped may be there", () => {
    expect(loadFaults({ file: lines(1, 2), synced: lines(1), unsure: "" })).toEqual([]);
    expect(loadFaults({ file: lines(1, 3), synced: lines(1), unsure: "" })).toEqual(['nobody wrote "3"']);
  });

  it("names a loss, a line that is there twice, one out of order, one of another program, and half a line", () => {
    expect(loadFaults({ file: lines(1, 3), synced: lines(1, 2, 3), unsure: "" })).toEqual(["2 was synced, and is not there"]);
    expect(loadFaults({ file: lines(1, 1, 2), synced: lines(1, 2), unsure: "" })).toEqual(["1 comes after 1"]);
    expect(loadFaults({ file: lines(2, 1), synced: lines(1, 2), unsure: "" })).toEqual(["1 comes after 2"]);
    expect(loadFaults({ file: "1\nx\n", synced: lines(1), unsure: "" })).toEqual(['nobody wrote "x"', "x comes after 1"]);
    expect(loadFaults({ file: "1\n2", synced: lines(1, 2), unsure: "" })).toEqual(["the last line has no end"]);
  });
});
