/**
 * One request on its way to its one reply. The handlers of this room answer through it; what the kernel did with the answer
 * comes back: `false` means that it was dropped, so whatever the reply would have given to the kernel (a lookup, an open file) was
 * not given.
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import { E } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { Waiter } from "../coherence/api.ts";
import type { ReplyTerms } from "../coherence/terms.ts";
import { fuseGeneration, type Inode, type NumberedInode } from "../coherence/cover.ts";
import type { Attr, StatFs } from "../lower/lower.ts";
import * as encode from "../fuse/reply.ts";
import type { RequestHead, RequestOp } from "../fuse/request.ts";
import type { GivingCall } from "../inode/handles.ts";
import type { KeptAnswer, LeaseGate } from "../lease/lease.ts";

/**
 * Room for directory listings in the reply buffer; a longer one is cut there, and the kernel asks for the rest. So a READDIRPLUS has at most
 * 819 names, fewer than the lower takes in one trip (MAX_LOOKUP_MANY, MAX_GETATTR_MANY).
 */
export const LISTING_BYTES_MAX: number = 128 * 1024;
export const REPLY_BUFFER_BYTES: number = LISTING_BYTES_MAX + 16;

/** Where replies go. Results as of write(2): >= 0, or a negative errno. */
export interface ReplyPort {
  /** REPLY_BUFFER_BYTES; overwritten by every reply. */
  readonly buffer: Buffer;
  write(bytes: number): number;
  writeWithBody(headBytes: number, body: Uint8Array, bodyAt: number, bodyBytes: number): number;
  readonly log: Log;
  /** What was not answered at once is answered only while it holds (hazard C4). */
  readonly lease: LeaseGate;
  /**
   * Hazard F42: another process goes on, and the kernel sends it again what has no answer. What ends with EINTR has met a lock that cannot come. `tid`: who asks; a thread of this
   * process waits for its answer.
   */
  leaves?: (tid: number) => boolean;
}

export interface CallHead extends RequestHead {
  readonly op: RequestOp;
}

/** Who asks: uid and gid are those for file access (setfsuid). */
export class Call implements Waiter, KeptAnswer, GivingCall {
  readonly unique: number;
  readonly op: RequestOp;
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  /** The caller is being killed; it has been told EINTR. */
  interrupted = false;
  onInterrupt: (() => void) | null = null;
  lockKey: string | null = null;
  /** What any signal of the caller does, not only a deadly one: a wait for a file lock. Null: it waits on. */
  onSignal: (() => void) | null = null;
  /** GivingCall */
  onLeaving: (() => void) | null = null;
  /** Of what the lower has made for it, and what the kernel goes by until it is answered (orphans.ts); null: of nothing. */
  changes: readonly Inode[] | null = null;
  /** Called when the reply has left. */
  onAnswered: (() => void) | null = null;
  /** It was not answered in the turn in which it came. */
  late = false;
  /** It has ended, and has no answer: another process gets it again. */
  left = false;
  /** Ends a wait for a file lock, so that this process or another one can begin the call again (hazard F45). Null: it waits for none. */
  onYield: (() => void) | null = null;
  /** It has ended by that, and has no answer. */
  yielded = false;
  #answered = false;
  #kept: (() => number) | null = null;
  readonly #port: ReplyPort;

  constructor(head: CallHead, port: ReplyPort) {
    this.unique = head.unique;
    this.op = head.op;
    this.uid = head.uid;
    this.gid = head.gid;
    this.pid = head.pid;
    this.#port = port;
  }

  get answered(): boolean {
    return this.#answered;
  }

  /** Its answer waits for the lease. */
  get kept(): boolean {
    return this.#kept !== null;
  }

  /** Hazard F38. While its answer is kept, that is not given: `then` when it has left. */
  whenLeft(then: () => void): void {
    const { onAnswered } = this;
    this.onAnswered = (): void => {
      onAnswered?.();
      then();
    };
  }

  release(): void {
    const write = this.#kept;
    this.#kept = null;
    if (write === null) return;
    this.onLeaving?.();
    this.#written(write());
  }

  giveUp(): void {
    // An error gives nothing (hazard F39).
    this.onLeaving = null;
    this.#kept = (): number => this.#port.write(encode.encodeError(this.#port.buffer, this.unique, E.EIO));
    this.release();
  }

