/**
 * The kernel of the kill model: what its callers hold while they ask, and what it has of names. A caller that is killed is told EINTR, and lets go of its locks.
 * Sources: fs/namei.c, fs/attr.c, fs/fuse/{dir,file,dev}.c.
 */
import { E, Errno } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { InodeTable } from "../../../overlay/inode/table.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import { Call, REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import { type Operation, perform } from "../../../overlay/op/perform.ts";
import type { Step } from "./kill-model-state.ts";
import type { KillModelSteps } from "./kill-model-steps.ts";

const NODEID_AT = 0;
const ENTRY_VALID_AT = 16;
/** Up to the number of the inode in an entry. */
const ENTRY_INO_BYTES = 48;
const LOOKS: ReadonlySet<string> = new Set(["lookup", "getattr", "read", "getxattr"]);

export type ModelRequest = Record<string, unknown> & { readonly op: Operation["op"] };

export interface Answer {
  readonly errno: number;
  readonly body: Buffer;
}

/** A request and what became of it. */
export interface Asked {
  readonly request: Record<string, unknown> & { readonly op: string };
  readonly unique: number;
  readonly uid: number;
  readonly pid: number;
  /** Which inodes it names, by what the kernel took them for. */
  readonly inos: Readonly<Record<string, number>>;
  readonly begin: number;
  /** Null: it has none yet. */
  end: number | null;
  answer: Answer | null;
  /** It was told EINTR: the caller is gone. */
  killed: boolean;
}

/** One that runs programs, until it is killed. */
export interface Caller {
  readonly pid: number;
  readonly uid: number;
  killed: boolean;
  call: Call | null;
  /** After which change of it, and how many steps later. */
  readonly dies: { readonly at: number; readonly steps: number } | null;
  asked: number;
}

export class Killed extends Error {}

export class KillModelKernel {
  readonly history: Asked[] = [];
  /** "ino name": the number, or null: there is none. */
  readonly names: Map<string, number | null> = new Map();
  /** INC_EPOCH: what was asked for before brings names of before. */
  epoch = 0;
  readonly bugs: string[] = [];
  /** Callers that were told EINTR. */
  kills = 0;
  onKill: () => void = () => undefined;
  readonly #mount: Mount;
  readonly #steps: KillModelSteps;
  readonly #inodes: InodeTable;
  readonly #buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
  readonly #locked = new Map<number, Promise<void>>();
  /** fuse_set_nowrite: truncations that keep write-back waiting; and write-back under way. */
  readonly #noWrite = new Map<number, number>();
  readonly #writingBack = new Map<number, number>();
  /** Of each file one page: who has it locked, or is writing it back. */
  readonly #pages = new Map<number, Set<Promise<void>>>();
  /** Requests of killed callers whose handlers go on. */
  #left = 0;
  #nextUnique = 2;

  constructor(mount: Mount, steps: KillModelSteps) {
    this.#mount = mount;
    this.#steps = steps;
    this.#inodes = mount.inodes;
  }

  inoOf(fuseNodeid: number): number {
    return this.#inodes.get(fuseNodeid)?.id.ino ?? 0;
  }

  /** `work` with these inodes' locks, in the one order. A caller that waits for one can not be killed. */
  async withLocks<T>(fuseNodeids: readonly number[], work: () => Promise<T>): Promise<T> {
    const order = [...new Set(fuseNodeids)].toSorted((a, b) => a - b);
    const unlocks: (() => void)[] = [];
    for (const one of order) {
      const before = this.#locked.get(one);
      let unlock = (): void => undefined;
      const held = new Promise<void>((resolve) => (unlock = resolve));
      this.#locked.set(one, before === undefined ? held : before.then(() => held));
      unlocks.push(unlock);
      await before;
    }
    try {
      return await work();
    } finally {
      for (const unlock of unlocks) unlock();
    }
  }

