/**
 * A kernel of the model of listings (listing-model.ts): dentries, inodes with their attributes and locks, and what notifications do to them.
 * Sources: fs/dcache.c (d_alloc_parallel, d_invalidate, d_splice_alias), fs/fuse/inode.c (fuse_iget, fuse_change_attributes_i, fuse_evict_inode,
 * fuse_reverse_inval_inode), fs/fuse/dir.c (fuse_reverse_inval_entry, fuse_dir_changed, fuse_entry_unlinked), fs/fuse/dev.c (fuse_notify_inc_epoch).
 */
import { E } from "../../../dlmd/base/errno.ts";
import type { KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { sweepGate } from "../coherence/sweep-gate.ts";
import type { ListingWorld } from "./listing-model-world.ts";

/** i_rwsem: in the order in which it is asked for. */
export class RwSem {
  #readers = 0;
  #isWritten = false;
  readonly #queue: { readonly isWriter: boolean; readonly go: () => void }[] = [];

  async #come(isWriter: boolean): Promise<void> {
    const isFree = !this.#isWritten && this.#queue.length === 0 && (!isWriter || this.#readers === 0);
    if (isFree) return this.#enter(isWriter);
    await new Promise<void>((resolve) => {
      this.#queue.push({
        isWriter,
        go: () => {
          this.#enter(isWriter);
          resolve();
        },
      });
    });
  }

  #enter(isWriter: boolean): void {
    if (isWriter) this.#isWritten = true;
    else this.#readers += 1;
  }

  #next(): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      if (this.#isWritten || (first.isWriter && this.#readers > 0)) return;
      this.#queue.shift();
      first.go();
    }
  }

  async shared<T>(work: () => Promise<T>): Promise<T> {
    await this.#come(false);
    try {
      return await work();
    } finally {
      this.#readers -= 1;
      this.#next();
    }
  }

  async exclusive<T>(work: () => Promise<T>): Promise<T> {
    await this.#come(true);
    try {
      return await work();
    } finally {
      this.#isWritten = false;
      this.#next();
    }
  }
}

/** As a reply tells them. */
export interface KernelAttr {
  readonly ino: number;
  readonly isDirectory: boolean;
  readonly links: number;
  readonly version: number;
}

export interface EntryReply {
  readonly fuseNodeid: number;
  readonly generation: number;
  readonly entryValid: boolean;
  readonly attrValid: boolean;
  readonly attr: KernelAttr;
}

export class KernelInode {
  readonly fuseNodeid: number;
  readonly generation: number;
  readonly rwsem: RwSem = new RwSem();
  /** Names in it. */
  readonly children: Map<string, Dentry> = new Map();
  attr: KernelAttr;
  nlookup = 0;
  /** Walks, handles, and dentries that are in use or have a name. */
  users = 0;
  /** fi->i_time, fi->inval_mask, fi->attr_version */
  isTimely = false;
  isMarked = true;
  attrVersion = 0;
  /** S_DEAD */
  isDead = false;
  /** FUSE_I_ADVISE_RDPLUS, FUSE_I_INIT_RDPLUS */
  wantsPlus = false;
  isOfPlus = false;

  constructor(fuseNodeid: number, generation: number, attr: KernelAttr) {
    this.fuseNodeid = fuseNodeid;
    this.generation = generation;
    this.attr = attr;
  }

  get hasAttr(): boolean {
    return this.isTimely && !this.isMarked;
  }
}

export class Dentry {
  parent: KernelInode;
  name: string;
  inode: KernelInode | null = null;
  isValid = false;
  epoch = 0;
  /** d_in_lookup: resolves when it is none. */
  looking: Promise<void> | null;
  lookedUp: () => void = () => undefined;

  constructor(parent: KernelInode, name: string, isLooking: boolean) {
    this.parent = parent;
    this.name = name;
    this.looking = isLooking ? new Promise((resolve) => (this.lookedUp = resolve)) : null;
  }
}

/** When something was asked: fuse_get_attr_version, fuse_get_evict_ctr; 0: whatever has happened since. */
export interface AskedAt {
  readonly attrVersion: number;
  readonly evictions: number;
}

export const WHENEVER: AskedAt = { attrVersion: 0, evictions: 0 };

export class ListingKernel {
  readonly inodes: Map<number, KernelInode> = new Map();
  readonly root: KernelInode;
  epoch = 1;
  #attrVersion = 1;
  #evictions = 1;
  readonly #world: ListingWorld;
  readonly #say: (text: string) => void;
  readonly #forget: (fuseNodeid: number, nlookup: number) => void;

