/** A node of the model of listings (listing-model.ts): the real shell and the real operations over its lower, and how its kernel asks and is answered. */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import { InodeTable } from "../../../overlay/inode/table.ts";
import type { KeptAnswer, LeaseGate } from "../../../overlay/lease/lease.ts";
import type { Call } from "../../../overlay/op/call.ts";
import { forget } from "../../../overlay/op/lookup.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import { type Operation, perform } from "../../../overlay/op/perform.ts";
import { idleThreads } from "../coherence/idle-threads.ts";
import type { ModelLockManager } from "../coherence/shell-model-locks.ts";
import { type EntryReply, type KernelAttr, ListingKernel } from "./listing-model-kernel.ts";
import type { ModelLower } from "./listing-model-lower.ts";
import type { ListingWorld } from "./listing-model-world.ts";
import { modelCall, type Reply, serve } from "./model-call.ts";
import { modelMount } from "./model-mount.ts";
import type { Holds } from "../../../overlay/lower/remote/known.ts";

const ATTR_OUT_AT = 16;
const ENTRY_ATTR_AT = 40;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
/** The file's size, on each node and at all times. */
const SIZE = 0;
/** Nobody can be killed in these. */
const DEAF: ReadonlySet<string> = new Set(["release", "releasedir"]);

export type Asking = Record<string, unknown> & {
  readonly op: Operation["op"];
  readonly fuseNodeid: number;
  readonly name?: Buffer;
  readonly cookie?: bigint;
};

export function attrIn(body: Buffer, at: number): KernelAttr {
  return {
    ino: Number(body.readBigUInt64LE(at)),
    version: Number(body.readBigUInt64LE(at + 40)),
    isDirectory: (body.readUInt32LE(at + 60) & S_IFMT) === S_IFDIR,
    links: body.readUInt32LE(at + 64),
  };
}

export function entryIn(body: Buffer, at = 0): EntryReply {
  return {
    fuseNodeid: Number(body.readBigUInt64LE(at)),
    generation: Number(body.readBigUInt64LE(at + 8)),
    entryValid: body.readBigUInt64LE(at + 16) > 0n,
    attrValid: body.readBigUInt64LE(at + 24) > 0n,
    attr: attrIn(body, at + ENTRY_ATTR_AT),
  };
}

export function attrReplyIn(body: Buffer): { readonly attr: KernelAttr; readonly valid: boolean } {
  return { attr: attrIn(body, ATTR_OUT_AT), valid: body.readBigUInt64LE(0) > 0n };
}

export class ListingNode {
  readonly id: number;
  readonly world: ListingWorld;
  readonly kernel: ListingKernel;
  readonly shell: CoherenceShell;
  readonly mount: Mount;
  /** Threads in rename(2). */
  readonly renaming: Set<number> = new Set();
  /** Threads that were killed. */
  readonly ended: Set<number> = new Set();
  readonly #killed: number;
  readonly #forget: () => void;
  /** Without the lease: answers that wait for it. */
  #kept: Set<KeptAnswer> | null = null;
  #again: (() => void)[] = [];
  #nextUnique = 2;

  constructor(
    id: number,
    world: ListingWorld,
    locks: ModelLockManager,
    lowerOf: (node: number, holds: Holds) => ModelLower,
    now: () => number,
    killed: number,
  ) {
    this.id = id;
    this.world = world;
    this.#killed = killed;
    const turn = (): Promise<void> => world.turn();
    this.kernel = new ListingKernel(
      world,
      (text) => this.say(text),
      (fuseNodeid, nlookup) => void this.#forgetLater(fuseNodeid, nlookup),
    );
    const {
      lower,
      leaving,
      forget: forgetKnown,
    } = lowerOf(id, {
      grants: () => this.shell.operations.since(),
      of: (file) => this.shell.grantId(file),
    });
    this.#forget = forgetKnown;
    this.shell = new CoherenceShell({
      lockspace: locks.lockspace(id),
      caches: this.kernel.caches(),
      cachedMax: Number.POSITIVE_INFINITY,
      ownInodes: {
        look: () => turn().then(() => SIZE),
        refresh: () => turn().then(() => SIZE),
        lock: () => turn().then(() => -E.ENODATA),
        walk: () => Promise.resolve(0),
        isOwnThread: () => false,
      },
      callerThreads: { ...idleThreads, hasEnded: (tid) => this.ended.has(tid) },
      now,
      leaving,
      log: silentLog,
      fail: (error) => world.note(`node ${id} fails: ${error.stack}`),
    });
    const inodes = new InodeTable({
      root: world.root,
      createCover: (of, kind) => this.shell.createCover(of, kind),
      dropped: (inode, removed) => {
        if (removed) this.shell.removed(inode);
        this.shell.forgotten(inode);
      },
    });
    const coherence = this.shell.operations;
    // Either way of asking, of directories as small as these.
    coherence.names.hasFew = (): boolean => world.below(2) === 0;
    this.mount = { ...modelMount({ lower, coherence, inodes }), isRenaming: (pid) => this.renaming.has(pid) };
    coherence.onExpected = (inode): void => void turn().then(() => coherence.unpin(inode, Mode.PR));
  }

