/** Numbers of requests: of one that the kernel has sent again the highest bit is set, in its answer, too (hazard F39). */
import { expect, it } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import { encodeEmpty } from "../../../overlay/fuse/reply.ts";
import { firstUnique, isResent, readUnique } from "../../../overlay/fuse/unique.ts";

const RESEND = 1n << 63n;

function bytesOf(unique: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(unique);
  return bytes;
}

it.each([2n, 0xffff_fffen, 0x1_0000_0000n, 0x7_1234_5678n, (1n << 52n) - 2n])(
  "%s, sent once and sent again, is answered under its number",
  (unique) => {
    for (const sent of [unique, unique | RESEND]) {
      const read = readUnique(bytesOf(sent), 0);
      expect([isResent(read), firstUnique(read)]).toEqual([sent !== unique, Number(unique)]);
      const reply = Buffer.alloc(64);
      encodeEmpty(reply, read);
      expect(reply.readBigUInt64LE(8)).toBe(sent);
    }
  },
);

it("one that no double tells from its neighbour is damaged", () => {
  for (const unique of [1n << 52n, (1n << 52n) | RESEND, RESEND - 2n]) expect(() => readUnique(bytesOf(unique), 0)).toThrow(WireError);
});
