/**
 * An owner whose block names another life (hazard C3): the disk is that one's, and the owner's file system must not write to it any more. Real file
 * systems, with files that are on the disk, in the journal only, and in memory only; another life is written into the block from outside.
 */
import { closeSync, constants, fsyncSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { describe, expect, test } from "vitest";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { tryExclusive } from "../../../overlay/volume/device.ts";
import { readOwnerBlock, writeOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import type { LowerMount } from "../../../overlay/volume/lower-mount.ts";
import { probeDevice } from "../../../overlay/volume/probe.ts";
import { checkFileSystem, type Disk, run, withDisk } from "./disk.ts";
import { storedBit, takeLower } from "./take.ts";

const FILES = 30;
/** What is in memory only. */
const DIRTY = "never to be written over the disk of another owner ".repeat(100);
/** Of an ext4 file system of 64 MiB, and no more than those of XFS. */
const BLOCK_BYTES = 1024;

function sync(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  fsyncSync(fd);
  closeSync(fd);
}

/** Leaves files that are synced, and after them changes that are not: data, names and attributes. */
function change(lower: LowerMount): void {
  const root = `/proc/self/fd/${lower.rootFd}`;
  for (let file = 0; file < FILES; file += 1) writeFileSync(`${root}/kept-${file}`, "kept");
  sync(`${root}/kept-0`);
  sync(`${root}/.`);
  for (let file = 0; file < FILES; file += 1) writeFileSync(`${root}/lost-${file}`, DIRTY);
  // Without O_TRUNC: ext4 writes a file that was cut back at its close (auto_da_alloc).
  writeFileSync(`${root}/kept-1`, DIRTY, { flag: "r+" });
}

/** Another machine has the disk, from now on. */
async function nameAnother(device: string): Promise<Life> {
  const { ownerBlock, uuid } = storedBit(device);
  const block = await readOwnerBlock(device, ownerBlock ?? 0, uuid);
  const life = { ...(block.life as Life), nodeid: 9, incarnation: "another", bootId: "another-boot", hostName: "another" };
  await writeOwnerBlock(device, ownerBlock ?? 0, { ...block, sequence: block.sequence + 1, life });
  return life;
}

/** Blocks by their content. */
const contents = (image: Buffer): Set<string> =>
  new Set(Array.from({ length: image.length / BLOCK_BYTES }, (_, block) => textOf(image, block)));
const textOf = (image: Buffer, block: number): string => image.toString("latin1", block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);

function changed(before: Buffer, after: Buffer): number[] {
  const blocks: number[] = [];
  for (let at = 0; at < before.length; at += BLOCK_BYTES)
    if (before.compare(after, at, at + BLOCK_BYTES, at, at + BLOCK_BYTES) !== 0) blocks.push(at / BLOCK_BYTES);
  return blocks;
}

/** What ext4 writes although it is shut down. */
function kindOf(before: Buffer, after: Buffer, disk: Disk): (block: number) => string {
  const known = contents(before);
  const { superblock } = probeDevice(disk.device);
  if (superblock.type !== "ext4") throw new Error("ext4 expected");
  return (block) => {
    if (block * BLOCK_BYTES === superblock.mmpOffset) return "MMP";
    if (after.readUInt32BE(block * BLOCK_BYTES) === 0xc03b3998) return "journal";
    return known.has(textOf(after, block)) ? "committed" : `${block}: not written before`;
  };
}

async function refusal(work: Promise<void>): Promise<unknown> {
  return work.then(
    () => null,
    (error: unknown) => (error as { readonly code?: string }).code ?? error,
  );
}

/** `stop`: what the owner does when it hears of the other life. The images: before it, after it, and after the unmount. */
async function withdrawn(type: "ext4" | "xfs", stop: (lower: LowerMount) => Promise<void>, use: (images: Buffer[], disk: Disk) => void) {
  await withDisk(type, async (disk) => {
    await enableVolume(disk.device, { cluster: "c", volume: "v", uuid: randomUUID() });
    const lower = await takeLower(disk.device);
    change(lower);
    const life = await nameAnother(disk.device);
    const before = readFileSync(disk.image);
    await stop(lower);
    const stopped = readFileSync(disk.image);
    expect(await refusal(lower.release())).toBe("owner-changed");
    expect(tryExclusive(disk.device)).toBe("free");
    const { ownerBlock, uuid } = storedBit(disk.device);
    expect(await readOwnerBlock(disk.device, ownerBlock ?? 0, uuid)).toMatchObject({ state: "owned", life });
    use([before, stopped, readFileSync(disk.image)], disk);
    // As a crash leaves it: what was synced is there.
    run("mount", disk.device, disk.mountPoint);
    expect(readFileSync(`${disk.mountPoint}/kept-0`, "utf8")).toBe("kept");
    run("umount", disk.mountPoint);
    checkFileSystem(type, disk.device);
  });
}

const WAYS = [
  ["as soon as it knows", (lower: LowerMount) => lower.stopWriting()],
  ["at its release, if it did not know before", () => Promise.resolve()],
] as const;

describe.each(WAYS)("an owner whose disk is another's stops writing %s", (_, stop) => {
  test("xfs: not a byte comes to the disk", async () => {
    await withdrawn("xfs", stop, ([before, stopped, after]) => {
      expect(before?.equals(stopped ?? before)).toBe(true);
      expect(before?.equals(after ?? before)).toBe(true);
    });
  });

  test("ext4: nothing new; but what was in its journal, the journal's superblock and MMP's block are written again", async () => {
    await withdrawn("ext4", stop, ([before, stopped, after], disk) => {
      if (before === undefined || stopped === undefined || after === undefined) throw new Error("three images");
      expect(after.includes(DIRTY.slice(0, BLOCK_BYTES / 2))).toBe(false);
      const kinds = new Set(changed(before, after).map(kindOf(before, after, disk)));
      expect([...kinds].sort()).toEqual(expect.arrayContaining(["MMP"]));
      for (const kind of kinds) expect(["MMP", "committed", "journal"]).toContain(kind);
    });
  });
});
