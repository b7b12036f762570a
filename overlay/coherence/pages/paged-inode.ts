/** What an inode remembers of the requests that have pages of it: overlap.ts, write-order.ts and append-end.ts have the rules. */
import type { Inode } from "../cover.ts";
import type { PageRange } from "../page-range.ts";

export interface PendingRead extends PageRange {
  /** Whose call it is, if the kernel has pages of it locked until it is answered: by a cached handle, or a private mapping of any. */
  readonly locks: { readonly interrupted: boolean } | null;
  /** Its pages were written since its data were read. */
  outdated: boolean;
}

/** What a READ brought, after how many sweeps of the inode's pages (Cover.sweeps), and to which thread. */
export interface Reread extends PageRange {
  readonly tid: number;
  readonly sweep: number;
}

/** WRITEs and write-backs of one file, numbered as they came. */
export interface WriteOrder {
  last: number;
  /** WRITEs that the lower has not answered; the first that came first, as in any Set. */
  readonly making: Set<number>;
  /** Write-backs that are not answered, and those of them that are in the lower or wait for WRITEs. */
  writeBacks: number;
  readonly writingBack: Set<number>;
  /** What was made, where pages from before may be left. */
  readonly made: Set<{
    readonly offset: number;
    readonly bytes: number;
    /** Null: as the lower has it, for a hole, or what was copied. */
    readonly data: Uint8Array | null;
    readonly call: { readonly interrupted: boolean };
  }>;
  waiting: (() => void)[];
}

/** What holds READs back. `pages`: those that the READ has locked, if it has. */
export interface AppendEnd {
  heldBack(pages: PageRange | null): Promise<void>;
}

/** What goes on with the pages of an inode, and what it has left that the rules of this room still need. */
export class PageRequests {
  /** Called when no READ is under way any more that is not held back. */
  onReadsOver: (() => void) | null = null;
  /** An append is under way, and READs wait until it is answered (append-end.ts). */
  appendEnd: AppendEnd | null = null;
  /** READs under way, and what was read since the last revoke where there are writers with a page cache (overlap.ts). */
  pendingReads: Set<PendingRead> | null = null;
  rereads: Reread[] | null = null;
  /** WRITEs and write-backs of mappings (write-order.ts); null: there are none. */
  writeOrder: WriteOrder | null = null;
}

/** The inode as this room sees it; inode/table.ts has the record. */
export interface PagedInode extends Inode {
  /** READs under way that are not held back. */
  readsUnderWay: number;
  /** null, as with most: there are none. */
  requests: PageRequests | null;
  /** Cover.sweeps at the last READ: if there was none since, the kernel may have pages (overlap.ts). -1: there was no READ. */
  readSweep: number;
}

export function requestsOf(inode: PagedInode): PageRequests {
  inode.requests ??= new PageRequests();
  return inode.requests;
}

/** To be called where one of its parts has become null. */
export function dropRequests(inode: PagedInode): void {
  const { requests } = inode;
  if (requests === null || requests.onReadsOver !== null || requests.appendEnd !== null) return;
  if (requests.pendingReads === null && requests.rereads === null && requests.writeOrder === null) inode.requests = null;
}