  say(text: string): void {
    this.world.say(`node ${this.id}: ${text}`);
  }

  // --- the lease, and the owner

  get isSuspended(): boolean {
    return this.#kept !== null;
  }

  suspend(): void {
    this.say("the lease lapses");
    this.#kept ??= new Set();
    this.shell.suspend();
  }

  resume(): void {
    this.say("the lease holds again");
    const kept = this.#kept ?? new Set();
    this.#kept = null;
    for (const answer of kept) answer.release();
    this.shell.resume(kept.size > 0);
    for (const begin of this.#again.splice(0)) begin();
  }

  /** The owner has died, and nothing is lost. */
  async ownerDied(): Promise<void> {
    this.say("the owner dies");
    this.#forget();
    await this.shell.distrustAll();
  }

  #lease(): LeaseGate {
    return {
      holds: () => this.#kept === null,
      again: async (waiter) => {
        while (this.#kept !== null) {
          await new Promise<void>((resolve, reject) => {
            waiter.onInterrupt = (): void => reject(errnoError(E.EINTR));
            this.#again.push(resolve);
          });
        }
        waiter.onInterrupt = null;
      },
      keep: (answer) => {
        if (this.#kept === null) answer.release();
        else this.#kept.add(answer);
      },
      hurried: (answer) => {
        this.#kept?.delete(answer);
        this.shell.suspend();
      },
    };
  }

  // --- requests

  /** Resolves when its thread has run again. */
  async ask(pid: number, asking: Asking): Promise<Reply> {
    await this.world.turn();
    // Taken from the queue before anybody has read it.
    if (this.ended.has(pid)) throw errnoError(E.EINTR);
    const unique = this.#nextUnique;
    this.#nextUnique += 2;
    const { fuseNodeid } = asking;
    const { name, cookie } = asking;
    const said = `pid ${pid}: ${asking.op} ${fuseNodeid} ${name?.toString() ?? cookie ?? ""}`;
    this.say(`${said} is asked (${unique})`);
    const reply = await new Promise<Reply>((resolve) => this.#serve(pid, unique, asking, resolve));
    this.say(`${said} is answered ${reply.errno} (${unique})`);
    await this.#heldUp();
    this.world.unsettled -= 1;
    if (reply.errno === 0) this.world.commit(`${this.id}:${unique}`);
    return reply;
  }

  /** A thread that was answered may not be given a processor for a while. */
  async #heldUp(): Promise<void> {
    await this.world.turn();
    if (this.world.random() < 0.1) await this.world.turns(100);
  }

  #serve(pid: number, unique: number, asking: Asking, resolve: (reply: Reply) => void): void {
    const { op, fuseNodeid } = asking;
    const call = modelCall({ unique, op, fuseNodeid, pid }, this.#lease(), (reply) => {
      this.world.unsettled += 1;
      resolve(reply);
    });
    const request = { unique, uid: 0, gid: 0, pid, ...asking } as unknown as Operation;
    const isDeaf = DEAF.has(op);
    const begin = (): MaybePromise<void> => {
      const working = perform(this.mount, call, request);
      call.late = true;
      return working;
    };
    const work = (): MaybePromise<void> => {
      if (this.#kept === null || isDeaf) return begin();
      call.late = true;
      return this.#lease().again(call).then(begin);
    };
    void serve(this.mount, call, request, work, (text) => this.world.note(text));
    if (!call.answered && !isDeaf && this.world.random() < this.#killed) void this.#kill(call);
  }

  async #kill(call: Call): Promise<void> {
    await this.world.turns(20);
    if (call.answered && !call.kept) return;
    this.world.count("killed");
    this.say(`pid ${call.pid}: is killed in ${call.op} (${call.unique})`);
    this.ended.add(call.pid);
    call.interrupt();
  }

  async #forgetLater(fuseNodeid: number, nlookup: number): Promise<void> {
    await this.world.turns(12);
    this.say(`FORGET ${nlookup} of ${fuseNodeid}`);
    try {
      forget(this.mount, { op: "forget", unique: 0, fuseNodeid: 0, fuseNodeids: [fuseNodeid], nlookups: [nlookup] } as never);
    } catch (error) {
      this.world.note(`node ${this.id}: ${(error as Error).stack}`);
    }
  }

  /** A lookup that the kernel was given and has no use for. */
  giveBack(fuseNodeid: number): void {
    void this.#forgetLater(fuseNodeid, 1);
  }
}