  constructor(world: ListingWorld, say: (text: string) => void, forget: (fuseNodeid: number, nlookup: number) => void) {
    this.#world = world;
    this.#say = say;
    this.#forget = forget;
    this.root = new KernelInode(1, 0, { ino: world.root.ino, isDirectory: true, links: 2, version: 0 });
    this.root.nlookup = 1;
    this.root.users = 1;
    this.inodes.set(1, this.root);
  }

  asks(): AskedAt {
    return { attrVersion: this.#attrVersion, evictions: this.#evictions };
  }

  // --- inodes

  use(inode: KernelInode): KernelInode {
    if (this.inodes.get(inode.fuseNodeid) !== inode) throw new Error(`inode ${inode.fuseNodeid} is used after its end`);
    inode.users += 1;
    return inode;
  }

  /** iput */
  leave(inode: KernelInode): void {
    inode.users -= 1;
    if (inode.users > 0 || inode === this.root) return;
    if (inode.users < 0) throw new Error(`inode ${inode.fuseNodeid} is left more often than used`);
    for (const dentry of inode.children.values()) this.drop(dentry);
    this.inodes.delete(inode.fuseNodeid);
    if (inode.attr.links > 0) this.#evictions += 1;
    this.#forget(inode.fuseNodeid, inode.nlookup);
  }

  /** fuse_iget: in use. */
  get({ fuseNodeid, generation, attr, attrValid }: EntryReply, asked: AskedAt): KernelInode {
    let inode = this.inodes.get(fuseNodeid);
    if (inode === undefined) {
      inode = new KernelInode(fuseNodeid, generation, attr);
      this.inodes.set(fuseNodeid, inode);
    } else if (inode.generation !== generation || inode.attr.isDirectory !== attr.isDirectory) {
      this.#world.note(`inode ${fuseNodeid} became another one`);
    }
    inode.nlookup += 1;
    this.use(inode);
    this.takeAttr(inode, attr, attrValid, asked);
    return inode;
  }

  /** fuse_change_attributes */
  takeAttr(inode: KernelInode, attr: KernelAttr, valid: boolean, { attrVersion, evictions }: AskedAt): void {
    if (attrVersion !== 0 && inode.attrVersion > attrVersion) return;
    if (evictions === 0 || inode.attrVersion !== 0 || evictions === this.#evictions) inode.isMarked = false;
    this.bump(inode);
    inode.isTimely = valid;
    inode.attr = attr;
  }

  bump(inode: KernelInode): void {
    this.#attrVersion += 1;
    inode.attrVersion = this.#attrVersion;
  }

  /** fuse_entry_unlinked */
  unlinked(dentry: Dentry): void {
    const { inode } = dentry;
    dentry.isValid = false;
    if (inode === null) return;
    this.bump(inode);
    inode.isMarked = true;
    const links = inode.attr.isDirectory ? 0 : Math.max(0, inode.attr.links - 1);
    inode.attr = { ...inode.attr, links };
  }

  // --- dentries

  /** d_lookup: null while it is being looked up, too. */
  find(dir: KernelInode, name: string): Dentry | null {
    const dentry = dir.children.get(name);
    return dentry === undefined || dentry.looking !== null ? null : dentry;
  }

  /** d_alloc_parallel: one that has its name, or one that this caller is to look up. */
  async alloc(dir: KernelInode, name: string): Promise<Dentry> {
    for (;;) {
      const found = dir.children.get(name);
      if (found === undefined) {
        const made = new Dentry(dir, name, true);
        dir.children.set(name, made);
        return made;
      }
      if (found.looking === null) return found;
      this.#world.count("waitedForLookup");
      await found.looking;
    }
  }

  /** d_splice_alias, d_lookup_done. `inode`: in use by the caller still. */
  add(dentry: Dentry, inode: KernelInode | null): void {
    dentry.inode = inode === null ? null : this.use(inode);
    this.#end(dentry);
  }

  #end(dentry: Dentry): void {
    dentry.looking = null;
    dentry.lookedUp();
  }

  /** A lookup has failed. */
  fail(dentry: Dentry): void {
    if (dentry.parent.children.get(dentry.name) === dentry) dentry.parent.children.delete(dentry.name);
    this.#end(dentry);
  }

  /** d_invalidate, d_drop: what is below goes, too, as far as nobody has it in use. */
  drop(dentry: Dentry): void {
    const { parent, name, inode } = dentry;
    if (parent.children.get(name) !== dentry) return;
    parent.children.delete(name);
    dentry.isValid = false;
    if (inode === null) return;
    for (const child of inode.children.values()) {
      if (child.looking === null && (child.inode === null || child.inode.users === 1)) this.drop(child);
    }
    this.leave(inode);
  }

  /** d_move */
  move(dentry: Dentry, to: KernelInode, name: string): void {
    const { parent } = dentry;
    if (parent.children.get(dentry.name) !== dentry) return;
    parent.children.delete(dentry.name);
    Object.assign(dentry, { parent: to, name });
    to.children.set(name, dentry);
  }

  /** The kernel is short of memory. */
  shrink(): void {
    const all = [...this.inodes.values()].flatMap(({ children }) => [...children.values()]);
    const unused = all.filter(
      ({ inode, looking }) => looking === null && (inode === null || (inode.users === 1 && inode.children.size === 0)),
    );
    if (unused.length > 0) this.drop(this.#world.pick(unused));
  }

  // --- notifications

  async #invalidate(fuseNodeid: number): Promise<number> {
    await this.#world.turn();
    return this.#invalidateNow(fuseNodeid);
  }

  #invalidateNow(fuseNodeid: number): number {
    const inode = this.inodes.get(fuseNodeid);
    this.#say(`INVAL_INODE ${fuseNodeid}${inode === undefined ? ", which is not there" : ""}`);
    if (inode === undefined) {
      this.#world.count("missing");
      return -E.ENOENT;
    }
    this.bump(inode);
    inode.isMarked = true;
    return 0;
  }

