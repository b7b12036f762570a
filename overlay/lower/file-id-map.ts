/**
 * What there is of inodes, each once, by identity. It is found by the inode's number: fileKey makes a string, which takes longer than all else here. A file
 * system has one inode of a number at a time, but what is known of an earlier one may outlive it for a moment.
 */
import { compareFileIds, type FileId, fileKey } from "./lower.ts";

export class FileIdMap<V extends { readonly id: FileId }> {
  readonly #byIno = new Map<number, V>();
  /** Those whose number one of another generation has there. */
  readonly #others = new Map<string, V>();

  get size(): number {
    return this.#byIno.size + this.#others.size;
  }

  get(id: FileId): V | undefined {
    const found = this.#byIno.get(id.ino);
    if (found?.id.generation === id.generation) return found;
    return this.#others.size === 0 ? undefined : this.#others.get(fileKey(id));
  }

  /** There is none of its identity. */
  add(value: V): void {
    const { id } = value;
    if (this.#byIno.has(id.ino)) this.#others.set(fileKey(id), value);
    else this.#byIno.set(id.ino, value);
  }

  /** Only if it is that one. */
  delete(value: V): void {
    const { id } = value;
    if (this.#byIno.get(id.ino) === value) this.#byIno.delete(id.ino);
    else if (this.#others.size > 0 && this.#others.get(fileKey(id)) === value) this.#others.delete(fileKey(id));
  }

  clear(): void {
    this.#byIno.clear();
    this.#others.clear();
  }

  *values(): IterableIterator<V> {
    yield* this.#byIno.values();
    yield* this.#others.values();
  }
}

/** fileKey for who mostly asks for that of one inode many times in a row. */
export class LastKey {
  #id: FileId = { ino: 0, generation: 0 };
  #key = fileKey(this.#id);

  of(id: FileId): string {
    if (compareFileIds(id, this.#id) !== 0) {
      this.#id = id;
      this.#key = fileKey(id);
    }
    return this.#key;
  }
}
