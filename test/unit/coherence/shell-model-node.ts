/**
 * A node of the model of shells (shell-model.ts): its shell and inode table, under its kernel. Operations are those of overlay/op/, without what other rooms do. A
 * call of the lower takes place at some moment between question and answer.
 */
import { E } from "../../../dlmd/base/errno.ts";
import type { Lockspace } from "../../../dlmd/client/api.ts";
import { Mode, modesCompatible } from "../../../dlmd/wire/mode.ts";
import type { Coherence, Waiter, Want } from "../../../overlay/coherence/api.ts";
import type { Cover, Inode, PinMode } from "../../../overlay/coherence/cover.ts";
import { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import type { ReplyTerms } from "../../../overlay/coherence/terms.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import { type FileId, fileKey } from "../../../overlay/lower/lower.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type KernelEntry, type KernelInode, ModelKernel } from "./shell-model-kernel.ts";
import { type Cell, MODE_OF, type ModelWorld } from "./shell-model-world.ts";
import { idleThreads } from "./idle-threads.ts";

export const PAGE = { from: 0, to: 4096 };
const SIZE = 0;

export interface Answered {
  /** null: there is no such name. */
  readonly entry: KernelEntry | null;
  readonly entryValid: boolean;
  readonly version: number;
}

interface Given<T> {
  answer: Promise<T> | null;
}

export class ModelNode {
  readonly id: number;
  readonly kernel: ModelKernel;
  readonly shell: CoherenceShell;
  readonly inodes: InodeTable;
  readonly covers: Map<string, Set<Cover>> = new Map();
  readonly #world: ModelWorld;
  /** Without the lease: what waits to be answered, and who waits to be begun. */
  #kept: (() => void)[] | null = null;
  #gate: (() => void)[] = [];
  /** The lock manager of this node has died. */
  isAlone = false;

  constructor(id: number, world: ModelWorld, lockspace: Lockspace, cachedMax: number) {
    this.id = id;
    this.#world = world;
    const turn = (): Promise<void> => world.turn();
    this.kernel = new ModelKernel(turn);
    this.shell = new CoherenceShell({
      lockspace,
      caches: this.kernel.caches(),
      cachedMax,
      ownInodes: {
        look: () => turn().then(() => SIZE),
        refresh: () => turn().then(() => SIZE),
        lock: () => turn().then(() => -E.ENODATA),
        walk: () => Promise.resolve(0),
        isOwnThread: () => false,
      },
      callerThreads: idleThreads,
      now: world.now,
      leaving: () => (world.random() < 0.2 ? turn() : undefined),
      log: silentLog,
      fail: (error) => world.note(`node ${id} fails: ${error.stack}`),
    });
    this.inodes = new InodeTable({
      root: world.root,
      createCover: (of, kind) => {
        const cover = this.shell.createCover(of, kind);
        const key = fileKey(of);
        this.covers.set(key, (this.covers.get(key) ?? new Set()).add(cover));
        return cover;
      },
      dropped: (inode, removed) => {
        if (removed) this.shell.removed(inode);
        this.shell.forgotten(inode);
      },
    });
    const root = this.kernel.install({ fuseNodeid: 1, id: world.root, kind: "directory", attr: 0, attrValid: false }, this.kernel.asks());
    root.users += 1;
    this.ops.onExpected = (inode): void => void turn().then(() => this.ops.unpin(inode, Mode.PR));
  }

  get ops(): Coherence {
    return this.shell.operations;
  }

  // --- the lease

  get isSuspended(): boolean {
    return this.#kept !== null;
  }

  suspend(): void {
    this.#kept ??= [];
    this.shell.suspend();
  }

