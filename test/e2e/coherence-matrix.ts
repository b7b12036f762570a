/**
 * Every kind of change, made on one node while everything about it is cached on another, and looked at there at once. A row says how the
 * change is prepared, what the other node's kernel is made to cache, the change, and what must be seen after it.
 */
import { constants } from "node:fs";
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readFile,
  readdir,
  readlink,
  rename,
  rmdir,
  symlink,
  truncate,
  unlink,
  utimes,
} from "node:fs/promises";
import { chmod, chown, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { nativeAddon } from "../../native/index.ts";
import { code } from "./errno-code.ts";

/** One round of one row: `a` changes, `b` looks. Directories of the same place through two mounts. */
export interface Round {
  readonly a: string;
  readonly b: string;
  /** Counts up over the whole run: makes contents and times differ from round to round. */
  readonly n: number;
}

export interface Row {
  readonly name: string;
  /** Before the caches are warmed, on `a`. */
  readonly prepare: (round: Round) => Promise<void>;
  /** On `b`: fills caches and checks that what is seen is the prepared state. Gives an open file to look through, or null. */
  readonly warm: (round: Round) => Promise<FileHandle | null>;
  readonly change: (round: Round) => Promise<void>;
  /** On `b`, at once. */
  readonly look: (round: Round, held: FileHandle | null) => Promise<void>;
}

/** What was seen is not what was written. */
export class StaleError extends Error {
  override readonly name = "StaleError";
}

function same<T>(what: string, seen: T, wanted: T): void {
  if (seen !== wanted) throw new StaleError(`${what}: ${String(seen)} seen, ${String(wanted)} wanted`);
}

const file = (dir: string): string => path.join(dir, "file");

async function readHeld(held: FileHandle, bytes: number, position: number): Promise<string> {
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await held.read(buffer, 0, bytes, position);
  return buffer.toString("latin1", 0, bytesRead);
}

async function warmFile({ b }: Round): Promise<FileHandle> {
  await stat(file(b));
  await readdir(b);
  const held = await open(file(b), "r");
  await readHeld(held, 65536, 0);
  await readFile(file(b));
  await stat(file(b));
  return held;
}

async function xattr(target: string, value: string | null): Promise<string | null> {
  const native = nativeAddon();
  const handle = await open(target, "r");
  try {
    const name = Buffer.from("user.note");
    if (value !== null) {
      const result = await native.pool.metadata.setxattr(handle.fd, name, Buffer.from(value), 0);
      if (result < 0) throw new Error(`setxattr: errno ${-result}`);
      return value;
    }
    const buffer = Buffer.alloc(256);
    const result = await native.pool.metadata.getxattr(handle.fd, name, buffer);
    return result < 0 ? null : buffer.toString("latin1", 0, result);
  } finally {
    await handle.close();
  }
}

const text = (n: number): string => `content number ${String(n).padStart(8, "0")}\n`;
const prepareFile = async ({ a, n }: Round): Promise<void> => writeFile(file(a), text(n));

export const rows: readonly Row[] = [
  {
    name: "content overwritten in place, same size",
    prepare: prepareFile,
    warm: warmFile,
    change: async ({ a, n }) => {
      const handle = await open(file(a), "r+");
      await handle.write(text(n + 1), 0);
      await handle.close();
    },
    look: async ({ b, n }, held) => {
      same("content through the open file", await readHeld(held as FileHandle, 100, 0), text(n + 1));
      same("content by name", await readFile(file(b), "latin1"), text(n + 1));
    },
  },
  {
    name: "size grown by an append",
    prepare: prepareFile,
    warm: warmFile,
    change: async ({ a }) => {
      const handle = await open(file(a), "a");
      await handle.write("tail");
      await handle.close();
    },
    look: async ({ b, n }, held) => {
      const old = text(n).length;
      same("tail through the open file", await readHeld(held as FileHandle, 100, old), "tail");
      same("size of the open file", (await (held as FileHandle).stat()).size, old + 4);
      same("size", (await stat(file(b))).size, old + 4);
      same("content", await readFile(file(b), "latin1"), `${text(n)}tail`);
    },
  },
  {
    name: "truncated",
    prepare: async ({ a, n }) => writeFile(file(a), text(n).repeat(1000)),
    warm: warmFile,
    change: async ({ a }) => truncate(file(a), 7),
    look: async ({ b, n }, held) => {
      same("content through the open file", await readHeld(held as FileHandle, 65536, 0), text(n).slice(0, 7));
      same("size of the open file", (await (held as FileHandle).stat()).size, 7);
      same("size", (await stat(file(b))).size, 7);
      same("content", await readFile(file(b), "latin1"), text(n).slice(0, 7));
    },
  },
  {
    name: "truncated, then grown again",
    prepare: async ({ a, n }) => writeFile(file(a), text(n).repeat(300)),
    warm: warmFile,
    change: async ({ a }) => {
      await truncate(file(a), 3);
      await truncate(file(a), 5000);
    },
    look: async ({ b, n }, held) => {
      const wanted = text(n).slice(0, 3) + "\0".repeat(4997);
      same("content through the open file", await readHeld(held as FileHandle, 65536, 0), wanted);
      same("content", await readFile(file(b), "latin1"), wanted);
    },
  },
  {
    name: "mode",
    prepare: async (round) => {
      await prepareFile(round);
      await chmod(file(round.a), 0o644);
    },
    warm: warmFile,
    change: async ({ a, n }) => chmod(file(a), 0o600 + (n % 8)),
    look: async ({ b, n }, held) => {
      same("mode", (await stat(file(b))).mode & 0o7777, 0o600 + (n % 8));
      same("mode of the open file", (await (held as FileHandle).stat()).mode & 0o7777, 0o600 + (n % 8));
    },
  },
  {
    name: "owner",
    prepare: prepareFile,
    warm: warmFile,
    change: async ({ a, n }) => chown(file(a), 1000 + (n % 1000), 2000 + (n % 1000)),
    look: async ({ b, n }) => {
      const seen = await stat(file(b));
      same("uid", seen.uid, 1000 + (n % 1000));
      same("gid", seen.gid, 2000 + (n % 1000));
    },
  },
  {
    name: "times",
    prepare: prepareFile,
    warm: warmFile,
    change: async ({ a, n }) => utimes(file(a), 1_000_000 + n, 2_000_000 + n),
    look: async ({ b, n }) => {
      same("mtime", (await stat(file(b))).mtimeMs, (2_000_000 + n) * 1000);
    },
  },
  {
    name: "link count",
    prepare: async (round) => {
      await prepareFile(round);
      await code(unlink(path.join(round.a, "second")));
    },
    warm: async (round) => {
      same("second name before", await code(stat(path.join(round.b, "second"))), "ENOENT");
      return warmFile(round);
    },
    change: async ({ a }) => link(file(a), path.join(a, "second")),
    look: async ({ b }, held) => {
      same("link count", (await stat(file(b))).nlink, 2);
      same("link count of the open file", (await (held as FileHandle).stat()).nlink, 2);
      same("inode of the second name", (await stat(path.join(b, "second"))).ino, (await stat(file(b))).ino);
    },
  },
  {
    name: "extended attribute",
    prepare: async (round) => {
      await prepareFile(round);
      await xattr(file(round.a), `old ${round.n}`);
    },
    warm: async (round) => {
      same("value before", await xattr(file(round.b), null), `old ${round.n}`);
      return warmFile(round);
    },
    change: async ({ a, n }) => {
      await xattr(file(a), `new ${n}`);
    },
    look: async ({ b, n }) => same("value", await xattr(file(b), null), `new ${n}`),
  },
  {
    name: "create over a negative entry",
    prepare: async ({ a }) => {
      await code(unlink(file(a)));
    },
    warm: async ({ b }) => {
      same("before", await code(stat(file(b))), "ENOENT");
      same("before, again", await code(stat(file(b))), "ENOENT");
      same("listing before", (await readdir(b)).includes("file"), false);
      return null;
    },
    change: prepareFile,
    look: async ({ b, n }) => {
      same("content", await readFile(file(b), "latin1"), text(n));
      same("listing", (await readdir(b)).includes("file"), true);
    },
  },
  {
    name: "unlink",
    prepare: prepareFile,
    warm: warmFile,
    change: async ({ a }) => unlink(file(a)),
    look: async ({ b, n }, held) => {
      same("name", await code(stat(file(b))), "ENOENT");
      same("open", await code(open(file(b), "r")), "ENOENT");
      same("listing", (await readdir(b)).includes("file"), false);
      same("content through the open file", await readHeld(held as FileHandle, 100, 0), text(n));
      same("link count of the open file", (await (held as FileHandle).stat()).nlink, 0);
    },
  },
  {
    name: "unlink and create anew",
    prepare: prepareFile,
    warm: warmFile,
    change: async ({ a, n }) => {
      await unlink(file(a));
      await writeFile(file(a), `new ${n}`);
    },
    look: async ({ b, n }, held) => {
      same("content", await readFile(file(b), "latin1"), `new ${n}`);
      same("content through the open file", await readHeld(held as FileHandle, 100, 0), text(n));
    },
  },
  {
    name: "rename over an existing name",
    prepare: async (round) => {
      await prepareFile(round);
      await writeFile(path.join(round.a, "other"), `other ${round.n}`);
    },
    warm: async (round) => {
      await stat(path.join(round.b, "other"));
      return warmFile(round);
    },
    change: async ({ a }) => rename(path.join(a, "other"), file(a)),
    look: async ({ b, n }, held) => {
      same("content", await readFile(file(b), "latin1"), `other ${n}`);
      same("old name", await code(stat(path.join(b, "other"))), "ENOENT");
      same("content through the open file", await readHeld(held as FileHandle, 100, 0), text(n));
    },
  },
  {
    name: "rename into another directory",
    prepare: async (round) => {
      await prepareFile(round);
      await code(mkdir(path.join(round.a, "into")));
      await code(unlink(path.join(round.a, "into", "file")));
    },
    warm: async (round) => {
      same("target before", await code(stat(path.join(round.b, "into", "file"))), "ENOENT");
      await readdir(path.join(round.b, "into"));
      return warmFile(round);
    },
    change: async ({ a }) => rename(file(a), path.join(a, "into", "file")),
    look: async ({ b, n }) => {
      same("old name", await code(stat(file(b))), "ENOENT");
      same("content", await readFile(path.join(b, "into", "file"), "latin1"), text(n));
      same("listing", (await readdir(path.join(b, "into"))).join(), "file");
    },
  },
  {
    name: "mkdir",
    prepare: async ({ a }) => {
      await code(rmdir(path.join(a, "dir")));
    },
    warm: async ({ b }) => {
      same("before", await code(stat(path.join(b, "dir"))), "ENOENT");
      return null;
    },
    change: async ({ a }) => {
      await mkdir(path.join(a, "dir"));
    },
    look: async ({ b }) => {
      same("is a directory", (await stat(path.join(b, "dir"))).isDirectory(), true);
      same("listing", (await readdir(path.join(b, "dir"))).length, 0);
    },
  },
  {
    name: "rmdir",
    prepare: async ({ a }) => {
      await code(mkdir(path.join(a, "dir")));
    },
    warm: async ({ b }) => {
      await stat(path.join(b, "dir"));
      await readdir(path.join(b, "dir"));
      await readdir(b);
      return null;
    },
    change: async ({ a }) => rmdir(path.join(a, "dir")),
    look: async ({ b }) => {
      same("name", await code(stat(path.join(b, "dir"))), "ENOENT");
      same("listing", (await readdir(b)).includes("dir"), false);
      same("create in it", await code(writeFile(path.join(b, "dir", "x"), "")), "ENOENT");
    },
  },
  {
    name: "symlink replaced",
    prepare: async ({ a, n }) => {
      await code(unlink(path.join(a, "link")));
      await symlink(`old-${n}`, path.join(a, "link"));
    },
    warm: async ({ b, n }) => {
      same("target before", await readlink(path.join(b, "link")), `old-${n}`);
      await lstat(path.join(b, "link"));
      return null;
    },
    change: async ({ a, n }) => {
      await symlink(`new-${n}`, path.join(a, "link.tmp"));
      await rename(path.join(a, "link.tmp"), path.join(a, "link"));
    },
    look: async ({ b, n }) => same("target", await readlink(path.join(b, "link")), `new-${n}`),
  },
  {
    name: "directory renamed, with what is in it",
    prepare: async ({ a, n }) => {
      await code(unlink(path.join(a, "new", "inner")));
      await code(rmdir(path.join(a, "new")));
      await code(mkdir(path.join(a, "old")));
      await writeFile(path.join(a, "old", "inner"), text(n));
    },
    warm: async ({ b, n }) => {
      same("before", await readFile(path.join(b, "old", "inner"), "latin1"), text(n));
      same("target before", await code(stat(path.join(b, "new", "inner"))), "ENOENT");
      return null;
    },
    change: async ({ a }) => rename(path.join(a, "old"), path.join(a, "new")),
    look: async ({ b, n }) => {
      same("content", await readFile(path.join(b, "new", "inner"), "latin1"), text(n));
      same("old name", await code(stat(path.join(b, "old", "inner"))), "ENOENT");
    },
  },
  {
    name: "write through a descriptor that was open all the time",
    prepare: prepareFile,
    warm: warmFile,
    change: async ({ a, n }) => {
      const handle = await open(file(a), constants.O_RDWR);
      for (let k = 0; k < 3; k += 1) await handle.write(String(n + k).padStart(8, "0"), 15);
      await handle.close();
    },
    look: async ({ n }, held) => {
      same("content through the open file", await readHeld(held as FileHandle, 8, 15), String(n + 2).padStart(8, "0"));
    },
  },
];

/** Runs one round of a row; the directories exist and are the row's own. */
export async function runRound(row: Row, round: Round): Promise<void> {
  await row.prepare(round);
  const held = await row.warm(round);
  try {
    await row.change(round);
    await row.look(round, held);
  } finally {
    await held?.close();
  }
}
