/**
 * READs and WRITEs of the same pages that are under way together.
 *
 * The kernel's page locks keep them apart, but for a WRITE that has to wait for its lock: the pages which it has filled may be dropped by a revoke
 * meanwhile, and read again before the lower has its data. What was read so is dropped before the WRITE is answered (no WRITE has those pages
 * locked, because a READ had them); and a READ whose data are older than such a WRITE reads again.
 */
import type { InodeRecord, PageRange, PendingRead, PendingWrite } from "../inode/table.ts";

export function beginRead(inode: InodeRecord, from: number, bytes: number): PendingRead {
  const read = { from, to: from + bytes, outdated: false };
  inode.pendingReads.add(read);
  return read;
}

/** To be called in the turn of the answer. */
export function answerRead(inode: InodeRecord, read: PendingRead): void {
  for (const write of inode.pendingWrites) if (overlap(read, write)) write.reread.push(read);
}

export function beginWrite(inode: InodeRecord, from: number, bytes: number): PendingWrite {
  const write = { from, to: from + bytes, reread: [] };
  inode.pendingWrites.add(write);
  return write;
}

/** To be called in the turn in which the lower has answered. */
export function madeWrite(inode: InodeRecord, write: PendingWrite): void {
  for (const read of inode.pendingReads) read.outdated ||= overlap(read, write);
}

function overlap(a: PageRange, b: PageRange): boolean {
  return a.from < b.to && b.from < a.to;
}
