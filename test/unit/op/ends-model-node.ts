/** A node of the model of ends (ends-model.ts): the real shell and the real operations over its lower, and how its kernel asks and is answered. */
import { silentLog } from "../../../dlmd/base/log.ts";
import { andThen, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import type { Lower, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { Call } from "../../../overlay/op/call.ts";
import { O_RDWR } from "../../../overlay/op/linux.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import { type Operation, perform } from "../../../overlay/op/perform.ts";
import type { ModelLockManager } from "../coherence/shell-model-locks.ts";
import { type AttrReply, EndsKernel } from "./ends-model-kernel.ts";
import { EndsLower, FILE, ROOT } from "./ends-model-lower.ts";
import type { EndsWorld } from "./ends-model-world.ts";
import type { Stored } from "./ends-model-mapping.ts";
import { modelCall, type Reply, serve } from "./model-call.ts";
import { modelMount } from "./model-mount.ts";

const OWN_THREAD = 7;
/** Of a write-back: no thread's. */
const FLUSHER = 0;
export const ATTR_AT = 16;
export const ENTRY_ATTR_AT = 40;

const CHANGES: ReadonlySet<Operation["op"]> = new Set(["write", "setattr", "fallocate", "copyFileRange"]);

export class EndsNode {
  readonly id: number;
  readonly world: EndsWorld;
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

  constructor(id: number, world: EndsWorld, locks: ModelLockManager, now: () => number, killed: number) {
    this.id = id;
    this.#killed = killed;
    this.world = world;
    const turn = (): Promise<void> => world.turn();
    const say = (text: string): void => world.say(`node ${id}: ${text}`);
    this.kernel = new EndsKernel(SENTINEL_SIZE, turn, say, (fh, offset, page, stored) => this.#sendPage(fh, offset, page, stored));
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
    answered: (answer: Reply) => void = () => undefined,
  ): Promise<Reply> {
    await this.world.turn();
    const unique = this.#nextUnique;
    this.#nextUnique += 2;
    const { id, kernel } = this;
    this.world.say(`node ${id} pid ${pid}: ${request.op} ${JSON.stringify(request["offset"] ?? null)} is asked (K ${kernel.size})`);
    const reply = await new Promise<Reply>((resolve) => {
      const op = request.op as Operation["op"];
      const { fuseNodeid } = this.record;
      const call = modelCall({ unique, op, fuseNodeid, pid }, endlessLease, (answer) => {
        this.world.say(`node ${id} pid ${pid}: ${op} is answered ${answer.errno} ${answer.body.length} (K ${kernel.size})`);
        answered(answer);
        resolve(answer);
      });
      let over = (): void => undefined;
      const killed = (): void => {
        if (CHANGES.has(op)) over = this.world.leftBehind(id);
      };
      if (pid !== OWN_THREAD && pid !== FLUSHER && this.world.random() < this.#killed) void this.#kill(call, killed);
      const decoded = { unique, uid: 0, gid: 0, pid, fuseNodeid, ...request } as unknown as Operation;
      const work = (): MaybePromise<void> => perform(this.mount, call, decoded);
      void serve(this.mount, call, decoded, work, (text) => this.world.note(text)).then(() => over());
    });
    await this.world.turn();
    if (pid !== OWN_THREAD) await this.heldUp(0.05);
    return reply;
  }

  async #sendPage(fh: number, offset: number, page: Buffer, stored: Stored): Promise<void> {
    const { world } = this;
    const data = Buffer.alloc(page.length);
    page.copy(data);
    world.counts.writeBacks += 1;
    world.writeBacks.set(data.buffer, stored);
    const rest = { killSuidgid: false, lockOwner: 0n, flags: O_RDWR };
    const { errno } = await this.ask(FLUSHER, { op: "write", fh, offset, data, fromCache: true, ...rest });
    world.writeBacks.delete(data.buffer);
    if (errno !== 0) world.note(`node ${this.id}: a write-back ended with ${errno}`);
    for (const store of stored.values()) store.state = "written";
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

export function attrIn(body: Buffer, at: number, validAt: number): AttrReply {
  return {
    size: Number(body.readBigUInt64LE(at + 8)),
    mtime: Number(body.readBigUInt64LE(at + 32)),
    valid: body.readBigUInt64LE(validAt) > 0n,
  };
}