  resume(): void {
    const kept = this.#kept ?? [];
    this.#kept = null;
    for (const answer of kept) answer();
    this.shell.resume(kept.length > 0);
    for (const begin of this.#gate.splice(0)) begin();
  }

  async #begun(): Promise<void> {
    await this.#world.turn();
    while (this.#kept !== null) await new Promise<void>((resolve) => this.#gate.push(resolve));
  }

  /** In the turn of the answer, or when the lease holds again. */
  #answer(give: () => void): void {
    if (this.#kept === null) give();
    else this.#kept.push(give);
  }

  // --- pins

  #check(inode: Inode, mode: PinMode): void {
    const { cover } = inode;
    if (cover.mode < mode) this.#world.note(`node ${this.id} has ${cover.key} pinned ${mode} under ${cover.mode}`);
    for (const other of this.#world.nodes) {
      if (other === this) continue;
      for (const theirs of other.covers.get(cover.key) ?? []) {
        const held = theirs.phase === "converting" ? (theirs.revoke?.target ?? Mode.NL) : theirs.mode;
        if (!modesCompatible(held, mode))
          this.#world.note(`node ${this.id} has ${cover.key} pinned ${mode}, and node ${other.id} has it ${held} (${theirs.phase})`);
      }
    }
  }

  async #pinned<T>(inode: Inode, mode: PinMode, waiter: Waiter, work: () => Promise<T>): Promise<T> {
    if (!this.ops.tryPin(inode, mode)) await this.ops.pin(inode, mode, waiter);
    this.#check(inode, mode);
    try {
      return await work();
    } finally {
      this.ops.unpin(inode, mode);
    }
  }

  async #pinnedAll<T>(wants: readonly Want[], waiter: Waiter, work: () => Promise<T>): Promise<T> {
    await this.ops.pinAll(wants, waiter);
    for (const { inode, mode } of wants) this.#check(inode, mode);
    try {
      return await work();
    } finally {
      this.ops.unpinAll(wants);
    }
  }

  async #pinnedData<T>(inode: Inode, mode: PinMode, cached: boolean, waiter: Waiter, isRead: boolean, work: () => Promise<T>): Promise<T> {
    await this.ops.pinData(inode, mode, cached, waiter, isRead ? PAGE : null);
    this.#check(inode, mode);
    try {
      return await work();
    } finally {
      this.ops.unpinData(inode, mode);
    }
  }

  /** What the request names is in use, and a killed caller may end its wait. */
  async #serve<T>(
    pid: number,
    nodeids: readonly number[],
    work: (records: readonly InodeRecord[], waiter: Waiter) => Promise<T>,
  ): Promise<T> {
    await this.#begun();
    this.ops.sizes.heard(pid);
    const records = nodeids.map((nodeid) => {
      const record = this.inodes.get(nodeid);
      if (record === undefined) throw new Error(`node ${this.id} was asked of ${nodeid}, which it does not know`);
      this.inodes.use(record);
      return record;
    });
    const waiter = this.#world.waiter();
    try {
      return await work(records, waiter);
    } finally {
      for (const record of records) this.inodes.leave(record);
    }
  }

  #give(record: InodeRecord, attr: number, { attrValid }: ReplyTerms, links: number): KernelEntry {
    record.nlinkHint = links;
    const { fuseNodeid, id, kind } = record;
    this.inodes.tell(record, () => true);
    return { fuseNodeid, id, kind, attr, attrValid };
  }

  #answered(answer: Answered): Promise<Answered> {
    return new Promise((resolve) => this.#answer(() => resolve(answer)));
  }

  // --- requests

  async lookup(pid: number, nodeid: number, name: string): Promise<Answered> {
    const given: Given<Answered> = { answer: null };
    await this.#serve(pid, [nodeid], ([dir], waiter) =>
      this.#pinned(dir as InodeRecord, Mode.PR, waiter, async () => {
        const since = this.ops.since();
        await this.#world.maybeTurn();
        const cell = this.#world.cell(dir as InodeRecord, name);
        given.answer = this.#answered(await this.#lookedUp(pid, dir as InodeRecord, name, { ...cell }, since));
      }),
    );
    return (await given.answer) as Answered;
  }

  async #lookedUp(pid: number, dir: InodeRecord, name: string, cell: Cell, since: ReturnType<Coherence["since"]>): Promise<Answered> {
    const { ops } = this;
    const world = this.#world;
    const named = { dir, name: Buffer.from(name), revalidated: true };
    const { id, version } = cell;
    if (id === null) {
      await world.maybeTurn();
      return { entry: null, entryValid: ops.names.tellEntry(dir, named.name, null), version };
    }
    const early = world.file(id).version;
    const { links, kind } = world.file(id);
    await world.maybeTurn();
    const child = this.inodes.remember(id, MODE_OF[kind]);
    try {
      const dropped = ops.names.dropElsewhere(dir, child);
      if (dropped instanceof Promise) await dropped;
      const asked = ops.pinChild(child, since);
      const pin = asked instanceof Promise ? await asked : asked;
      try {
        if (!pin.pinned) {
          const seen = ops.terms.mustLook(child, since) ? await ops.sizes.seen(child) : null;
          const terms = ops.terms.ofUnpinned(child, SIZE, since, named, seen);
          return { entry: this.#give(child, early, terms, links), entryValid: terms.entryValid, version };
        }
        this.#check(child, Mode.PR);
        let answer: Answered | null = null;
        const give = (attr: number): void => {
          const terms = ops.terms.of(child, SIZE, pid, since, named);
          answer = { entry: this.#give(child, attr, terms, links), entryValid: terms.entryValid, version };
        };
        const attr = pin.trip ? world.file(id).version : early;
        if (ops.sizes.known(child)) give(attr);
        else {
          let found = attr;
          const read = async (): Promise<{ size: number }> => {
            found = world.file(id).version;
            await world.maybeTurn();
            return { size: SIZE };
          };
          await ops.sizes.tell(child, { interrupted: false, answered: false }, read, () => give(found));
        }
        return answer as unknown as Answered;
      } finally {
        if (pin.pinned) ops.unpin(child, Mode.PR);
      }
    } finally {
      this.inodes.leave(child);
    }
  }

  async getattr(pid: number, nodeid: number): Promise<{ readonly attr: number; readonly valid: boolean }> {
    const given: Given<{ readonly attr: number; readonly valid: boolean }> = { answer: null };
    await this.#serve(pid, [nodeid], ([inode], waiter) =>
      this.#pinned(inode as InodeRecord, Mode.PR, waiter, async () => {
        const record = inode as InodeRecord;
        const since = this.ops.since();
        let attr = this.#world.file(record.id).version;
        await this.#world.maybeTurn();
        const give = (): void => {
          const { attrValid } = this.ops.terms.of(record, SIZE, pid, since, null);
          const told = { attr, valid: attrValid };
          given.answer = new Promise((resolve) => this.#answer(() => resolve(told)));
        };
        if (this.ops.sizes.known(record)) return give();
        const read = async (): Promise<{ size: number }> => {
          attr = this.#world.file(record.id).version;
          await this.#world.maybeTurn();
          return { size: SIZE };
        };
        return this.ops.sizes.tell(record, { interrupted: false, answered: false }, read, give);
      }),
    );
    return (await given.answer) as { readonly attr: number; readonly valid: boolean };
  }

  /** The page is filled in the turn of the answer. */
  async read(pid: number, inode: KernelInode): Promise<void> {
    await this.#serve(pid, [inode.fuseNodeid], ([record], waiter) => {
      const mode = this.ops.readMode(record as InodeRecord, false);
      return this.#pinnedData(record as InodeRecord, mode, true, waiter, true, async () => {
        const { version } = this.#world.file(inode.id);
        await this.#world.maybeTurn();
        await new Promise<void>((resolve) => {
          this.#answer(() => {
            inode.page = version;
            resolve();
          });
          // Without the lease its answer waits, and its pin does not.
          if (this.#kept !== null) resolve();
        });
      });
    });
  }

  async write(pid: number, inode: KernelInode, cached: boolean): Promise<number> {
    let made = 0;
    let answered: Promise<void> = Promise.resolve();
    await this.#serve(pid, [inode.fuseNodeid], ([record], waiter) =>
      this.#pinnedData(record as InodeRecord, Mode.EX, cached, waiter, false, async () => {
        await this.#world.maybeTurn();
        made = this.#world.change(inode.id);
        await this.#world.maybeTurn();
        if (!cached) await this.ops.dropPages(record as InodeRecord, 0, PAGE.to);
        answered = new Promise<void>((resolve) => this.#answer(resolve));
        if (cached) inode.page = made;
      }),
    );
    await answered;
    return made;
  }

  /** Hazard F9. */
  #checkToken({ cover }: Inode, access: "cached" | "direct"): void {
    if (access !== "cached") return;
    for (const other of this.#world.nodes) {
      if (other === this || other.isAlone) continue;
      for (const { token } of other.covers.get(cover.key) ?? []) {
        if (token?.state === "held" && token.users > 0)
          this.#world.note(`nodes ${this.id} and ${other.id} have the write token of ${cover.key}`);
      }
    }
  }

  openForWrite(pid: number, inode: KernelInode): Promise<"cached" | "direct"> {
    return this.#serve(pid, [inode.fuseNodeid], async ([record], waiter) => {
      const access = await this.ops.openForWrite(record as InodeRecord, waiter);
      this.#checkToken(record as InodeRecord, access);
      this.inodes.opened(record as InodeRecord, access === "cached");
      return access;
    });
  }

  async close(pid: number, inode: KernelInode, access: "cached" | "direct"): Promise<void> {
    await this.#serve(pid, [inode.fuseNodeid], ([record]) => {
      if (access === "cached") this.ops.closeForWrite(record as InodeRecord);
      this.inodes.closed(record as InodeRecord, access === "cached");
      return Promise.resolve();
    });
  }

  async #outdated(inode: Inode, pid: number, held: boolean): Promise<void> {
    await this.ops.attributesChanged(inode, pid, held);
  }

  /** null: the name is there. */
  async make(pid: number, nodeid: number, name: string, kind: "file" | "directory"): Promise<Answered | null> {
    let answer: Promise<Answered> | null = null;
    await this.#serve(pid, [nodeid], ([dir], waiter) =>
      this.#pinned(dir as InodeRecord, Mode.EX, waiter, async () => {
        const since = this.ops.since();
        await this.#world.maybeTurn();
        const made = this.#world.make(dir as InodeRecord, name, kind);
        if (made === null) return;
        await this.#world.someTurns();
        await this.#outdated(dir as InodeRecord, pid, true);
        const child = this.inodes.remember(made.id, MODE_OF[kind]);
        try {
          if (this.ops.enterNew(child, since)) this.#world.counts.born += 1;
          else this.#world.counts.notBorn += 1;
          if (kind === "file" && this.#world.opensMade && this.#world.random() < 0.6) await this.#openMade(child, waiter);
          const pinned = this.ops.tryPin(child, Mode.PR);
          if (pinned) this.#check(child, Mode.PR);
          const named = { dir: dir as InodeRecord, name: Buffer.from(name) };
          const terms = this.ops.terms.ofNew(child, SIZE, pid, pinned, named);
          const entry = this.#give(child, made.version, terms, 1);
          answer = this.#answered({ entry, entryValid: terms.entryValid, version: made.cell });
          if (pinned) this.ops.unpin(child, Mode.PR);
        } finally {
          this.inodes.leave(child);
        }
      }),
    );
    return answer;
  }

  /** It is closed some time later, whatever has become of its lock. */
  async #openMade(child: InodeRecord, waiter: Waiter): Promise<void> {
    let access: "cached" | "direct";
    try {
      access = await this.ops.openForWrite(child, waiter, true);
    } catch {
      // Killed.
      return;
    }
    if (child.cover.token?.unregistered === true) this.#world.counts.implied += 1;
    this.#checkToken(child, access);
    this.inodes.opened(child, access === "cached");
    const close = async (): Promise<void> => {
      for (let left = Math.floor(this.#world.random() ** 2 * 150); left > 0; left -= 1) await this.#world.turn();
      if (access === "cached") this.ops.closeForWrite(child);
      this.inodes.closed(child, access === "cached");
    };
    void close();
  }

  /** The version of the name then; null: it is not that inode's. */
  async remove(pid: number, dirNodeid: number, name: string, victim: KernelInode): Promise<number | null> {
    let answer: Promise<number> | null = null;
    await this.#serve(pid, [dirNodeid, victim.fuseNodeid], async ([dir, child], waiter) => {
      const wants = [dir, child].map((inode) => ({ inode: inode as InodeRecord, mode: Mode.EX }) as const);
      await this.#pinnedAll(wants, waiter, async () => {
        await this.#world.maybeTurn();
        const version = this.#world.remove(dir as InodeRecord, name, victim.id);
        if (version === null) return;
        await this.#world.maybeTurn();
        await this.#outdated(dir as InodeRecord, pid, true);
        (child as InodeRecord).nlinkHint = this.#world.linksOf(victim.id);
        this.ops.names.dropEntry(dir as InodeRecord, Buffer.from(name));
        answer = new Promise((resolve) => this.#answer(() => resolve(version)));
      });
    });
    return answer;
  }

  /** The versions of both names then; null: one is not what it was. */
  async rename(
    pid: number,
    dirs: readonly [number, number],
    names: readonly [string, string],
    moved: KernelInode,
    replaced: KernelInode | null,
  ): Promise<readonly [number, number] | null> {
    let answer: Promise<readonly [number, number]> | null = null;
    const named = [...dirs, moved.fuseNodeid, ...(replaced === null ? [] : [replaced.fuseNodeid])];
    await this.#serve(pid, named, async (records, waiter) => {
      const [from, to, child, victim] = records as [InodeRecord, InodeRecord, InodeRecord, InodeRecord | undefined];
      const wants = [...new Set(records)].map((inode) => ({ inode, mode: Mode.EX }) as const);
      await this.#pinnedAll(wants, waiter, async () => {
        await this.#world.maybeTurn();
        const versions = this.#world.rename([from, to], names, moved.id, replaced?.id ?? null);
        if (versions === null) return;
        await this.#world.maybeTurn();
        for (const inode of new Set([from, to])) await this.#outdated(inode, pid, true);
        await this.#outdated(child, pid, false);
        if (victim !== undefined && victim !== child) {
          await this.#outdated(victim, pid, false);
          victim.nlinkHint = this.#world.linksOf(victim.id);
        }
        const [old, now] = names.map((name) => Buffer.from(name)) as [Buffer, Buffer];
        this.ops.names.moveEntry(from, old, to, now);
        answer = new Promise((resolve) => this.#answer(() => resolve(versions)));
      });
    });
    return answer;
  }

  /** By a file handle: the version that it has, or null where it is gone. */
  async byNumber(pid: number, ino: number): Promise<{ readonly id: FileId; readonly attr: number } | null> {
    let seen: { readonly id: FileId; readonly attr: number } | null = null;
    await this.#serve(pid, [], async (_records, waiter) => {
      const found = this.#world.byIno(ino);
      if (found === undefined) return;
      await this.ops.untilBirthsKnown(waiter);
      const record = this.inodes.remember(found.id, MODE_OF[found.kind]);
      try {
        await this.#pinned(record, Mode.PR, waiter, async () => {
          await this.#world.maybeTurn();
          seen = { id: found.id, attr: found.version };
        });
      } finally {
        this.inodes.leave(record);
      }
    });
    return seen;
  }

  forget(fuseNodeid: number, nlookup: number): void {
    this.inodes.forget(fuseNodeid, nlookup);
  }
}
