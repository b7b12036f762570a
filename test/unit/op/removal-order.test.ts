import { describe, expect, it } from "vitest";
import { ORDERED_MIN, type Order, RemovalOrder } from "../../../overlay/op/removal-order.ts";

const named = (name: string, ino: number): { readonly name: Buffer; readonly ino: number } => ({ name: Buffer.from(name), ino });

function orderAfter(...removed: readonly (readonly [string, number])[]): Order | null {
  const order = new RemovalOrder();
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
    expect(orderAfter(["f8", 8], ["f9", 9], ["f10", 10], ["f11", 11], ["f12", 12], ["f13", 13])).toBe("number");
    expect(orderAfter(["a", 1], ["b", 2], ["c", 3], ["d", 4])).toBe("name");
  });

  it("names what is behind the last one, the next one first, whatever was before", () => {
    const order = new RemovalOrder();
    const names = [named("b", 5), named("c", 1), named("a", 3), named("d", 4)];
    const listed = (by: Order): string[] => order.rest(names, by).map(({ name }) => name.toString());
    expect(listed("name")).toEqual(["a", "b", "c", "d"]);
    order.note(named("b", 3));
    expect([listed("name"), listed("number")]).toEqual([
      ["c", "d"],
      ["d", "b"],
    ]);
  });
});
