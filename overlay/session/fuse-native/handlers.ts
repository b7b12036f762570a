/**
 * libfuse's callbacks: each gets the words that fuse-native.c gives it, and is answered once, with the words that its signal takes. Not
 * implemented, and why: create (it comes without flags), opendir (listings come without a handle), access and flush (the kernel checks, and keeps locks,
 * itself).
 */
import { E, Errno } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { AttrChange } from "../../lower/lower.ts";
import { type FuseNativeBinding, type Handler, HANDLERS, opcodeOf, signalOf, type ThreadLocals } from "./binding.ts";
import type { PathOperations } from "./path-operations.ts";
import { BODY_AT } from "./requests.ts";
import { entryWords, joined, NO_STAT, NO_STATFS, readTimes, statfsWords, statWords, UNCHANGED_ID } from "./words.ts";

/** What a callback returns: libfuse's result, and more for the signal. */
interface Answer {
  readonly result: number;
  readonly words: readonly unknown[];
}

/** `failed`: what the signal takes with an errno. */
interface Row {
  readonly work: (locals: ThreadLocals, words: never[]) => Promise<Answer>;
  readonly failed: (words: never[]) => readonly unknown[];
}

const answer = (result: number, ...words: unknown[]): Answer => ({ result, words });

function plain(work: (...words: never[]) => Promise<unknown>): Row {
  return {
    work: async (_locals, words) => {
      await work(...words);
      return answer(0);
    },
    failed: () => [],
  };
}

function asked(change: Record<string, number>): AttrChange {
  return Object.fromEntries(Object.entries(change).filter(([, value]) => value !== UNCHANGED_ID));
}

function statRow(stat: (...words: never[]) => ReturnType<PathOperations["stat"]>): Row {
  return { work: async (_locals, words) => answer(0, statWords(await stat(...words))), failed: () => [NO_STAT] };
}

/** The memory behind `at(words)` is libfuse's, and is given back with the answer. */
function bufferRow(at: number, lead: readonly unknown[], work: (...words: never[]) => Promise<number>): Row {
  const given = (words: never[]): readonly unknown[] => [...lead, (words[at] as unknown as Buffer).buffer];
  return {
    work: async (_locals, words) => answer(await work(...words), ...given(words)),
    failed: given,
  };
}

function rowsOf(paths: PathOperations): Readonly<Record<string, Row>> {
  const change = (path: string, wanted: AttrChange): Promise<void> => paths.change(path, wanted);
  return {
    init: plain(() => Promise.resolve()),
    statfs: { work: async () => answer(0, statfsWords(await paths.statfs(), BODY_AT)), failed: () => [NO_STATFS] },
    getattr: statRow((path: string) => paths.stat(path)),
    fgetattr: statRow((_path: string, fh: number) => paths.statOpen(fh)),
    truncate: plain((path: string, low: number, high: number) => change(path, { size: joined(low, high) })),
    ftruncate: plain((_path: string, fh: number, low: number, high: number) => paths.truncateOpen(fh, joined(low, high))),
    utimens: {
      work: async (locals, words) => {
        const [path, low, high] = words as unknown as [string, number, number];
        await change(path, readTimes(locals, joined(low, high)));
        return answer(0);
      },
      failed: () => [],
    },
    readlink: { work: async (_locals, [path]) => answer(0, await paths.readlink(path as unknown as string)), failed: () => [""] },
    chown: plain((path: string, uid: number, gid: number) => change(path, asked({ uid, gid }))),
    chmod: plain((path: string, mode: number) => change(path, { mode: mode & 0o7777 })),
    mknod: plain((path: string, mode: number, dev: number) => paths.mknod(path, mode, dev)),
    mkdir: plain((path: string, mode: number) => paths.mkdir(path, mode)),
    symlink: plain((target: string, path: string) => paths.symlink(target, path)),
    link: plain((target: string, path: string) => paths.link(target, path)),
    unlink: plain((path: string) => paths.remove("unlink", path)),
    rmdir: plain((path: string) => paths.remove("rmdir", path)),
    rename: plain((from: string, to: string) => paths.rename(from, to)),
    readdir: {
      work: async (_locals, [path]) => {
        const entries = await paths.list(path as unknown as string);
        return answer(
          0,
          entries.map(({ name }) => name),
          entries.map(({ ino, type }) => entryWords(ino, type)),
        );
      },
      failed: () => [[], []],
    },
    fsyncdir: plain((path: string, dataOnly: number) => paths.syncDirectory(path, dataOnly !== 0)),
    open: { work: async (_locals, words) => answer(0, await paths.open(...(words as unknown as [string, number]))), failed: () => [0] },
    release: plain((_path: string, fh: number) => paths.release(fh)),
    fsync: plain((_path: string, dataOnly: number, fh: number) => paths.sync(fh, dataOnly !== 0)),
    read: bufferRow(2, [0], (_path: string, fh: number, into: Buffer, _length: number, low: number, high: number) =>
      paths.read(fh, into, joined(low, high)),
    ),
    write: bufferRow(2, [0], (_path: string, fh: number, data: Buffer, _length: number, low: number, high: number) =>
      paths.write(fh, data, joined(low, high)),
    ),
    setxattr: bufferRow(2, [], async (path: string, name: string, value: Buffer, _position: number, flags: number) => {
      await paths.setxattr(path, name, value, flags);
      return 0;
    }),
    getxattr: bufferRow(2, [], (path: string, name: string, into: Buffer) => paths.getxattr(path, name, into)),
    listxattr: bufferRow(1, [], (path: string, into: Buffer) => paths.listxattr(path, into)),
    removexattr: plain((path: string, name: string) => paths.removexattr(path, name)),
  };
}

/** The errno of a callback that failed. What is none is a bug, and its caller gets EIO. */
export function errnoOf(error: unknown, name: string, log: Log): number {
  if (error instanceof Errno) return error.errno;
  log.error({ callback: name, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }, "bug in a callback");
  return E.EIO;
}

export interface Handlers {
  readonly handlers: readonly Handler[];
  /** By opcode: 1 where libfuse is to call it. */
  readonly implemented: Uint32Array;
}

export function createHandlers(binding: FuseNativeBinding, paths: PathOperations, log: Log): Handlers {
  const handlers: Handler[] = Array.from({ length: HANDLERS }, () => () => log.error({}, "a callback that is not implemented"));
  const implemented = new Uint32Array(HANDLERS);
  for (const [name, row] of Object.entries(rowsOf(paths))) {
    const opcode = opcodeOf(binding, name);
    const signal = signalOf(binding, name);
    implemented[opcode] = 1;
    handlers[opcode] = (locals, _opcode, ...words): void => {
      void row.work(locals, words).then(
        ({ result, words: more }) => signal(locals, result, ...more),
        (error: unknown) => signal(locals, -errnoOf(error, name, log), ...row.failed(words)),
      );
    };
  }
  return { handlers, implemented };
}
