/**
 * The notifications that a revoke needs, written by threads of the notify pool (hazard F3: a notification may wait in the kernel
 * for a request that this process must answer). Source: fs/fuse/dev.c, fuse_notify; fs/fuse/inode.c, fuse_reverse_inval_inode.
 */
import { E } from "../../../dlmd/base/errno.ts";
import {
  INVAL_INODE_BYTES,
  notifyIncEpoch,
  notifyInvalEntry,
  notifyInvalInode,
  notifyInvalInodes,
  notifyRetrieve,
  notifyStore,
} from "../../fuse/notify.ts";
import type { PageRange } from "../page-range.ts";
import type { Gate, Native } from "../../../native/index.ts";
import { SENTINEL_SIZE } from "../size/sentinel.ts";
import type { KernelCaches } from "./revoke-round.ts";
import type { InodeBatch } from "./drop-all.ts";

/** What the running kernel was found to offer at INIT. */
export interface NotifyFeatures {
  /** FUSE_EXPIRE_ONLY in INVAL_ENTRY (Linux 6.2); without it the dentry is dropped. */
  readonly expireEntry: boolean;
  /** FUSE_NOTIFY_INC_EPOCH (Linux 6.16). */
  readonly incEpoch: boolean;
}

const SENTINEL_BYTE = Buffer.alloc(1);
const SENTINEL_AT = BigInt(SENTINEL_SIZE) - 1n;

/**
 * Numbers of what is asked of the page cache are greater: a request of the kernel never has one of them, and they are below those of requests that are sent again
 * (fuse/unique.ts). Each process has its own: the answer to what a crashed one has asked may come to the next one.
 */
const RETRIEVE_NUMBERS = 2 ** 51;
const RETRIEVES_OF_A_PROCESS = 2 ** 24;

/** All pages of it but these. */
export function invalidateBut(fuseNodeid: number, except: readonly PageRange[]): Buffer[] {
  const messages: Buffer[] = [];
  let done = 0;
  for (const { from, to } of [...except].sort((a, b) => a.from - b.from)) {
    if (from > done) messages.push(notifyInvalInode(fuseNodeid, BigInt(done), BigInt(from - done)));
    done = Math.max(done, to);
  }
  // To the end of all pages.
  messages.push(notifyInvalInode(fuseNodeid, BigInt(done), 0n));
  return messages;
}

export function createKernelCaches(native: Native, fd: number, features: NotifyFeatures): KernelCaches {
  const writing = new Set<Promise<unknown>>();
  const noted = <T>(written: Promise<T>): Promise<T> => {
    writing.add(written);
    void written.finally(() => writing.delete(written));
    return written;
  };
  let closed = false;
  /** By number: who waits for what the page cache has. One for each WRITE at most. */
  const asked = new Map<number, (data: Uint8Array | null) => void>();
  let retrievals = RETRIEVE_NUMBERS + process.pid * RETRIEVES_OF_A_PROCESS;
  const notify = (messages: Buffer[], gate?: Gate, gateAt = 0): Promise<number[]> => {
    if (closed) return Promise.resolve(messages.map(() => -E.ENODEV));
    return noted(gate === undefined ? native.notify(fd, messages) : native.notify(fd, messages, gate, gateAt));
  };
  return {
    invalidatePages: (fuseNodeid, except = []) => notify(invalidateBut(fuseNodeid, except)),
    invalidateMany: (fuseNodeids): InodeBatch => {
      const batch = native.createNotifyBatch(notifyInvalInodes(fuseNodeids), INVAL_INODE_BYTES);
      return {
        write: () => (closed ? Promise.resolve(0) : noted(native.writeNotifyBatch(fd, batch))),
        begun: () => native.notifyBatchBegun(batch),
        refused: () => native.notifyBatchRefused(batch),
      };
    },
    invalidateRange: (fuseNodeid, offset, bytes) => {
      const gate = native.createGate();
      const results = notify([notifyInvalInode(fuseNodeid, BigInt(offset), BigInt(bytes))], gate, 1);
      return { thread: () => native.gateThread(gate), results };
    },
    retrieve: (fuseNodeid, offset, bytes) =>
      new Promise((resolve) => {
        retrievals += 1;
        const message = notifyRetrieve(retrievals, fuseNodeid, BigInt(offset), bytes);
        if (closed || native.deviceWrite(fd, message, message.length) < 0) resolve(null);
        else asked.set(retrievals, resolve);
      }),
    retrieved: (unique, data) => {
      asked.get(unique)?.(data);
      asked.delete(unique);
    },
    raiseSize: (fuseNodeid, size, last) => notify([notifyStore(fuseNodeid, BigInt(size) - 1n, Buffer.from([last]))]),
    invalidatePagesAndSize: (fuseNodeid, except) => {
      const gate = native.createGate();
      const pages = invalidateBut(fuseNodeid, except);
      const messages = [...pages, notifyStore(fuseNodeid, SENTINEL_AT, SENTINEL_BYTE), notifyInvalInode(fuseNodeid, -1n, 0n)];
      return { gate: { shut: () => native.shutGate(gate) }, results: notify(messages, gate, pages.length) };
    },
    invalidateAttributesNow: (fuseNodeid) => {
      if (closed) return -E.ENODEV;
      const message = notifyInvalInode(fuseNodeid, -1n, 0n);
      return Math.min(0, native.deviceWrite(fd, message, message.length));
    },
    invalidateAttributes: (fuseNodeid) => notify([notifyInvalInode(fuseNodeid, -1n, 0n)]),
    expireNames: (fuseNodeid, names) =>
      notify(names.map(({ name, drop }) => notifyInvalEntry(fuseNodeid, name, !drop && features.expireEntry))),
    close: async () => {
      closed = true;
      for (const resolve of asked.values()) resolve(null);
      asked.clear();
      while (writing.size > 0) await Promise.allSettled(writing);
    },
    incrementEpoch: features.incEpoch ? (): Promise<number[]> => notify([notifyIncEpoch()]) : null,
  };
}
