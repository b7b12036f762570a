/**
 * From a request's bytes to its one reply: decode, keep what has to outlive the buffer, perform, and make sure that there was exactly
 * one answer. An Errno is an answer; anything else that a handler throws is a bug, logged with the operation, and EIO for its caller.
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import { E, Errno } from "../../dlmd/base/errno.ts";
import { WireError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { encodeError } from "../fuse/reply.ts";
import { damagedUnique, decodeRequest } from "../fuse/decode-request.ts";
import type { InitRequest, NotifyReplyRequest } from "../fuse/request.ts";
import { firstUnique, isResent } from "../fuse/unique.ts";
import type { InodeRecord } from "../inode/table.ts";
import { Call, type ReplyPort } from "../op/call.ts";
import { forget, isOnTheWay } from "../op/lookup.ts";
import { answerMade, type MadeOutcome, performAgain } from "../op/made-before.ts";
import { forgetFile } from "../op/open.ts";
import { isOwnByHandle } from "../op/lookup-handle.ts";
import type { Mount } from "../op/mount.ts";
import { type Operation, perform } from "../op/perform.ts";
import type { Heard } from "../coherence/names/listings.ts";
import { WriteBack } from "../coherence/pages/write-order.ts";
import { COPY_BYTES_MAX, type RequestBuffers } from "./buffers.ts";
import type { Interrupts } from "./interrupt.ts";
import type { SessionJournal } from "./session-journal.ts";
import { RequestsUnderWay } from "./under-way.ts";

/** What touches neither the lower nor a lock, and whose callers can not be killed: served without a lease. */
function needsLease(mount: Mount, request: Operation): boolean {
  if (request.op === "lookup") return !isOwnByHandle(mount, request, request.pid);
  return request.op !== "flush" && request.op !== "release" && request.op !== "releasedir";
}

export interface DispatchOptions {
  readonly mount: Mount;
  readonly port: ReplyPort;
  readonly buffers: RequestBuffers;
  readonly interrupts: Interrupts;
  readonly log: Log;
  /** Answers INIT itself. */
  readonly init: (request: InitRequest) => void;
  /** What was asked of the page cache. */
  readonly retrieved: (reply: NotifyReplyRequest) => void;
  /** A broken invariant: this process no longer knows what it holds, and must stop serving. */
  readonly fail: (error: Error) => void;
  readonly journal?: SessionJournal | null;
  /** After a crash: what became of requests that the process before has not answered. */
  readonly before?: RequestsBefore | null;
}

/** Of requests that a crashed process has read and not answered, and that the kernel sends again (hazards F38, F39). */
export interface RequestsBefore {
  /** Its change was made, or refused; null: it is to be made. */
  made(request: number): MadeOutcome | null;
  /** It was being answered with this handle, which the kernel does not have. */
  givenHandle(request: number): number | null;
}

export interface HoldRules {
  /** The kernel may have pages of it, or wait for some. */
  readonly mayHavePages: (node: InodeRecord) => boolean;
  /** A thread of this process, which looks at sizes. */
  readonly isOwn: (tid: number) => boolean;
}

export interface DispatchCounters {
  requests: number;
  /** Answered within the turn in which they came. */
  atOnce: number;
  interrupted: number;
  bugs: number;
}

/** Who waits behind these can not be killed anyway, or must not lose them (hazard F11). */
function interruptible(mount: Mount, request: Operation): boolean {
  return request.op === "write" ? !request.fromCache : needsLease(mount, request);
}

/** What the kernel asks for a look of ours at a place (hazard F46), and not for one at a size. */
function isAskedOnTheWay({ op }: Operation, node: InodeRecord | undefined): boolean {
  return op === "lookup" || op === "getxattr" || (op === "getattr" && node?.kind === "directory");
}

export class Dispatch {
  readonly counters: DispatchCounters = { requests: 0, atOnce: 0, interrupted: 0, bugs: 0 };
  /** Those that were not answered in the turn in which they came. */
  readonly underWay: RequestsUnderWay = new RequestsUnderWay(() => performance.now());
  readonly #options: DispatchOptions;
  /** Handlers that have not ended; the session waits for them before it gives up what they use. */
  #running = 0;
  #idle: (() => void) | null = null;
  #left = 0;
  #leftChanged = false;
  /** `yielded`: so many of the first had begun, and waited for file locks. */
  #held: { readonly requests: Buffer[]; bytes: number; yielded: number; readonly passes: HoldRules } | null = null;