  async #expire(fuseNodeid: number, name: string, drop: boolean): Promise<number> {
    const dir = this.inodes.get(fuseNodeid);
    if (dir === undefined) return -E.ENOENT;
    this.use(dir);
    const result = await dir.rwsem.exclusive(() => {
      const dentry = this.find(dir, name);
      this.#say(`INVAL_ENTRY ${name} of ${fuseNodeid}${drop ? ", dropped" : ""}${dentry === null ? ", which is not there" : ""}`);
      if (dentry === null) return Promise.resolve(-E.ENOENT);
      // fuse_dir_changed: it only marks what is there.
      dir.isMarked = true;
      if (drop) this.drop(dentry);
      dentry.isValid = false;
      return Promise.resolve(0);
    });
    this.leave(dir);
    return result;
  }

  caches(): KernelCaches {
    return {
      invalidatePages: async (fuseNodeid) => [await this.#invalidate(fuseNodeid)],
      invalidateMany: (fuseNodeids) => {
        let next = 0;
        const refused: number[] = [];
        const write = async (): Promise<number> => {
          while (next < fuseNodeids.length) {
            const at = next;
            next += 1;
            const result = await this.#invalidate(fuseNodeids[at] as number);
            if (result !== 0) refused.push(at, result);
          }
          return 0;
        };
        return { write, begun: () => next, refused: () => refused.splice(0) };
      },
      invalidateRange: (fuseNodeid) => ({ thread: () => 0, results: this.#invalidate(fuseNodeid).then((result) => [result]) }),
      retrieve: () => Promise.resolve(null),
      retrieved: () => undefined,
      raiseSize: () => Promise.resolve([0]),
      invalidatePagesAndSize: (fuseNodeid) => {
        const gate = sweepGate();
        const write = async (): Promise<number[]> => {
          const result = await this.#invalidate(fuseNodeid);
          if (!gate.pass()) return [result, -E.ECANCELED];
          await this.#world.turn();
          return [result, result];
        };
        return { gate, results: write() };
      },
      invalidateAttributes: async (fuseNodeid) => [await this.#invalidate(fuseNodeid)],
      invalidateAttributesNow: (fuseNodeid) => this.#invalidateNow(fuseNodeid),
      expireNames: async (fuseNodeid, names) => {
        await this.#world.turn();
        const results: number[] = [];
        for (const { name, drop } of names) results.push(await this.#expire(fuseNodeid, name.toString(), drop));
        return results;
      },
      incrementEpoch: async () => {
        await this.#world.turn();
        this.epoch += 1;
        this.#say(`INC_EPOCH ${this.epoch}`);
        return [0];
      },
      close: () => Promise.resolve(),
    };
  }
}