  /** Hazard F11: answers EINTR at once; the handler goes on, and what it answers later is dropped. */
  interrupt(): void {
    if (this.#kept !== null) {
      // What it gives to the kernel (a lookup, an open file) is counted as given. The caller will not see it.
      this.release();
      this.#port.lease.hurried(this);
      return;
    }
    if (this.#answered) return;
    // Whatever the lease: it tells him nothing.
    this.#sent(this.#port.write(encode.encodeError(this.#port.buffer, this.unique, E.EINTR)));
    this.interrupted = true;
    const end = this.onInterrupt;
    this.onInterrupt = null;
    end?.();
  }

  error(errno: number): boolean {
    if (errno === E.EINTR && !this.#answered && this.#port.leaves?.(this.pid) === true) {
      this.left = true;
      return false;
    }
    return this.#open() && this.#send(encode.encodeError(this.#port.buffer, this.unique, errno));
  }

  empty(): boolean {
    return this.#open() && this.#send(encode.encodeEmpty(this.#port.buffer, this.unique));
  }

  entry(inode: NumberedInode, attr: Attr, { entryValid, attrValid, size }: ReplyTerms): boolean {
    if (!this.#open()) return false;
    const { buffer } = this.#port;
    return this.#send(encode.encodeEntry(buffer, this.unique, inode.fuseNodeid, fuseGeneration(inode), attr, entryValid, attrValid, size));
  }

  negativeEntry(): boolean {
    return this.#open() && this.#send(encode.encodeNegativeEntry(this.#port.buffer, this.unique));
  }

  attr(attr: Attr, { attrValid, size }: ReplyTerms): boolean {
    const encoder = this.op === "statx" ? encode.encodeStatx : encode.encodeAttr;
    return this.#open() && this.#send(encoder(this.#port.buffer, this.unique, attr, attrValid, size));
  }

  open(fh: number, openFlags: number): boolean {
    return this.#open() && this.#send(encode.encodeOpen(this.#port.buffer, this.unique, fh, openFlags));
  }

  create(inode: NumberedInode, attr: Attr, { entryValid, attrValid, size }: ReplyTerms, fh: number, openFlags: number): boolean {
    if (!this.#open()) return false;
    const { buffer } = this.#port;
    const generation = fuseGeneration(inode);
    return this.#send(
      encode.encodeCreate(buffer, this.unique, inode.fuseNodeid, generation, attr, entryValid, attrValid, fh, openFlags, size),
    );
  }

  written(bytes: number): boolean {
    return this.#open() && this.#send(encode.encodeWrite(this.#port.buffer, this.unique, bytes));
  }

  xattrSize(bytes: number): boolean {
    return this.#open() && this.#send(encode.encodeXattrSize(this.#port.buffer, this.unique, bytes));
  }

  /** Null: it was set. */
  ioctl(value: Buffer | null): boolean {
    if (!this.#open()) return false;
    const { buffer } = this.#port;
    const headBytes = encode.encodeIoctlHead(buffer, this.unique, value?.length ?? 0);
    return this.#send(headBytes + (value?.copy(buffer, headBytes) ?? 0));
  }

  lseek(offset: number): boolean {
    return this.#open() && this.#send(encode.encodeLseek(this.#port.buffer, this.unique, offset));
  }

  lock(found: encode.LockFound | null): boolean {
    return this.#open() && this.#send(encode.encodeLk(this.#port.buffer, this.unique, found));
  }

  statfs(statfs: StatFs): boolean {
    return this.#open() && this.#send(encode.encodeStatfs(this.#port.buffer, this.unique, statfs));
  }

  data(body: Uint8Array): boolean {
    if (!this.#open()) return false;
    const headBytes = encode.encodeDataHead(this.#port.buffer, this.unique, body.byteLength);
    if (body.byteLength === 0) return this.#send(headBytes);
    if (this.late && !this.#port.lease.holds()) {
      const kept = Buffer.from(body);
      return this.#keep(headBytes, () => this.#port.writeWithBody(headBytes, kept, 0, kept.length));
    }
    return this.#sent(this.#port.writeWithBody(headBytes, body, 0, body.byteLength));
  }

  /** A directory listing of at most `size` bytes, to be filled at once and ended with `listed`. */
  listing(size: number, plus: boolean): encode.DirEncoder {
    return new encode.DirEncoder(this.#port.buffer, Math.min(size, LISTING_BYTES_MAX), plus);
  }

  listed(listing: encode.DirEncoder): boolean {
    return this.#open() && this.#send(listing.end(this.unique));
  }

  /** Is there still somebody to answer? A second answer is a bug, but not after an interruption. */
  #open(): boolean {
    if (this.#answered && !this.interrupted) throw new AssertionError(`second reply to ${this.op} ${this.unique}`);
    return !this.#answered;
  }

  #send(bytes: number): boolean {
    if (this.late && !this.#port.lease.holds()) return this.#keep(bytes, () => this.#port.write(bytes));
    return this.#sent(this.#port.write(bytes));
  }

  /** To the handler it is given: what became of it is known only when it leaves. */
  #keep(headBytes: number, write: () => number): true {
    const { buffer, lease } = this.#port;
    const head = Buffer.from(buffer.subarray(0, headBytes));
    this.#answered = true;
    this.#kept = (): number => {
      head.copy(buffer);
      return write();
    };
    lease.keep(this);
    return true;
  }

  #sent(result: number): boolean {
    this.#answered = true;
    return this.#written(result);
  }

  #written(result: number): boolean {
    const { onAnswered } = this;
    // Whoever still has the call does not keep its request for that.
    this.onAnswered = null;
    onAnswered?.();
    if (result >= 0) return true;
    // ENOENT: aborted meanwhile. ENODEV, ENOTCONN, EPERM: the connection is gone.
    if (result !== -E.ENOENT && result !== -E.ENODEV && result !== -E.ENOTCONN && result !== -E.EPERM) this.#refused(-result);
    return false;
  }

  #refused(errno: number): void {
    this.#port.log.error({ op: this.op, unique: this.unique, errno }, "the kernel refused a reply: a bug; its caller gets EIO");
    this.#port.write(encode.encodeError(this.#port.buffer, this.unique, E.EIO));
  }
}
