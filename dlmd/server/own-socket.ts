/**
 * Unix sockets of this process alone: mode 0600 from their first moment. Only a socket that nobody answers on is replaced, never another
 * file: a path of a command line may be wrong by a letter. Of two that begin at once over such a socket one would delete the other's: a lock keeps
 * the second one out.
 */
import { closeSync, constants, lstatSync, openSync, rmSync } from "node:fs";
import { type Server, createConnection } from "node:net";
import { OperatingError } from "../base/error.ts";
import { E, errnoName } from "../base/errno.ts";
import { startListening } from "../base/listening.ts";
import { nativeAddon } from "../../native/index.ts";

/** What an earlier process left behind is found out within that time. */
const STALE_SOCKET_TIMEOUT_MS = 1000;
export interface OwnSocketOptions {
  readonly path: string;
  /** What answers there, if something does: "another dlmd". */
  readonly other: string;
  /** The code of the error if it cannot listen. */
  readonly code: string;
  /** Which option names another place. */
  readonly option: string;
  /** Each error after it listens. */
  readonly failed: (error: Error) => void;
}

function nobodyAnswers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(socketPath);
    const settle = (stale: boolean): void => {
      clearTimeout(timer);
      probe.destroy();
      resolve(stale);
    };
    const timer = setTimeout(() => settle(false), STALE_SOCKET_TIMEOUT_MS);
    probe.once("connect", () => settle(false));
    probe.on("error", (error: NodeJS.ErrnoException) => settle(["ECONNREFUSED", "ENOENT"].includes(error.code ?? "")));
  });
}

function listenOnce(server: Server, socketPath: string, failed: (error: Error) => void): Promise<NodeJS.ErrnoException | null> {
  const listen = (listening: () => void): void => {
    // The socket is made within this call, and nobody may connect before its mode is right.
    const umask = process.umask(0o177);
    server.listen(socketPath, listening);
    process.umask(umask);
  };
  return startListening(server, listen, failed).then(
    () => null,
    (error: NodeJS.ErrnoException) => error,
  );
}

function inUse(message: string, option: string): OperatingError {
  return new OperatingError(message, {
    code: "already-running",
    hint: `One dlmd runs for each node. Stop that one first, or name another place with ${option}.`,
  });
}

function notListening(error: Error, { path, code, option }: OwnSocketOptions): OperatingError {
  return new OperatingError(`dlmd cannot listen on ${path}: ${error.message}`, {
    code,
    hint: `The path must be shorter than 108 bytes, in a folder that may be written. ${option} names another place.`,
    cause: error,
  });
}

/** Of a file beside it, which stays: who removed it would let two have it. Throws OperatingError: another one is at it. */
function lockPlace(options: OwnSocketOptions): number {
  let fd: number;
  try {
    fd = openSync(`${options.path}.lock`, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    throw notListening(error as Error, options);
  }
  const errno = -nativeAddon().tryLock(fd);
  if (errno === 0) return fd;
  closeSync(fd);
  if (errno !== E.EAGAIN) throw notListening(new Error(`flock of ${options.path}.lock: ${errnoName(errno)}`), options);
  throw inUse(`${options.other} begins to listen on ${options.path} just now`, options.option);
}

/** In the place of one on which nobody answers. The kernel ends the lock with this process. */
async function replaceStale(server: Server, options: OwnSocketOptions): Promise<NodeJS.ErrnoException | null> {
  const { path, other, option, failed } = options;
  const lock = lockPlace(options);
  try {
    if (!(await nobodyAnswers(path))) throw inUse(`${other} answers on ${path}`, option);
    rmSync(path, { force: true });
    return await listenOnce(server, path, failed);
  } finally {
    closeSync(lock);
  }
}

/** Rejects with OperatingError: something else is there, something answers there or is about to, or it cannot listen. */
export async function listenOnOwnSocket(server: Server, options: OwnSocketOptions): Promise<void> {
  const { path, code, option, failed } = options;
  let error = await listenOnce(server, path, failed);
  if (error?.code === "EADDRINUSE") {
    // It may be gone by now.
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false) {
      throw new OperatingError(`a socket expected at ${path}, found something else`, {
        code,
        hint: `Look what it is and move it away, or name another place with ${option}.`,
      });
    }
    error = await replaceStale(server, options);
  }
  if (error !== null) throw notListening(error, options);
}
