/**
 * System calls of a thread in the model of listings (listing-model.ts), as a kernel makes them: what it locks, what it believes, what it asks, and what it takes
 * of the answers. Sources: fs/namei.c (lookup_fast, lookup_slow, lookup_one_qstr_excl, vfs_rename, filename_create), fs/readdir.c (iterate_dir),
 * fs/fuse/dir.c (fuse_dentry_revalidate, fuse_lookup, create_new_entry, fuse_unlink, fuse_rename_common, fuse_update_get_attr), fs/fuse/readdir.c.
 */
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import type { Dentry, KernelInode } from "./listing-model-kernel.ts";
import { WHENEVER } from "./listing-model-kernel.ts";
import { type Asking, attrReplyIn, entryIn, type ListingNode } from "./listing-model-node.ts";
import type { Reply } from "./model-call.ts";
import { RENAME_EXCHANGE } from "./listing-model-world.ts";

const ENTRY_OUT_BYTES = 128;
const DIRENT_BYTES = 24;
const O_RDONLY_CREAT_EXCL = 0o300;

/** How a name is looked up: LOOKUP_REVAL, LOOKUP_EXCL or LOOKUP_RENAME_TARGET. */
export interface WalkHow {
  readonly anew?: boolean;
}

export interface Listed {
  readonly name: string;
  readonly ino: number;
  readonly type: number;
  readonly cookie: bigint;
}

/** A directory that a program has open. */
export interface OpenDirectory {
  readonly inode: KernelInode;
  readonly fh: number;
  /** ctx->pos */
  position: bigint;
}

export class Thread {
  readonly node: ListingNode;
  readonly pid: number;

  constructor(node: ListingNode, pid: number) {
    this.node = node;
    this.pid = pid;
  }

