/**
 * Programs that lock files, as their kernel shows them to the shell of file locks: processes with threads, which share open files with those that they have forked, which
 * are signalled and killed while they wait, and close at any time. What they were told is compared with what is locked.
 */
import { silentLog } from "../../../dlmd/base/log.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { andThen } from "../../../dlmd/base/maybe-promise.ts";
import type { FileLocking } from "../../../overlay/file-lock/api.ts";
import type { SetlkRequest } from "../../../overlay/fuse/request.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import { Call, REPLY_BUFFER_BYTES, type ReplyPort } from "../../../overlay/op/call.ts";
import { setlk } from "../../../overlay/op/lock.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import {
  BYTES,
  type Kind,
  nameOf,
  type OpenFile,
  type Pending,
  type Program,
  type ShellModel,
  type Thread,
  type Type,
} from "./shell-told.ts";
import type { ShellProcess } from "./shell-world.ts";

export interface Asked {
  readonly op: "lock" | "unlock";
  readonly type: Type;
  readonly first: number;
  readonly last: number;
  readonly wait: boolean;
}

/** States that a run is to come to. */
type Count =
  | "granted"
  | "killed"
  | "lateGrants"
  | "signalled"
  | "forks"
  | "restarts"
  | "crashes"
  | "numbersUsedAgain"
  | "closedMeanwhile"
  | "gates"
  | "rests";

export const counts: Record<Count, number> = {
  granted: 0,
  killed: 0,
  lateGrants: 0,
  signalled: 0,
  forks: 0,
  restarts: 0,
  crashes: 0,
  numbersUsedAgain: 0,
  closedMeanwhile: 0,
  gates: 0,
  rests: 0,
};

let numbers = 0;

/** The kernel of a node. */
export class KernelNode {
  readonly node: number;
  readonly programs: Set<Program> = new Set();
  /** Of open files that are closed: the next one may be there, though their RELEASE has not come. */
  readonly free: bigint[] = [];
  readonly unreleased: Set<OpenFile> = new Set();
  readonly opened: Set<OpenFile> = new Set();
  /** Waits for a process that serves. */
  readonly queue: (() => void)[] = [];
  readonly #model: ShellModel;
  readonly #unlocksClosed: boolean;
  readonly #port: ReplyPort;
  process: ShellProcess;
  serves = true;
  readonly waiting: Set<Pending> = new Set();
  /** close(2) calls without an answer. */
  readonly #flushes = new Set<() => void>();

  constructor(model: ShellModel, node: number, process: ShellProcess, unlocksClosed: boolean) {
    this.#unlocksClosed = unlocksClosed;
    this.#model = model;
    this.node = node;
    this.process = process;
    const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
    const write = (): number => {
      const pending = [...this.waiting].find(({ call }) => call?.unique === Number(buffer.readBigUInt64LE(8)));
      if (pending !== undefined) this.#replied(pending, -buffer.readInt32LE(4));
      return 0;
    };
    this.#port = { buffer, write, writeWithBody: () => 0, log: silentLog, lease: endlessLease };
  }

  /** When a process serves. */
  begin(work: () => void): void {
    if (this.serves) work();
    else this.queue.push(work);
  }

  goOn(): void {
    this.serves = true;
    for (const work of this.queue.splice(0)) work();
  }

  open(program: Program, file: string, again: boolean): OpenFile {
    const number = again ? this.free.pop() : undefined;
    if (number !== undefined) counts.numbersUsedAgain += 1;
    const open: OpenFile = {
      fh: (numbers += 1),
      file,
      number: number ?? BigInt((numbers += 1)),
      users: new Set([program]),
      asked: 0,
      released: false,
    };
    program.open.add(open);
    this.opened.add(open);
    return open;
  }

  start(parent: Program | null): Program {
    const threads: Thread[] = [];
    const program: Program = { owner: BigInt((numbers += 1)), open: new Set(parent?.open), threads, killed: false, closing: 0 };
    for (const open of program.open) open.users.add(program);
    for (let no = 0; no < 2; no += 1) threads.push({ program, pending: null });
    this.programs.add(program);
    return program;
  }

