import { expect, it } from "vitest";
import { LENT_BUFFERS_MAX, RequestBuffers } from "../../../overlay/session/buffers.ts";

it("never lends the buffer that the device reads into, and no more than the limit", () => {
  const used: Buffer[] = [];
  const buffers = new RequestBuffers(8192, (buffer) => used.push(buffer));
  const lent = new Set<Buffer>();
  while (buffers.mayLend()) {
    const before = buffers.current;
    const buffer = buffers.lend();
    expect(buffer).toBe(before);
    expect(buffers.current).not.toBe(buffer);
    expect(used.at(-1)).toBe(buffers.current);
    lent.add(buffer);
  }
  expect(lent.size).toBe(LENT_BUFFERS_MAX);
  expect(lent.has(buffers.current)).toBe(false);
  expect(() => buffers.lend()).toThrow(/lent/);
  const [back] = lent;
  buffers.giveBack(back as Buffer);
  buffers.lend();
  expect(buffers.current).toBe(back);
});
