import { describe, expect, it } from "vitest";
import { ORDERED_MIN, type Order, NameOrder } from "../../../overlay/op/name-order.ts";

const named = (name: string, ino: number): { readonly name: Buffer; readonly ino: number } => ({ name: Buffer.from(name), ino });

function orderAfter(...removed: readonly (readonly [string, number])[]): Order | null {
  const order = new NameOrder();
  for (const [name, ino] of removed) order.note(named(name, ino));
  return order.order;
}

describe("the order of removals", () => {
  it("is none before ORDERED_MIN went by it, one after the other", () => {
    expect(ORDERED_MIN).toBe(4);
    expect(orderAfter(["a", 9], ["b", 8], ["c", 7])).toBeNull();
    expect(orderAfter(["a", 9], ["b", 8], ["c", 7], ["d", 6])).toBe("name");
    expect(orderAfter(["d", 1], ["c", 2], ["b", 3], ["a", 4])).toBe("number");
    expect(orderAfter(["a", 9], ["b", 8], ["c", 7], ["d", 6], ["d", 6])).toBeNull();
  });

  it("is that which has lasted longer, and the names' if both have", () => {
    expect(orderAfter(["f8", 8], ["f9", 9], ["f10", 10], ["f11", 11], ["f12", 12], ["f13", 13])).toBe("count");
    expect(orderAfter(["f8", 1], ["f9", 2], ["e10", 3], ["f11", 4], ["e12", 5])).toBe("number");
    expect(orderAfter(["a", 1], ["b", 2], ["c", 3], ["d", 4])).toBe("name");
  });

  it("is that of who counts, whatever is around the digits", () => {
    const counted = [
      "",
      "f",
      "f0",
      "f01",
      "f2",
      "f9",
      "f09a",
      "f10",
      "f10.2",
      "f10.12",
      "f100",
      "f100a",
      "g1",
      "g18446744073709551616",
      "g18446744073709551617",
      "g01e",
    ];
    const sorted = new NameOrder().rest(
      counted.toReversed().map((name) => named(name, 0)),
      "count",
    );
    expect(sorted.map(({ name }) => name.toString())).toEqual([
      "",
      "f",
      "f0",
      "f01",
      "f2",
      "f9",
      "f09a",
      "f10",
      "f10.2",
      "f10.12",
      "f100",
      "f100a",
      "g1",
      "g01e",
      "g18446744073709551616",
      "g18446744073709551617",
    ]);
    expect(
      new NameOrder()
        .rest(
          ["a1", "a01", "a001"].map((name) => named(name, 0)),
          "count",
        )
        .map(({ name }) => name.toString()),
    ).toEqual(["a001", "a01", "a1"]);
  });

  it("names what is behind the last one, the next one first, whatever was before", () => {
    const order = new NameOrder();
    const names = [named("b", 5), named("c", 1), named("a", 3), named("d", 4)];
    const listed = (by: Order): string[] => order.rest(names, by).map(({ name }) => name.toString());
    expect(listed("name")).toEqual(["a", "b", "c", "d"]);
    order.note(named("b", 3));
    expect([listed("name"), listed("count"), listed("number")]).toEqual([
      ["c", "d"],
      ["c", "d"],
      ["d", "b"],
    ]);
  });
});
