/** How often a peer may send what it cannot have meant. */
import { expect, it } from "vitest";
import { MAX_MISTRUST_VIEWS, MISTRUST_WINDOW_MS, Mistrust } from "../../../dlmd/recovery/mistrust.ts";

const [one, two] = ["00000000000000a1", "00000000000000a2"];

it(`${MAX_MISTRUST_VIEWS} views are rebuilt for a peer within ${MISTRUST_WINDOW_MS} ms, then it is left out`, () => {
  const mistrust = new Mistrust();
  for (let i = 0; i < MAX_MISTRUST_VIEWS; i++) expect(mistrust.seen(1, one, false, i)).toBe("rebuild");
  expect(mistrust.seen(2, one, false, 3)).toBe("rebuild");
  expect(mistrust.seen(1, one, false, MISTRUST_WINDOW_MS - 1)).toBe("leave-out");
  // Another life of it has not done anything yet.
  expect(mistrust.seen(1, two, false, MISTRUST_WINDOW_MS - 1)).toBe("rebuild");
});

it("one now and then is no reason to leave it out", () => {
  const mistrust = new Mistrust();
  for (let i = 0; i < 20; i++) expect(mistrust.seen(1, one, false, (i * MISTRUST_WINDOW_MS) / MAX_MISTRUST_VIEWS)).toBe("rebuild");
});

it("what cannot be read is counted for the whole life of the peer, however far apart", () => {
  const mistrust = new Mistrust();
  for (let i = 0; i < MAX_MISTRUST_VIEWS; i++) expect(mistrust.seen(1, one, true, i * MISTRUST_WINDOW_MS)).toBe("rebuild");
  expect(mistrust.seen(1, two, true, MAX_MISTRUST_VIEWS * MISTRUST_WINDOW_MS)).toBe("rebuild");
  const other = new Mistrust();
  for (let i = 0; i < MAX_MISTRUST_VIEWS; i++) other.seen(1, one, true, i * MISTRUST_WINDOW_MS);
  expect(other.seen(1, one, true, MAX_MISTRUST_VIEWS * MISTRUST_WINDOW_MS)).toBe("leave-out");
});
