/**
 * The number of a request (hazard F39). One that the kernel has sent again (FUSE_NOTIFY_RESEND; fs/fuse/dev.c, fuse_resend) has the highest bit set from then on, in its answer
 * and in an INTERRUPT of it, too. Numbers here are doubles, so bit 52 stands for it: the kernel counts from 0 by twos.
 */
import { WireError } from "../../dlmd/base/error.ts";

const TWO_32 = 0x1_0000_0000;
/** FUSE_UNIQUE_RESEND, in the upper half. */
const RESEND_HIGH = 0x8000_0000;
/** FUSE_UNIQUE_RESEND as it stands in numbers of requests here. */
export const RESENT: number = 2 ** 52;

export function readUnique(buffer: Buffer, at: number): number {
  const high = buffer.readUInt32LE(at + 4);
  const resent = high >= RESEND_HIGH;
  const value = (resent ? high - RESEND_HIGH : high) * TWO_32 + buffer.readUInt32LE(at);
  if (value >= RESENT) throw new WireError(`the number of a request is too large: ${value}`);
  return resent ? value + RESENT : value;
}

/** The upper half of it as the kernel has it. */
export function uniqueHigh(unique: number): number {
  return unique < RESENT ? Math.floor(unique / TWO_32) : Math.floor((unique - RESENT) / TWO_32) + RESEND_HIGH;
}

export function isResent(unique: number): boolean {
  return unique >= RESENT;
}

/** What it was when it was sent first. */
export function firstUnique(unique: number): number {
  return unique < RESENT ? unique : unique - RESENT;
}
