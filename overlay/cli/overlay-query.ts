/**
 * Asks the overlays of this node about themselves. Each overlay keeps `<runDir>/overlay.json`, replaced whole at each
 * change of role, and listens on `<runDir>/overlay.sock`: one JSON line {"query":"status"} in, one JSON line out.
 */
import { createConnection } from "node:net";
import { readFileSync } from "node:fs";
import path from "node:path";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";

/** An overlay answers from memory; one that takes longer is stuck, and the caller wants to say so. */
const QUERY_TIMEOUT_MS = 5000;
/** An answer longer than this is not one. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

const overlayFile = z.looseObject({
  pid: z.int().positive(),
  role: z.string(),
  mountpoint: z.string(),
  volume: z.string(),
  device: z.string(),
});

/** What overlay.json says; the overlay may add to it. */
export interface OverlayFile {
  readonly pid: number;
  /** "owner", or what the overlay is instead ("remote" ...). */
  readonly role: string;
  readonly mountpoint: string;
  readonly volume: string;
  readonly device: string;
}

/** What {"query":"status"} answers: at least what is in overlay.json. */
export interface OverlayStatus extends OverlayFile {
  /** Requests of the kernel served since the mount. */
  readonly ops?: number | undefined;
  /** Cluster locks held or cached now. */
  readonly locks?: number | undefined;
  readonly [more: string]: unknown;
}

const overlayStatus = overlayFile.extend({ ops: z.number().optional(), locks: z.number().optional() });

export function overlayFilePath(runDir: string): string {
  return path.join(runDir, "overlay.json");
}

export function overlaySocketPath(runDir: string): string {
  return path.join(runDir, "overlay.sock");
}

/** overlay.json of that run directory; null where no overlay has written one. It may outlive its overlay: check the pid. */
export function readOverlayFile(runDir: string): OverlayFile | null {
  const file = overlayFilePath(runDir);
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  return parseAnswer(overlayFile, text, file);
}

function parseAnswer<T>(shape: z.ZodType<T>, text: string, source: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw badAnswer(source, "JSON", text, error);
  }
  if (typeof value === "object" && value !== null && "error" in value) {
    throw new OperatingError(`${source}: ${String(value.error)}`, {
      code: "overlay-refused",
      hint: "Is the mount served by another version of coverlay? Unmount and mount it again.",
    });
  }
  const result = shape.safeParse(value);
  if (!result.success) throw badAnswer(source, z.prettifyError(result.error), text, result.error);
  return result.data;
}

function badAnswer(source: string, expected: string, text: string, cause: unknown): OperatingError {
  return new OperatingError(`${source}: expected ${expected}, found ${JSON.stringify(text.slice(0, 200))}`, {
    code: "overlay-bad-answer",
    hint: "Is the mount served by another version of coverlay? Unmount and mount it again.",
    cause,
  });
}

/** One question to an overlay's socket. Throws OperatingError "no-overlay", "overlay-silent" or "overlay-bad-answer". */
export function askOverlay(socketPath: string, query: string, timeoutMs: number = QUERY_TIMEOUT_MS): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath);
    const chunks: Buffer[] = [];
    let bytes = 0;
    const end = (error: OperatingError | null, answer = ""): void => {
      clearTimeout(timer);
      socket.destroy();
      if (error === null) resolve(answer);
      else reject(error);
    };
    const silent = (found: string): OperatingError =>
      new OperatingError(`the overlay behind ${socketPath} does not answer: ${found}`, {
        code: "overlay-silent",
        hint: "Its log says what it is doing; a mount that hangs for good is ended with umount -l.",
      });
    const timer = setTimeout(() => end(silent(`no answer within ${timeoutMs} ms`)), timeoutMs);
    socket.on("connect", () => socket.write(`${JSON.stringify({ query })}\n`));
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) return end(silent(`more than ${MAX_ANSWER_BYTES} bytes without a line end`));
      chunks.push(chunk);
      if (chunk.includes(0x0a)) end(null, Buffer.concat(chunks).toString("utf8").split("\n")[0]);
    });
    socket.on("end", () => end(silent("it closed the connection")));
    socket.on("error", (cause) => end(noOverlay(socketPath, cause)));
  });
}

function noOverlay(socketPath: string, cause: Error): OperatingError {
  return new OperatingError(`no overlay listens on ${socketPath}: ${(cause as NodeJS.ErrnoException).code ?? cause.message}`, {
    code: "no-overlay",
    hint: "Nothing is mounted on this node, or its run directory is another one: name it with --run-dir.",
    cause,
  });
}

/** The status of the overlay of that run directory. */
export async function queryOverlayStatus(runDir: string, timeoutMs: number = QUERY_TIMEOUT_MS): Promise<OverlayStatus> {
  const socketPath = overlaySocketPath(runDir);
  return parseAnswer(overlayStatus, await askOverlay(socketPath, "status", timeoutMs), socketPath);
}