  #ask(asking: Asking): Promise<Reply> {
    return this.node.ask(this.pid, asking);
  }

  async #asked(asking: Asking): Promise<Reply> {
    const reply = await this.#ask(asking);
    if (reply.errno !== 0) throw errnoError(reply.errno);
    return reply;
  }

  // --- names

  /** fuse_dentry_revalidate. True: it is to be believed, and its inode in use; false: it is dropped. */
  async #revalidate(dir: KernelInode, dentry: Dentry, name: string, how: WalkHow): Promise<boolean> {
    const { kernel } = this.node;
    const { inode } = dentry;
    if (inode !== null) kernel.use(inode);
    let isBelieved = false;
    try {
      isBelieved = await this.#isValid(dir, dentry, name, how);
    } finally {
      if (!isBelieved && inode !== null) kernel.leave(inode);
    }
    if (!isBelieved) kernel.drop(dentry);
    return isBelieved;
  }

  async #isValid(dir: KernelInode, dentry: Dentry, name: string, how: WalkHow): Promise<boolean> {
    const { kernel } = this.node;
    const { inode } = dentry;
    if (dentry.epoch < kernel.epoch) return false;
    if (dentry.isValid && how.anew !== true) {
      this.node.world.count("namesByCache");
      if (inode?.isOfPlus === true) {
        inode.isOfPlus = false;
        dir.wantsPlus = true;
      }
      return true;
    }
    if (inode === null) return false;
    const asked = kernel.asks();
    const { errno, body } = await this.#ask({ op: "lookup", fuseNodeid: dir.fuseNodeid, name: Buffer.from(name) });
    if (errno === E.EINTR) throw errnoError(errno);
    if (errno !== 0) return false;
    const entry = entryIn(body);
    if (entry.fuseNodeid === 0) return false;
    if (entry.fuseNodeid !== inode.fuseNodeid) {
      this.node.giveBack(entry.fuseNodeid);
      return false;
    }
    inode.nlookup += 1;
    kernel.takeAttr(inode, entry.attr, entry.attrValid, asked);
    dentry.isValid = entry.entryValid;
    return true;
  }

  /** fuse_lookup, of one that is being looked up. Gives its inode, in use; null: there is none. */
  async #lookUp(dir: KernelInode, dentry: Dentry): Promise<KernelInode | null> {
    const { kernel } = this.node;
    const { epoch } = kernel;
    const asked = kernel.asks();
    try {
      const { errno, body } = await this.#ask({ op: "lookup", fuseNodeid: dir.fuseNodeid, name: Buffer.from(dentry.name) });
      if (errno !== 0 && errno !== E.ENOENT) throw errnoError(errno);
      const entry = errno === 0 ? entryIn(body) : null;
      const inode = entry === null || entry.fuseNodeid === 0 ? null : kernel.get(entry, asked);
      kernel.add(dentry, inode);
      dentry.epoch = epoch;
      dentry.isValid = entry?.entryValid === true;
      if (inode !== null) dir.wantsPlus = true;
      return inode;
    } catch (error) {
      kernel.fail(dentry);
      throw error;
    }
  }

  /** The inode of that name, in use; null: there is none. `dir` is in use. */
  async walk(dir: KernelInode, name: string, how: WalkHow = {}): Promise<KernelInode | null> {
    const { kernel } = this.node;
    const found = kernel.find(dir, name);
    if (found !== null && (await this.#revalidate(dir, found, name, how))) return found.inode;
    return await dir.rwsem.shared(async () => {
      if (dir.isDead) throw errnoError(E.ENOENT);
      for (;;) {
        const dentry = await kernel.alloc(dir, name);
        if (dentry.looking !== null) return await this.#lookUp(dir, dentry);
        if (await this.#revalidate(dir, dentry, name, how)) return dentry.inode;
      }
    });
  }

  /** With the directory locked: the dentry, whose inode is in use. */
  async #walkLocked(dir: KernelInode, name: string, how: WalkHow = {}): Promise<Dentry> {
    const { kernel } = this.node;
    if (dir.isDead) throw errnoError(E.ENOENT);
    const found = kernel.find(dir, name);
    if (found !== null && (await this.#revalidate(dir, found, name, how))) return found;
    const dentry = await kernel.alloc(dir, name);
    await this.#lookUp(dir, dentry);
    return dentry;
  }

  /** `work`; once more where it ends with ESTALE, believing no name. */
  async retried<T>(work: (how: WalkHow) => Promise<T>): Promise<T> {
    try {
      return await work({});
    } catch (error) {
      if (!(error instanceof Errno) || error.errno !== E.ESTALE) throw error;
      return await work({ anew: true });
    }
  }

  // --- attributes

  async stat(inode: KernelInode): Promise<KernelInode["attr"]> {
    const { kernel } = this.node;
    if (inode.hasAttr) {
      this.node.world.count("statsByCache");
      return inode.attr;
    }
    const asked = kernel.asks();
    const { body } = await this.#asked({ op: "getattr", fuseNodeid: inode.fuseNodeid, fh: null });
    const { attr, valid } = attrReplyIn(body);
    kernel.takeAttr(inode, attr, valid, asked);
    return attr;
  }

  /** chmod(2) */
  async change(inode: KernelInode): Promise<void> {
    await inode.rwsem.exclusive(async () => {
      const { body } = await this.#asked({ op: "setattr", fuseNodeid: inode.fuseNodeid, fh: null, change: { mode: 0o644 } });
      const { attr, valid } = attrReplyIn(body);
      // fuse_do_setattr
      inode.isMarked = false;
      this.node.kernel.bump(inode);
      inode.isTimely = valid;
      inode.attr = attr;
    });
  }

  async open(inode: KernelInode): Promise<void> {
    const { body } = await this.#asked({ op: "open", fuseNodeid: inode.fuseNodeid, flags: 0, killSuidgid: false });
    this.#release("release", inode, Number(body.readBigUInt64LE(0)));
  }

  #release(op: "release" | "releasedir", { fuseNodeid }: KernelInode, fh: number): void {
    // Nobody waits for it, and it is of no thread (fs/fuse/file.c, fuse_prepare_release).
    const rest = { fh, flags: 0, lockOwner: 0n, flockUnlock: false };
    this.node.ask(0, { op, fuseNodeid, ...rest }).catch((error: unknown) => this.node.world.note(`${op}: ${String(error)}`));
  }

  // --- changes

  /** open(2) with O_CREAT|O_EXCL, or mkdir(2). */
  async make(dir: KernelInode, name: string, isDirectory: boolean): Promise<void> {
    const { kernel } = this.node;
    await dir.rwsem.exclusive(async () => {
      const dentry = await this.#walkLocked(dir, name, { anew: true });
      if (dentry.inode !== null) {
        kernel.leave(dentry.inode);
        throw errnoError(E.EEXIST);
      }
      const op = isDirectory ? "mkdir" : "create";
      const rest = { mode: 0o755, umask: 0, supplementaryGids: [], flags: O_RDONLY_CREAT_EXCL, killSuidgid: false };
      const { epoch } = kernel;
      const { errno, body } = await this.#ask({ op, fuseNodeid: dir.fuseNodeid, name: Buffer.from(name), ...rest });
      if (errno === E.EEXIST) kernel.drop(dentry);
      if (errno !== 0) throw errnoError(errno);
      const inode = kernel.get(entryIn(body), WHENEVER);
      this.#instantiate(dentry, inode, entryIn(body).entryValid, epoch);
      if (!isDirectory) this.#release("release", inode, Number(body.readBigUInt64LE(ENTRY_OUT_BYTES)));
      kernel.leave(inode);
      dir.isMarked = true;
    });
  }

  /** Its name gets that inode. */
  #instantiate(dentry: Dentry, inode: KernelInode, isValid: boolean, epoch: number): void {
    const { kernel } = this.node;
    Object.assign(dentry, { epoch, isValid });
    dentry.parent.children.set(dentry.name, dentry);
    kernel.add(dentry, inode);
  }

  async link(inode: KernelInode, dir: KernelInode, name: string): Promise<void> {
    const { kernel } = this.node;
    await dir.rwsem.exclusive(async () => {
      const dentry = await this.#walkLocked(dir, name, { anew: true });
      if (dentry.inode !== null) {
        kernel.leave(dentry.inode);
        throw errnoError(E.EEXIST);
      }
      await inode.rwsem.exclusive(async () => {
        // fs/namei.c, vfs_link
        if (inode.attr.links === 0) throw errnoError(E.ENOENT);
        const { epoch } = kernel;
        const asking = { targetFuseNodeid: inode.fuseNodeid, name: Buffer.from(name) };
        const { errno, body } = await this.#ask({ op: "link", fuseNodeid: dir.fuseNodeid, ...asking });
        if (errno === E.EEXIST) kernel.drop(dentry);
        if (errno === E.EINTR) inode.isMarked = true;
        if (errno !== 0) throw errnoError(errno);
        const found = kernel.get(entryIn(body), WHENEVER);
        if (found !== inode) this.node.world.note(`link of ${inode.fuseNodeid} gave ${found.fuseNodeid}`);
        this.#instantiate(dentry, found, entryIn(body).entryValid, epoch);
        kernel.leave(found);
        dir.isMarked = true;
        inode.isMarked = true;
      });
    });
  }

  async remove(dir: KernelInode, name: string, isDirectory: boolean): Promise<void> {
    const { kernel } = this.node;
    await this.retried((how) =>
      dir.rwsem.exclusive(async () => {
        const dentry = await this.#walkLocked(dir, name, how);
        const { inode } = dentry;
        if (inode === null) throw errnoError(E.ENOENT);
        try {
          if (inode.attr.isDirectory !== isDirectory) throw errnoError(isDirectory ? E.ENOTDIR : E.EISDIR);
          await inode.rwsem.exclusive(async () => {
            const op = isDirectory ? "rmdir" : "unlink";
            const { errno } = await this.#ask({ op, fuseNodeid: dir.fuseNodeid, name: Buffer.from(name) });
            if (errno === E.EINTR || errno === E.ENOENT) kernel.drop(dentry);
            if (errno !== 0) throw errnoError(errno);
            dir.isMarked = true;
            kernel.unlinked(dentry);
            if (isDirectory) inode.isDead = true;
            kernel.drop(dentry);
          });
        } finally {
          kernel.leave(inode);
        }
      }),
    );
  }

  async rename(from: KernelInode, to: KernelInode, names: readonly [string, string], flags: number): Promise<void> {
    this.node.renaming.add(this.pid);
    try {
      await this.retried((how) => this.#locked(from, to, () => this.#renameLocked(from, to, names, flags, how)));
    } finally {
      this.node.renaming.delete(this.pid);
    }
  }

  /** lock_rename: the root is above all others. */
  async #locked(from: KernelInode, to: KernelInode, work: () => Promise<void>): Promise<void> {
    if (from === to) return await from.rwsem.exclusive(work);
    const [first, second] = from.fuseNodeid < to.fuseNodeid ? [from, to] : [to, from];
    await first.rwsem.exclusive(() => second.rwsem.exclusive(work));
  }

  async #renameLocked(
    from: KernelInode,
    to: KernelInode,
    [oldName, newName]: readonly [string, string],
    flags: number,
    how: WalkHow,
  ): Promise<void> {
    const { kernel } = this.node;
    const old = await this.#walkLocked(from, oldName, how);
    const moved = old.inode;
    if (moved === null) throw errnoError(E.ENOENT);
    const used = [moved];
    try {
      // LOOKUP_RENAME_TARGET
      const now = await this.#walkLocked(to, newName, { anew: true });
      const replaced = now.inode;
      if (replaced !== null) used.push(replaced);
      if (moved.attr.isDirectory || replaced?.attr.isDirectory === true) throw errnoError(E.EISDIR);
      if (replaced === null && (flags & RENAME_EXCHANGE) !== 0) throw errnoError(E.ENOENT);
      if (moved === replaced) return;
      await this.#renameInodes(from, to, old, now, flags);
    } finally {
      for (const inode of used) kernel.leave(inode);
    }
  }

  async #renameInodes(from: KernelInode, to: KernelInode, old: Dentry, now: Dentry, flags: number): Promise<void> {
    const { kernel } = this.node;
    const [moved, replaced] = [old.inode as KernelInode, now.inode];
    const [name, newName] = [old.name, now.name];
    const lock = (inodes: readonly KernelInode[], work: () => Promise<void>): Promise<void> => {
      const [first, ...rest] = inodes;
      return first === undefined ? work() : first.rwsem.exclusive(() => lock(rest, work));
    };
    const inodes = [moved, ...(replaced === null ? [] : [replaced])].toSorted((a, b) => a.fuseNodeid - b.fuseNodeid);
    await lock(inodes, async () => {
      const asking = { name: Buffer.from(name), newFuseNodeid: to.fuseNodeid, newName: Buffer.from(newName), flags };
      const { errno } = await this.#ask({ op: "rename", fuseNodeid: from.fuseNodeid, ...asking });
      if (errno === E.EINTR || errno === E.ENOENT) {
        kernel.drop(old);
        if (replaced !== null) kernel.drop(now);
      }
      if (errno !== 0) throw errnoError(errno);
      moved.isMarked = true;
      from.isMarked = true;
      to.isMarked = true;
      if ((flags & RENAME_EXCHANGE) !== 0) {
        if (replaced !== null) replaced.isMarked = true;
        this.#exchange(old, now);
        return;
      }
      if (replaced !== null) kernel.unlinked(now);
      kernel.drop(now);
      kernel.move(old, to, newName);
    });
  }

  /** d_exchange */
  #exchange(old: Dentry, now: Dentry): void {
    const places = [old, now].map(({ parent, name }) => ({ parent, name }));
    const isThere = [old, now].every((dentry) => dentry.parent.children.get(dentry.name) === dentry);
    if (!isThere) return;
    [now, old].forEach((dentry, at) => {
      const { parent, name } = places[at] as { parent: KernelInode; name: string };
      Object.assign(dentry, { parent, name });
      parent.children.set(name, dentry);
    });
  }

  // --- listings

  async opendir(inode: KernelInode): Promise<OpenDirectory> {
    const { body } = await this.#asked({ op: "opendir", fuseNodeid: inode.fuseNodeid, flags: 0 });
    return { inode: this.node.kernel.use(inode), fh: Number(body.readBigUInt64LE(0)), position: 0n };
  }

  closedir({ inode, fh }: OpenDirectory): void {
    this.#release("releasedir", inode, fh);
    this.node.kernel.leave(inode);
  }

  /** getdents(2), with room for so many names: none: this is the end. ENOENT: the directory is gone. */
  async getdents(open: OpenDirectory, room: number, size: number): Promise<Listed[]> {
    const { inode, fh } = open;
    const { kernel } = this.node;
    return await inode.rwsem.shared(async () => {
      if (inode.isDead) throw errnoError(E.ENOENT);
      // fuse_use_readdirplus
      const isPlus = inode.wantsPlus || open.position === 0n;
      inode.wantsPlus = false;
      const asked = kernel.asks();
      const op = isPlus ? "readdirplus" : "readdir";
      this.node.world.count(op);
      const { body } = await this.#asked({ op, fuseNodeid: inode.fuseNodeid, fh, cookie: open.position, size });
      this.node.world.unsettled += 1;
      try {
        return await this.#parse(open, body, isPlus, asked, room);
      } finally {
        this.node.world.unsettled -= 1;
      }
    });
  }

  /** parse_dirfile, parse_dirplusfile */
  async #parse(
    open: OpenDirectory,
    body: Buffer,
    isPlus: boolean,
    asked: ReturnType<ListingNode["kernel"]["asks"]>,
    room: number,
  ): Promise<Listed[]> {
    const given: Listed[] = [];
    const head = isPlus ? ENTRY_OUT_BYTES : 0;
    let isOver = false;
    for (let at = 0; at + head + DIRENT_BYTES <= body.length; ) {
      const dirent = at + head;
      const nameBytes = body.readUInt32LE(dirent + 16);
      const listed = {
        name: body.subarray(dirent + DIRENT_BYTES, dirent + DIRENT_BYTES + nameBytes).toString(),
        ino: Number(body.readBigUInt64LE(dirent)),
        type: body.readUInt32LE(dirent + 20),
        cookie: body.readBigUInt64LE(dirent + 8),
      };
      isOver ||= given.length === room;
      if (!isOver) {
        // Its buffer may have no page.
        if (this.node.world.random() < 0.1) await this.node.world.turns(30);
        given.push(listed);
        open.position = listed.cookie;
      }
      if (isPlus) await this.#linkEntry(open.inode, listed.name, body.subarray(at), asked);
      else if (isOver) break;
      at += (head + DIRENT_BYTES + nameBytes + 7) & ~7;
    }
    return given;
  }

  /** fuse_direntplus_link */
  async #linkEntry(dir: KernelInode, name: string, body: Buffer, asked: ReturnType<ListingNode["kernel"]["asks"]>): Promise<void> {
    const { kernel, world } = this.node;
    const entry = entryIn(body);
    if (entry.fuseNodeid === 0) return;
    const { epoch } = kernel;
    let dentry = kernel.find(dir, name);
    for (;;) {
      dentry ??= await kernel.alloc(dir, name);
      if (dentry.looking !== null) break;
      if (dentry.inode?.fuseNodeid === entry.fuseNodeid) break;
      kernel.drop(dentry);
      dentry = null;
    }
    world.count("linked");
    if (entry.entryValid) world.count("linkedValid");
    if (entry.attrValid) world.count("linkedAttr");
    const { inode } = dentry;
    if (dentry.looking !== null || inode === null) {
      const made = kernel.get(entry, asked);
      kernel.add(dentry, made);
      kernel.leave(made);
    } else {
      inode.nlookup += 1;
      kernel.takeAttr(inode, entry.attr, entry.attrValid, asked);
    }
    if (dentry.inode !== null) dentry.inode.isOfPlus = true;
    dentry.epoch = epoch;
    dentry.isValid = entry.entryValid;
    this.node.say(`pid ${this.pid}: installs ${name} as ${entry.fuseNodeid}, valid ${entry.entryValid} ${entry.attrValid}`);
  }
}