  /** `work` with the page of that file locked, for which others wait. */
  async withPage<T>(fuseNodeid: number, work: () => Promise<T>): Promise<T> {
    while ((this.#pages.get(fuseNodeid)?.size ?? 0) > 0) await this.pageFree(fuseNodeid);
    return await this.#usingPage(fuseNodeid, work);
  }

  async #usingPage<T>(fuseNodeid: number, work: () => Promise<T>): Promise<T> {
    const users = this.#pages.get(fuseNodeid) ?? new Set();
    this.#pages.set(fuseNodeid, users);
    let over = (): void => undefined;
    const used = new Promise<void>((resolve) => (over = resolve));
    users.add(used);
    try {
      return await work();
    } finally {
      users.delete(used);
      over();
    }
  }

  /** INVAL_INODE waits for who uses its pages (mm/truncate.c, invalidate_inode_pages2_range). */
  async pageFree(fuseNodeid: number): Promise<void> {
    await Promise.all(this.#pages.get(fuseNodeid) ?? new Set<Promise<void>>());
  }

  /** Throws Killed, when it may go on: with its locks let go. */
  async ask(caller: Caller, request: ModelRequest): Promise<Answer> {
    await this.#steps.turn();
    // Taken from the queue that nobody has read.
    if (caller.killed) throw new Killed();
    if (!LOOKS.has(request.op)) caller.asked += 1;
    if (!LOOKS.has(request.op) && caller.dies?.at === caller.asked) this.#dies(caller, caller.dies.steps);
    const answer = await this.#send(caller, request);
    await this.#steps.turn();
    this.#doubtNames(request, answer.errno);
    if (answer.errno === E.EINTR) throw new Killed();
    return answer;
  }

  /** What the kernel itself believes no more (fs/fuse/dir.c: fuse_unlink, fuse_rmdir, fuse_rename_common, create_new_entry). */
  #doubtNames({ op, fuseNodeid, name, newFuseNodeid, newName }: ModelRequest, errno: number): void {
    const removes = op === "unlink" || op === "rmdir" || op === "rename";
    const makes = op === "create" || op === "mkdir" || op === "link";
    if (!(removes && (errno === E.EINTR || errno === E.ENOENT)) && !(makes && errno === E.EEXIST)) return;
    const doubt = (dir: unknown, of: unknown): void => this.note(dir as number, (of as Buffer).toString(), undefined);
    doubt(fuseNodeid, name);
    // What was not there stays absent.
    if (op === "rename" && this.names.get(`${this.inoOf(newFuseNodeid as number)} ${(newName as Buffer).toString()}`) !== null)
      doubt(newFuseNodeid, newName);
  }

  #dies(caller: Caller, steps: number): void {
    if (this.#steps.chance(0.5)) this.#steps.pause(steps + this.#steps.below(30));
    this.#steps.after(steps, () => {
      caller.killed = true;
      caller.call?.interrupt();
    });
  }

  #send(caller: Caller, request: ModelRequest): Promise<Answer> {
    const unique = this.#nextUnique;
    this.#nextUnique += 2;
    const inos = Object.fromEntries(
      Object.entries(request).flatMap(([key, value]) => (key.endsWith("odeid") ? [[key, this.inoOf(value as number)]] : [])),
    );
    const { pid, uid } = caller;
    this.#steps.now += 1;
    const asked: Asked = { request, unique, uid, pid, inos, begin: this.#steps.now, end: null, answer: null, killed: false };
    this.history.push(asked);
    return new Promise((resolve) => {
      const reply = (body: Uint8Array, headBytes: number): number => {
        const head = this.#buffer.subarray(0, headBytes);
        const answer = { errno: Math.abs(head.readInt32LE(4)), body: Buffer.concat([head.subarray(16), body]) };
        if (asked.answer !== null) this.bugs.push(`second answer to ${request.op} ${unique}`);
        this.#steps.now += 1;
        asked.end = this.#steps.now;
        asked.answer = answer;
        caller.call = null;
        if (answer.errno === E.EINTR) {
          if (caller.killed) this.kills += 1;
          else this.bugs.push(`EINTR to a living caller of ${request.op} ${unique}`);
          asked.killed = true;
          this.#left += 1;
        }
        resolve(answer);
        if (asked.killed) this.onKill();
        return 0;
      };
      const call = new Call(
        { unique, op: request.op, fuseNodeid: 0, uid, gid: uid, pid },
        {
          buffer: this.#buffer,
          write: (bytes) => reply(new Uint8Array(0), bytes),
          writeWithBody: (headBytes, body, at, bytes) => reply(body.subarray(at, at + bytes), headBytes),
          log: silentLog,
          lease: endlessLease,
        },
      );
      caller.call = call;
      void this.#serve(asked, call, { unique, uid, gid: uid, pid, fuseNodeid: 1, ...request } as unknown as Operation);
    });
  }

  /** As dispatch does it. */
  async #serve(asked: Asked, call: Call, request: Operation): Promise<void> {
    const node = this.#inodes.get(request.fuseNodeid);
    if (node !== undefined) this.#inodes.use(node);
    try {
      await perform(this.#mount, call, request);
      if (!call.answered) this.bugs.push(`${call.op} ${call.unique} ended without an answer`);
    } catch (error) {
      if (error instanceof Errno) call.error(error.errno);
      else this.bugs.push(`${call.op} ${call.unique}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    } finally {
      if (asked.killed) this.#left -= 1;
      if (node !== undefined) this.#inodes.leave(node);
    }
  }

  /** With the directory locked. Null: there is no such name. */
  async lookup(caller: Caller, fuseNodeid: number, called: string): Promise<number | null> {
    const key = `${this.inoOf(fuseNodeid)} ${called}`;
    const known = this.names.get(key);
    if (known !== undefined) {
      // What a killed caller has left may be made, and its name is about to be expired.
      if (this.#left === 0) this.#noteSeen(caller, fuseNodeid, called, known);
      return known;
    }
    const { epoch } = this;
    const { errno, body } = await this.ask(caller, { op: "lookup", fuseNodeid, name: Buffer.from(called) });
    const found = errno === 0 ? Number(body.readBigUInt64LE(NODEID_AT)) : 0;
    if (errno === 0 && body.readBigUInt64LE(ENTRY_VALID_AT) > 0n && epoch === this.epoch) this.names.set(key, found === 0 ? null : found);
    return found === 0 ? null : found;
  }

  /** Without a request: the kernel's own name is what the program sees. */
  #noteSeen({ uid, pid }: Caller, fuseNodeid: number, called: string, child: number | null): void {
    this.#steps.now += 1;
    const { now } = this.#steps;
    const body = Buffer.alloc(ENTRY_INO_BYTES);
    body.writeBigUInt64LE(BigInt(child === null ? 0 : this.inoOf(child)), ENTRY_INO_BYTES - 8);
    const request = { op: "lookup", fuseNodeid, name: Buffer.from(called) };
    const inos = { fuseNodeid: this.inoOf(fuseNodeid) };
    this.history.push({ request, unique: 0, uid, pid, inos, begin: now, end: now, answer: { errno: 0, body }, killed: false });
  }

  note(fuseNodeid: number, called: string, child: number | null | undefined): void {
    const key = `${this.inoOf(fuseNodeid)} ${called}`;
    if (child === undefined) this.names.delete(key);
    else this.names.set(key, child);
  }

  /** Another node had the locks, and has changed something; what this one had of names went with its locks. */
  noteElsewhere(step: Step): void {
    this.#steps.now += 1;
    const { now } = this.#steps;
    const answer = { errno: 0, body: Buffer.alloc(0) };
    const request = { op: "elsewhere", step };
    this.history.push({ request, unique: 0, uid: 0, pid: 0, inos: {}, begin: now, end: now, answer, killed: false });
    this.expireNames();
  }

  expireNames(): void {
    this.epoch += 1;
    this.names.clear();
  }

  /** Of a new size, which keeps write-back waiting. With the inode locked. */
  async truncating(fuseNodeid: number, work: () => Promise<Answer>): Promise<Answer> {
    this.#count(this.#noWrite, fuseNodeid, 1);
    try {
      while ((this.#writingBack.get(fuseNodeid) ?? 0) > 0) await this.#steps.turn();
      return await work();
    } finally {
      this.#count(this.#noWrite, fuseNodeid, -1);
    }
  }

  /** Holds no lock. */
  async writeBack(flusher: Caller, fuseNodeid: number, request: ModelRequest): Promise<void> {
    while ((this.#noWrite.get(fuseNodeid) ?? 0) > 0) await this.#steps.turn();
    this.#count(this.#writingBack, fuseNodeid, 1);
    try {
      await this.#usingPage(fuseNodeid, () => this.ask(flusher, request));
    } finally {
      this.#count(this.#writingBack, fuseNodeid, -1);
    }
  }

  #count(counts: Map<number, number>, fuseNodeid: number, by: number): void {
    counts.set(fuseNodeid, (counts.get(fuseNodeid) ?? 0) + by);
  }
}
