/** The watch over a lower directory: chokidar tells of paths, local-changes.ts looks at them (hazard R21). */
import { type Stats, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { type FSWatcher, watch } from "chokidar";
import { E } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { checked, inTime } from "../../dlmd/base/maybe-promise.ts";
import type { Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { HANDLE_BUFFER_BYTES, type Native, STAT } from "../../native/index.ts";
import type { LocalLower } from "../lower/local/local.ts";
import { isReservedName } from "../lower/reserved-names.ts";
import { LocalChanges, type Look } from "./local-changes.ts";
import { hadFor } from "./momentary-lock.ts";
import { notedLower } from "./noted-lower.ts";
import { OwnTimes } from "./own-times.ts";

/** The volume is served so long after the watch began, whether it is on or not. */
export const WATCH_BEGIN_MS = 60_000;

/** Nothing is there, no directory on the way, or another file system. */
const NOT_THERE: ReadonlySet<number> = new Set([E.ENOENT, E.ENOTDIR, E.ELOOP, E.EXDEV, E.ESTALE]);

export interface WatchOptions {
  readonly native: Native;
  readonly local: LocalLower;
  readonly rootFd: number;
  /** The lower directory. */
  readonly directory: string;
  readonly lockspace: Lockspace;
  /** What is not watched, and what to do, in words; null: all is. */
  readonly tell: (unwatched: string | null) => void;
  readonly log: Log;
}

/** The lower to work with in place of `local`: its shutdown ends the watch. Resolves when the watch is on. */
export async function watchLocalChanges({ native, local, rootFd, directory, lockspace, tell, log }: WatchOptions): Promise<LocalLower> {
  const nowMs = (): number => Date.now();
  const times = new OwnTimes();
  const root = path.resolve(directory);
  const look = async (relative: string): Promise<Look | null> => {
    const [stat, handle] = [new Float64Array(STAT.FIELDS), Buffer.alloc(HANDLE_BUFFER_BYTES)];
    const result = await native.pool.metadata.lookup(rootFd, Buffer.from(relative), false, stat, handle);
    if (NOT_THERE.has(-result)) return null;
    checked(result);
    const changedMs = (stat[STAT.CTIME_SEC] as number) * 1000 + (stat[STAT.CTIME_NSEC] as number) / 1_000_000;
    return { id: local.decodeHandle(handle), changedMs };
  };
  const isHidden = (relative: string): boolean => isReservedName(Buffer.from(relative.split(path.sep)[0] ?? ""));
  let watcher: FSWatcher | null = null;
  const changes = new LocalChanges({
    look,
    list: async (relative) =>
      (await readdir(path.join(root, relative)).catch(notThere)).filter((name) => !isHidden(path.join(relative, name))),
    directories: () =>
      Object.keys(watcher?.getWatched() ?? {})
        .map((absolute) => relativeTo(root, absolute))
        .filter(liesInside),
    knownAs: (id, name) => local.knownAs(id, Buffer.from(name)),
    forget: (id, name) => local.forgetNames(id, name === null ? null : Buffer.from(name)),
    had: (id, mode) => hadFor(lockspace, id, Mode[mode]),
    nowMs,
    log,
    times,
  });
  const unwatched = new Unwatched(root, tell, log);
  watcher = beginWatch(root, isHidden, changes, unwatched);
  const on = new Promise<void>((resolve) => watcher.once("ready", () => resolve()));
  const beganMs = performance.now();
  if (await inTime(on, WATCH_BEGIN_MS))
    log.info(
      { directories: Object.keys(watcher.getWatched()).length, tookMs: Math.round(performance.now() - beganMs) },
      "the lower directory is watched",
    );
  else {
    log.warn(
      { limitMs: WATCH_BEGIN_MS },
      "the lower directory is not watched yet: changes that programs make there past the mount are noticed later",
    );
    void unwatched.lateUntil(on);
  }
  const noted = notedLower(local, times, nowMs);
  noted.shutdown = async (): Promise<void> => {
    await watcher.close();
    unwatched.end();
    await changes.end();
    await local.shutdown();
  };
  return noted;
}

function relativeTo(root: string, absolute: string): string {
  return path.relative(root, absolute) || ".";
}

/** It went away meanwhile. */
/** A relative path; the watcher has the directory above as well. Names may begin with two points. Exported for tests. */
export function liesInside(relative: string): boolean {
  return relative !== ".." && !relative.startsWith("../");
}

function notThere(error: NodeJS.ErrnoException): string[] {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
  throw error;
}

/** What is said of what the watch does not see: to the log once for each error, and to `coverlay status` as long as it is so. */
class Unwatched {
  readonly #root: string;
  readonly #tell: WatchOptions["tell"];
  readonly #log: Log;
  /** A part that could not be watched stays so until the volume is mounted again. */
  readonly #errors: Map<string, string> = new Map();
  #isLate = false;

  constructor(root: string, tell: WatchOptions["tell"], log: Log) {
    this.#root = root;
    this.#tell = tell;
    this.#log = log;
    tell(null);
  }

  async lateUntil(on: Promise<void>): Promise<void> {
    this.#isLate = true;
    this.#say();
    await on;
    this.#isLate = false;
    this.#say();
  }

  error(error: Error): void {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    if (this.#errors.has(code)) return;
    const hint = code === "ENOSPC" ? "Raise fs.inotify.max_user_watches, and mount again." : "Mend that, and mount again.";
    this.#errors.set(code, `a part of ${this.#root} is not watched: ${error.message}. ${hint}`);
    this.#log.error({ directory: this.#root, error: error.message, hint }, "a part of the lower directory is not watched");
    this.#say();
  }

  end(): void {
    this.#tell(null);
  }

  #say(): void {
    const late = this.#isLate ? [`${this.#root} is still being read, and not watched yet`] : [];
    const words = [...this.#errors.values(), ...late];
    this.#tell(words.length === 0 ? null : words.join("; "));
  }
}

/** Node.js gives such strings for names that are not UTF-8, and they lead nowhere. */
const isMangled = (name: string): boolean => name.includes("\uFFFD");

function notUtf8(name: string): Error {
  return Object.assign(new Error(`the name ${name} is not UTF-8`), { code: "EILSEQ" });
}

function beginWatch(root: string, isHidden: (relative: string) => boolean, changes: LocalChanges, unwatched: Unwatched): FSWatcher {
  const relativeOf = (absolute: string): string => relativeTo(root, absolute);
  const { dev } = statSync(root);
  const isOurs = (stats: Stats): boolean => stats.isDirectory() && stats.dev === dev;
  const watcher = watch(root, {
    followSymlinks: false,
    atomic: false,
    // A directory tells of its files: a watch for each would cost the kernel as much again.
    ignored: (absolute, stats) => (stats !== undefined && !isOurs(stats)) || isHidden(relativeOf(absolute)),
  });
  watcher.on("error", (error) => unwatched.error(error as Error));
  watcher.on("raw", (_event, name: string | null, details) => {
    // chokidar/handler.js, createFsWatchInstance.
    const relative = relativeOf((details as { readonly watchedPath: string }).watchedPath);
    // Which of them it is cannot be told: any name of the directory.
    const mangled = name !== null && isMangled(name);
    if (mangled) unwatched.error(notUtf8(path.join(relative, name)));
    const named = name === "" || mangled ? null : name;
    if (named !== null && isHidden(path.join(relative, named))) return;
    changes.seen(relative, named);
  });
  watcher.on("addDir", (absolute) => {
    changes.appeared(relativeOf(absolute));
    // chokidar passes them over.
    const told = async (): Promise<void> => {
      const mangled = (await readdir(absolute).catch(notThere)).find(isMangled);
      if (mangled !== undefined) unwatched.error(notUtf8(path.join(relativeOf(absolute), mangled)));
    };
    told().catch((error: unknown) => unwatched.error(error as Error));
  });
  return watcher;
}