  constructor(options: DispatchOptions) {
    this.#options = options;
  }

  get running(): number {
    return this.#running;
  }

  /**
   * Hazard F33. From now on no request begins but what the kernel may have locked pages for, of an inode that may have some (hazard F1), what this process asks of its own
   * mount (hazard F5), and what tidies up. The others are kept as they came, in their order.
   */
  hold(passes: HoldRules): void {
    this.#holdAsking(true);
    this.#held ??= { requests: [], bytes: 0, yielded: 0, passes };
  }

  /** What the mount asks for by itself. */
  #holdAsking(held: boolean): void {
    const { moved, changesAhead, walkAhead } = this.#options.mount;
    for (const room of [moved, changesAhead, walkAhead]) room.hold(held);
  }

  /** Those that may have pages again begin: their lock came back for an operation that ran. */
  passHeld(): void {
    const held = this.#held;
    if (held === null) return;
    const { interrupts } = this.#options;
    const kept: Buffer[] = [];
    for (const bytes of held.requests.splice(0)) {
      const request = this.#decode(bytes, bytes.length);
      // One that comes after what has just begun stops it.
      if (request?.op === "interrupt" && interrupts.has(request.targetUnique)) interrupts.receive(request.targetUnique);
      else if (request !== null && request.op !== "interrupt" && this.#passes(request)) this.#serve(request as Operation, bytes, true);
      else {
        kept.push(bytes);
        continue;
      }
      held.bytes -= bytes.length;
    }
    held.requests.unshift(...kept);
  }

  get heldRequests(): readonly Buffer[] {
    return this.#held?.requests ?? [];
  }

  get heldBytes(): number {
    return this.#held?.bytes ?? 0;
  }

  /** The kernel has ended the connection: nobody waits for what was held. */
  dropHeld(): void {
    this.#held = null;
  }

  /** All that was held begins. */
  letGo(): void {
    const { heldRequests } = this;
    this.#held = null;
    this.#holdAsking(false);
    for (const bytes of heldRequests) this.begin(bytes);
  }

  /** A request that was held, here or in the process before; `bytes` are nobody else's. */
  begin(bytes: Buffer): void {
    this.#receive(bytes, bytes.length, true);
  }

  /** Hazard F45. It came before all that is held, but for those like it; or nothing is held any more, and it begins at once. */
  #keepAgain(bytes: Buffer): void {
    const held = this.#held;
    if (held === null) return this.begin(bytes);
    held.requests.splice(held.yielded, 0, bytes);
    held.yielded += 1;
    held.bytes += bytes.length;
  }

  #passes(request: ReturnType<typeof decodeRequest>): boolean {
    const { mount, interrupts } = this.#options;
    switch (request.op) {
      case "forget":
      case "notifyReply":
      case "init":
      case "destroy":
      case "release":
      case "releasedir":
      case "flush":
        return true;
      case "interrupt":
        return interrupts.has(request.targetUnique);
      case "read":
      case "readlink":
      case "write":
      case "setattr":
      case "fallocate":
      case "fsync":
      case "copyFileRange": {
        const node = mount.inodes.get(request.fuseNodeid);
        const rules = this.#held?.passes;
        return rules?.isOwn(request.pid) === true || (node !== undefined && rules?.mayHavePages(node) === true);
      }
      default:
        return this.#held?.passes.isOwn(request.pid) === true;
    }
  }

  #decode(buffer: Buffer, bytes: number): ReturnType<typeof decodeRequest> | null {
    try {
      return decodeRequest(buffer, bytes);
    } catch (error) {
      this.#refuseDamaged(buffer, bytes, error);
      return null;
    }
  }

  /** Resolves when no handler runs. */
  drained(): Promise<void> {
    if (this.#running === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#idle = resolve;
    });
  }

  /** Hazard F42. What ends with EINTR from now on has no answer, and another process gets it again. */
  leave({ isOwn }: Pick<HoldRules, "isOwn">): void {
    this.#options.port.leaves = (tid) => !isOwn(tid);
  }

  /** Requests without an answer since `leave`; null: one of them has changed something, or may have. */
  get left(): number | null {
    return this.#leftChanged ? null : this.#left;
  }

  /** The request in the first `bytes` of the current buffer. */
  receive(bytes: number): void {
    this.#receive(this.#options.buffers.current, bytes, false);
  }

  /** `kept`: nobody else uses the buffer. */
  #receive(buffer: Buffer, bytes: number, kept: boolean): void {
    const { log, mount, interrupts } = this.#options;
    this.counters.requests += 1;
    const request = this.#decode(buffer, bytes);
    if (request === null) return;
    if (this.#held !== null && !this.#passes(request)) {
      this.#held.requests.push(ownBytes(buffer, bytes, kept));
      this.#held.bytes += bytes;
      if ("pid" in request) this.#heard(request, mount.inodes.get(request.fuseNodeid));
      return;
    }
    switch (request.op) {
      case "init":
        this.#options.init(request);
        return;
      case "forget":
        this.#guard(() => forget(mount, request));
        return;
      case "interrupt":
        interrupts.receive(request.targetUnique);
        return;
      case "notifyReply":
        this.#options.retrieved(request);
        return;
      case "destroy":
        log.debug({}, "DESTROY");
        new Call(request, this.#options.port).empty();
        return;
      default:
        this.#serve(request, waitsForFileLock(request) ? ownBytes(buffer, bytes, kept) : null, kept);
    }
  }

  /** That a request came shows what its thread has done (hazards F5, F48). */
  #heard(request: Heard, node: InodeRecord | undefined): void {
    const { sizes, names } = this.#options.mount.coherence;
    sizes.heard(request.pid);
    names.heard(request, node);
  }

  /** A request whose data nobody else uses. */
  serve(request: Operation): void {
    this.counters.requests += 1;
    this.#serve(request, null, true);
  }

  /** `again`: it as it came, where it may have to begin again. `kept`: its data outlive the buffer of the device. */
  #serve(request: Operation, again: Buffer | null, kept: boolean): void {
    const { buffers, mount, interrupts, port } = this.#options;
    const call = new Call(request, port);
    const node = mount.inodes.get(request.fuseNodeid);
    this.#heard(request, node);
    if (node !== undefined) mount.inodes.use(node);
    const payload = kept ? null : request.op === "write" ? request.data : request.op === "setxattr" ? request.value : null;
    let lend = false;
    if (payload !== null) {
      lend = payload.length > COPY_BYTES_MAX && buffers.mayLend();
      if (!lend) keepPayload(request, payload);
    }
    // Until its handler says otherwise.
    if (waitsForFileLock(request)) call.onSignal = (): void => call.interrupt();
    let work: Promise<void> | void = undefined;
    try {
      if (isResent(request.unique)) work = this.#again(call, request);
      else if (port.lease.holds() || !needsLease(mount, request)) work = perform(mount, call, request);
      else work = this.#whenLeased(call, request, node);
    } catch (error) {
      this.#failed(call, error);
    }
    if (work === undefined) {
      this.counters.atOnce += 1;
      this.#ended(call);
      if (node !== undefined) mount.inodes.leave(node);
      return;
    }
    call.late = needsLease(mount, request);
    if (call.answered) this.counters.atOnce += 1;
    else if (interruptible(mount, request)) {
      call.onAnswered = (): void => interrupts.remove(call);
      interrupts.add(call);
      if (isOnTheWay(mount, call) && isAskedOnTheWay(request, node)) mount.moved.endInTime(call);
    }
    const lent = lend && !call.answered ? buffers.lend() : null;
    this.#running += 1;
    const over = this.underWay.begin(call, request, node?.cover ?? null);
    const settle = (): void => {
      over();
      this.#ended(call);
      if (node !== undefined) mount.inodes.leave(node);
      if (lent !== null) buffers.giveBack(lent);
      this.#running -= 1;
      if (call.yielded && again !== null) this.#keepAgain(again);
      if (this.#running === 0) {
        this.#idle?.();
        this.#idle = null;
      }
    };
    work.then(settle, (error: unknown) => {
      this.#failed(call, error);
      settle();
    });
  }

  /** The process before has read it, and not answered. */
  async #again(call: Call, request: Operation): Promise<void> {
    const { mount, port, before = null } = this.#options;
    const first = firstUnique(request.unique);
    const made = before?.made(first) ?? null;
    const given = before?.givenHandle(first) ?? null;
    // A process that came to rest has said what its calls were told (RestartState.staleOnce, hazard F42).
    const begin = before === null ? perform : performAgain;
    const file = given === null ? undefined : mount.handles.get(given);
    if (file !== undefined) forgetFile(mount, file);
    if (needsLease(mount, request) && !port.lease.holds()) await port.lease.again(call);
    await (made === null ? begin(mount, call, request) : answerMade(mount, call, request, made));
  }

  async #whenLeased(call: Call, request: Operation, node: InodeRecord | undefined): Promise<void> {
    const { mount, port } = this.#options;
    // WRITEs that are under way have to know of it: its page is locked by now.
    const back = request.op === "write" && request.fromCache && node !== undefined ? new WriteBack(node) : null;
    try {
      await port.lease.again(call);
      await perform(mount, call, request);
    } finally {
      back?.over();
    }
  }

  #failed(call: Call, error: unknown): void {
    if (error instanceof Errno) {
      // An error after the answer has nobody to go to.
      if (!call.answered || call.interrupted) call.error(error.errno);
      else this.#bug(call, error);
      return;
    }
    this.#bug(call, error);
    if (!call.answered) call.error(E.EIO);
    if (error instanceof AssertionError) this.#options.fail(error);
  }

  #ended(call: Call): void {
    const { journal = null } = this.#options;
    if (call.yielded) return this.#options.interrupts.remove(call);
    if (call.left) {
      // Nobody here answers it, also where its caller is being killed.
      this.#options.interrupts.remove(call);
      this.#left += 1;
      this.#leftChanged ||= journal?.hasChanged(firstUnique(call.unique)) !== false;
      return;
    }
    if (journal !== null) this.#replied(call, journal);
    if (call.interrupted) this.counters.interrupted += 1;
    if (call.answered) return;
    this.#bug(call, new Error("the handler ended without an answer"));
    call.error(E.EIO);
  }

  /** Hazard F38: an answer that waits for the lease is none yet, and after a crash its request comes again. */
  #replied(call: Call, journal: SessionJournal): void {
    const request = firstUnique(call.unique);
    if (call.kept) call.whenLeft(() => journal.replied(request));
    else journal.replied(request);
  }

  #bug(call: Call, error: unknown): void {
    this.counters.bugs += 1;
    const { op, unique } = call;
    this.#options.log.error(
      { op, unique, error: error instanceof Error ? (error.stack ?? error.message) : String(error) },
      "bug in an operation",
    );
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.counters.bugs += 1;
      this.#options.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #refuseDamaged(buffer: Buffer, bytes: number, error: unknown): void {
    if (!(error instanceof WireError)) throw error;
    this.#options.log.error({ bytes, error: error.message }, "a damaged request from the kernel: its caller gets EIO");
    const unique = damagedUnique(buffer, bytes);
    if (unique === null) return;
    const { port } = this.#options;
    port.write(encodeError(port.buffer, unique, E.EIO));
  }
}

/** A request's bytes, which nobody else uses. */
function ownBytes(buffer: Buffer, bytes: number, kept: boolean): Buffer {
  return kept ? buffer : Buffer.from(buffer.subarray(0, bytes));
}

/** It may do so for hours. */
function waitsForFileLock(request: Operation): boolean {
  return request.op === "setlk" && request.wait && request.type !== "unlock";
}

/** Gives the request a payload of its own. */
function keepPayload(request: Operation, payload: Buffer): void {
  const copy = Buffer.from(payload);
  if (request.op === "write") (request as { data: Buffer }).data = copy;
  else if (request.op === "setxattr") (request as { value: Buffer }).value = copy;
}
