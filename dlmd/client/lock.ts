/**
 * A lock as its holder sees it. Requests become entries of the connection's open batch; results come back by lockId.
 */
import { AssertionError } from "../base/assert.ts";
import { E, errnoName } from "../base/errno.ts";
import { OperatingError } from "../base/error.ts";
import { ALTMODE, DEMOTED, wrongFlags } from "../wire/flag.ts";
import { readsLvb } from "../wire/lvb.ts";
import { Mode, modeCovers, modesCompatible } from "../wire/mode.ts";
import { LVB_BYTES, NAME_BYTES, encodeRequest } from "../wire/local-batch.ts";
import { type Lock, LockFlag, type LockHandlers, type LockStatus, type RequestOptions } from "./api.ts";
import type { Connection, LockResults } from "./connection.ts";

const noOptions: RequestOptions = {};

/** What results have told besides the mode, as in the lock status block of fs/dlm (struct dlm_lksb). */
type StatusBlock = Required<Pick<Lock, "lvb" | "lvbValid" | "demoted" | "altMode" | "error">>;

/** That of most locks. There are very many of them: so none has a block of its own that has nothing to say, and none is changed in place. */
const NOTHING: StatusBlock = { lvb: null, lvbValid: false, demoted: false, altMode: false, error: null };

/** A lockspace that is open on that connection. */
export interface OpenLockspace {
  readonly connection: Connection;
  readonly lockspaceId: number;
}

/** `A`: what the handlers are called with, as `astarg` of dlm_lock(). */
export class ClientLock<A> implements Lock, LockResults {
  readonly resource: string;
  mode: Mode = Mode.NL;
  busy = false;
  /** The connection's number for this lock while dlmd knows it; -1: it does not. */
  lockId = -1;
  readonly #space: OpenLockspace;
  readonly #handlers: LockHandlers<A>;
  readonly #astarg: A;
  #status: StatusBlock = NOTHING;
  exists = false;
  /** FORCEUNLOCK was sent while a request was outstanding: two results are under way. */
  #forced = false;
  /** An unlock was sent, and its end is told after this turn. */
  #givenUp = false;

  constructor(space: OpenLockspace, resource: string, handlers: LockHandlers<A>, astarg: A) {
    this.#space = space;
    this.resource = resource;
    this.#handlers = handlers;
    this.#astarg = astarg;
  }

  get lvb(): Uint8Array | null {
    return this.#status.lvb;
  }

  get lvbValid(): boolean {
    return this.#status.lvbValid;
  }

  get demoted(): boolean {
    return this.#status.demoted;
  }

  get altMode(): boolean {
    return this.#status.altMode;
  }

  get error(): Error | null {
    return this.#status.error;
  }

