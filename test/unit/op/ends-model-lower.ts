/** The lower of the model of ends (ends-model.ts), as a node has it. */
import { andThen, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Attr, AttrChange, FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from "../../../overlay/op/linux.ts";
import type { EndsWorld } from "./ends-model-world.ts";
import { KillModelRest } from "./kill-model-rest.ts";
import { attrOf } from "./scripted-lower.ts";

export const ROOT: FileId = { ino: 2, generation: 0 };
export const FILE: FileId = { ino: 20, generation: 1 };

export class EndsLower extends KillModelRest {
  readonly root: FileId = ROOT;
  readonly #world: EndsWorld;
  readonly #node: number;

  constructor(world: EndsWorld, node: number) {
    super();
    this.#world = world;
    this.#node = node;
  }

  #attr(): Attr {
    return attrOf(FILE, { mode: 0o100644, size: this.#world.bytes.length, mtimeSec: this.#world.changes, mtimeNsec: 0 });
  }
  getattr(id: FileId): MaybePromise<Attr> {
    if (id.ino === ROOT.ino) return attrOf(ROOT, {});
    return this.#world.random() < 0.4 ? this.#world.turn().then(() => this.#attr()) : this.#attr();
  }
  ownership(id: FileId): MaybePromise<Attr> {
    return this.getattr(id);
  }
  lookup(): MaybePromise<{ id: FileId; attr: Attr }> {
    return andThen(this.getattr(FILE), (attr) => ({ id: FILE, attr }));
  }
  read(_handle: LowerHandle, offset: number, bytes: number): MaybePromise<Uint8Array> {
    const now = (): Uint8Array => Buffer.from(this.#world.bytes.subarray(offset, offset + bytes));
    return this.#world.random() < 0.5 ? this.#world.turn().then(now) : now();
  }
  async write(_handle: LowerHandle, data: Uint8Array, offset: number, append: boolean): Promise<{ offset: number; bytes: number }> {
    const copy = Buffer.from(data);
    await this.#world.maybeTurn();
    const at = append ? this.#world.bytes.length : offset;
    const stored = this.#world.writeBacks.get(data.buffer);
    if (stored !== undefined) this.#world.checkWriteBack(this.#node, stored, at, copy);
    else this.#world.makes(this.#node, at, copy.length);
    const bytes = Buffer.alloc(Math.max(this.#world.bytes.length, at + copy.length));
    this.#world.bytes.copy(bytes);
    copy.copy(bytes, at);
    this.#world.set(this.#node, bytes);
    this.#world.say(`lower: write ${at}+${copy.length} (asked at ${offset}, append ${append}), size ${bytes.length}`);
    await this.#world.maybeTurn();
    return { offset: at, bytes: copy.length };
  }
  async setattr(_id: FileId, { size }: AttrChange): Promise<Attr> {
    await this.#world.maybeTurn();
    if (size !== undefined) {
      const bytes = Buffer.alloc(size);
      this.#world.bytes.copy(bytes);
      this.#world.set(this.#node, bytes);
      this.#world.say(`lower: truncate ${size}`);
    }
    const attr = this.#attr();
    await this.#world.maybeTurn();
    return attr;
  }
  async fallocate(_handle: LowerHandle, mode: number, offset: number, length: number): Promise<void> {
    await this.#world.maybeTurn();
    const old = this.#world.bytes;
    const end = (mode & FALLOC_FL_KEEP_SIZE) === 0 ? Math.max(old.length, offset + length) : old.length;
    const bytes = Buffer.alloc(end);
    old.copy(bytes);
    // fs/ext4/extents.c, ext4_zero_range: what was zeroed before there was no more room stays so.
    const isFull = this.#world.random() < 0.1;
    const zeroed = isFull ? Math.floor(length / 2) : length;
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0 && offset < end) bytes.fill(0, offset, Math.min(end, offset + zeroed));
    this.#world.makes(this.#node, offset, length);
    this.#world.set(this.#node, bytes);
    this.#world.say(`lower: fallocate ${mode} ${offset}+${zeroed}, size ${end}`);
    await this.#world.maybeTurn();
    if (isFull) throw errnoError(E.ENOSPC);
  }
  async copyFileRange(_from: LowerHandle, offset: number, _to: LowerHandle, outOffset: number, length: number): Promise<number> {
    await this.#world.maybeTurn();
    const old = this.#world.bytes;
    const data = old.subarray(offset, offset + length);
    if (data.length > 0) {
      const bytes = Buffer.alloc(Math.max(old.length, outOffset + data.length));
      old.copy(bytes);
      data.copy(bytes, outOffset);
      this.#world.makes(this.#node, outOffset, data.length);
      this.#world.set(this.#node, bytes);
      this.#world.say(`lower: copy ${data.length} of ${length} from ${offset} to ${outOffset}, size ${bytes.length}`);
    }
    await this.#world.maybeTurn();
    return data.length;
  }
  open(): MaybePromise<LowerHandle> {
    return 1 as LowerHandle;
  }
  mayWriteBehind(): boolean {
    return false;
  }
  writtenBehind(): void {
    // Nothing is.
  }
  setattrBehind(): null {
    return null;
  }
  madeFor(): void {
    // Nobody dies.
  }
  getxattr(): never {
    throw errnoError(E.ENODATA);
  }
}