  // --- fcntl(2), flock(2)

  ask(thread: Thread, open: OpenFile, kind: Kind, { op, type, first, last, wait }: Asked): void {
    const owner = kind === "process" ? thread.program.owner : open.number;
    const owned = this.#model.ownedBy(this.node, open.file, kind === "flock" ? "flock" : "posix", owner);
    const [from, to] = kind === "flock" ? [0, BYTES - 1] : [first, last];
    const end = to === BYTES - 1 ? maxOffset : BigInt(to);
    const range = { start: BigInt(from), end, type: op === "unlock" ? "unlock" : type } as const;
    const of = { unique: 0, fuseNodeid: 1, uid: 0, gid: 0, pid: 1, fh: open.fh, owner, lockPid: 1 };
    const request = { op: "setlk", ...of, ...range, flock: kind === "flock", wait } as SetlkRequest;
    const pending: Pending = {
      thread,
      owned,
      open,
      op,
      request,
      first: from,
      last: to,
      beside: new Set(owned.underWay),
      closedBeside: owned.closing > 0,
      call: null,
      isOver: false,
      signalled: false,
    };
    for (const other of owned.underWay) other.beside.add(pending);
    owned.underWay.add(pending);
    this.#model.asks(pending);
    this.#model.history.push(
      `${nameOf(owned)}: ${op} ${type} ${owned.file} ${from}-${to} by ${thread.program.owner} through ${open.fh}${wait ? ", waits" : ""}`,
    );
    open.asked += 1;
    thread.pending = pending;
    this.waiting.add(pending);
    this.begin(() => this.#serve(pending));
  }

  #serve(pending: Pending): void {
    const { owned, open, request, thread } = pending;
    const mount = {
      fileLocks: this.#noting(pending),
      handles: { get: () => ({ inode: { cover: { key: owned.file } }, fh: open.fh }) },
      askFlush: () => undefined,
    } as unknown as Mount;
    const call = new Call({ ...request, unique: (numbers += 2) }, this.#port);
    pending.call = call;
    call.onSignal = (): void => call.interrupt();
    void this.#perform(mount, call, pending);
    // The kernel says so once more.
    if (thread.program.killed) call.interrupt();
    else if (pending.signalled) this.signal(pending);
  }

  async #perform(mount: Mount, call: Call, pending: Pending): Promise<void> {
    try {
      await setlk(mount, call, pending.request);
    } catch (error) {
      this.#model.broken.push(String(error));
    }
    // Hazard F45.
    if (call.yielded) this.begin(() => this.#serve(pending));
    else if (!call.answered) this.#model.broken.push("a call ended without an answer");
  }

