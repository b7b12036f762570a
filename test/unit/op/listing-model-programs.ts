/** What programs of the model of listings (listing-model.ts) do, and whether what they are shown can be. */
import { E, Errno } from "../../../dlmd/base/errno.ts";
import { type FileId, fileKey } from "../../../overlay/lower/lower.ts";
import { type Listed, type OpenDirectory, Thread, type WalkHow } from "./listing-model-calls.ts";
import type { KernelInode } from "./listing-model-kernel.ts";
import type { ListingNode } from "./listing-model-node.ts";
import { type ListingWorld, RENAME_EXCHANGE } from "./listing-model-world.ts";

const FILES = ["a", "b", "c", "d", "e", "f"];
const DIRECTORIES = ["x", "x", "x", "y"];
/** Of READDIRPLUS: for two names at least. */
const LISTING_BYTES = [400, 800, 4096];
/** What a program may be told where others change the same names. */
const EXPECTED: ReadonlySet<number> = new Set([E.ENOENT, E.ESTALE, E.EEXIST, E.ENOTEMPTY, E.EISDIR, E.ENOTDIR, E.EINTR, E.EBUSY]);

const isDots = (name: string): boolean => name === "." || name === "..";

export class ListingProgram {
  readonly #node: ListingNode;
  readonly #world: ListingWorld;
  readonly #changes: number;
  #thread: Thread;

  /** `changes`: which share of what it does changes something. */
  constructor(node: ListingNode, pid: number, changes: number) {
    this.#node = node;
    this.#world = node.world;
    this.#changes = changes;
    this.#thread = new Thread(node, pid);
  }

  /** Whoever was killed does nothing more: another one comes. */
  async run(): Promise<void> {
    const { ended } = this.#node;
    if (ended.has(this.#thread.pid)) this.#thread = new Thread(this.#node, this.#thread.pid + 10_000);
    const pid = this.#thread.pid;
    try {
      await this.#run();
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      this.#world.count(`errno ${error.errno}`);
      if (!EXPECTED.has(error.errno) || (error.errno === E.EINTR && !ended.has(pid))) this.#wrong(`was told ${error.errno}`);
    }
  }

  #wrong(text: string): void {
    this.#world.note(`node ${this.#node.id} pid ${this.#thread.pid}: ${text}`);
  }

  async #run(): Promise<void> {
    const random = (): number => this.#world.random();
    for (let more = this.#world.few(6); more > 0; more -= 1) this.#node.kernel.shrink();
    if (random() < this.#changes) return await this.#change();
    if (random() < 0.5) return await this.#list();
    await this.#thread.retried((how) => this.#inDirectory((dir) => this.#stat(dir, this.#world.pick(FILES), how), how));
  }

  // --- names

  #idOf({ fuseNodeid, generation, attr }: KernelInode): FileId {
    return fuseNodeid === 1 ? this.#world.root : { ino: attr.ino, generation };
  }

  /** The inode of that name, in use; null: there is none. */
  async #walk(dir: KernelInode, name: string, how: WalkHow = {}): Promise<KernelInode | null> {
    const cell = this.#world.cell(this.#idOf(dir), name);
    const { committed } = cell;
    const inode = await this.#thread.walk(dir, name, how);
    const key = inode === null ? null : fileKey(this.#idOf(inode));
    const isTrue = cell.history.some(({ id }, at) => at >= committed && (id === null ? null : fileKey(id)) === key);
    if (!isTrue)
      this.#wrong(`found ${key} as ${name} of ${fileKey(this.#idOf(dir))}, which it is not since ${cell.history[committed]?.at}`);
    return inode;
  }

  async #inDirectory(work: (dir: KernelInode, name: string | null) => Promise<void>, how: WalkHow = {}): Promise<void> {
    const { kernel } = this.#node;
    const name = this.#world.random() < 0.5 ? null : this.#world.pick(DIRECTORIES);
    const found = name === null ? null : await this.#walk(kernel.root, name, how);
    if (found === null) return await work(kernel.root, null);
    try {
      if (found.attr.isDirectory) await work(found, name);
    } finally {
      kernel.leave(found);
    }
  }

