/**
 * Hazard F5: the kernel's idea of a file's size survives every invalidation, and sendfile, copy_file_range,
 * mmap and O_APPEND trust it without asking. So the last step of a revoke of a regular file makes that size
 * absurdly large (NOTIFY_STORE of one byte at SENTINEL_SIZE - 1): every path that trusts it then asks us.
 *
 * Not a round value such as 2^60: that is 1 EiB, an offset that a person (or a test) really tries, and a write there must be EFBIG
 * and not an append.
 */

/** The size that an uncovered file shows to its kernel. Exact as a double. */
export const SENTINEL_SIZE: number = 0x5a00_0000_0000_0000;

// Appends made one after the other before the kernel has asked for the true size come at growing offsets.
const SENTINEL_END: number = SENTINEL_SIZE + 2 ** 44;

/** A WRITE or READ at that offset comes from a kernel that was given the sentinel as size. */
export function isSentinelOffset(offset: number): boolean {
  return offset >= SENTINEL_SIZE && offset < SENTINEL_END;
}
