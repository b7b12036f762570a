/**
 * Unix sockets of this process alone: mode 0600 from their first moment. Only a socket that nobody answers on is replaced, never another
 * file: a path of a command line may be wrong by a letter.
 */
import { lstatSync, unlinkSync } from "node:fs";
import { type Server, createConnection } from "node:net";
import { OperatingError } from "../base/error.ts";
import { startListening } from "../base/listening.ts";

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
    probe.on("error", (error: NodeJS.ErrnoException) => settle(error.code === "ECONNREFUSED"));
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

/** Rejects with OperatingError: something else is there, something answers there, or it cannot listen. */
export async function listenOnOwnSocket(
  server: Server,
  { path: socketPath, other, code, option, failed }: OwnSocketOptions,
): Promise<void> {
  let error = await listenOnce(server, socketPath, failed);
  if (error?.code === "EADDRINUSE") {
    if (!lstatSync(socketPath).isSocket()) {
      throw new OperatingError(`a socket expected at ${socketPath}, found something else`, {
        code,
        hint: `Look what it is and move it away, or name another place with ${option}.`,
      });
    }
    if (!(await nobodyAnswers(socketPath))) {
      throw new OperatingError(`${other} answers on ${socketPath}`, {
        code: "already-running",
        hint: `One dlmd runs for each node. Stop that one first, or name another place with ${option}.`,
      });
    }
    unlinkSync(socketPath);
    error = await listenOnce(server, socketPath, failed);
  }
  if (error === null) return;
  throw new OperatingError(`dlmd cannot listen on ${socketPath}: ${error.message}`, {
    code,
    hint: `The path must be shorter than 108 bytes, in a folder that may be written. ${option} names another place.`,
    cause: error,
  });
}
