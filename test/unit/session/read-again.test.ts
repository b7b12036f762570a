/** What a crashed process had read and not answered: all of it is read at once, in its order, and what its own threads wait for is answered (hazard F41). */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { IN_HEADER_BYTES, NOTIFY, OPCODE } from "../../../overlay/fuse/abi.ts";
import { RESENT, readUnique, uniqueHigh } from "../../../overlay/fuse/unique.ts";
import { readAgain } from "../../../overlay/session/read-again.ts";

const FD = 4;
const DEAD = 700;

/** A request that has no more than a head: STATFS, or a FORGET of one lookup. */
function request(unique: number, pid: number, opcode: number = OPCODE.FUSE_STATFS, body = 0): Buffer {
  const bytes = Buffer.alloc(IN_HEADER_BYTES + body);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeUInt32LE(unique % 2 ** 32, 8);
  bytes.writeUInt32LE(uniqueHigh(unique), 12);
  bytes.writeBigUInt64LE(1n, 16);
  bytes.writeUInt32LE(pid, 32);
  return bytes;
}

/** What it gives, and what was written to the device meanwhile. */
function readFrom(queue: Buffer[]): { readonly found: Buffer[]; readonly written: Buffer[] } {
  const written: Buffer[] = [];
  const deviceWrite = (_fd: number, bytes: Buffer, length: number): number => {
    written.push(Buffer.from(bytes.subarray(0, length)));
    return length;
  };
  const read = (_fd: number, into: Buffer): number => queue.shift()?.copy(into) ?? 0;
  return { found: readAgain({ deviceWrite }, FD, (tid) => tid === DEAD, read), written };
}

it("asks for it once, and reads what comes until there is no more", () => {
  const queue = [request(100 + RESENT, 1), request(102 + RESENT, 2)];
  const wanted = queue.slice();
  const { found, written } = readFrom(queue);
  expect(found).toEqual(wanted);
  expect(written.map((bytes) => bytes.readInt32LE(4))).toEqual([NOTIFY.FUSE_NOTIFY_RESEND]);
});

it("ends with the first new request, which is among it; what has a queue of its own does not count as one", () => {
  const forget = request(0, 0, OPCODE.FUSE_FORGET, 8);
  const queue = [forget, request(100 + RESENT, 1), request(104, 1), request(106, 1)];
  const wanted = queue.slice(0, 3);
  expect(readFrom(queue).found).toEqual(wanted);
  expect(queue).toHaveLength(1);
});

it("a thread of the dead process is answered with EINTR, under the number by which the kernel has sent it, and is not served", () => {
  const queue = [request(100 + RESENT, DEAD), request(102 + RESENT, 2)];
  const wanted = queue.slice(1);
  const { found, written } = readFrom(queue);
  expect(found).toEqual(wanted);
  expect(written.slice(1).map((bytes) => [bytes.readInt32LE(4), readUnique(bytes, 8)])).toEqual([[-E.EINTR, 100 + RESENT]]);
});

it("a damaged request is kept: it is answered as all such are", () => {
  const damaged = request(100 + RESENT, 1);
  damaged.writeUInt32LE(7, 0);
  expect(readFrom([damaged, request(102 + RESENT, 1)]).found).toHaveLength(2);
});
