/** The client's side of file locks: requests by number, and who waits for their results. */
import { AssertionError } from "../base/assert.ts";
import { E, errnoName } from "../base/errno.ts";
import { OperatingError } from "../base/error.ts";
import { maxOffset } from "../wire/plock-range.ts";
import type { PlockClientRequest, PlockResult } from "../wire/local-plock.ts";
import type {
  FileLockConflict,
  FileLockOwner,
  FileLockRange,
  FileLockRequest,
  FileLockResult,
  FileLocks,
  FileLockStatus,
  FileLockWanted,
} from "./file-lock-api.ts";
import { checkName } from "./lock.ts";

type Ask = Omit<Extract<PlockClientRequest, { kind: "plock" }>, "kind" | "requestId">;

type How = Pick<Ask, "wait" | "begun" | "heldMs" | "first">;

interface Pending {
  readonly what: string;
  readonly done: (result: PlockResult) => void;
  readonly failed: (reason: Error) => void;
}

const statuses: ReadonlyMap<number, FileLockStatus> = new Map([
  [0, "granted"],
  [E.EAGAIN, "again"],
  [E.EDEADLK, "deadlock"],
  [E.EINTR, "canceled"],
  [E.ENOLCK, "limit"],
]);

/** All file-lock requests of one connection. */
export class FileLockRequests {
  readonly #send: (request: PlockClientRequest) => void;
  readonly #pending: Map<number, Pending> = new Map();
  #lastId = 0;
  /** Why there will be no results any more. */
  #over: Error | null = null;

  constructor(send: (request: PlockClientRequest) => void) {
    this.#send = send;
  }

  ask(ask: Ask): { readonly id: number; readonly result: Promise<PlockResult> } {
    let id = 0;
    const result = new Promise<PlockResult>((done, failed) => {
      id = this.start(ask, done, failed);
    });
    return { id, result };
  }

  /** `done` or `failed` is called once, in the turn in which the answer came, and never before this returns. */
  start(ask: Ask, done: (result: PlockResult) => void, failed: (reason: Error) => void): number {
    do this.#lastId = (this.#lastId + 1) >>> 0;
    while (this.#pending.has(this.#lastId));
    const id = this.#lastId;
    const over = this.#over;
    if (over !== null) queueMicrotask(() => failed(over));
    else {
      this.#pending.set(id, { what: `${ask.op} of file ${ask.file}, bytes ${ask.start} to ${ask.end}`, done, failed });
      this.#send({ kind: "plock", requestId: id, ...ask });
    }
    return id;
  }

  cancel(requestId: number): void {
    if (this.#pending.has(requestId)) this.#send({ kind: "plock-cancel", requestId });
  }

  release(request: Extract<PlockClientRequest, { kind: "plock-release" }>): void {
    if (this.#over === null) this.#send(request);
  }

  receive(result: PlockResult): void {
    const pending = this.#pending.get(result.requestId);
    if (pending === undefined) throw new AssertionError(`a result of file-lock request ${result.requestId}, which nobody made`);
    this.#pending.delete(result.requestId);
    if (statuses.has(result.errno)) pending.done(result);
    else pending.failed(refusal(pending.what, result.errno));
  }

  end(reason: Error): void {
    this.#over = reason;
    for (const { failed } of this.#pending.values()) failed(reason);
    this.#pending.clear();
  }
}

function refusal(what: string, errno: number): OperatingError {
  return new OperatingError(`${what}: dlmd refused it with ${errnoName(errno)}`, {
    code: errnoName(errno),
    hint: "fcntl(2) says what that means; the limits are in dlmd/LIMITS.md.",
  });
}

export class ClientFileLocks implements FileLocks {
  readonly #requests: FileLockRequests;
  readonly #lockspaceId: number;

  constructor(requests: FileLockRequests, lockspaceId: number) {
    this.#requests = requests;
    this.#lockspaceId = lockspaceId;
  }

  #checked(file: string, owner: FileLockOwner, wanted: FileLockWanted, op: Ask["op"], how: How): Ask {
    checkName("a file's name", file);
    const { start = 0n, end = maxOffset, type } = wanted;
    if (start < 0n || start > end || end > maxOffset) {
      const message = `bytes of a file expected, 0 <= start <= end <= ${maxOffset}; found ${start} to ${end}`;
      throw new OperatingError(message, { code: "EINVAL", hint: "`end` is the last byte, not the one after it." });
    }
    const { kind, owner: number, pid } = owner;
    return { lockspaceId: this.#lockspaceId, file, op, ownerKind: kind, owner: number, pid, type, start, end, ...how };
  }

  #ask(file: string, owner: FileLockOwner, wanted: FileLockWanted, op: Ask["op"], wait: boolean): ReturnType<FileLockRequests["ask"]> {
    return this.#requests.ask(this.#checked(file, owner, wanted, op, { wait, begun: false, heldMs: null, first: false }));
  }

  start(
    op: Ask["op"],
    file: string,
    owner: FileLockOwner,
    wanted: FileLockWanted,
    { wait, begun = false, heldMs = null, first = false }: Partial<How> & Pick<How, "wait">,
    ended: (result: FileLockResult | Error) => void,
  ): number {
    const done = ({ errno, conflict }: PlockResult): void => ended({ status: statuses.get(errno) as FileLockStatus, conflict });
    return this.#requests.start(this.#checked(file, owner, wanted, op, { wait, begun, heldMs, first }), done, ended);
  }

  lock(file: string, owner: FileLockOwner, wanted: FileLockWanted, { wait = true }: { readonly wait?: boolean } = {}): FileLockRequest {
    const { id, result } = this.#ask(file, owner, wanted, "lock", wait);
    const done = result.then(({ errno }) => statuses.get(errno) as FileLockStatus);
    return { id, done, cancel: () => this.#requests.cancel(id) };
  }

  async unlock(file: string, owner: FileLockOwner, range: FileLockRange = {}): Promise<void> {
    const { errno } = await this.#ask(file, owner, { ...range, type: "read" }, "unlock", false).result;
    if (errno !== 0) throw refusal(`unlock of file ${file}`, errno);
  }

  async test(file: string, owner: FileLockOwner, wanted: FileLockWanted): Promise<FileLockConflict | null> {
    const { errno, conflict } = await this.#ask(file, owner, wanted, "test", false).result;
    if (errno !== 0) throw refusal(`test of file ${file}`, errno);
    return conflict;
  }

  cancel(requestId: number): void {
    this.#requests.cancel(requestId);
  }

  release(file: string | null, { kind, owner }: Pick<FileLockOwner, "kind" | "owner">): void {
    if (file !== null) checkName("a file's name", file);
    this.#requests.release({ kind: "plock-release", lockspaceId: this.#lockspaceId, file, ownerKind: kind, owner });
  }
}
