/** Damage that keeps the shape of a message: bits, bytes that matter, lengths, cuts, tails, pieces of other messages. Seeded. */
import type { Random } from "../../seeded-random.ts";

const telling = [0, 1, 2, 6, 31, 32, 0x7f, 0x80, 0xff];

/** A damaged copy of one of `corpus`. */
export function mutate(random: Random, corpus: readonly Uint8Array[]): Uint8Array {
  let bytes = Buffer.from(corpus[random.below(corpus.length)] as Uint8Array);
  for (let changes = 1 + random.below(4); changes > 0; changes--) {
    const at = random.below(Math.max(1, bytes.length));
    switch (random.below(8)) {
      case 0:
        if (bytes.length > 0) bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
        break;
      case 1:
        if (bytes.length > 0) bytes[at] = telling[random.below(telling.length)] as number;
        break;
      case 2:
        bytes = Buffer.from(bytes.subarray(0, at));
        break;
      case 3:
        bytes = Buffer.concat([bytes, Buffer.alloc(1 + random.below(40), random.below(256))]);
        break;
      case 4:
        if (bytes.length >= at + 2) bytes.writeUInt16LE(random.below(0x1_0000), at);
        break;
      case 5:
        if (bytes.length >= at + 4) bytes.writeUInt32LE(random.below(3) === 0 ? 0xffff_ffff : random.below(0x1_0000_0000), at);
        break;
      case 6: {
        const other = corpus[random.below(corpus.length)] as Uint8Array;
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(random.below(other.byteLength + 1))]);
        break;
      }
      default: {
        // The same piece twice: more entries than were counted.
        const end = Math.min(bytes.length, at + 1 + random.below(24));
        bytes = Buffer.concat([bytes.subarray(0, end), bytes.subarray(at, end), bytes.subarray(end)]);
      }
    }
  }
  return new Uint8Array(bytes);
}
