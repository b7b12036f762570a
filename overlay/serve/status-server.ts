/**
 * How the overlay process tells about itself (the other side: cli/overlay-query.ts): `<runDir>/overlay.json`, replaced whole at each change,
 * and `<runDir>/overlay.sock`, mode 0600: one JSON line {"query":"status"} in, one JSON line out.
 */
import { chmodSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { overlayFilePath, overlaySocketPath } from "../cli/overlay-query.ts";

/** A question longer than this is not one. */
const MAX_QUESTION_BYTES = 4096;

export interface StatusServer {
  /** Writes overlay.json anew. */
  update(): void;
  close(): void;
}

/** `summary`: what overlay.json says; `status`: the answer to {"query":"status"}. */
export async function serveStatus(runDir: string, summary: () => object, status: () => object): Promise<StatusServer> {
  const file = overlayFilePath(runDir);
  const socketPath = overlaySocketPath(runDir);
  rmSync(socketPath, { force: true });
  const server: Server = createServer((socket) => answer(socket, status));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(socketPath, () => resolve());
  });
  chmodSync(socketPath, 0o600);
  const update = (): void => {
    writeFileSync(`${file}.new`, `${JSON.stringify(summary())}\n`, { mode: 0o600 });
    renameSync(`${file}.new`, file);
  };
  update();
  return {
    update,
    close: () => {
      server.close();
      rmSync(socketPath, { force: true });
      rmSync(file, { force: true });
    },
  };
}

function answer(socket: Socket, status: () => object): void {
  let question = "";
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    question += chunk.toString("utf8");
    const end = question.indexOf("\n");
    if (end < 0 && question.length <= MAX_QUESTION_BYTES) return;
    socket.end(`${JSON.stringify(reply(question.slice(0, Math.max(end, 0)), status))}\n`);
  });
}

function reply(line: string, status: () => object): object {
  try {
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed === "object" && parsed !== null && "query" in parsed && parsed.query === "status") return status();
  } catch {
    // Not JSON: answered like any other question that is not understood.
  }
  return { error: `expected {"query":"status"}, found ${JSON.stringify(line.slice(0, 100))}` };
}
