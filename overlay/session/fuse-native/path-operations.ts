/**
 * Operations by path, as libfuse asks for them, made of requests by inode: a LOOKUP for each name of the path, the operation, and a FORGET of all
 * that was looked up. So nothing is known between two operations but what is open (hazard F26); the locks stay here as those of any mount.
 */
import { E, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import type { InodeRecord } from "../../inode/table.ts";
import type { AttrChange } from "../../lower/lower.ts";
import { O_RDONLY } from "../../op/linux.ts";
import type { Mount } from "../../op/mount.ts";
import { BODY_AT, type PathRequest } from "./requests.ts";
import { type DirectoryEntry, deviceNumber, nameBytes, nameText, pathNames, readAttr, readEntries, type StatFields } from "./words.ts";

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
/** In struct fuse_entry_out and fuse_attr_out. */
const ENTRY_ATTR_AT = 16;
/** Of READs: it holds no page of the kernel's (fuse_send_read). */
const NO_PAGES = 1n;
const LISTING_BYTES: number = 128 * 1024;

interface OpenPath {
  readonly fuseNodeid: number;
  /** O_* as they were at the open: libfuse's package does not tell of fcntl(2). */
  readonly flags: number;
}

export interface PathKernel {
  readonly mount: Mount;
  ask(request: PathRequest): Promise<Buffer>;
}

interface Place {
  readonly dir: InodeRecord;
  readonly name: Buffer;
}

export class PathOperations {
  readonly #kernel: PathKernel;
  readonly #open = new Map<number, OpenPath>();

  constructor(kernel: PathKernel) {
    this.#kernel = kernel;
  }

  // --- paths

  async #child(dir: InodeRecord, name: Buffer): Promise<InodeRecord> {
    const { mount } = this.#kernel;
    try {
      return this.#entered(await this.#kernel.ask({ op: "lookup", fuseNodeid: dir.fuseNodeid, name }));
    } finally {
      // Nothing remembers it.
      mount.coherence.names.dropEntry(dir, name);
    }
  }

  /** What a reply with an entry gives: in use until left, and not known by a lookup. */
  #entered(reply: Buffer): InodeRecord {
    const { inodes } = this.#kernel.mount;
    const fuseNodeid = Number(reply.readBigUInt64LE(BODY_AT));
    const record = inodes.get(fuseNodeid);
    if (record === undefined) throw errnoError(E.ENOENT);
    inodes.use(record);
    inodes.forget(fuseNodeid, 1);
    return record;
  }

  async #find(names: readonly Buffer[]): Promise<InodeRecord> {
    const { inodes } = this.#kernel.mount;
    let record: InodeRecord = inodes.root;
    inodes.use(record);
    for (const name of names) {
      const dir = record;
      try {
        record = await this.#child(dir, name);
      } finally {
        inodes.leave(dir);
      }
    }
    return record;
  }

  async #at<T>(path: string, work: (fuseNodeid: number) => Promise<T>): Promise<T> {
    const record = await this.#find(pathNames(path));
    try {
      return await work(record.fuseNodeid);
    } finally {
      this.#kernel.mount.inodes.leave(record);
    }
  }

  async #in<T>(path: string, work: (place: Place) => Promise<T>): Promise<T> {
    const names = pathNames(path);
    const name = names.pop();
    if (name === undefined) throw errnoError(E.EBUSY);
    const dir = await this.#find(names);
    try {
      return await work({ dir, name });
    } finally {
      this.#kernel.mount.coherence.names.dropEntry(dir, name);
      this.#kernel.mount.inodes.leave(dir);
    }
  }

  #file(fh: number): OpenPath {
    const file = this.#open.get(fh);
    if (file === undefined) throw errnoError(E.EBADF);
    return file;
  }

  // --- attributes

  async #getattr(fuseNodeid: number): Promise<StatFields> {
    const reply = await this.#kernel.ask({ op: "getattr", fuseNodeid, fh: null });
    return readAttr(reply, BODY_AT + ENTRY_ATTR_AT);
  }

  stat(path: string): Promise<StatFields> {
    return this.#at(path, (fuseNodeid) => this.#getattr(fuseNodeid));
  }

  async statOpen(fh: number): Promise<StatFields> {
    return this.#getattr(this.#file(fh).fuseNodeid);
  }

  change(path: string, change: AttrChange): Promise<void> {
    return this.#at(path, async (fuseNodeid) => void (await this.#kernel.ask({ op: "setattr", fuseNodeid, fh: null, change })));
  }

  async truncateOpen(fh: number, size: number): Promise<void> {
    await this.#kernel.ask({ op: "setattr", fuseNodeid: this.#file(fh).fuseNodeid, fh, change: { size } });
  }

  readlink(path: string): Promise<string> {
    return this.#at(path, async (fuseNodeid) => {
      const reply = await this.#kernel.ask({ op: "readlink", fuseNodeid });
      return nameText(reply.subarray(BODY_AT));
    });
  }

  statfs(): Promise<Buffer> {
    return this.#kernel.ask({ op: "statfs", fuseNodeid: this.#kernel.mount.inodes.root.fuseNodeid });
  }

  // --- names

  /** The new one, at once left again. */
  #make(path: string, request: (place: Place) => PathRequest): Promise<void> {
    return this.#in(path, async (place) => {
      this.#kernel.mount.inodes.leave(this.#entered(await this.#kernel.ask(request(place))));
    });
  }

  mkdir(path: string, mode: number): Promise<void> {
    return this.#make(path, ({ dir: { fuseNodeid }, name }) => ({
      op: "mkdir",
      fuseNodeid,
      name,
      mode,
      umask: 0,
      supplementaryGids: [],
    }));
  }

  /**
   * Also the first half of an open(2) with O_CREAT: the package has no flags for CREATE. Another node may have made the file since the kernel looked.
   * ESTALE has it look again: then it opens that, or says EEXIST where O_EXCL or mknod(2) wants so.
   */
  async mknod(path: string, mode: number, dev: number): Promise<void> {
    try {
      await this.#make(path, ({ dir: { fuseNodeid }, name }) => ({
        op: "mknod",
        fuseNodeid,
        name,
        mode,
        umask: 0,
        ...deviceNumber(dev),
        supplementaryGids: [],
      }));
    } catch (error) {
      const isFile = (mode & S_IFMT) === S_IFREG || (mode & S_IFMT) === 0;
      throw isFile && isErrno(error, E.EEXIST) ? errnoError(E.ESTALE) : error;
    }
  }

  symlink(target: string, path: string): Promise<void> {
    const text = nameBytes(target);
    return this.#make(path, ({ dir: { fuseNodeid }, name }) => ({
      op: "symlink",
      fuseNodeid,
      name,
      target: text,
      supplementaryGids: [],
    }));
  }

  link(target: string, path: string): Promise<void> {
    return this.#at(target, (targetFuseNodeid) =>
      this.#make(path, ({ dir: { fuseNodeid }, name }) => ({ op: "link", fuseNodeid, targetFuseNodeid, name })),
    );
  }

  remove(op: "unlink" | "rmdir", path: string): Promise<void> {
    return this.#in(path, async ({ dir: { fuseNodeid }, name }) => void (await this.#kernel.ask({ op, fuseNodeid, name })));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#in(from, ({ dir: { fuseNodeid }, name }) =>
      this.#in(to, async ({ dir, name: newName }) => {
        await this.#kernel.ask({ op: "rename", fuseNodeid, name, newFuseNodeid: dir.fuseNodeid, newName, flags: 0 });
      }),
    );
  }

  // --- directories

  async #withDirectory<T>(path: string, work: (fuseNodeid: number, fh: number) => Promise<T>): Promise<T> {
    return this.#at(path, async (fuseNodeid) => {
      const opened = await this.#kernel.ask({ op: "opendir", fuseNodeid, flags: O_RDONLY });
      const fh = Number(opened.readBigUInt64LE(BODY_AT));
      try {
        return await work(fuseNodeid, fh);
      } finally {
        await this.#kernel.ask({ op: "releasedir", fuseNodeid, fh });
      }
    });
  }

  /** The whole of it: the package knows no positions in a listing. */
  list(path: string): Promise<readonly DirectoryEntry[]> {
    return this.#withDirectory(path, async (fuseNodeid, fh) => {
      const all: DirectoryEntry[] = [];
      for (let cookie: bigint | null = 0n; cookie !== null; ) {
        const reply: Buffer = await this.#kernel.ask({ op: "readdir", fuseNodeid, fh, cookie, size: LISTING_BYTES });
        const page = readEntries(reply, BODY_AT);
        all.push(...page.entries);
        cookie = page.cookie;
      }
      return all;
    });
  }

  syncDirectory(path: string, dataOnly: boolean): Promise<void> {
    return this.#withDirectory(path, async (fuseNodeid, fh) => {
      await this.#kernel.ask({ op: "fsyncdir", fuseNodeid, fh, dataOnly });
    });
  }

  // --- files

  open(path: string, flags: number): Promise<number> {
    return this.#at(path, async (fuseNodeid) => {
      const reply = await this.#kernel.ask({ op: "open", fuseNodeid, flags, killSuidgid: false });
      const fh = Number(reply.readBigUInt64LE(BODY_AT));
      this.#open.set(fh, { fuseNodeid, flags });
      return fh;
    });
  }

  /** Into `into`; how much that was. */
  async read(fh: number, into: Buffer, offset: number): Promise<number> {
    const { fuseNodeid, flags } = this.#file(fh);
    const reply = await this.#kernel.ask({ op: "read", fuseNodeid, fh, offset, size: into.length, lockOwner: NO_PAGES, flags });
    return reply.copy(into, 0, BODY_AT);
  }

  async write(fh: number, data: Buffer, offset: number): Promise<number> {
    const { fuseNodeid, flags } = this.#file(fh);
    const reply = await this.#kernel.ask({
      op: "write",
      fuseNodeid,
      fh,
      offset,
      // It may be used when this was answered.
      data: Buffer.from(data),
      fromCache: false,
      killSuidgid: false,
      lockOwner: NO_PAGES,
      flags,
    });
    return reply.readUInt32LE(BODY_AT);
  }

  async sync(fh: number, dataOnly: boolean): Promise<void> {
    await this.#kernel.ask({ op: "fsync", fuseNodeid: this.#file(fh).fuseNodeid, fh, dataOnly });
  }

  async release(fh: number): Promise<void> {
    const { fuseNodeid, flags } = this.#file(fh);
    this.#open.delete(fh);
    await this.#kernel.ask({ op: "release", fuseNodeid, fh, flags, lockOwner: 0n, flockUnlock: false });
  }

  // --- extended attributes

  setxattr(path: string, name: string, value: Buffer, flags: number): Promise<void> {
    const request = { op: "setxattr", name: nameBytes(name), value: Buffer.from(value), flags, aclKillSgid: false } as const;
    return this.#at(path, async (fuseNodeid) => void (await this.#kernel.ask({ ...request, fuseNodeid })));
  }

  removexattr(path: string, name: string): Promise<void> {
    return this.#at(path, async (fuseNodeid) => void (await this.#kernel.ask({ op: "removexattr", fuseNodeid, name: nameBytes(name) })));
  }

  /** Into `into`, or, where that has no room at all, only its length. */
  getxattr(path: string, name: string, into: Buffer): Promise<number> {
    return this.#xattr(path, into, (fuseNodeid, size) => ({ op: "getxattr", fuseNodeid, name: nameBytes(name), size }));
  }

  listxattr(path: string, into: Buffer): Promise<number> {
    return this.#xattr(path, into, (fuseNodeid, size) => ({ op: "listxattr", fuseNodeid, size }));
  }

  #xattr(path: string, into: Buffer, request: (fuseNodeid: number, size: number) => PathRequest): Promise<number> {
    return this.#at(path, async (fuseNodeid) => {
      const reply = await this.#kernel.ask(request(fuseNodeid, into.length));
      return into.length === 0 ? reply.readUInt32LE(BODY_AT) : reply.copy(into, 0, BODY_AT);
    });
  }
}