  get #connection(): Connection {
    return this.#space.connection;
  }

  #noteFlags(demoted: boolean, altMode: boolean): void {
    const status = this.#status;
    if (status.demoted !== demoted || status.altMode !== altMode) this.#status = { ...status, demoted, altMode };
  }

  #noteError(error: Error | null): void {
    if (this.#status.error !== error) this.#status = { ...this.#status, error };
  }

  #end(status: LockStatus): void {
    this.#handlers.ast(this, status, this.#astarg);
  }

  request(mode: Mode, flags: number, lvb?: Uint8Array, options: RequestOptions = noOptions): void {
    if (this.busy) throw new AssertionError(`${this.resource}: a request is outstanding`);
    requireSendable(this.resource, lvb, options);
    this.busy = true;
    this.#noteError(null);
    if (!this.exists) {
      this.lockId = this.#connection.register(this);
      this.#requestNew(mode, flags, options);
      return;
    }
    const writer = this.#connection.entry();
    const ahead = this.#endsWhenSent(mode, flags, lvb);
    // A conversion down takes effect when it is sent (hazard H2).
    if (modeCovers(this.mode, mode)) this.mode = mode;
    if (!ahead) {
      encodeRequest.convert(writer, this.lockId, mode, flags, lvb ?? null, options.timeoutMs, options.transaction);
      return;
    }
    encodeRequest.down(writer, this.lockId, mode, flags, lvb ?? null);
    queueMicrotask(() => this.#tellAhead());
  }

  #requestNew(mode: Mode, flags: number, { timeoutMs = 0, transaction = 0 }: RequestOptions): void {
    const { connection, lockspaceId } = this.#space;
    if (timeoutMs > 0 || transaction > 0)
      encodeRequest.lock(connection.entry(), this.lockId, lockspaceId, this.resource, mode, flags, timeoutMs, transaction);
    else connection.lock(this.lockId, lockspaceId, this.resource, mode, flags);
  }

  /** Down to another mode, and nothing that dlmd could say against it: what its answer will be is known. */
  #endsWhenSent(mode: Mode, flags: number, lvb: Uint8Array | undefined): boolean {
    if (mode === this.mode || !modeCovers(this.mode, mode) || readsLvb(this.mode, mode, flags)) return false;
    return isBlock(lvb) && wrongFlags("convert", this.mode, mode, flags) === null;
  }

  /** So what the program asks for next goes along with the conversion, instead of a round trip to dlmd later. */
  #tellAhead(): void {
    if (this.#connection.over) return;
    if (!this.#forced) {
      this.busy = false;
      this.#noteFlags(false, false);
    }
    this.#end("granted");
  }

  unlock(flags: number, lvb?: Uint8Array, canWait = false): void {
    if (flags === LockFlag.CANCEL) return this.cancel();
    requireSendable(this.resource, lvb, noOptions);
    // Forced or not, it goes.
    if (this.#givenUp && (flags & LockFlag.FORCEUNLOCK) !== 0) return;
    this.#forced = this.busy && (flags & LockFlag.FORCEUNLOCK) !== 0;
    if (this.busy && !this.#forced) throw new AssertionError(`${this.resource}: a request is outstanding`);
    if (!this.exists && !this.#forced) throw new AssertionError(`${this.resource}: nothing to unlock`);
    const ahead = !this.busy && isBlock(lvb) && wrongFlags("unlock", this.mode, Mode.NL, flags) === null;
    this.busy = true;
    this.#noteError(null);
    this.mode = Mode.NL;
    if (!ahead) {
      encodeRequest.unlock(this.#connection.entry(), this.lockId, flags, lvb ?? null);
      return;
    }
    this.#connection.giveUp(this.lockId, flags, lvb ?? null, canWait);
    this.#givenUp = true;
    queueMicrotask(() => this.#tellGivenUp());
  }

  /** Its number is free: what is on its way for it are blocking ASTs, and who has the number next holds nothing that they could mean. */
  #tellGivenUp(): void {
    if (this.#connection.over) return;
    this.#givenUp = false;
    this.busy = false;
    this.#noteFlags(false, false);
    this.#forget();
    this.#end("unlocked");
  }

  cancel(): void {
    // The result may be on its way: taking back what has just ended is no mistake.
    if (this.busy) encodeRequest.cancel(this.#connection.entry(), this.lockId);
  }

  receiveAst(status: LockStatus, mode: Mode, sbFlags: number, lvbRead: boolean, lvb: Uint8Array | null, lvbValid: boolean): void {
    if (!this.busy) throw new AssertionError(`${this.resource}: a result without a request`);
    if (this.#forced && status !== "unlocked") {
      // That of the request which the unlock cuts short: the lock's end is still to come.
      this.#end(status);
      return;
    }
    this.#forced = false;
    this.busy = false;
    this.#noteFlags((sbFlags & DEMOTED) !== 0, (sbFlags & ALTMODE) !== 0);
    if (status === "granted") {
      this.exists = true;
      this.mode = mode;
      if (lvbRead) this.#status = { ...this.#status, lvb: lvb === null ? null : lvb.slice(), lvbValid };
    } else if (status === "unlocked" || !this.exists) {
      this.#forget();
    } else this.mode = mode;
    this.#end(status);
  }

  receiveRefused(mode: Mode, errno: number, reason: string): void {
    if (!this.busy) throw new AssertionError(`${this.resource}: a refusal without a request`);
    if (this.#forced && errno === E.ENOENT) return this.receiveAst("unlocked", mode, 0, false, null, false);
    this.#forced = false;
    this.busy = false;
    const error = new OperatingError(`lock ${this.resource}: ${reason}`, {
      code: errnoName(errno),
      hint: "client/api.ts says what each flag and request may be, dlmd/LIMITS.md the limits.",
    });
    this.#noteError(error);
    this.mode = mode;
    if (!this.exists) this.#forget();
    this.#end("error");
  }

  receiveBast(wanted: Mode): void {
    // Sent before dlmd saw our conversion down: nothing to step down from any more.
    if (!modesCompatible(this.mode, wanted)) this.#handlers.bast(this, wanted, this.#astarg);
  }

  #forget(): void {
    this.#connection.release(this.lockId);
    this.lockId = -1;
    this.exists = false;
    this.mode = Mode.NL;
  }
}

/** The next number says on the wire that a conversion keeps its own (local-batch.ts). */
const MAX_TRANSACTION = 0xffff_fffe;

/** Before anything of it is in a batch: half a request ends the connection, and all locks go with it. */
function requireSendable(resource: string, lvb: Uint8Array | undefined, { timeoutMs = 0, transaction = 0 }: RequestOptions): void {
  let wrong = "";
  if (!isBlock(lvb)) wrong = `a value block of at most ${LVB_BYTES} bytes expected, found ${lvb?.byteLength}`;
  else if (!isTransaction(transaction)) wrong = `a transaction from 0 to ${MAX_TRANSACTION} expected, found ${transaction}`;
  else if (!(timeoutMs >= 0 && timeoutMs < Number.POSITIVE_INFINITY)) wrong = `a time-out in milliseconds expected, found ${timeoutMs}`;
  if (wrong !== "") throw new OperatingError(`lock ${resource}: ${wrong}`, { code: "EINVAL", hint: "Nothing was asked for: ask again." });
}

function isTransaction(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= MAX_TRANSACTION;
}

function isBlock(lvb: Uint8Array | undefined): boolean {
  return lvb === undefined || lvb.byteLength <= LVB_BYTES;
}

/** Throws OperatingError for a name that no dlmd would take. */
export function checkName(what: string, name: string): void {
  // UTF-8 needs at most three bytes for each UTF-16 unit: short names need no counting.
  if (name.length > 0 && name.length * 3 <= NAME_BYTES) return;
  const bytes = Buffer.byteLength(name);
  if (bytes > 0 && bytes <= NAME_BYTES) return;
  throw new OperatingError(`${what} must be 1 to ${NAME_BYTES} bytes of UTF-8, found ${bytes} bytes`, {
    code: "bad-name",
    hint: "Shorten it, or use a digest of it.",
  });
}
