/**
 * How the overlay process tells about itself (the other side: query/overlay-query.ts): `<runDir>/overlay-N.json`, replaced whole at each
 * change, and `<runDir>/overlay-N.sock`, mode 0600: one JSON line {"query":"status"} in, one JSON line out ("requests",
 * "inode", "file-locks", "gather", "hand-over", "restart", "pause", "go-on", "grow" and "growth" are other queries). N is the mount's FUSE connection.
 */
import { chmodSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { overlayFilePath, overlaySocketPath, removeGoneOverlays } from "../query/overlay-query.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { createLimitedWarn } from "../../dlmd/base/log-limiter.ts";
import { logNotTaken, startListening } from "../../dlmd/base/listening.ts";
import { startTimeOf } from "../../dlmd/base/process.ts";

/** A question longer than this is not one. */
const MAX_QUESTION_BYTES = 4096;
/** A file that cannot be written is logged once in that time, and less often while it goes on. */
const UPDATE_LOG_MS = 10_000;
/** What could not be shown of a mount is tried again so soon. */
export const SHOW_AGAIN_MS = 1000;

export interface StatusServer {
  /** Writes overlay-N.json anew. */
  update(): void;
  /** `isMountLeft`: nobody serves it from now on, and every call there fails. Its file stays and says so. */
  close(isMountLeft: boolean): void;
}

export interface StatusAnswers {
  /** What overlay-N.json says. */
  summary(): object;
  status(): object;
  requests(): object;
  inode(ino: number): object;
  fileLocks(): object;
  gather(lockspace: string, files: readonly string[]): Promise<object>;
  handOver(heir: number): Promise<object>;
  /** Gives the mount to a new process. */
  restart(): Promise<object>;
  /** Lets go of dlmd, which is to be restarted. */
  pause(): Promise<object>;
  /** After a pause: with whatever dlmd runs. */
  goOn(): object;
  /** Begins to grow the volume's file system, or says why not. */
  grow(): Promise<object>;
  /** How far that is. */
  growth(): object;
}

/** What others look at. The mount goes on without it: a file system that is full has room again. */
export class Shown {
  readonly #work: () => Promise<void> | void;
  readonly #failed: (error: unknown) => void;
  #timer: NodeJS.Timeout | null = null;
  #over = false;

  constructor(work: () => Promise<void> | void, failed: (error: unknown) => void) {
    this.#work = work;
    this.#failed = failed;
  }

  /** If it fails it is done again, until it succeeds or `end`. Resolves after the first attempt; never rejects. */
  async show(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    try {
      await this.#work();
    } catch (error) {
      if (this.#over) return;
      this.#failed(error);
      this.#timer ??= setTimeout(() => void this.show(), SHOW_AGAIN_MS).unref();
    }
  }

  end(): void {
    this.#over = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }
}

/** `isThere`: programs use the mount already, and a run directory that cannot be written does not end it. Else throws. */
export async function serveStatus(
  runDir: string,
  connection: number,
  answers: StatusAnswers,
  log: Log,
  isThere = false,
): Promise<StatusServer> {
  const file = overlayFilePath(runDir, connection);
  const socketPath = overlaySocketPath(runDir, connection);
  const warn = createLimitedWarn(log, UPDATE_LOG_MS, () => performance.now());
  let server: Server | null = null;
  let isClosed = false;
  const listen = async (): Promise<void> => {
    removeGoneOverlays(runDir);
    rmSync(socketPath, { force: true });
    const made: Server = createServer((socket) => answer(socket, answers, log));
    await startListening(
      made,
      (listening) => made.listen(socketPath, listening),
      logNotTaken(log, "a connection that asks for the status"),
    );
    server = made;
    if (isClosed) return close();
    chmodSync(socketPath, 0o600);
  };
  const close = (): void => {
    if (server === null) return;
    server.close();
    rmSync(socketPath, { force: true });
  };
  const update = (): void => {
    const startTime = startTimeOf(process.pid) ?? undefined;
    writeFileSync(`${file}.new`, `${JSON.stringify({ ...answers.summary(), startTime })}\n`, { mode: 0o600 });
    renameSync(`${file}.new`, file);
  };
  const listening = new Shown(listen, (error) =>
    warn("listen", { socketPath, error: String(error) }, "nobody can ask for the status of this mount yet"),
  );
  const written = new Shown(update, (error) =>
    warn("update", { file, error: String(error) }, "the status of this mount could not be written"),
  );
  if (isThere) {
    await listening.show();
    await written.show();
  } else {
    await listen();
    update();
  }
  return {
    update: () => void written.show(),
    close: (isMountLeft) => {
      isClosed = true;
      listening.end();
      written.end();
      close();
      if (!isMountLeft) rmSync(file, { force: true });
    },
  };
}

function answer(socket: Socket, answers: StatusAnswers, log: Log): void {
  let question = "";
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    question += chunk.toString("utf8");
    const end = question.indexOf("\n");
    if (end < 0 && question.length <= MAX_QUESTION_BYTES) return;
    socket.pause();
    const line = question.slice(0, Math.max(end, 0));
    reply(line, answers)
      .then((found) => socket.end(`${JSON.stringify(found)}\n`))
      // Whoever asks is no reason to take the mount out.
      .catch((error: unknown) => {
        log.warn({ question: line.slice(0, 100), error: String(error) }, "a question about this mount failed");
        socket.end(`${JSON.stringify({ error: String(error) })}\n`);
      });
  });
}

async function reply(line: string, answers: StatusAnswers): Promise<object> {
  let question: {
    readonly query?: unknown;
    readonly ino?: unknown;
    readonly lockspace?: unknown;
    readonly files?: unknown;
    readonly heir?: unknown;
  } = {};
  try {
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed === "object" && parsed !== null) question = parsed;
  } catch {
    // Not JSON: answered like any other question that is not understood.
  }
  const { query, ino, lockspace, files, heir } = question;
  if (query === "status") return answers.status();
  if (query === "requests") return answers.requests();
  if (query === "file-locks") return answers.fileLocks();
  if (query === "inode" && typeof ino === "number" && Number.isSafeInteger(ino)) return answers.inode(ino);
  if (query === "gather" && typeof lockspace === "string" && isNames(files)) return answers.gather(lockspace, files);
  if (query === "restart") return answers.restart();
  if (query === "pause") return answers.pause();
  if (query === "go-on") return answers.goOn();
  if (query === "grow") return answers.grow();
  if (query === "growth") return answers.growth();
  if (query === "hand-over" && isNodeid(heir)) return answers.handOver(heir);
  return { error: `expected {"query":"status"}, found ${JSON.stringify(line.slice(0, 100))}` };
}

/** 0: any. */
function isNodeid(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0xffff;
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string" && /^f\d{1,20}\.\d{1,10}$/.test(one));
}
