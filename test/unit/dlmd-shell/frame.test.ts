import { crc32 } from "node:zlib";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import { createFrameReader } from "../../../dlmd/wire/frame.ts";

function frame(body: Uint8Array, checksummed: boolean): Buffer {
  const head = Buffer.alloc(checksummed ? 8 : 4);
  head.writeUInt32LE(body.byteLength, 0);
  if (checksummed) head.writeUInt32LE(crc32(body), 4);
  return Buffer.concat([head, body]);
}

test.each([true, false])("frames come out whole, however the stream was cut (checksummed: %s)", (checksummed) => {
  const bodies = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 });
  fc.assert(
    fc.property(bodies, fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }), (sent, cuts) => {
      const stream = Buffer.concat(sent.map((body) => frame(body, checksummed)));
      const reader = createFrameReader({ maxBytes: 64, crc32: checksummed ? crc32 : null });
      const received: Uint8Array[] = [];
      for (let at = 0, cut = 0; at < stream.length; cut++) {
        const bytes = cuts[cut % cuts.length] as number;
        reader.push(stream.subarray(at, at + bytes), (body) => received.push(body.slice()));
        at += bytes;
      }
      expect(received.map((body) => [...body])).toEqual(sent.map((body) => [...body]));
    }),
  );
});

test("a frame that is too long is refused before any of it is kept", () => {
  const reader = createFrameReader({ maxBytes: 64, crc32: null });
  expect(() => reader.push(Buffer.from([65, 0, 0, 0]), () => {})).toThrow(new WireError("frame of 65 bytes, at most 64 allowed"));
});

test("one changed bit anywhere in a checksummed frame is found", () => {
  const whole = frame(Buffer.from("a lock request"), true);
  for (let bit = 0; bit < whole.length * 8; bit++) {
    const damaged = Buffer.from(whole);
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
    let frames = 0;
    // A longer length is a frame that is not complete yet; all else is seen at once.
    try {
      createFrameReader({ maxBytes: 64, crc32 }).push(damaged, () => frames++);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
    }
    expect(frames).toBe(0);
  }
});