  async #withFile(dir: KernelInode, name: string, work: (file: KernelInode) => Promise<void>, how: WalkHow = {}): Promise<void> {
    const inode = await this.#walk(dir, name, how);
    if (inode === null) return;
    try {
      await work(inode);
    } finally {
      this.#node.kernel.leave(inode);
    }
  }

  async #attributes(inode: KernelInode): Promise<void> {
    const id = this.#idOf(inode);
    const { committed } = this.#world.inode(id);
    const { version, ino } = await this.#thread.stat(inode);
    if (ino !== id.ino) this.#wrong(`stat of ${fileKey(id)} gave number ${ino}`);
    if (version < committed) this.#wrong(`stat of ${fileKey(id)} gave version ${version}, and it has ${committed} since long`);
  }

  async #stat(dir: KernelInode, name: string, how: WalkHow = {}): Promise<void> {
    if (this.#world.random() < 0.15) return await this.#attributes(dir);
    await this.#withFile(dir, name, (inode) => this.#attributes(inode), how);
    if (this.#world.random() < 0.8) return;
    await this.#withFile(dir, name, async (inode) => (inode.attr.isDirectory ? undefined : await this.#thread.open(inode)), how);
  }

  // --- changes

  async #change(): Promise<void> {
    const luck = this.#world.random();
    const { root } = this.#node.kernel;
    const thread = this.#thread;
    const name = this.#world.pick(FILES);
    if (luck < 0.08) return await thread.retried(() => thread.make(root, this.#world.pick(DIRECTORIES), true));
    if (luck < 0.14) return await this.#removeAll(this.#world.pick(DIRECTORIES));
    await this.#inDirectory(async (dir) => {
      if (luck < 0.45) await thread.retried(() => thread.make(dir, name, false));
      else if (luck < 0.65) await thread.remove(dir, name, false);
      else if (luck < 0.75) await this.#withFile(dir, name, (file) => thread.change(file));
      else await this.#inDirectory((to) => (luck < 0.87 ? this.#link(dir, name, to) : this.#rename(dir, name, to)));
    });
  }

  async #link(dir: KernelInode, name: string, to: KernelInode): Promise<void> {
    await this.#withFile(dir, name, async (file) => {
      if (!file.attr.isDirectory) await this.#thread.link(file, to, this.#world.pick(FILES));
    });
  }

  async #rename(dir: KernelInode, name: string, to: KernelInode): Promise<void> {
    const flags = this.#world.random() < 0.3 ? RENAME_EXCHANGE : 0;
    const newName = this.#world.pick(FILES);
    if (dir !== to || name !== newName) await this.#thread.rename(dir, to, [name, newName], flags);
  }

  /** As rm -r does. */
  async #removeAll(name: string): Promise<void> {
    const { root, ...kernel } = { root: this.#node.kernel.root, leave: (inode: KernelInode) => this.#node.kernel.leave(inode) };
    const dir = await this.#walk(root, name);
    if (dir === null) return;
    try {
      await this.#listed(dir, async (open) => {
        for (;;) {
          const some = await this.#getdents(open);
          if (some.length === 0) return;
          for (const { name: child } of some) {
            if (isDots(child)) continue;
            await this.#thread.remove(dir, child, false).catch((error: unknown) => this.#unless(error, E.ENOENT));
          }
        }
      });
      await this.#thread.remove(root, name, true);
      this.#world.count("removedDirectories");
    } finally {
      kernel.leave(dir);
    }
  }

  #unless(error: unknown, errno: number): void {
    if (!(error instanceof Errno) || error.errno !== errno) throw error;
  }

  // --- listings

  async #listed(dir: KernelInode, work: (open: OpenDirectory) => Promise<void>): Promise<void> {
    const open = await this.#thread.opendir(dir);
    try {
      await work(open);
    } finally {
      this.#thread.closedir(open);
    }
  }

  async #list(): Promise<void> {
    await this.#inDirectory(async (dir) => {
      const begin = this.#world.now();
      await this.#listed(dir, async (open) => {
        await this.#pass(open, begin);
        while (this.#world.random() < 0.15) {
          // rewinddir(3)
          const again = this.#world.now();
          open.position = 0n;
          this.#world.count("rewinds");
          await this.#pass(open, again);
        }
      });
    });
  }

  /** To the end; and once more from the middle, by telldir(3) and seekdir(3). */
  async #pass(open: OpenDirectory, begin: number): Promise<void> {
    const id = this.#idOf(open.inode);
    const got: Listed[] = [];
    let told: { readonly position: bigint; readonly before: number } | null = null;
    for (;;) {
      if (told === null && this.#world.random() < 0.1) told = { position: open.position, before: got.length };
      const some = await this.#getdents(open);
      if (some.length === 0) break;
      got.push(...some);
      await this.#lookAt(open.inode, some);
    }
    this.#check(id, begin, got, []);
    this.#world.count("passes");
    if (told === null || this.#world.random() < 0.5) return;
    open.position = told.position;
    const rest: Listed[] = [];
    for (let some = await this.#getdents(open); some.length > 0; some = await this.#getdents(open)) rest.push(...some);
    this.#check(id, begin, rest, got.slice(0, told.before));
    this.#world.count("seeks");
  }

  /** As ls -l and find do. */
  async #lookAt(dir: KernelInode, some: readonly Listed[]): Promise<void> {
    for (const { name } of some) {
      if (isDots(name) || this.#world.random() < 0.7) continue;
      await this.#thread.retried((how) => this.#stat(dir, name, how)).catch((error: unknown) => this.#unless(error, E.ENOENT));
    }
  }

  /** None: this is the end. */
  async #getdents(open: OpenDirectory): Promise<Listed[]> {
    const id = this.#idOf(open.inode);
    const begin = this.#world.now();
    let some: Listed[];
    try {
      some = await this.#thread.getdents(open, 1 + this.#world.below(20), this.#world.pick(LISTING_BYTES));
    } catch (error) {
      this.#unless(error, E.ENOENT);
      if (this.#world.inode(id).links > 0) this.#wrong(`a listing of ${fileKey(id)} gave ENOENT`);
      return [];
    }
    const end = this.#world.now();
    for (const listed of some) this.#checkEntry(id, listed, begin, end);
    return some;
  }

  #checkEntry(directory: FileId, { name, ino, type }: Listed, begin: number, end: number): void {
    if (isDots(name)) {
      if (ino !== (name === "." ? directory : this.#world.root).ino) this.#wrong(`${name} of ${fileKey(directory)} was listed as ${ino}`);
      return;
    }
    const had = this.#world.between(this.#world.cell(directory, name), begin, end);
    const isTrue = had.some((id) => id !== null && id.ino === ino && this.#world.typeOf(id) === type);
    const were = had.map((id) => (id === null ? "nothing" : fileKey(id))).join(", ");
    if (!isTrue) this.#wrong(`${name} of ${fileKey(directory)} was listed as ${ino} (type ${type}), and was ${were}`);
  }

  /** `before`: what had come before the place at which this began. */
  #check(directory: FileId, begin: number, got: readonly Listed[], before: readonly Listed[]): void {
    const end = this.#world.now();
    const wrong = (name: string, text: string): void =>
      this.#wrong(`${name} of ${fileKey(directory)}, listed from ${begin} to ${end}, ${text}: ${got.map((one) => one.name).join(" ")}`);
    const times = (some: readonly Listed[], name: string): number => some.filter((one) => one.name === name).length;
    for (const [name, cell] of this.#world.inode(directory).names) {
      const had = this.#world.between(cell, begin, end);
      const count = times(got, name);
      const isBefore = times(before, name) > 0;
      const comings = had.filter((id, at) => id !== null && had[at - 1] === null).length;
      if (had.every((id) => id !== null) && !isBefore && count !== 1) wrong(name, `was there all the time, and came ${count} times`);
      if (had.every((id) => id === null) && count > 0) wrong(name, "was never there");
      if (count > comings + (isBefore ? 0 : 1)) wrong(name, `came ${count} times, and was made ${comings} times`);
    }
    if (this.#world.inode(directory).links === 0) return;
    for (const dots of [".", ".."]) if (times(before, dots) + times(got, dots) !== 1) wrong(dots, "is not there once");
  }
}
