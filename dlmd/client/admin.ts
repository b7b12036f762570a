/** Asks a dlmd on its administrator's socket (server/admin-server.ts): the configuration that is in force, and to change it; to fence a node. */
import { createConnection } from "node:net";
import path from "node:path";
import { OperatingError } from "../base/error.ts";

export const MAX_ADMIN_LINE_BYTES: number = 1024 * 1024;
/** A change waits for disks of other nodes. */
const ANSWER_TIMEOUT_MS = 40_000;

export type AdminQuestion =
  | { readonly what: "config-show" }
  /** That node is to be fenced now, member or not. `by`: who wants it, for the log. */
  | { readonly what: "fence-node"; readonly nodeid: number; readonly by: string }
  /** That node is dead for sure. `by`: who says so, for the log. */
  | { readonly what: "fence-ack"; readonly nodeid: number; readonly by: string }
  /** Nodes that count and are away are gone for good. `by`: who says so, for the log. */
  | { readonly what: "quorum-reset"; readonly by: string }
  /** Whether it would restart if no program had locks. */
  | { readonly what: "may-restart" }
  /** It leaves the cluster, and the installed program starts in its process. `by`: who wants it, for the log. */
  | { readonly what: "restart"; readonly by: string }
  | { readonly what: "config-apply"; readonly text: string; readonly source: string };

export interface ShownConfig {
  readonly version: number;
  readonly text: string;
  /** Proposed and not decided. */
  readonly pending: { readonly version: number; readonly text: string } | null;
}

export type AdminAnswer =
  | { readonly answer: unknown }
  | { readonly error: { readonly message: string; readonly code: string; readonly hint: string } };

export function adminSocketPath(runDir: string): string {
  return path.join(runDir, "dlmd-admin.sock");
}

function unreachable(runDir: string, cause: NodeJS.ErrnoException, isConnected: boolean): OperatingError {
  if (cause.code === "EACCES" || cause.code === "EPERM") {
    return new OperatingError(`${adminSocketPath(runDir)} may not be asked by user id ${process.geteuid?.() ?? "?"}`, {
      code: "permission",
      hint: "Use sudo, or be the user that runs dlmd.",
      cause,
    });
  }
  // It has taken the connection, or as many wait as may (unix(7)): it is there, and a second one is not to be started.
  const isThere = isConnected || cause.code === "EAGAIN";
  return new OperatingError(`dlmd should answer on ${adminSocketPath(runDir)}, but: ${cause.message}`, {
    code: isThere ? "dlmd-not-answering" : "dlmd-not-running",
    hint: isThere
      ? "It hangs, restarts, or has too many questions: its log says which. Ask again."
      : "Start dlmd, or name its run directory with --run-dir.",
    cause,
  });
}

/** Rejects with OperatingError: dlmd's own, or that it does not answer. */
export async function askAdmin(runDir: string, question: AdminQuestion): Promise<unknown> {
  const said = await new Promise<string>((resolve, reject) => {
    const socket = createConnection(adminSocketPath(runDir));
    let text = "";
    let isConnected = false;
    socket.on("connect", () => (isConnected = true));
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy(new Error(`no answer within ${ANSWER_TIMEOUT_MS / 1000} s`)));
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => (text += chunk));
    socket.on("error", (error) => reject(unreachable(runDir, error, isConnected)));
    socket.on("close", () => resolve(text));
    socket.write(`${JSON.stringify(question)}\n`);
  });
  if (!said.endsWith("\n")) throw unreachable(runDir, new Error("it closed the connection without an answer"), true);
  const answer = JSON.parse(said) as AdminAnswer;
  if ("answer" in answer) return answer.answer;
  const { message, code, hint } = answer.error;
  throw new OperatingError(message, { code, hint });
}
