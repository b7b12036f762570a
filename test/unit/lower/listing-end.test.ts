/** Whether a listing is at its end with its last names: a file system may stop early (overlay/lower/local/directory.ts). */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import type { LocalContext } from "../../../overlay/lower/local/context.ts";
import { readdir } from "../../../overlay/lower/local/directory.ts";
import type { LowerHandle } from "../../../overlay/lower/lower.ts";

/** struct linux_dirent64 */
function dirent(at: number): Buffer {
  const entry = Buffer.alloc(24);
  entry.writeBigUInt64LE(BigInt(100 + at), 0);
  entry.writeBigInt64LE(BigInt(at + 1), 8);
  entry.writeUInt16LE(24, 16);
  entry.writeUInt8(8, 18);
  entry.write(`f${at}`, 19);
  return entry;
}

/** Names from `place` on, two at a time; `failsAt`: what is there cannot be read, as in a block that is damaged. */
function directoryOf(names: readonly number[], failsAt: number | null): LocalContext {
  let place = 0;
  const directory = { id: { ino: 9, generation: 1 }, position: 0n, turn: null };
  const getdents = async (_fd: number, buffer: Buffer): Promise<number> => {
    if (place === failsAt) return -E.EUCLEAN;
    const some = names.slice(place, place + 2);
    place += some.length;
    return Buffer.concat(some.map(dirent)).copy(buffer);
  };
  return {
    handles: { getDirectory: () => directory, use: async (_of: unknown, work: (fd: number) => unknown) => await work(3) },
    containment: { isInside: () => true },
    orphans: { has: () => false },
    native: { pool: { metadata: { getdents } } },
    sync: { lseek: (_fd: number, offset: number, whence: number) => (place = whence === 0 ? offset : place + offset) },
    root: { ino: 2 },
  } as unknown as LocalContext;
}

async function pageAt(context: LocalContext, cookie: bigint): Promise<[string[], boolean]> {
  const { entries, end } = await readdir(context, 1 as LowerHandle, cookie, 4096, "plain");
  return [entries.map(({ name }) => name.toString()), end];
}

it("two names of four that come first are no end, and nothing is left out or comes twice", async () => {
  const context = directoryOf([0, 1, 2, 3], null);
  const pages: unknown[] = [];
  for (const cookie of [0n, 2n, 4n]) pages.push(await pageAt(context, cookie));
  expect(pages).toEqual([
    [["f0", "f1"], false],
    [["f2", "f3"], true],
    [[], true],
  ]);
});

it("names before what cannot be read are listed, and who goes on there is told, as on any file system", async () => {
  const context = directoryOf([0, 1, 2, 3], 2);
  expect(await pageAt(context, 0n)).toEqual([["f0", "f1"], false]);
  await expect(pageAt(context, 2n)).rejects.toMatchObject({ errno: E.EUCLEAN });
  // And again: its position is not one that was read.
  expect(await pageAt(context, 0n)).toEqual([["f0", "f1"], false]);
});
