/**
 * WRITEs and the write-back of mappings, of the same pages: not in the lower at a time, and the WRITE on top. Why:
 * overlay/coherence/pages/README.md, "READs, WRITEs and mappings of the same pages".
 */
import { dropRequests, type PagedInode, requestsOf, type WriteOrder } from "./paged-inode.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

type Made = WriteOrder["made"] extends Set<infer T> ? T : never;

export class Overwrite {
  readonly #inode: PagedInode;
  readonly #call: Made["call"];
  /** Its number; 0: it is not being made. */
  #no = 0;
  #made: Made | null = null;

  constructor(inode: PagedInode, call: Made["call"]) {
    this.#inode = inode;
    this.#call = call;
  }

  /** To be awaited before the lower is asked; then `over` has to be called. */
  begin(): MaybePromise<void> {
    const order = orderOf(this.#inode);
    this.#no = enter(order, order.making);
    return isFirst(order.writingBack, this.#no) ? undefined : turnOf(order, order.writingBack, this.#no);
  }

  /** In the turn in which the lower has answered; `data` has to stay as it is until `over`. */
  made(offset: number, data: Uint8Array): void {
    this.#enter({ offset, bytes: data.byteLength, data, call: this.#call });
  }

  /** The same, of a hole or of what was copied. */
  madeThere(offset: number, bytes: number): void {
    this.#enter({ offset, bytes, data: null, call: this.#call });
  }

  #enter(made: Made): void {
    const order = orderOf(this.#inode);
    this.#made = made;
    order.made.add(made);
    this.#end(order);
  }

  /** No page from before is left, or nothing was made. */
  over(): void {
    const writeOrder = this.#inode.requests?.writeOrder ?? null;
    if (writeOrder === null) return;
    if (this.#made !== null) writeOrder.made.delete(this.#made);
    this.#made = null;
    this.#end(writeOrder);
  }

  #end(order: WriteOrder): void {
    order.making.delete(this.#no);
    this.#no = 0;
    changed(this.#inode, order);
  }
}

/** A write-back came, and may have to wait for its lock: until it is answered, whoever waits for its page waits for that. Then `over` has to be called. */
export class WriteBack {
  readonly #inode: PagedInode;

  constructor(inode: PagedInode) {
    this.#inode = inode;
    orderOf(inode).writeBacks += 1;
  }

  /**
   * `work` writes `data` to the lower, from `offset` on, or the beginning of it. What WRITEs have made of it since the page was read is put on top
   * first. `read`: what the lower has there.
   */
  async make(
    offset: number,
    data: Uint8Array,
    read: (offset: number, bytes: number) => MaybePromise<Uint8Array>,
    work: () => Promise<void>,
  ): Promise<void> {
    const order = orderOf(this.#inode);
    const no = enter(order, order.writingBack);
    try {
      if (!isFirst(order.making, no)) await turnOf(order, order.making, no);
      for (const made of order.made) if (!made.call.interrupted) await putOnTop(data, offset, made, read);
      await work();
    } finally {
      order.writingBack.delete(no);
      changed(this.#inode, order);
    }
  }

  over(): void {
    const order = orderOf(this.#inode);
    order.writeBacks -= 1;
    changed(this.#inode, order);
  }
}

/** So a notification may wait for that, and not for a request that holds the page. */
export function isWrittenBack({ requests }: PagedInode): boolean {
  return (requests?.writeOrder?.writeBacks ?? 0) > 0;
}

async function putOnTop(
  data: Uint8Array,
  offset: number,
  made: Made,
  read: (offset: number, bytes: number) => MaybePromise<Uint8Array>,
): Promise<void> {
  const from = Math.max(offset, made.offset);
  const to = Math.min(offset + data.byteLength, made.offset + made.bytes);
  if (from >= to) return;
  data.set(made.data?.subarray(from - made.offset, to - made.offset) ?? (await read(from, to - from)), from - offset);
}

function orderOf(inode: PagedInode): WriteOrder {
  const requests = requestsOf(inode);
  requests.writeOrder ??= { last: 0, making: new Set(), writeBacks: 0, writingBack: new Set(), made: new Set(), waiting: [] };
  return requests.writeOrder;
}

function change(order: WriteOrder): Promise<void> {
  return new Promise((resolve) => order.waiting.push(resolve));
}

function enter(order: WriteOrder, queue: Set<number>): number {
  order.last += 1;
  queue.add(order.last);
  return order.last;
}

/** None of `others` came before that one. */
function isFirst(others: ReadonlySet<number>, no: number): boolean {
  for (const first of others) return no < first;
  return true;
}

async function turnOf(order: WriteOrder, others: ReadonlySet<number>, no: number): Promise<void> {
  while (!isFirst(others, no)) await change(order);
}

function changed(inode: PagedInode, order: WriteOrder): void {
  const { waiting } = order;
  if (waiting.length > 0) {
    order.waiting = [];
    for (const wake of waiting) wake();
  } else if (order.making.size === 0 && order.writeBacks === 0 && order.made.size === 0) {
    requestsOf(inode).writeOrder = null;
    dropRequests(inode);
  }
}
