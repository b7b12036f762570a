/** What programs of the model of shells (shell-model.ts) do, by the kernel of their node: with its locks, and by what it believes. */
import type { FileId } from "../../../overlay/lower/lower.ts";
import type { KernelInode } from "./shell-model-kernel.ts";
import type { Answered, ModelNode } from "./shell-model-node.ts";
import type { ModelWorld } from "./shell-model-world.ts";

const NAMES = ["a", "b"];

export class ModelProgram {
  readonly #world: ModelWorld;
  readonly #node: ModelNode;
  readonly #pid: number;

  constructor(world: ModelWorld, node: ModelNode, pid: number) {
    this.#world = world;
    this.#node = node;
    this.#pid = pid;
  }

  #pick<T>(some: readonly T[]): T {
    return some[Math.floor(this.#world.random() * some.length)] as T;
  }

  #key(dir: KernelInode, name: string): string {
    return `${dir.fuseNodeid} ${name}`;
  }

  /** A LOOKUP's answer: what the kernel then has of the child; it is in use. */
  #install(answer: Answered, asked: ReturnType<ModelNode["kernel"]["asks"]>): KernelInode | null {
    const { kernel } = this.#node;
    if (answer.entry === null) return null;
    const inode = kernel.install(answer.entry, asked);
    inode.users += 1;
    return inode;
  }

  /** The child, in use; null: there is none. `locked`: the directory is. */
  async #walk(dir: KernelInode, name: string, locked = false): Promise<KernelInode | null> {
    const { kernel } = this.#node;
    const key = this.#key(dir, name);
    const floor = this.#world.cellOf(dir.id, name).committed;
    const seen = (version: number): void => {
      if (version < floor) this.#world.note(`node ${this.#node.id} saw version ${version} of ${key} after ${floor}`);
    };
    for (;;) {
      const dentry = kernel.dentries.get(key);
      if (dentry !== undefined && dentry.valid && dentry.epoch === kernel.epoch) {
        seen(dentry.version);
        if (dentry.child !== null) dentry.child.users += 1;
        return dentry.child;
      }
      const stands = dentry !== undefined && dentry.child !== null && dentry.epoch === kernel.epoch;
      if (!stands) kernel.dentries.delete(key);
      const asked = kernel.asks();
      if (stands) {
        const child = dentry.child;
        child.users += 1;
        let answer: Answered;
        try {
          answer = await this.#node.lookup(this.#pid, dir.fuseNodeid, name);
          await this.#world.turn();
        } finally {
          child.users -= 1;
        }
        const found = this.#install(answer, asked);
        if (found === child && kernel.dentries.get(key) === dentry) {
          // fuse_dentry_revalidate: without the directory's lock.
          Object.assign(dentry, { valid: answer.entryValid, version: answer.version });
          seen(answer.version);
          return child;
        }
        if (found !== null) found.users -= 1;
        if (found !== child && kernel.dentries.get(key) === dentry) kernel.dentries.delete(key);
        continue;
      }
      if (!locked) await dir.lock();
      try {
        // Somebody else has looked meanwhile.
        if (!locked && kernel.dentries.has(key)) continue;
        const answer = await this.#node.lookup(this.#pid, dir.fuseNodeid, name);
        await this.#world.turn();
        const child = this.#install(answer, asked);
        if (child !== null || answer.entryValid)
          kernel.dentries.set(key, { child, version: answer.version, valid: answer.entryValid, epoch: asked.epoch });
        seen(answer.version);
        return child;
      } finally {
        if (!locked) dir.unlock();
      }
    }
  }

  #root(): KernelInode {
    return this.#node.kernel.inodes.get(1) as KernelInode;
  }

  /** The root, or a directory below it; in use. */
  async #directory(): Promise<KernelInode> {
    const root = this.#root();
    root.users += 1;
    if (this.#world.random() < 0.6) return root;
    const found = await this.#walk(root, "d");
    if (found === null || found.kind !== "directory") {
      if (found !== null) found.users -= 1;
      return root;
    }
    root.users -= 1;
    return found;
  }

  async #stat(inode: KernelInode): Promise<void> {
    const { kernel } = this.#node;
    const { committed } = this.#world.file(inode.id);
    const seen = (attr: number): void => {
      if (attr < committed) this.#world.note(`node ${this.#node.id} saw attributes ${attr} of ${inode.id.ino} after ${committed}`);
    };
    if (inode.attr !== null) return seen(inode.attr);
    const asked = kernel.asks();
    const { attr, valid } = await this.#node.getattr(this.#pid, inode.fuseNodeid);
    await this.#world.turn();
    kernel.takeAttr(inode, attr, valid, asked);
    seen(attr);
  }

  async #read(inode: KernelInode): Promise<void> {
    const { committed } = this.#world.file(inode.id);
    const seen = (page: number): void => {
      if (page < committed) this.#world.note(`node ${this.#node.id} read ${page} of ${inode.id.ino} after ${committed}`);
    };
    if (inode.page !== null && !inode.isHeld) return seen(inode.page);
    await inode.lock();
    try {
      if (inode.page === null) await this.#node.read(this.#pid, inode);
      await this.#world.turn();
      if (inode.page !== null) seen(inode.page);
    } finally {
      inode.unlock();
    }
  }

  #commit(id: FileId, version: number): void {
    try {
      const file = this.#world.file(id);
      file.committed = Math.max(file.committed, version);
    } catch {
      // It was removed meanwhile.
    }
  }

  async #write(inode: KernelInode): Promise<void> {
    const { kernel } = this.#node;
    const access = await this.#node.openForWrite(this.#pid, inode);
    try {
      for (let left = Math.floor(this.#world.random() * 3); left > 0; left -= 1) {
        let made: number;
        if (access === "cached") {
          await inode.lock();
          try {
            made = await this.#node.write(this.#pid, inode, true);
            await this.#world.turn();
          } finally {
            kernel.outdate(inode);
            inode.unlock();
          }
        } else {
          if (!inode.isHeld) inode.page = null;
          made = await this.#node.write(this.#pid, inode, false);
          await this.#world.turn();
          kernel.outdate(inode);
        }
        this.#commit(inode.id, made);
      }
    } finally {
      await this.#node.close(this.#pid, inode, access);
    }
  }

  async #make(dir: KernelInode, name: string, kind: "file" | "directory"): Promise<void> {
    const { kernel } = this.#node;
    await dir.lock();
    try {
      const there = await this.#walk(dir, name, true);
      if (there !== null) {
        there.users -= 1;
        return;
      }
      const asked = kernel.asks();
      const answer = await this.#node.make(this.#pid, dir.fuseNodeid, name, kind);
      await this.#world.turn();
      kernel.outdate(dir);
      if (answer === null) {
        kernel.dentries.delete(this.#key(dir, name));
        return;
      }
      const child = this.#install(answer, asked) as KernelInode;
      kernel.dentries.set(this.#key(dir, name), { child, version: answer.version, valid: answer.entryValid, epoch: asked.epoch });
      child.users -= 1;
      this.#commitName(dir, name, answer.version);
    } finally {
      dir.unlock();
    }
  }

  #commitName(dir: KernelInode, name: string, version: number): void {
    const cell = this.#world.cellOf(dir.id, name);
    cell.committed = Math.max(cell.committed, version);
  }

  async #remove(dir: KernelInode, name: string): Promise<void> {
    const { kernel } = this.#node;
    await dir.lock();
    try {
      const victim = await this.#walk(dir, name, true);
      if (victim === null) return;
      try {
        const isDirectory = victim.kind === "directory";
        if (isDirectory) await victim.lock();
        const version = await this.#node.remove(this.#pid, dir.fuseNodeid, name, victim).finally(() => {
          if (isDirectory) victim.unlock();
        });
        await this.#world.turn();
        kernel.outdate(dir);
        kernel.outdate(victim);
        kernel.dentries.delete(this.#key(dir, name));
        if (version !== null) this.#commitName(dir, name, version);
      } finally {
        victim.users -= 1;
      }
    } finally {
      dir.unlock();
    }
  }

  async #rename(from: KernelInode, to: KernelInode, names: readonly [string, string]): Promise<void> {
    const { kernel } = this.#node;
    const dirs = [...new Set([from, to])].toSorted((a, b) => a.fuseNodeid - b.fuseNodeid);
    for (const dir of dirs) await dir.lock();
    try {
      const moved = await this.#walk(from, names[0], true);
      if (moved === null) return;
      const replaced = await this.#walk(to, names[1], true);
      try {
        if (moved.kind !== "file" || moved === replaced || replaced?.kind === "directory") return;
        const done = await this.#node.rename(this.#pid, [from.fuseNodeid, to.fuseNodeid], names, moved, replaced);
        await this.#world.turn();
        for (const inode of [from, to, moved, ...(replaced === null ? [] : [replaced])]) kernel.outdate(inode);
        const [old, now] = [this.#key(from, names[0]), this.#key(to, names[1])];
        const dentry = kernel.dentries.get(old);
        kernel.dentries.delete(old);
        kernel.dentries.delete(now);
        if (done === null) return;
        if (dentry !== undefined) kernel.dentries.set(now, { ...dentry, version: done[1] });
        this.#commitName(from, names[0], done[0]);
        this.#commitName(to, names[1], done[1]);
      } finally {
        moved.users -= 1;
        if (replaced !== null) replaced.users -= 1;
      }
    } finally {
      for (const dir of dirs) dir.unlock();
    }
  }

  async #byNumber(): Promise<void> {
    const ino = 10 + Math.floor(this.#world.random() * 8);
    const floor = this.#world.byIno(ino);
    const [id, committed] = [floor?.id, floor?.committed ?? 0];
    const seen = await this.#node.byNumber(this.#pid, ino);
    if (seen === null || seen.id !== id) return;
    if (seen.attr < committed) this.#world.note(`node ${this.#node.id} found ${seen.attr} of ${ino} after ${committed}`);
  }

  /** The kernel is short of memory. */
  #shrink(): void {
    const { kernel } = this.#node;
    const inode = this.#pick([...kernel.inodes.values()]);
    if (inode.users > 0 || inode.isHeld) return;
    const below = `${inode.fuseNodeid} `;
    for (const [key, { child }] of kernel.dentries) if (key.startsWith(below) && child !== null) return;
    for (const [key, { child }] of kernel.dentries) if (child === inode || key.startsWith(below)) kernel.dentries.delete(key);
    kernel.inodes.delete(inode.fuseNodeid);
    void this.#forget(inode);
  }

  async #forget({ fuseNodeid, nlookup }: KernelInode): Promise<void> {
    for (let left = Math.floor(this.#world.random() * 12); left > 0; left -= 1) await this.#world.turn();
    this.#node.forget(fuseNodeid, nlookup);
  }

  async #withFile(dir: KernelInode, work: (inode: KernelInode) => Promise<void>): Promise<void> {
    const inode = await this.#walk(dir, this.#pick(NAMES));
    if (inode === null) return;
    try {
      if (inode.kind === "file") await work(inode);
    } finally {
      inode.users -= 1;
    }
  }

  /** One operation. */
  async run(): Promise<void> {
    const dir = await this.#directory();
    try {
      const luck = this.#world.random();
      if (luck < 0.2) await this.#withFile(dir, (inode) => this.#stat(inode));
      else if (luck < 0.26) await this.#stat(dir);
      else if (luck < 0.42) await this.#withFile(dir, (inode) => this.#read(inode));
      else if (luck < 0.56) await this.#withFile(dir, (inode) => this.#write(inode));
      else if (luck < 0.72) await this.#make(dir, this.#pick(NAMES), "file");
      else if (luck < 0.75) await this.#make(this.#root(), "d", "directory");
      else if (luck < 0.83) await this.#remove(dir, this.#pick(NAMES));
      else if (luck < 0.845) await this.#remove(this.#root(), "d");
      else if (luck < 0.9) await this.#renameSome(dir);
      else if (luck < 0.93) await this.#byNumber();
      else this.#shrink();
    } finally {
      dir.users -= 1;
    }
  }

  async #renameSome(dir: KernelInode): Promise<void> {
    const to = await this.#directory();
    try {
      await this.#rename(dir, to, [this.#pick(NAMES), this.#pick(NAMES)]);
    } finally {
      to.users -= 1;
    }
  }
}
