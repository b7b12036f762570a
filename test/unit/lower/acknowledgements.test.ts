/** Acknowledgements reach an owner that is still there, and are kept no longer than until that is certain. */
import { expect, it } from "vitest";
import { Acknowledgements, MAX_ACKS_IN_FRAME } from "../../../overlay/lower/remote/acknowledgements.ts";

function all(acks: Acknowledgements, after: number): number[] {
  const taken: number[] = [];
  for (let ids = acks.take(after); ids !== null; ids = acks.take(after)) taken.push(...ids);
  return taken;
}

it("those that a connection may have lost are sent again on the next one, before others; what has arrived is not", () => {
  const acks = new Acknowledgements();
  acks.add(1);
  expect(all(acks, 10)).toEqual([1]);
  acks.add(2);
  expect(all(acks, 11)).toEqual([2]);
  acks.add(3);
  // Sent before the acknowledgement of 2, and after that of 1.
  acks.answered(11);
  acks.sendAgain();
  expect(all(acks, 12)).toEqual([2, 3]);
  acks.answered(13);
  acks.sendAgain();
  expect(all(acks, 14)).toEqual([]);
});

it("a call that was sent before an acknowledgement proves nothing of it", () => {
  const acks = new Acknowledgements();
  acks.add(1);
  all(acks, 10);
  acks.answered(10);
  acks.sendAgain();
  expect(all(acks, 11)).toEqual([1]);
});

it("another owner hears of none", () => {
  const acks = new Acknowledgements();
  acks.add(1);
  all(acks, 10);
  acks.add(2);
  acks.clear();
  acks.sendAgain();
  expect(all(acks, 11)).toEqual([]);
});

it("many do not wait for the next call, and no frame has more than it may", () => {
  const acks = new Acknowledgements();
  const waited = Array.from({ length: MAX_ACKS_IN_FRAME + 1 }, (_, id) => acks.add(id));
  expect(waited.indexOf(true)).toBe(MAX_ACKS_IN_FRAME / 4 - 1);
  expect(acks.take(0)).toHaveLength(MAX_ACKS_IN_FRAME);
  expect(acks.take(0)).toEqual([MAX_ACKS_IN_FRAME]);
  expect(acks.take(0)).toBeNull();
});
