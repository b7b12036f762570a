/**
 * A kernel of the model of shells (shell-model.ts): what it has of names, attributes and pages, what it locks meanwhile, and how it drops what it is told to.
 * Sources: fs/fuse/dir.c (fuse_dentry_revalidate, fuse_lookup, fuse_reverse_inval_entry), fs/fuse/inode.c (fuse_change_attributes_i, fuse_reverse_inval_inode).
 */
import { E } from "../../../dlmd/base/errno.ts";
import type { KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import type { InodeKind } from "../../../overlay/coherence/cover.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { Mutex } from "./mutex.ts";
import { sweepGate } from "./sweep-gate.ts";

/** Locked: its page, or the directory. */
export class KernelInode extends Mutex {
  readonly fuseNodeid: number;
  readonly id: FileId;
  readonly kind: InodeKind;
  nlookup = 0;
  /** Programs that have it. */
  users = 0;
  /** The version that valid attributes tell; null: there are none. */
  attr: number | null = null;
  attrVersion = 0;
  /** Of the one page; null: it is not there. */
  page: number | null = null;

  constructor(fuseNodeid: number, id: FileId, kind: InodeKind) {
    super();
    this.fuseNodeid = fuseNodeid;
    this.id = id;
    this.kind = kind;
  }
}

export interface Dentry {
  /** null: there is no such name. */
  readonly child: KernelInode | null;
  /** Of the name. */
  version: number;
  valid: boolean;
  epoch: number;
}

export interface KernelEntry {
  readonly fuseNodeid: number;
  readonly id: FileId;
  readonly kind: InodeKind;
  readonly attr: number;
  readonly attrValid: boolean;
}

/** When something was asked. */
export interface Asked {
  readonly epoch: number;
  readonly attrVersion: number;
}

export class ModelKernel {
  readonly inodes: Map<number, KernelInode> = new Map();
  /** "directory name". */
  readonly dentries: Map<string, Dentry> = new Map();
  epoch = 1;
  /** fc->attr_version */
  #attrVersion = 1;
  readonly #turn: () => Promise<void>;
  readonly counts = { missing: 0, waitedForPage: 0 };

  constructor(turn: () => Promise<void>) {
    this.#turn = turn;
  }

  asks(): Asked {
    return { epoch: this.epoch, attrVersion: this.#attrVersion };
  }

  outdate(inode: KernelInode): void {
    this.#attrVersion += 1;
    inode.attrVersion = this.#attrVersion;
    inode.attr = null;
  }

  takeAttr(inode: KernelInode, attr: number, valid: boolean, asked: Asked): void {
    if (inode.attrVersion > asked.attrVersion) return;
    this.#attrVersion += 1;
    inode.attrVersion = this.#attrVersion;
    inode.attr = valid ? attr : null;
  }

  /** The answer to a LOOKUP or a creation is taken. */
  install({ fuseNodeid, id, kind, attr, attrValid }: KernelEntry, asked: Asked): KernelInode {
    let inode = this.inodes.get(fuseNodeid);
    if (inode === undefined) {
      inode = new KernelInode(fuseNodeid, id, kind);
      this.inodes.set(fuseNodeid, inode);
    }
    inode.nlookup += 1;
    this.takeAttr(inode, attr, attrValid, asked);
    return inode;
  }

  async #invalidate(fuseNodeid: number, pages: boolean): Promise<number> {
    await this.#turn();
    const inode = this.inodes.get(fuseNodeid);
    if (inode === undefined) {
      this.counts.missing += 1;
      return -E.ENOENT;
    }
    this.outdate(inode);
    if (!pages || inode.kind !== "file") return 0;
    if (inode.isHeld) this.counts.waitedForPage += 1;
    await inode.lock();
    inode.page = null;
    inode.unlock();
    return 0;
  }

  async #expire(fuseNodeid: number, name: string, drop: boolean): Promise<number> {
    const dir = this.inodes.get(fuseNodeid);
    if (dir === undefined) return -E.ENOENT;
    await dir.lock();
    const key = `${fuseNodeid} ${name}`;
    const dentry = this.dentries.get(key);
    if (dentry !== undefined) dentry.valid = false;
    if (drop) this.dentries.delete(key);
    this.outdate(dir);
    dir.unlock();
    return dentry === undefined ? -E.ENOENT : 0;
  }

  caches(): KernelCaches {
    return {
      invalidatePages: async (fuseNodeid, except = []) => [await this.#invalidate(fuseNodeid, except.length === 0)],
      invalidateMany: (fuseNodeids) => {
        let next = 0;
        const refused: number[] = [];
        const write = async (): Promise<number> => {
          while (next < fuseNodeids.length) {
            const at = next;
            next += 1;
            const result = await this.#invalidate(fuseNodeids[at] as number, true);
            if (result !== 0) refused.push(at, result);
          }
          return 0;
        };
        return { write, begun: () => next, refused: () => refused.splice(0) };
      },
      invalidateRange: (fuseNodeid) => ({ thread: () => 0, results: this.#invalidate(fuseNodeid, true).then((result) => [result]) }),
      retrieve: () => Promise.resolve(null),
      retrieved: () => undefined,
      raiseSize: () => Promise.resolve([0]),
      invalidatePagesAndSize: (fuseNodeid, except) => {
        const gate = sweepGate();
        const write = async (): Promise<number[]> => {
          const result = await this.#invalidate(fuseNodeid, except.length === 0);
          if (!gate.pass()) return [result, -E.ECANCELED];
          await this.#turn();
          return [result, result];
        };
        return { gate, results: write() };
      },
      invalidateAttributes: async (fuseNodeid) => [await this.#invalidate(fuseNodeid, false)],
      invalidateAttributesNow: (fuseNodeid) => {
        const inode = this.inodes.get(fuseNodeid);
        if (inode === undefined) return -E.ENOENT;
        this.outdate(inode);
        return 0;
      },
      expireNames: async (fuseNodeid, names) => {
        await this.#turn();
        const results: number[] = [];
        for (const { name, drop } of names) results.push(await this.#expire(fuseNodeid, name.toString(), drop));
        return results;
      },
      incrementEpoch: async () => {
        await this.#turn();
        this.epoch += 1;
        return [0];
      },
      close: () => Promise.resolve(),
    };
  }
}
