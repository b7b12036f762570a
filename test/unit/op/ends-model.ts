/**
 * A model of one file that programs on several nodes append to, write, cut, read, splice, stat and seek in (hazard F5): the real operations and shells, over a lock
 * manager (../coherence/shell-model-locks.ts), each under a kernel (ends-model-kernel.ts). What a program is shown must have been in the file at some moment while it looked, or
 * be on its way there.
 */
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { PAGE_BYTES } from "../../../overlay/coherence/page-range.ts";
import { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import type { Attr, AttrChange, FileId, Lower, LowerHandle } from "../../../overlay/lower/lower.ts";
import { Call, REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, O_APPEND, O_RDWR } from "../../../overlay/op/linux.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import { type Operation, perform } from "../../../overlay/op/perform.ts";
import { andThen } from "../../../dlmd/base/maybe-promise.ts";
import { ModelSteps } from "../coherence/model-steps.ts";
import { seeded } from "../coherence/seeded.ts";
import { ModelLockManager } from "../coherence/shell-model-locks.ts";
import type { ModelClock } from "../coherence/shell-model.ts";
import { type AttrReply, EndsKernel, Page } from "./ends-model-kernel.ts";
import { KillModelRest } from "./kill-model-rest.ts";
import { modelMount } from "./model-mount.ts";
import { attrOf } from "./scripted-lower.ts";

const ROOT: FileId = { ino: 2, generation: 0 };
const FILE: FileId = { ino: 20, generation: 1 };
const OWN_THREAD = 7;
const SIZE_MAX = 3 * PAGE_BYTES;
const FOPEN_DIRECT_IO = 1;
/** What a kernel lets through (fs/fuse/file.c, fuse_file_fallocate). */
const FALLOCATE_MODES = [
  0,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
];
const ATTR_AT = 16;
const ENTRY_ATTR_AT = 40;

export interface EndsModelOptions {
  readonly nodes: number;
  readonly programsPerNode: number;
  readonly steps: number;
  /** Share of requests whose callers are killed while these wait. */
  readonly killed?: number;
  /** Leases lapse, and what was read counts no more. */
  readonly lapses?: boolean;
  /** None fills a page cache: all handles that write append. */
  readonly appendsOnly?: boolean;
  /** Mostly holes are made, in one page that is written and read. */
  readonly holes?: boolean;
}

export interface EndsModelResult {
  readonly violation: string | null;
  /** The last of what happened: of a seed that fails. */
  readonly history: string;
  readonly counts: Readonly<Record<string, number>>;
}

/** What the file was, until the call returned that made something else of it: until then programs of its node may see this. */
interface State {
  readonly bytes: Buffer;
  /** Which node made it something else; null: none has. */
  by: number | null;
  until: number;
}

/** A write of which a kernel has the data before the lower does. */
interface Filling {
  readonly offset: number;
  readonly data: Buffer;
  readonly begin: number;
  end: number;
}

const CHANGES: ReadonlySet<Operation["op"]> = new Set(["write", "setattr", "fallocate", "copyFileRange"]);

class World {
  readonly steps: ModelSteps;
  readonly random: () => number;
  violation: string | null = null;
  /** Counts moments. */
  moment = 1;
  /** What the mtime goes by. */
  changes = 1;
  states: State[] = [{ bytes: Buffer.alloc(5000, 0x2e), by: null, until: Number.POSITIVE_INFINITY }];
  readonly fillings: Filling[] = [];
  readonly counts = {
    operations: 0,
    unfinished: 0,
    reads: 0,
    directReads: 0,
    interrupted: 0,
    appends: 0,
    cuts: 0,
    touches: 0,
    writes: 0,
    fallocates: 0,
    copies: 0,
    seeks: 0,
    killed: 0,
  };
  readonly log: string[] = [];
  /** How many, by node. */
  readonly #leftBehind = new Map<number, number>();

  constructor(random: () => number) {
    this.random = random;
    this.steps = new ModelSteps(random);
  }

  note(text: string): void {
    this.violation ??= text;
  }

  say(text: string): void {
    this.log.push(`${this.moment} ${text}`);
    if (this.log.length > 400) this.log.shift();
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.steps.free.push(resolve));
  }

  async maybeTurn(): Promise<void> {
    if (this.random() < 0.5) await this.turn();
  }

  get bytes(): Buffer {
    return (this.states.at(-1) as State).bytes;
  }

  set(node: number, bytes: Buffer): void {
    this.moment += 1;
    this.changes += 1;
    (this.states.at(-1) as State).by = node;
    this.states.push({ bytes, by: null, until: Number.POSITIVE_INFINITY });
    if (this.states.length > 300) this.states.shift();
  }

  /** The call of that node that has i_rwsem there is about to return. What a killed caller left behind is under way until it has ended. */
  returned(node: number): void {
    if ((this.#leftBehind.get(node) ?? 0) > 0) return;
    for (const state of this.states) if (state.by === node && state.until > this.moment) state.until = this.moment;
    this.moment += 1;
  }

  /** The caller of a change was killed: it has i_rwsem no more, and the change goes on. To be called when that has ended. */
  leftBehind(node: number): () => void {
    this.#leftBehind.set(node, (this.#leftBehind.get(node) ?? 0) + 1);
    return () => {
      this.#leftBehind.set(node, (this.#leftBehind.get(node) ?? 0) - 1);
      this.returned(node);
    };
  }

  /** That node has read what the file was not before the last of these states: if another node made it, nobody sees those before any more. */
  seen(node: number, states: readonly State[], newest: number): void {
    const before = states[newest - 1];
    if (before === undefined || before.by === node) return;
    for (const state of states.slice(0, newest)) state.until = Math.min(state.until, this.moment);
    this.moment += 1;
  }

  /** Those that may be seen at some moment since. */
  since(begin: number): readonly State[] {
    return this.states.filter(({ until }) => until >= begin);
  }
}

/** The lower as a node has it. */
class EndsLower extends KillModelRest {
  readonly root: FileId = ROOT;
  readonly #world: World;
  readonly #node: number;

  constructor(world: World, node: number) {
    super();
    this.#world = world;
    this.#node = node;
  }

  #attr(): Attr {
    return attrOf(FILE, { mode: 0o100644, size: this.#world.bytes.length, mtimeSec: this.#world.changes, mtimeNsec: 0 });
  }
  getattr(id: FileId): MaybePromise<Attr> {
    if (id.ino === ROOT.ino) return attrOf(ROOT, {});
    return this.#world.random() < 0.4 ? this.#world.turn().then(() => this.#attr()) : this.#attr();
  }
  ownership(id: FileId): MaybePromise<Attr> {
    return this.getattr(id);
  }
  lookup(): MaybePromise<{ id: FileId; attr: Attr }> {
    return andThen(this.getattr(FILE), (attr) => ({ id: FILE, attr }));
  }
  read(_handle: LowerHandle, offset: number, bytes: number): MaybePromise<Uint8Array> {
    const now = (): Uint8Array => Buffer.from(this.#world.bytes.subarray(offset, offset + bytes));
    return this.#world.random() < 0.5 ? this.#world.turn().then(now) : now();
  }
  async write(_handle: LowerHandle, data: Uint8Array, offset: number, append: boolean): Promise<{ offset: number; bytes: number }> {
    const copy = Buffer.from(data);
    await this.#world.maybeTurn();
    const at = append ? this.#world.bytes.length : offset;
    const bytes = Buffer.alloc(Math.max(this.#world.bytes.length, at + copy.length));
    this.#world.bytes.copy(bytes);
    copy.copy(bytes, at);
    this.#world.set(this.#node, bytes);
    this.#world.say(`lower: write ${at}+${copy.length} (asked at ${offset}, append ${append}), size ${bytes.length}`);
    await this.#world.maybeTurn();
    return { offset: at, bytes: copy.length };
  }
  async setattr(_id: FileId, { size }: AttrChange): Promise<Attr> {
    await this.#world.maybeTurn();
    if (size !== undefined) {
      const bytes = Buffer.alloc(size);
      this.#world.bytes.copy(bytes);
      this.#world.set(this.#node, bytes);
      this.#world.say(`lower: truncate ${size}`);
    }
    const attr = this.#attr();
    await this.#world.maybeTurn();
    return attr;
  }
  async fallocate(_handle: LowerHandle, mode: number, offset: number, length: number): Promise<void> {
    await this.#world.maybeTurn();
    const old = this.#world.bytes;
    const end = (mode & FALLOC_FL_KEEP_SIZE) === 0 ? Math.max(old.length, offset + length) : old.length;
    const bytes = Buffer.alloc(end);
    old.copy(bytes);
    // fs/ext4/extents.c, ext4_zero_range: what was zeroed before there was no more room stays so.
    const isFull = this.#world.random() < 0.1;
    const zeroed = isFull ? Math.floor(length / 2) : length;
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0 && offset < end) bytes.fill(0, offset, Math.min(end, offset + zeroed));
    this.#world.set(this.#node, bytes);
    this.#world.say(`lower: fallocate ${mode} ${offset}+${zeroed}, size ${end}`);
    await this.#world.maybeTurn();
    if (isFull) throw errnoError(E.ENOSPC);
  }
  async copyFileRange(_from: LowerHandle, offset: number, _to: LowerHandle, outOffset: number, length: number): Promise<number> {
    await this.#world.maybeTurn();
    const old = this.#world.bytes;
    const data = old.subarray(offset, offset + length);
    if (data.length > 0) {
      const bytes = Buffer.alloc(Math.max(old.length, outOffset + data.length));
      old.copy(bytes);
      data.copy(bytes, outOffset);
      this.#world.set(this.#node, bytes);
      this.#world.say(`lower: copy ${data.length} of ${length} from ${offset} to ${outOffset}, size ${bytes.length}`);
    }
    await this.#world.maybeTurn();
    return data.length;
  }
  open(): MaybePromise<LowerHandle> {
    return 1 as LowerHandle;
  }
  mayWriteBehind(): boolean {
    return false;
  }
  writtenBehind(): void {
    // Nothing is.
  }
  setattrBehind(): null {
    return null;
  }
  madeFor(): void {
    // Nobody dies.
  }
  getxattr(): never {
    throw errnoError(E.ENODATA);
  }
}

interface Answer {
  readonly errno: number;
  readonly body: Buffer;
}

class Node {
  readonly id: number;
  readonly world: World;
  readonly kernel: EndsKernel;
  readonly shell: CoherenceShell;
  readonly mount: Mount;
  readonly record: InodeRecord;
  readonly readFh: number;
  readonly appendFh: number;
  /** Threads that were killed. */
  readonly ended: Set<number> = new Set();
  readonly reading: Set<number> = new Set();
  readonly seeking: Set<number> = new Set();
  readonly #killed: number;
  #nextUnique = 2;

  constructor(id: number, world: World, locks: ModelLockManager, now: () => number, killed: number) {
    this.id = id;
    this.#killed = killed;
    this.world = world;
    const turn = (): Promise<void> => world.turn();
    this.kernel = new EndsKernel(SENTINEL_SIZE, turn, (text) => world.say(`node ${id}: ${text}`));
    this.shell = new CoherenceShell({
      lockspace: locks.lockspace(id),
      caches: this.kernel.caches(),
      cachedMax: Number.POSITIVE_INFINITY,
      ownInodes: {
        look: async (_inode, atLeast, atMost, timeoutMs) => {
          const endMs = now() + timeoutMs;
          await turn();
          while ((this.kernel.size < atLeast || this.kernel.size > atMost) && now() < endMs) {
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
          return this.kernel.size;
        },
        refresh: async () => {
          const { errno } = await this.getattr(OWN_THREAD, null);
          return errno === 0 ? this.kernel.size : -errno;
        },
        lock: async () => {
          await this.kernel.rwsem.lock();
          const { errno } = await this.ask(OWN_THREAD, { op: "removexattr", fuseNodeid: this.record.fuseNodeid, name: Buffer.from("x") });
          this.kernel.rwsem.unlock();
          return -errno;
        },
        walk: () => Promise.resolve(0),
        isOwnThread: (tid) => tid === OWN_THREAD,
      },
      callerThreads: {
        isAsleep: () => false,
        hasEnded: (tid) => this.ended.has(tid),
        isReading: (tid) => this.reading.has(tid),
        isSeeking: (tid) => this.seeking.has(tid),
        isRunnable: () => false,
        waitsForPage: () => false,
      },
      now,
      log: silentLog,
      fail: (error) => world.note(`node ${id} fails: ${error.stack}`),
    });
    const coherence = this.shell.operations;
    const lower = new EndsLower(world, id) as unknown as Lower;
    const inodes = new InodeTable({
      root: ROOT,
      createCover: (of, kind) => this.shell.createCover(of, kind),
      dropped: (inode) => this.shell.forgotten(inode),
    });
    this.mount = modelMount({ lower, coherence, inodes });
    coherence.onExpected = (inode): void => {
      this.mount.ahead.startUnderLock(inode);
      void andThen(coherence.sizes.anticipate(inode), () => coherence.unpin(inode, Mode.PR));
    };
    this.record = inodes.remember(FILE, 0o100644);
    this.record.nlookup = 1;
    inodes.leave(this.record);
    // As a LOOKUP without its lock has left it.
    coherence.sizes.toldSentinel(this.record);
    const add = (writes: boolean, cached: boolean): number => {
      inodes.opened(this.record, false);
      return this.mount.handles.add(this.record, 1 as LowerHandle, writes, cached, false, false).fh;
    };
    this.readFh = add(false, true);
    this.appendFh = add(true, false);
  }

  /** `answered`: in the turn of the answer. */
  async ask(
    pid: number,
    request: Record<string, unknown> & { op: string },
    answered: (answer: Answer) => void = () => undefined,
  ): Promise<Answer> {
    await this.world.turn();
    const unique = this.#nextUnique;
    this.#nextUnique += 2;
    const { inodes, coherence } = this.mount;
    const { id, kernel } = this;
    this.world.say(`node ${id} pid ${pid}: ${request.op} ${JSON.stringify(request["offset"] ?? null)} is asked (K ${kernel.size})`);
    const reply = await new Promise<Answer>((resolve) => {
      const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
      const write = (body: Uint8Array, headBytes: number): number => {
        const head = buffer.subarray(0, headBytes);
        const answer = { errno: Math.abs(head.readInt32LE(4)), body: Buffer.concat([head.subarray(16), body]) };
        this.world.say(`node ${id} pid ${pid}: ${request.op} is answered ${answer.errno} ${answer.body.length} (K ${kernel.size})`);
        answered(answer);
        resolve(answer);
        return 0;
      };
      const op = request.op as Operation["op"];
      const call = new Call(
        { unique, op, fuseNodeid: this.record.fuseNodeid, uid: 0, gid: 0, pid },
        {
          buffer,
          write: (bytes) => write(new Uint8Array(0), bytes),
          writeWithBody: (headBytes, body, at, bytes) => write(body.subarray(at, at + bytes), headBytes),
          log: silentLog,
          lease: endlessLease,
        },
      );
      let over = (): void => undefined;
      const killed = (): void => {
        if (CHANGES.has(op)) over = this.world.leftBehind(id);
      };
      if (pid !== OWN_THREAD && this.world.random() < this.#killed) void this.#kill(call, killed);
      const decoded = { unique, uid: 0, gid: 0, pid, fuseNodeid: this.record.fuseNodeid, ...request } as unknown as Operation;
      const serve = async (): Promise<void> => {
        const node = inodes.get(decoded.fuseNodeid);
        coherence.sizes.heard(pid);
        coherence.names.heard(decoded, node);
        if (node !== undefined) inodes.use(node);
        try {
          await perform(this.mount, call, decoded);
          if (!call.answered) this.world.note(`${op} ended without an answer`);
        } catch (error) {
          if (error instanceof Errno) call.error(error.errno);
          else this.world.note(`${op}: ${(error as Error).stack}`);
        } finally {
          over();
          if (node !== undefined) inodes.leave(node);
        }
      };
      void serve();
    });
    await this.world.turn();
    if (pid !== OWN_THREAD) await this.heldUp(0.05);
    return reply;
  }

  /** A thread that was answered may not be given a processor for a while. */
  async heldUp(often: number): Promise<void> {
    if (this.world.random() > often) return;
    for (let left = Math.floor(this.world.random() * 80); left > 0; left -= 1) await this.world.turn();
  }

  async #kill(call: Call, killed: () => void): Promise<void> {
    for (let left = Math.floor(this.world.random() * 12); left > 0; left -= 1) await this.world.turn();
    if (call.answered) return;
    this.world.counts.killed += 1;
    this.world.say(`node ${this.id} pid ${call.pid}: ${call.op} is killed`);
    this.ended.add(call.pid);
    killed();
    call.interrupt();
  }

  async getattr(pid: number, fh: number | null): Promise<{ readonly errno: number; readonly size: number }> {
    const asked = this.kernel.asks();
    const { errno, body } = await this.ask(pid, { op: "getattr", fh });
    if (errno !== 0) return { errno, size: -1 };
    const attr = attrIn(body, ATTR_AT, 0);
    await this.kernel.takeAttr(attr, asked);
    return { errno, size: attr.size };
  }
}

function attrIn(body: Buffer, at: number, validAt: number): AttrReply {
  return {
    size: Number(body.readBigUInt64LE(at + 8)),
    mtime: Number(body.readBigUInt64LE(at + 32)),
    valid: body.readBigUInt64LE(validAt) > 0n,
  };
}

class Program {
  readonly #node: Node;
  readonly #world: World;
  readonly #kernel: EndsKernel;
  #pid: number;
  readonly #appendsOnly: boolean;
  readonly #holes: boolean;

  constructor(node: Node, pid: number, { appendsOnly = false, holes = false }: EndsModelOptions) {
    this.#node = node;
    this.#world = node.world;
    this.#kernel = node.kernel;
    this.#pid = pid;
    this.#appendsOnly = appendsOnly;
    this.#holes = holes;
  }

  #below(limit: number): number {
    return Math.floor(this.#world.random() * limit);
  }

  #place(): number {
    return this.#below(this.#holes ? 300 : this.#world.bytes.length + 1);
  }

  #say(text: string): void {
    this.#world.say(`node ${this.#node.id} pid ${this.#pid}: ${text} (K ${this.#kernel.size})`);
  }

  /** Whoever was killed does nothing more: another one comes. */
  async run(): Promise<void> {
    if (this.#node.ended.has(this.#pid)) this.#pid += 10_000;
    const luck = this.#world.random();
    if (this.#holes && luck < 0.95) {
      if (luck < 0.45) await this.#read(false);
      else if (luck < 0.6) await this.#fallocate(this.#node.appendFh);
      else await this.#overwrite();
    } else if (luck < 0.35) {
      this.#node.reading.add(this.#pid);
      await this.#read(true);
      this.#node.reading.delete(this.#pid);
    } else if (luck < 0.5) await this.#read(false);
    else if (luck < 0.58) await this.#stat();
    else if (luck < 0.64) await this.#seek();
    else if (luck < 0.68) await this.#lookup();
    else if (luck < 0.79) await this.#append();
    else if (luck < 0.86) await this.#truncate(null);
    else if (luck < 0.88) await this.#touch();
    else if (luck < 0.9) await this.#fallocate(this.#node.appendFh);
    else if (this.#appendsOnly) await this.#append();
    else await this.#overwrite();
  }

  #checkSize(begin: number, size: number, what: string): void {
    const sizes = this.#world.since(begin).map(({ bytes }) => bytes.length);
    if (!sizes.includes(size)) this.#world.note(`node ${this.#node.id}: ${what} gave ${size}, and the file had ${sizes.join(", ")}`);
  }

  async #stat(): Promise<void> {
    const begin = this.#world.moment;
    if (this.#kernel.attrValid) return this.#checkSize(begin, this.#kernel.size, "stat by what is valid");
    const { errno, size } = await this.#node.getattr(this.#pid, null);
    if (errno === 0) this.#checkSize(begin, size, "stat");
  }

  async #lookup(): Promise<void> {
    const asked = this.#kernel.asks();
    const { errno, body } = await this.#node.ask(this.#pid, { op: "lookup", fuseNodeid: 1, name: Buffer.from("f") });
    if (errno === 0) await this.#kernel.takeAttr(attrIn(body, ENTRY_ATTR_AT, 24), asked);
  }

  async #seek(): Promise<void> {
    const { rwsem } = this.#kernel;
    await rwsem.lock();
    const begin = this.#world.moment;
    try {
      this.#world.counts.seeks += 1;
      this.#say("seek");
      this.#node.seeking.add(this.#pid);
      if (!this.#kernel.attrValid) {
        const { errno, size } = await this.#node.getattr(this.#pid, this.#node.readFh);
        this.#say(`seek was told ${errno} ${size}`);
        if (errno !== 0) return;
      }
      this.#checkSize(begin, this.#kernel.size, "lseek");
    } finally {
      this.#node.seeking.delete(this.#pid);
      rwsem.unlock();
    }
  }

  /** `asks`: read(2), which has the attributes looked at; else splice(2), or a mapping. */
  async #read(asks: boolean): Promise<void> {
    const kernel = this.#kernel;
    const offset = this.#holes ? this.#place() : this.#below(SIZE_MAX);
    const bytes = 1 + this.#below(2 * PAGE_BYTES);
    const begin = this.#world.moment;
    this.#world.counts.reads += 1;
    if (asks && !kernel.attrValid && (await this.#node.getattr(this.#pid, this.#node.readFh)).errno !== 0) return;
    const parts: Buffer[] = [];
    let at = offset;
    while (at < offset + bytes) {
      const index = Math.floor(at / PAGE_BYTES);
      const start = at;
      const part = await this.#withPage(index, (page) => {
        const to = Math.max(start, Math.min(kernel.size, offset + bytes, (index + 1) * PAGE_BYTES));
        this.#say(`looks at page ${index} from ${start} to ${to}`);
        return Buffer.from(page.data.subarray(start - index * PAGE_BYTES, to - index * PAGE_BYTES));
      });
      // EINTR: what was read before is what it gets.
      if (part === null && parts.length === 0) return;
      if (part === null) break;
      if (part.length === 0) return this.#check(begin, offset, Buffer.concat(parts), asks || this.#world.counts.killed === 0);
      parts.push(part);
      at += part.length;
      await this.#world.maybeTurn();
    }
    this.#check(begin, offset, Buffer.concat(parts), false);
  }

  /** In the very step in which it is up to date; null: EINTR. */
  async #withPage<T>(index: number, use: (page: Page) => T): Promise<T | null> {
    const { pages } = this.#kernel;
    for (;;) {
      const page = pages.get(index);
      if (page !== undefined) {
        if (page.isUptodate) return use(page);
        await page.lock.lock();
        const stands = pages.get(index) === page;
        if (stands && !page.isUptodate) {
          // fuse_read_folio
          if (!(await this.#fill(index, [page]))) return null;
          continue;
        }
        page.lock.unlock();
        continue;
      }
      const made = [new Page()];
      // Readahead.
      if (this.#world.random() < 0.4 && !pages.has(index + 1)) made.push(new Page());
      made.forEach((one, more) => pages.set(index + more, one));
      for (const one of made) await one.lock.lock();
      if (!(await this.#fill(index, made))) return null;
    }
  }

  /** Their locks go with it. False: EINTR. */
  async #fill(index: number, made: readonly Page[]): Promise<boolean> {
    const asked = this.#kernel.asks();
    const isLate = this.#world.random() < 0.3;
    const take = ({ errno, body }: Answer): void => {
      if (errno === 0) {
        if (body.length < made.length * PAGE_BYTES) this.#kernel.shortRead(index * PAGE_BYTES + body.length, asked);
        made.forEach((page, more) => {
          page.data.fill(0);
          body.subarray(more * PAGE_BYTES, (more + 1) * PAGE_BYTES).copy(page.data);
          page.isUptodate = true;
        });
      }
      for (const page of made) page.lock.unlock();
    };
    const answer = await this.#node.ask(
      this.#pid,
      {
        op: "read",
        fh: this.#node.readFh,
        offset: index * PAGE_BYTES,
        size: made.length * PAGE_BYTES,
        lockOwner: 0n,
        flags: 0,
      },
      isLate ? undefined : take,
    );
    if (isLate) take(answer);
    if (answer.errno === 0) return true;
    if (answer.errno !== E.EINTR) this.#world.note(`READ ended with ${answer.errno}`);
    if (!this.#isDead) this.#world.counts.interrupted += 1;
    return false;
  }

  /** What a killed append has made the kernel learns with the next attributes: who asks for none may meet the old end. */
  #check(begin: number, offset: number, seen: Buffer, isEnd: boolean): void {
    const states = this.#world.since(begin);
    const fillings = this.#world.fillings.filter(({ end }) => end >= begin);
    let newest = 0;
    const wrong = seen.findIndex((byte, at) => {
      const place = offset + at;
      if (fillings.some((one) => place >= one.offset && place < one.offset + one.data.length && one.data[place - one.offset] === byte))
        return false;
      const first = states.findIndex(({ bytes }) => place < bytes.length && bytes[place] === byte);
      newest = Math.max(newest, first);
      return first < 0;
    });
    if (wrong < 0) this.#world.seen(this.#node.id, states, newest);
    if (wrong >= 0) {
      const place = offset + wrong;
      const were = states.map(({ bytes }) => (place < bytes.length ? bytes[place] : "end"));
      this.#world.note(
        `node ${this.#node.id} read ${seen[wrong]} at ${place} (from ${offset}, ${seen.length} bytes), and there was ${were.join(", ")}`,
      );
    }
    if (!isEnd) return;
    const end = offset + seen.length;
    // What it has read before may be cut off by now.
    if (!states.some(({ bytes }) => bytes.length <= end))
      this.#world.note(`node ${this.#node.id} met the end at ${end}, and it was at ${states.map(({ bytes }) => bytes.length).join(", ")}`);
  }

  #data(): Buffer {
    return Buffer.alloc(1 + this.#below(this.#world.random() < 0.5 ? 60 : PAGE_BYTES + 500), 1 + this.#below(250));
  }

  async #append(): Promise<void> {
    const kernel = this.#kernel;
    if (this.#world.bytes.length > SIZE_MAX) return await this.#truncate(null);
    const data = this.#data();
    await kernel.rwsem.lock();
    try {
      const offset = kernel.size;
      await kernel.dropPages(offset, offset + data.length);
      this.#say(`append ${data.length}`);
      const { errno, body } = await this.#node.ask(this.#pid, {
        op: "write",
        fh: this.#node.appendFh,
        offset,
        data,
        fromCache: false,
        killSuidgid: false,
        lockOwner: 0n,
        flags: O_APPEND | O_RDWR,
      });
      this.#world.counts.appends += 1;
      if (errno === 0) kernel.written(offset + body.readUInt32LE(0));
      else this.#failed("append", errno);
      this.#say(`appended`);
      return;
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** `fh`: ftruncate(2); `to`: of an open with O_TRUNC. */
  async #truncate(fh: number | null, to: number | null = null): Promise<void> {
    const kernel = this.#kernel;
    await kernel.rwsem.lock();
    try {
      const size = to ?? this.#below(this.#world.random() < 0.9 ? this.#world.bytes.length + 1 : SIZE_MAX);
      kernel.isUnstable = true;
      this.#say(`truncate ${size}`);
      const { errno, body } = await this.#node.ask(this.#pid, { op: "setattr", fh, change: { size } });
      this.#world.counts.cuts += 1;
      if (errno === 0) await kernel.truncated(attrIn(body, ATTR_AT, 0));
      else this.#failed("truncate", errno);
      kernel.isUnstable = false;
      this.#say(`truncated`);
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** chmod(2): its reply sets the size, too. */
  async #touch(): Promise<void> {
    const kernel = this.#kernel;
    await kernel.rwsem.lock();
    try {
      this.#world.counts.touches += 1;
      const { errno, body } = await this.#node.ask(this.#pid, { op: "setattr", fh: null, change: { mode: 0o100644 } });
      if (errno === 0) await kernel.truncated(attrIn(body, ATTR_AT, 0));
      else this.#failed("chmod", errno);
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** fuse_file_fallocate */
  async #fallocate(fh: number): Promise<void> {
    const kernel = this.#kernel;
    const mode = FALLOCATE_MODES[this.#below(FALLOCATE_MODES.length)] as number;
    const keeps = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    const offset = this.#place();
    const length = 1 + this.#below(this.#world.random() < 0.5 ? 200 : 2 * PAGE_BYTES);
    await kernel.rwsem.lock();
    try {
      this.#world.counts.fallocates += 1;
      if (!keeps) kernel.isUnstable = true;
      this.#say(`fallocate ${mode} ${offset}+${length}`);
      const { errno } = await this.#node.ask(this.#pid, { op: "fallocate", fh, offset, length, mode });
      if (errno !== 0) return this.#unmade("fallocate", errno);
      await this.#node.heldUp(0.3);
      if (!keeps) kernel.written(offset + length);
      if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0) await kernel.punched(offset, offset + length);
      kernel.attrValid = false;
      this.#say(`fallocated`);
    } finally {
      if (!keeps) kernel.isUnstable = false;
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** Within the file: generic_copy_file_checks, __fuse_copy_file_range. */
  async #copy(fh: number): Promise<void> {
    const kernel = this.#kernel;
    const offset = this.#below(this.#world.bytes.length + 1);
    const outOffset = this.#world.random() < 0.7 ? this.#place() : this.#below(SIZE_MAX);
    const asked = 1 + this.#below(this.#world.random() < 0.5 ? 200 : 2 * PAGE_BYTES);
    const begin = this.#world.moment;
    const check = (bytes: number): void => {
      const were = this.#world.since(begin).map((state) => Math.max(0, Math.min(asked, state.bytes.length - offset)));
      // Fewer than there were: the end was nearer when the kernel looked. Who calls again meets the end, or goes on.
      if (bytes === 0 ? !were.includes(0) && this.#world.counts.killed === 0 : bytes > Math.max(...were))
        this.#world.note(`node ${this.#node.id} copied ${bytes} of ${asked}, and there were ${were.join(", ")}`);
    };
    if (offset >= kernel.size) return check(0);
    const length = Math.min(asked, kernel.size - offset);
    // EINVAL
    if (outOffset + length > offset && outOffset < offset + length) return;
    this.#world.counts.copies += 1;
    const isUnstable = outOffset + length > kernel.size;
    await kernel.rwsem.lock();
    kernel.rwsem.unlock();
    await kernel.rwsem.lock();
    try {
      if (isUnstable) kernel.isUnstable = true;
      this.#say(`copy ${length} from ${offset} to ${outOffset}`);
      const { errno, body } = await this.#node.ask(this.#pid, {
        op: "copyFileRange",
        fh: this.#node.readFh,
        offset,
        outFh: fh,
        outOffset,
        length,
        flags: 0,
      });
      if (errno !== 0) return this.#unmade("copy", errno);
      const bytes = body.readUInt32LE(0);
      check(bytes);
      await kernel.dropPages(outOffset, outOffset + bytes);
      kernel.written(bytes > 0 ? outOffset + bytes : 0);
      this.#say(`copied ${bytes}`);
    } finally {
      if (isUnstable) kernel.isUnstable = false;
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  async #readDirect(fh: number): Promise<void> {
    const offset = this.#below(SIZE_MAX);
    const size = 1 + this.#below(2 * PAGE_BYTES);
    const begin = this.#world.moment;
    this.#world.counts.directReads += 1;
    const { errno, body } = await this.#node.ask(this.#pid, { op: "read", fh, offset, size, lockOwner: 1n, flags: O_RDWR });
    if (errno !== 0) {
      if (errno !== E.EINTR) this.#world.note(`direct READ ended with ${errno}`);
      return;
    }
    this.#check(begin, offset, body, body.length < size);
  }

  async #overwrite(): Promise<void> {
    const { errno, body } = await this.#node.ask(this.#pid, { op: "open", flags: O_RDWR });
    if (errno !== 0) return this.#failed("open", errno);
    const fh = Number(body.readBigUInt64LE(0));
    const isDirect = (body.readUInt32LE(8) & FOPEN_DIRECT_IO) !== 0;
    // O_TRUNC
    if (this.#world.random() < (this.#holes ? 0.02 : 0.15)) await this.#truncate(null, 0);
    for (let left = this.#below(4); left > 0 && !this.#isDead; left -= 1) {
      const luck = this.#world.random();
      const offset = this.#world.random() < 0.85 ? this.#place() : this.#below(SIZE_MAX);
      if (luck < 0.15) await this.#fallocate(fh);
      else if (luck < (this.#holes ? 0.45 : 0.3)) await this.#copy(fh);
      else if (luck < 0.38 && !this.#holes) await this.#truncate(fh);
      else if (luck < 0.5 && isDirect) await this.#readDirect(fh);
      else if (luck < 0.65 && isDirect) await this.#writeDirect(fh, null);
      else if (isDirect) await this.#writeDirect(fh, offset);
      else await this.#writeCached(fh, offset);
    }
    await this.#node.ask(0, { op: "release", fh, flags: 0, lockOwner: 0n, flockUnlock: false });
  }

  get #isDead(): boolean {
    return this.#node.ended.has(this.#pid);
  }

  /** As fuse_write_update_attr does where nothing was written. */
  #failed(what: string, errno: number): void {
    this.#kernel.written(0);
    if (errno !== E.EINTR || !this.#isDead) this.#world.note(`${what} ended with ${errno}`);
  }

  /** The kernel marks nothing then. */
  #unmade(what: string, errno: number): void {
    if (errno === E.ENOSPC && what === "fallocate") return;
    if (errno !== E.EINTR || !this.#isDead) this.#world.note(`${what} ended with ${errno}`);
  }

  /** 0: it was killed. */
  async #write(fh: number, offset: number, data: Buffer): Promise<number> {
    const { errno, body } = await this.#node.ask(this.#pid, {
      op: "write",
      fh,
      offset,
      data: Buffer.from(data),
      fromCache: false,
      killSuidgid: false,
      lockOwner: 0n,
      flags: O_RDWR,
    });
    if (errno === 0) return body.readUInt32LE(0);
    this.#failed("write", errno);
    return 0;
  }

  /** Null: RWF_APPEND, of which the request says nothing. */
  async #writeDirect(fh: number, at: number | null): Promise<void> {
    const kernel = this.#kernel;
    const data = this.#data();
    await kernel.rwsem.lock();
    try {
      const offset = at ?? kernel.size;
      this.#world.counts.writes += 1;
      await kernel.dropPages(offset, offset + data.length);
      const written = await this.#write(fh, offset, data);
      if (written > 0) kernel.written(offset + written);
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** fuse_perform_write */
  async #writeCached(fh: number, from: number): Promise<void> {
    const kernel = this.#kernel;
    const data = this.#data();
    await kernel.rwsem.lock();
    const filling: Filling = { offset: from, data, begin: this.#world.moment, end: Number.POSITIVE_INFINITY };
    this.#world.fillings.push(filling);
    try {
      this.#world.counts.writes += 1;
      this.#say(`write ${data.length} at ${from}`);
      const extends_ = kernel.size < from + data.length;
      if (extends_) kernel.isUnstable = true;
      let offset = from;
      while (offset < from + data.length) {
        const pages: { readonly page: Page; readonly whole: boolean }[] = [];
        let to = offset;
        let held: Page | null = null;
        while (to < from + data.length && held === null) {
          const index = Math.floor(to / PAGE_BYTES);
          const page = await this.#lockedPage(index);
          const end = Math.min((index + 1) * PAGE_BYTES, from + data.length);
          data.copy(page.data, to - index * PAGE_BYTES, to - from, end - from);
          const whole = end - to === PAGE_BYTES;
          if (whole) page.isUptodate = true;
          if (page.isUptodate) page.lock.unlock();
          else held = page;
          pages.push({ page, whole });
          to = end;
        }
        const written = await this.#write(fh, offset, data.subarray(offset - from, to - from));
        if (written === 0) for (const { page } of pages) page.isUptodate = false;
        held?.lock.unlock();
        if (written === 0) break;
        if (written !== to - offset) this.#world.note(`${written} bytes written of ${to - offset}`);
        offset = to;
      }
      kernel.written(offset > from ? offset : 0);
      kernel.isUnstable = false;
    } finally {
      filling.end = this.#world.moment;
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  async #lockedPage(index: number): Promise<Page> {
    const { pages } = this.#kernel;
    for (;;) {
      const page = pages.get(index) ?? new Page();
      if (!pages.has(index)) pages.set(index, page);
      await page.lock.lock();
      if (pages.get(index) === page) return page;
      page.lock.unlock();
    }
  }
}

const flushed = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export async function runEndsModel(seed: number, options: EndsModelOptions, clock: ModelClock): Promise<EndsModelResult> {
  const random = seeded(seed);
  const world = new World(random);
  const locks = new ModelLockManager(world.steps);
  const nodes = Array.from({ length: options.nodes }, (_, id) => new Node(id, world, locks, clock.now, options.killed ?? 0));
  const budget = { left: options.steps };
  const program = async (node: Node, pid: number): Promise<void> => {
    const of = new Program(node, pid, options);
    world.counts.unfinished += 1;
    while (budget.left > 0) {
      await world.turn();
      try {
        await of.run();
        world.counts.operations += 1;
      } catch (error) {
        world.note(`node ${node.id}: ${(error as Error).stack}`);
      }
    }
    world.counts.unfinished -= 1;
  };
  for (const node of nodes) for (let at = 0; at < options.programsPerNode; at += 1) void program(node, 100 * (node.id + 1) + at);
  const lapse = async (node: Node): Promise<void> => {
    if (random() < 0.4) return await node.shell.distrustAll();
    node.shell.suspend();
    for (let more = Math.floor(random() * 60); more > 0; more -= 1) await world.turn();
    node.shell.resume(random() < 0.5);
  };
  let idle = 0;
  for (let taken = 0; taken < options.steps * 8 && world.violation === null; taken += 1) {
    budget.left -= 1;
    if (options.lapses === true && budget.left > 0 && random() < 0.002) void lapse(nodes[Math.floor(random() * nodes.length)] as Node);
    if (random() < 0.03) await clock.advance(1);
    if (random() < 0.001) await clock.advance(30);
    if (world.steps.take()) idle = 0;
    else {
      if (world.counts.unfinished === 0) break;
      idle += 1;
      // Longer than any wait.
      if (idle > 2000) break;
      await clock.advance(5);
    }
    await flushed();
  }
  if (world.counts.unfinished > 0) world.note(`${world.counts.unfinished} programs have not ended`);
  const sums: Record<string, number> = { ...world.counts };
  for (const { shell, kernel } of nodes) {
    for (const [key, count] of Object.entries({ ...kernel.counts, ...shell.counters })) sums[key] = (sums[key] ?? 0) + count;
  }
  return { violation: world.violation, history: world.log.join("\n"), counts: sums };
}
