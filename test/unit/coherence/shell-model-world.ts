/** What the nodes of the model of shells (shell-model.ts) share: the lower, the moments at which things happen, and what was found to be wrong. */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import type { Inode, InodeKind } from "../../../overlay/coherence/cover.ts";
import { type FileId, fileKey } from "../../../overlay/lower/lower.ts";
import { ModelSteps } from "./model-steps.ts";
import type { ModelNode } from "./shell-model-node.ts";

export const MODE_OF: Readonly<Record<InodeKind, number>> = { file: 0o100644, directory: 0o040755, other: 0o120777 };

/** A name of a directory. */
export interface Cell {
  id: FileId | null;
  version: number;
  /** A program was told that it is that version's, or a later one's. */
  committed: number;
}

export interface LowerFile {
  readonly id: FileId;
  readonly kind: InodeKind;
  version: number;
  committed: number;
  links: number;
}

export class ModelWorld {
  readonly root: FileId = { ino: 2, generation: 0 };
  readonly steps: ModelSteps;
  readonly nodes: ModelNode[] = [];
  readonly random: () => number;
  readonly now: () => number;
  readonly counts = { born: 0, notBorn: 0, implied: 0, killed: 0, reused: 0, shared: 0, rested: 0, operations: 0, unfinished: 0 };
  violation: string | null = null;
  readonly opensMade: boolean;
  readonly #killed: number;
  readonly #files = new Map<string, LowerFile>();
  readonly #cells = new Map<string, Cell>();
  readonly #freeInos: FileId[] = [];
  #nextIno = 10;

  /** `opensMade`: files are open for a while when they are made. */
  constructor(random: () => number, now: () => number, killed: number, opensMade: boolean) {
    this.opensMade = opensMade;
    this.random = random;
    this.now = now;
    this.#killed = killed;
    this.steps = new ModelSteps(random);
    this.#files.set(fileKey(this.root), { id: this.root, kind: "directory", version: 1, committed: 1, links: 2 });
  }

  note(text: string): void {
    this.violation ??= text;
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.steps.free.push(resolve));
  }

  async maybeTurn(): Promise<void> {
    if (this.random() < 0.5) await this.turn();
  }

  async someTurns(): Promise<void> {
    for (let left = Math.floor(this.random() ** 3 * 20); left > 0; left -= 1) await this.turn();
  }

  /** Some callers are killed while they wait. */
  waiter(): Waiter {
    const state: { interrupted: boolean; onInterrupt: (() => void) | null } = { interrupted: false, onInterrupt: null };
    if (this.random() < this.#killed) void this.#kill(state, Math.floor(this.random() * 25));
    return state;
  }

  async #kill(state: { interrupted: boolean; onInterrupt: (() => void) | null }, turns: number): Promise<void> {
    for (let left = turns; left > 0; left -= 1) await this.turn();
    state.interrupted = true;
    if (state.onInterrupt !== null) this.counts.killed += 1;
    state.onInterrupt?.();
  }

  file(id: FileId): LowerFile {
    const file = this.#files.get(fileKey(id));
    if (file === undefined) throw errnoError(E.ESTALE);
    return file;
  }

  byIno(ino: number): LowerFile | undefined {
    for (const file of this.#files.values()) if (file.id.ino === ino) return file;
    return undefined;
  }

  linksOf(id: FileId): number {
    return this.#files.get(fileKey(id))?.links ?? 0;
  }

  cell({ id }: Inode, name: string): Cell {
    if (this.linksOf(id) === 0) throw errnoError(E.ESTALE);
    return this.cellOf(id, name);
  }

  cellOf(id: FileId, name: string): Cell {
    const key = `${fileKey(id)} ${name}`;
    const cell = this.#cells.get(key) ?? { id: null, version: 0, committed: 0 };
    this.#cells.set(key, cell);
    return cell;
  }

  change(id: FileId): number {
    const file = this.file(id);
    file.version += 1;
    return file.version;
  }

  make(
    dir: Inode,
    name: string,
    kind: "file" | "directory",
  ): { readonly id: FileId; readonly version: number; readonly cell: number } | null {
    const cell = this.cell(dir, name);
    if (cell.id !== null) return null;
    const old = this.random() < 0.7 ? this.#freeInos.pop() : undefined;
    if (old !== undefined) this.counts.reused += 1;
    else this.#nextIno += 1;
    const id = old === undefined ? { ino: this.#nextIno, generation: 1 } : { ino: old.ino, generation: old.generation + 1 };
    this.#files.set(fileKey(id), { id, kind, version: 1, committed: 1, links: kind === "directory" ? 2 : 1 });
    cell.id = id;
    cell.version += 1;
    this.change(dir.id);
    return { id, version: 1, cell: cell.version };
  }

  #unlinked(id: FileId): void {
    const file = this.file(id);
    file.links = file.kind === "directory" ? 0 : file.links - 1;
    file.version += 1;
    if (file.links > 0) return;
    this.#files.delete(fileKey(id));
    this.#freeInos.push(id);
  }

  #isEmpty(id: FileId): boolean {
    const prefix = `${fileKey(id)} `;
    for (const [key, cell] of this.#cells) if (key.startsWith(prefix) && cell.id !== null) return false;
    return true;
  }

  remove(dir: Inode, name: string, expected: FileId): number | null {
    const cell = this.cell(dir, name);
    if (cell.id === null || fileKey(cell.id) !== fileKey(expected) || !this.#isEmpty(expected)) return null;
    this.#unlinked(expected);
    cell.id = null;
    cell.version += 1;
    this.change(dir.id);
    return cell.version;
  }

  rename(
    [from, to]: readonly [Inode, Inode],
    [oldName, newName]: readonly [string, string],
    moved: FileId,
    replaced: FileId | null,
  ): readonly [number, number] | null {
    const [old, now] = [this.cell(from, oldName), this.cell(to, newName)];
    const same = (id: FileId | null, expected: FileId | null): boolean =>
      (id === null ? null : fileKey(id)) === (expected === null ? null : fileKey(expected));
    if (old === now || !same(old.id, moved) || !same(now.id, replaced)) return null;
    if (replaced !== null && !this.#isEmpty(replaced)) return null;
    if (replaced !== null) this.#unlinked(replaced);
    now.id = old.id;
    old.id = null;
    old.version += 1;
    now.version += 1;
    this.change(from.id);
    if (to !== from) this.change(to.id);
    this.change(moved);
    return [old.version, now.version];
  }
}
