/**
 * The administrator's socket of a dlmd: one JSON line asks, one JSON line answers. Apart from the socket of the locks, because what is
 * asked here changes the cluster, and is rare.
 */
import { type Server, type Socket, createServer } from "node:net";
import { logNotTaken } from "../base/listening.ts";
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { type AdminAnswer, MAX_ADMIN_LINE_BYTES } from "../client/admin.ts";
import { listenOnOwnSocket } from "./own-socket.ts";
import { objectionTo, type PeerProcesses } from "./peer-process.ts";

/** Connections at one time; more are closed. */
const MAX_CONNECTIONS = 16;
/** For a question to be asked; an answer may take longer. */
const ASK_TIMEOUT_MS = 10_000;

export interface AdminServerOptions {
  /** Nobody else has it: dlmd has the local socket beside it already. */
  readonly socketPath: string;
  readonly log: Log;
  readonly processes: PeerProcesses;
  /** Rejects with OperatingError. */
  readonly answer: (question: unknown) => Promise<unknown>;
}

export interface AdminServer {
  close(): Promise<void>;
}

function describe(error: unknown): AdminAnswer {
  if (!(error instanceof OperatingError)) throw error;
  const { message, code, hint } = error;
  return { error: { message, code, hint } };
}

async function answerLine(line: string, answer: AdminServerOptions["answer"]): Promise<AdminAnswer> {
  try {
    let question: unknown;
    try {
      question = JSON.parse(line);
    } catch (cause) {
      const hint = "Ask through `coverlay config` and `coverlay fence`.";
      throw new OperatingError("one line of JSON expected on this socket", { code: "bad-question", hint, cause });
    }
    return { answer: await answer(question) };
  } catch (error) {
    return describe(error);
  }
}

function serve(socket: Socket, { answer, log, processes }: AdminServerOptions): void {
  const wrong = objectionTo(processes.credentialsOf(socket));
  const refuse = (message: string) => (): Promise<never> =>
    Promise.reject(new OperatingError(message, { code: "not-allowed", hint: "Use sudo." }));
  const say = wrong === null ? answer : refuse(wrong);
  let asked = "";
  let done = false;
  socket.setTimeout(ASK_TIMEOUT_MS, () => socket.destroy());
  socket.on("error", () => undefined);
  socket.setEncoding("utf8");
  socket.on("data", (chunk: string) => {
    if (done) return;
    asked += chunk;
    const end = asked.indexOf("\n");
    if (end < 0 && asked.length <= MAX_ADMIN_LINE_BYTES) return;
    done = true;
    socket.setTimeout(0);
    answerLine(end < 0 ? "" : asked.slice(0, end), say).then(
      // Until it has taken it, and closed its end.
      (said) => socket.end(`${JSON.stringify(said)}\n`).setTimeout(ASK_TIMEOUT_MS),
      (error: unknown) => {
        log.error({ error: (error as Error).stack }, "an administrator's question failed");
        socket.destroy();
      },
    );
  });
}

export async function startAdminServer(options: AdminServerOptions): Promise<AdminServer> {
  const { socketPath, log } = options;
  const open = new Set<Socket>();
  const server: Server = createServer((socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    serve(socket, options);
  });
  server.maxConnections = MAX_CONNECTIONS;
  const failed = logNotTaken(log, "an administrator's connection");
  await listenOnOwnSocket(server, { path: socketPath, other: "another dlmd", code: "cannot-listen", option: "--run-dir", failed });
  return {
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}
