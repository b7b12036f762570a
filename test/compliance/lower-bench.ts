/** What tests of a lower are made with: the lower, directories and files on it, and what node:fs sees of them. */
import fs from "node:fs";
import { expect } from "vitest";
import { E, Errno } from "../../dlmd/base/errno.ts";
import type { Attr, Caller, DirEntry, Entry, FileId, Listing, Lower, LowerHandle } from "../../overlay/lower/lower.ts";
import type { Fixture } from "./lower-fixture.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";

export const root: Caller = { uid: 0, gid: 0, umask: 0o022 };
export const nobody: Caller = { uid: 65_534, gid: 65_533, umask: 0o027 };
export const RDWR = 2;
const SEEK_SET = 0;
export const SEEK_CUR = 1;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
export const XFS = 0x58465342;
export const TMPFS = 0x0102_1994;
export const bytes = (text: string): Buffer => Buffer.from(text);

/** The errno that `call` ends with, thrown at once or later; 0 if it succeeds. */
export async function errnoOf(call: () => MaybePromise<unknown>): Promise<number> {
  try {
    await call();
    return 0;
  } catch (error) {
    if (error instanceof Errno) return error.errno;
    throw error;
  }
}

export class LowerBench {
  #fixture: Fixture | null = null;
  #count = 0;

  begin(fixture: Fixture): void {
    this.#fixture = fixture;
  }
  async end(): Promise<void> {
    await this.#fixture?.release();
  }
  get fixture(): Fixture {
    if (this.#fixture === null) throw new Error("the lower was not made");
    return this.#fixture;
  }
  get lower(): Lower {
    return this.fixture.lower;
  }

  /** A directory of its own for a test, and the path that node:fs has for it. */
  async place(): Promise<{ dir: FileId; path: string }> {
    this.#count += 1;
    const entry = await this.lower.mkdir(this.lower.root, bytes(`t${this.#count}`), 0o755, root);
    return { dir: entry.id, path: `${this.fixture.path}/t${this.#count}` };
  }
  async file(dir: FileId, name: string, content = "", mode = 0o644): Promise<{ entry: Entry; handle: LowerHandle }> {
    const made = await this.lower.create(dir, bytes(name), RDWR, mode, root);
    if (content !== "") await this.lower.write(made.handle, bytes(content), 0, false);
    return made;
  }
  async text(handle: LowerHandle, offset = 0, length = 65_536): Promise<string> {
    return Buffer.from(await this.lower.read(handle, offset, length)).toString("latin1");
  }
  async list(handle: LowerHandle, cookie: bigint, size: number, listing: Listing): Promise<DirEntry[]> {
    const all: DirEntry[] = [];
    for (let at = cookie; ; ) {
      const page = await this.lower.readdir(handle, at, size, listing);
      all.push(...page.entries);
      if (page.end) return all;
      at = page.entries.at(-1)?.cookie ?? at;
    }
  }
  /** It is kept for a moment after its removal, but no longer than the next syncfs; and nobody waits for a close, so the last one may still be under way. */
  async expectGone(id: FileId): Promise<void> {
    let errno = 0;
    for (let round = 0; round < 1000 && errno === 0; round += 1) {
      await this.lower.syncfs();
      errno = await errnoOf(() => this.lower.readlink(id));
      if (errno === E.EINVAL || errno === E.ENOENT) errno = 0;
    }
    if (errno !== E.ESTALE) throw new Error(`inode ${id.ino} should be gone: errno ${E.ESTALE} expected, found ${errno}`);
  }
}

/** Up to 2^53 - 1 bytes. */
export async function longestFile(lower: Lower, handle: LowerHandle): Promise<number> {
  let least = 0;
  let most = Number.MAX_SAFE_INTEGER;
  while (least < most) {
    const middle = least + Math.ceil((most - least) / 2);
    const errno = await errnoOf(() => lower.lseek(handle, middle, SEEK_SET));
    if (errno !== 0 && errno !== E.EINVAL) throw new Error(`lseek to ${middle}: errno ${errno}`);
    if (errno === 0) least = middle;
    else most = middle - 1;
  }
  return least;
}

export function expectSame(attr: Attr, path: string): void {
  const stat = fs.lstatSync(path, { bigint: true });
  expect(attr).toMatchObject({
    ino: Number(stat.ino),
    mode: Number(stat.mode),
    nlink: Number(stat.nlink),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: Number(stat.size),
    blocks: Number(stat.blocks),
  });
  expect(BigInt(attr.mtimeSec) * 1_000_000_000n + BigInt(attr.mtimeNsec)).toBe(stat.mtimeNs);
  expect(BigInt(attr.ctimeSec) * 1_000_000_000n + BigInt(attr.ctimeNsec)).toBe(stat.ctimeNs);
  expect(BigInt(attr.btimeSec) * 1_000_000_000n + BigInt(attr.btimeNsec)).toBe(stat.birthtimeNs);
  expect(BigInt(attr.atimeSec) * 1_000_000_000n + BigInt(attr.atimeNsec)).toBe(stat.atimeNs);
}
