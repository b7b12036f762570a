/** How often a peer may send what it cannot have meant. */
import { expect, it } from "vitest";
import { MAX_MISTRUST_VIEWS, MISTRUST_WINDOW_MS, Mistrust } from "../../../dlmd/recovery/mistrust.ts";

const [one, two] = ["00000000000000a1", "00000000000000a2"];

it(`${MAX_MISTRUST_VIEWS} views are rebuilt for a peer within ${MISTRUST_WINDOW_MS} ms, then it is left out`, () => {
  const mistrust = new Mistrust();
  for (let i = 0; i < MAX_MISTRUST_VIEWS; i++) expect(mistrust.seen(1, one, i)).toBe("rebuild");
  expect(mistrust.seen(2, one, 3)).toBe("rebuild");
  expect(mistrust.seen(1, one, MISTRUST_WINDOW_MS - 1)).toBe("leave-out");
  // Another life of it has not done anything yet.
  expect(mistrust.seen(1, two, MISTRUST_WINDOW_MS - 1)).toBe("rebuild");
});

it("one now and then is no reason to leave it out", () => {
  const mistrust = new Mistrust();
  for (let i = 0; i < 20; i++) expect(mistrust.seen(1, one, (i * MISTRUST_WINDOW_MS) / MAX_MISTRUST_VIEWS)).toBe("rebuild");
});
