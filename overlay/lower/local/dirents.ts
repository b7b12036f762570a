/** What getdents64(2) writes: struct linux_dirent64. */
import type { Native } from "../../../native/index.ts";
import { checked } from "../../../dlmd/base/maybe-promise.ts";
import { O } from "../linux.ts";
import type { DirEntry } from "../lower.ts";

const LISTING_BYTES = 32_768;

/** Lists a directory from its begin, by the pool, one piece after the other. Each has memory of its own. */
export async function* listed({ pool, sync }: Native, dirfd: number): AsyncGenerator<readonly DirEntry[], void> {
  const calls = pool.metadata;
  const fd = checked(await calls.openat2(dirfd, Buffer.from("."), O.RDONLY | O.DIRECTORY | O.NOATIME, 0, 0));
  try {
    for (;;) {
      const buffer = Buffer.allocUnsafeSlow(LISTING_BYTES);
      const count = checked(await calls.getdents(fd, buffer));
      if (count === 0) return;
      yield parseEntries(buffer.subarray(0, count));
    }
  } finally {
    sync.close(fd);
  }
}

/** Before the name: d_ino, d_off, d_reclen, d_type. */
const GETDENTS_HEAD_BYTES = 19;

/** Names are views of `bytes`. */
export function parseEntries(bytes: Buffer): DirEntry[] {
  const entries: DirEntry[] = [];
  let at = 0;
  while (at < bytes.length) {
    const recordBytes = bytes.readUInt16LE(at + 16);
    const end = bytes.indexOf(0, at + GETDENTS_HEAD_BYTES);
    entries.push({
      ino: bytes.readUInt32LE(at + 4) * 0x1_0000_0000 + bytes.readUInt32LE(at),
      cookie: bytes.readBigInt64LE(at + 8),
      type: bytes[at + 18] as number,
      name: bytes.subarray(at + GETDENTS_HEAD_BYTES, end),
    });
    at += recordBytes;
  }
  return entries;
}
