/** What every lower does, local or remote, on any file system; compared with what node:fs sees directly. */
import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { E } from "../../dlmd/base/errno.ts";
import { bytes, errnoOf, longestFile, LowerBench, RDWR, root } from "./lower-bench.ts";
import { byNumberCompliance } from "./lower-by-number.ts";
import { filesCompliance } from "./lower-files.ts";
import type { Fixture } from "./lower-fixture.ts";
import { namesCompliance } from "./lower-names.ts";

export function lowerCompliance(title: string, make: () => Promise<Fixture>): void {
  // oxlint-disable-next-line vitest/valid-title -- the title comes with the lower
  describe(title, () => {
    const bench = new LowerBench();
    beforeAll(async () => bench.begin(await make()));
    afterAll(async () => await bench.end());
    filesCompliance(bench);
    namesCompliance(bench);
    byNumberCompliance(bench);
  });
}

/** Until there is room for nothing more. */
function fill(file: string, data: Buffer): void {
  const fd = fs.openSync(file, "w");
  try {
    for (let bytesWanted = data.length; bytesWanted >= 512; ) {
      try {
        fs.writeSync(fd, data, 0, bytesWanted);
        fs.fsyncSync(fd);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        bytesWanted /= 2;
      }
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** A full disk is an answer, not an end. */
export function fullDiskCompliance(title: string, make: () => Promise<Fixture>): void {
  it(`${title}: ENOSPC, and everything else goes on`, async () => {
    const fixture = await make();
    try {
      const { lower } = fixture;
      const { entry, handle } = await lower.create(lower.root, bytes("big"), RDWR, 0o644, root);
      const data = Buffer.alloc(1024 * 1024, 1);
      let offset = 0;
      let errno = 0;
      while (errno === 0) {
        errno = await errnoOf(async () => {
          offset += (await lower.write(handle, data, offset, false)).bytes;
        });
      }
      expect(errno).toBe(E.ENOSPC);
      expect(await errnoOf(() => lower.fallocate(handle, 0, 0, 1024 ** 3))).toBe(E.ENOSPC);
      expect((await lower.read(handle, 0, 4096)).byteLength).toBe(4096);
      expect((await lower.getattr(entry.id)).size).toBeGreaterThan(0);
      await lower.unlink(lower.root, bytes("big"), entry.id);
      lower.close(handle);
      // The blocks are free once the close, which nobody waits for, is done.
      for (let round = 0; (await lower.statfs()).bfree * 4096 < 2 * data.length && round < 1000; round += 1) await lower.syncfs();
      const full = await lower.create(lower.root, bytes("full"), RDWR, 0o644, root);
      const small = await lower.create(lower.root, bytes("small"), RDWR, 0o644, root);
      expect(await lower.write(small.handle, data, 0, false)).toEqual({ offset: 0, bytes: data.length });
      await lower.fsync(small.handle, false);
      lower.close(small.handle);

      // The blocks of what was removed just now are free for whoever asks for them.
      fill(path.join(fixture.path, "again"), data);
      expect(await errnoOf(() => lower.write(full.handle, data, 0, false))).toBe(E.ENOSPC);
      const again = await lower.lookup(lower.root, bytes("again"));
      await lower.unlink(lower.root, bytes("again"), again.id);
      expect(await lower.write(full.handle, data, 0, false)).toEqual({ offset: 0, bytes: data.length });
      lower.close(full.handle);
    } finally {
      await fixture.release();
    }
  });
}

/** Where not every file may be as long as the file system's longest. */
export function shortFilesCompliance(title: string, make: () => Promise<Fixture>, longest: number): void {
  it(`${title}: a file may have ${longest} bytes`, async () => {
    const fixture = await make();
    try {
      const { lower } = fixture;
      const { handle } = await lower.create(lower.root, bytes("short"), RDWR, 0o644, root);
      expect(await longestFile(lower, handle)).toBe(longest);
      expect(await errnoOf(() => lower.write(handle, bytes("y"), longest, false))).toBe(E.EFBIG);
      expect((await lower.write(handle, bytes("y"), longest - 1, false)).bytes).toBe(1);
      lower.close(handle);
    } finally {
      await fixture.release();
    }
  });
}

export function readOnlyCompliance(title: string, make: () => Promise<Fixture>): void {
  it(`${title}: read-only is EROFS`, async () => {
    const fixture = await make();
    try {
      const { lower } = fixture;
      const { id } = await lower.lookup(lower.root, bytes("f"));
      const handle = await lower.open(id, 0);
      expect(Buffer.from(await lower.read(handle, 0, 10)).toString()).toBe("content");
      lower.close(handle);
      expect(await errnoOf(() => lower.open(id, RDWR))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.create(lower.root, bytes("g"), RDWR, 0o644, root))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.mkdir(lower.root, bytes("d"), 0o755, root))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.unlink(lower.root, bytes("f"), id))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.setattr(id, { mode: 0o600 }, null))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.setattr(id, { size: 0 }, null))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.setxattr(id, bytes("user.x"), bytes("x"), 0))).toBe(E.EROFS);
    } finally {
      await fixture.release();
    }
  });
}
