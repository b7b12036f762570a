/** Where the journal of ext4 and the head of XFS's log are: the bytes of superblocks that mkfs made, and logs in every state. */
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import * as fc from "fast-check";
import { expect, it } from "vitest";
import { cycleOf, ext4JournalOffset, findLogHead, LOG_BLOCK_BYTES, xfsLog } from "../../../overlay/volume/log-head.ts";

function withImage(bytes: number, mkfs: readonly string[], use: (read: (offset: number, length: number) => Buffer) => void): void {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-log-"));
  const image = path.join(dir, "image");
  try {
    writeFileSync(image, "");
    truncateSync(image, bytes);
    execFileSync(mkfs[0] ?? "", [...mkfs.slice(1), image], { stdio: "pipe" });
    const fd = openSync(image, "r");
    try {
      use((offset, length) => {
        const part = Buffer.alloc(length);
        readSync(fd, part, 0, length, offset);
        return part;
      });
    } finally {
      closeSync(fd);
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** JBD2_MAGIC_NUMBER. */
const JOURNAL_MAGIC = 0xc03b3998;

it.each([
  ["extents", ["mkfs.ext4", "-q", "-F"]],
  ["extents, 1 KiB blocks", ["mkfs.ext4", "-q", "-F", "-b", "1024"]],
  ["block lists", ["mkfs.ext4", "-q", "-F", "-O", "^extents,^64bit"]],
])("the journal's superblock of ext4 with %s", (_, mkfs) => {
  withImage(64 << 20, mkfs, (read) => {
    const offset = ext4JournalOffset(read(0, 4096));
    expect(read(offset ?? 0, 4).readUInt32BE(0)).toBe(JOURNAL_MAGIC);
  });
});

it("ext4 without a journal has none", () => {
  withImage(64 << 20, ["mkfs.ext4", "-q", "-F", "-O", "^has_journal"], (read) => {
    expect(ext4JournalOffset(read(0, 4096))).toBeNull();
  });
});

it("the log of XFS, and its head", async () => {
  let found: readonly [number, number] = [0, 0];
  withImage(300 << 20, ["mkfs.xfs", "-q", "-f"], (read) => {
    const log = xfsLog(read(0, 4096));
    if (log === null) throw new Error("no log");
    expect(read(log.offset, 4).readUInt32BE(0)).toBe(0xfeedbabe);
    found = [cycleOf(read(log.offset, 8)), cycleOf(read(log.offset + (log.blocks - 1) * LOG_BLOCK_BYTES, 8))];
  });
  // mkfs writes one record, and zeros.
  expect(found).toEqual([1, 0]);
});

it("the head is where the turn changes, for every place of it", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 2, max: 300 }), fc.nat(), fc.integer({ min: 1, max: 9 }), async (blocks, at, cycle) => {
      const head = at % blocks;
      const cycles = Array.from({ length: blocks }, (_, block) => (block < head ? cycle : cycle - 1));
      expect(await findLogHead(blocks, async (block) => cycles[block] ?? -1)).toBe(head);
    }),
  );
});

it("noise is no log, and throws nothing", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: 4096 }), (noise) => {
      const [journal, log] = [ext4JournalOffset(noise), xfsLog(noise)];
      expect(journal === null || journal >= 0).toBe(true);
      expect(log === null || Number.isSafeInteger(log.offset)).toBe(true);
    }),
  );
});