  /** The shell, and when it has ended what it was asked. */
  #noting(pending: Pending): Pick<FileLocking, "lock" | "unlock"> {
    const { process } = this;
    const { locks } = process;
    pending.isOver = false;
    const over = <T>(status: T): T => {
      // What a process that has crashed was told means nothing.
      if (process.over) return status;
      if (status === "granted" && pending.op === "lock" && pending.thread.program.killed) counts.lateGrants += 1;
      pending.isOver = true;
      if (!this.waiting.has(pending)) pending.owned.underWay.delete(pending);
      return status;
    };
    return {
      lock: (...ask) => {
        const asked = locks.lock(...ask);
        void andThen(asked.done, over);
        return asked;
      },
      unlock: (...ask) => {
        const done = locks.unlock(...ask);
        void andThen(done, over);
        return done;
      },
    };
  }

  /** What its process has read and not answered the next one gets. */
  crashed(): void {
    this.queue.push(...this.#flushes);
    this.#flushes.clear();
    for (const { node, underWay } of this.#model.all)
      if (node === this.node) for (const pending of underWay) if (!this.waiting.has(pending)) underWay.delete(pending);
    for (const pending of this.waiting)
      this.queue.push(() => {
        if (this.waiting.has(pending)) this.#serve(pending);
      });
  }

  /** Hazard F45. */
  yield(): void {
    for (const { call } of this.waiting) {
      const end = call?.onYield ?? null;
      if (call !== null) call.onYield = null;
      end?.();
    }
  }

  /** Its process has something to answer. */
  get isBusy(): boolean {
    return this.#flushes.size > 0 || [...this.waiting].some(({ call }) => call !== null && !call.answered && !call.yielded);
  }

  signal(pending: Pending): void {
    pending.signalled = true;
    counts.signalled += 1;
    if (this.serves) pending.call?.onSignal?.();
  }

  #replied(pending: Pending, errno: number): void {
    const { thread, open, owned, op } = pending;
    this.waiting.delete(pending);
    if (pending.isOver) owned.underWay.delete(pending);
    thread.pending = null;
    open.asked -= 1;
    const { killed } = thread.program;
    if (killed) counts.killed += 1;
    this.#model.ends(pending, errno, killed);
    if (errno === 0 && op === "lock") counts.granted += 1;
    // What it asks for next is read in another turn.
    this.#model.later.push(() => {
      const isClosed = owned.kind === "posix" && owned.owner === thread.program.owner && !thread.program.open.has(open);
      if (errno === 0 && op === "lock" && isClosed) this.#closedMeanwhile(pending);
      this.#review(thread.program, open);
    });
  }

  /** fs/locks.c, fcntl_setlk. Older kernels send an unlock, if the thread is not being killed. */
  #closedMeanwhile({ thread, owned, open, first, last }: Pending): void {
    counts.closedMeanwhile += 1;
    this.#model.mayHave(owned);
    if (this.#unlocksClosed && !thread.program.killed && thread.pending === null)
      this.ask(thread, open, "process", { op: "unlock", type: "read", first, last, wait: false });
  }

  // --- close(2), exit(2)

  close(program: Program, open: OpenFile): void {
    program.open.delete(open);
    program.closing += 1;
    this.#model.history.push(`${program.owner} closes ${open.fh}, ${open.number} of ${open.file}`);
    const owned = this.#model.ownedBy(this.node, open.file, "posix", program.owner);
    this.#model.givesUp(owned);
    const closedNow = (): void => {
      this.#model.gaveUp(owned);
      program.closing -= 1;
      open.users.delete(program);
      this.#model.later.push(() => this.#review(program, open));
    };
    const flush = (): void => {
      const closed = this.process.locks.closed(`f${open.file}`, program.owner);
      if (!(closed instanceof Promise)) return closedNow();
      this.#flushes.add(flush);
      void closed.then(() => (this.#flushes.delete(flush) ? closedNow() : undefined));
    };
    this.begin(flush);
  }

  kill(program: Program): void {
    program.killed = true;
    this.#model.history.push(`${program.owner} is killed`);
    if (this.serves)
      for (const { pending } of program.threads) {
        pending?.call?.onSignal?.();
        if (pending?.call?.answered === false) pending.call.interrupt();
      }
    this.#review(program, null);
  }

  #review(program: Program, open: OpenFile | null): void {
    if (program.killed && program.threads.every(({ pending }) => pending === null)) {
      const [one] = program.open;
      if (one !== undefined && program.closing === 0) this.close(program, one);
      if (program.open.size + program.closing === 0) this.programs.delete(program);
    }
    if (open !== null && open.users.size === 0 && open.asked === 0 && !open.released && !this.unreleased.has(open)) {
      this.opened.delete(open);
      this.unreleased.add(open);
      this.free.push(open.number);
      this.#model.lastClose(this.node, open);
    }
  }

  /** Its last READ has ended. */
  release(open: OpenFile): void {
    this.unreleased.delete(open);
    open.released = true;
    this.#model.history.push(`RELEASE of ${open.fh}, ${open.number} of ${open.file}`);
    const at = this.free.indexOf(open.number);
    const isSame = ({ number }: OpenFile): boolean => number === open.number;
    const isAgain = [...this.unreleased].some(isSame) || [...this.opened].some(isSame);
    if (at >= 0 && isAgain) this.free.splice(at, 1);
    this.begin(() => {
      this.process.locks.released(`f${open.file}`, open.fh);
      if (!isAgain) this.#model.released(this.node, open);
    });
  }
}
