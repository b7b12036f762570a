/** Test lab: what is known without asking, under locks as a test sets them. */
import type { Attr, FileId } from "../../../overlay/lower/lower.ts";
import { type Holds, KnownInodes } from "../../../overlay/lower/remote/known.ts";
import { attrOf } from "../op/scripted-lower.ts";

export const dir: FileId = { ino: 12, generation: 7 };
export const child: FileId = { ino: 13, generation: 1 };
export const bytes = (name: string): Buffer => Buffer.from(name, "latin1");
export const attr: Attr = attrOf(dir, { mode: 0o040755 });
export const childAttr: Attr = attrOf(child);

/** The locks of a node, as a test sets them: all inodes alike. */
export class Locks implements Holds {
  count = 3;
  held = 3;
  grants(): number {
    return this.count;
  }
  of(): number {
    return this.held;
  }
  /** It left, and came back. */
  comeAgain(): void {
    this.count += 1;
    this.held = this.count;
  }
}

export function create(keepsXattrs = true): { locks: Locks; known: KnownInodes } {
  const locks = new Locks();
  return { locks, known: new KnownInodes(locks, () => keepsXattrs) };
}
