/** The state as one call sees and changes it: by whom, through which mount, at which place of the sequence. */
import { type Handle, type Ino, type Inode, type Kernel, type Kind, newInode, type State, type Time, type User } from "./state.ts";
import type { Rule } from "./rule.ts";

export interface Caller {
  readonly user: User;
  readonly mount: number;
  readonly umask: number;
  /** Its place in the sequence: what "now" is. */
  readonly call: number;
}

export interface Machine {
  readonly kernel: Kernel;
  readonly kind: Kind;
}

/** What a call changes is put on top of the state before it, which stays as it was. */
export class World {
  readonly caller: Caller;
  readonly kernel: Kernel;
  readonly kind: Kind;
  readonly reached: Rule[] = [];
  readonly #before: State;
  #inodes: Map<Ino, Inode> | null = null;
  #handles: Map<string, Handle> | null = null;
  #nextIno: Ino;

  constructor(before: State, caller: Caller, machine: Machine) {
    this.#before = before;
    this.caller = caller;
    this.kernel = machine.kernel;
    this.kind = machine.kind;
    this.#nextIno = before.nextIno;
  }

  get now(): Time {
    return { call: this.caller.call };
  }

  inode(ino: Ino): Inode {
    const found = (this.#inodes ?? this.#before.inodes).get(ino);
    if (found === undefined) throw new Error(`the model has no inode ${ino}`);
    return found;
  }

  change(ino: Ino, changes: Partial<Inode>): void {
    this.#inodes ??= new Map(this.#before.inodes);
    this.#inodes.set(ino, { ...this.inode(ino), ...changes });
  }

  make(given: Omit<Parameters<typeof newInode>[0], "ino">): Inode {
    const inode = newInode({ ...given, ino: this.#nextIno++ }, this.now);
    this.#inodes ??= new Map(this.#before.inodes);
    this.#inodes.set(inode.ino, inode);
    return inode;
  }

  handle(slot: number): Handle | null {
    return (this.#handles ?? this.#before.handles).get(`${this.caller.mount}:${slot}`) ?? null;
  }

  /** Null closes it. */
  setHandle(slot: number, handle: Handle | null): void {
    this.#handles ??= new Map(this.#before.handles);
    const before = this.handle(slot);
    const key = `${this.caller.mount}:${slot}`;
    if (handle === null) this.#handles.delete(key);
    else this.#handles.set(key, handle);
    if (before !== null) this.forget(before.ino);
  }

  /** An inode without names that nobody has open is gone. */
  forget(ino: Ino): void {
    const inode = this.inode(ino);
    if (inode.nlink > 0 || this.opens(ino).length > 0) return;
    this.#inodes ??= new Map(this.#before.inodes);
    this.#inodes.delete(ino);
  }

  opens(ino: Ino): Handle[] {
    return [...(this.#handles ?? this.#before.handles).values()].filter((handle) => handle.ino === ino);
  }

  /** A rule about what holds after the call. */
  reach(rule: Rule): void {
    this.reached.push(rule);
  }

  after(): State {
    return { inodes: this.#inodes ?? this.#before.inodes, handles: this.#handles ?? this.#before.handles, nextIno: this.#nextIno };
  }
}
