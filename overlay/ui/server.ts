/** The page over HTTP: loopback alone, read only, a fixed table of files, one stream of snapshots for each viewer. guard.ts says who may look. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { OperatingError } from "../../dlmd/base/error.ts";
import { logNotTaken, startListening } from "../../dlmd/base/listening.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { cookieFor, judge, type Key, newKey } from "./guard.ts";
import { type PageFile, readPageFiles } from "./page-files.ts";
import { LivePoll, type PollOptions } from "./poll.ts";

/** Streams at one time; one more is answered 503. */
export const VIEWERS_MAX = 32;
/** Connections at one time; one more is closed. */
export const CONNECTIONS_MAX = 128;
/** A viewer that has not taken in so much is dropped: its browser connects again when it is able to. */
export const MAX_UNSENT_BYTES = 1_048_576;
/** A request whose headers are longer is answered 431. */
export const MAX_HEADER_BYTES = 8192;
/** For a request to come in as a whole. */
export const REQUEST_TIMEOUT_MS = 10_000;
/** A connection without a request is closed. */
export const IDLE_TIMEOUT_MS = 5000;

/** require-trusted-types-for: no text becomes HTML, even by a mistake of the page. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
const HEADERS: Readonly<Record<string, string>> = {
  "Content-Security-Policy": POLICY,
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cache-Control": "no-store",
};

export interface UiOptions extends Pick<PollOptions, "sources" | "title"> {
  /** 0: a free one. */
  readonly port: number;
  readonly log: Log;
  /** Shorter ones, for tests of them. */
  readonly requestTimeoutMs?: number;
  readonly idleTimeoutMs?: number;
}

export interface Ui {
  /** With the token. */
  readonly url: string;
  readonly port: number;
  readonly poll: LivePoll;
  /** Rejects at a defect of coverlay. */
  readonly failed: Promise<never>;
  close(): Promise<void>;
}

interface Parts {
  readonly key: Key;
  readonly files: ReadonlyMap<string, PageFile>;
  readonly poll: LivePoll;
}

/** Throws OperatingError "port-in-use", "cannot-listen". */
export async function startUi(options: UiOptions): Promise<Ui> {
  const { sources, title, port, log, requestTimeoutMs = REQUEST_TIMEOUT_MS, idleTimeoutMs = IDLE_TIMEOUT_MS } = options;
  let failed: (error: unknown) => void = () => undefined;
  const failure = new Promise<never>((_, reject) => (failed = reject));
  failure.catch(() => undefined); // It is told to the one that waits for it, if any does.
  const poll = new LivePoll({ sources, title, failed });
  const parts: Parts = { key: newKey(), files: readPageFiles(), poll };
  const server = createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, connectionsCheckingInterval: requestTimeoutMs / 10 },
    (request, response) => {
      answer(request, response, parts).catch((error: unknown) => {
        response.destroy();
        failed(error);
      });
    },
  );
  server.maxConnections = CONNECTIONS_MAX;
  server.headersTimeout = requestTimeoutMs;
  server.requestTimeout = requestTimeoutMs;
  server.keepAliveTimeout = idleTimeoutMs;
  await listen(server, port, logNotTaken(log, "a browser's connection"));
  const { port: taken } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${taken}/?token=${parts.key.token}`,
    port: taken,
    poll,
    failed: failure,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listen(server: Server, port: number, notTaken: (error: Error) => void): Promise<void> {
  try {
    await startListening(server, (listening) => server.listen({ host: "127.0.0.1", port, exclusive: true }, listening), notTaken);
  } catch (error) {
    throw notListening(port, error as NodeJS.ErrnoException);
  }
}

function notListening(port: number, cause: NodeJS.ErrnoException): OperatingError {
  if (cause.code === "EADDRINUSE") {
    return new OperatingError(`port ${port} of 127.0.0.1 is in use`, {
      code: "port-in-use",
      hint: "Another `coverlay ui` may run there. --port 0 takes a free port.",
      cause,
    });
  }
  return new OperatingError(`the page should be served at port ${port} of 127.0.0.1, but: ${cause.message}`, {
    code: "cannot-listen",
    hint: "--port 0 takes a free port.",
    cause,
  });
}

async function answer(request: IncomingMessage, response: ServerResponse, parts: Parts): Promise<void> {
  const { method = "", url = "", headers } = request;
  const hasBody = headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) !== 0;
  const site = headers["sec-fetch-site"];
  const asked = { method, url, host: headers.host, cookie: headers.cookie, site: typeof site === "string" ? site : undefined, hasBody };
  const verdict = judge(asked, parts.key);
  for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
  if (verdict.kind === "refuse") return refuse(response, verdict.status, verdict.words);
  if (verdict.kind === "welcome") {
    response.writeHead(303, { Location: parts.key.base, "Set-Cookie": cookieFor(parts.key) }).end();
    return;
  }
  if (verdict.name === "stream") return stream(request, response, parts.poll);
  if (verdict.name === "snapshot") return send(response, "application/json", Buffer.from(JSON.stringify(await parts.poll.once())));
  const file = parts.files.get(verdict.name);
  if (file === undefined) return refuse(response, 404, "There is nothing of that name.");
  return send(response, file.type, file.bytes);
}

/** What follows on that connection is not read: a body may. */
function refuse(response: ServerResponse, status: number, words: string): void {
  if (status === 405) response.setHeader("Allow", "GET, HEAD");
  response.setHeader("Connection", "close");
  response.statusCode = status;
  send(response, "text/plain; charset=utf-8", Buffer.from(`${words}\n`));
}

/** Of a HEAD Node.js sends the headers alone. */
function send(response: ServerResponse, type: string, bytes: Buffer): void {
  response.setHeader("Content-Type", type);
  response.setHeader("Content-Length", bytes.length);
  response.end(bytes);
}

/** Server-sent events (HTML Living Standard, 9.2): one for each turn. */
function stream(request: IncomingMessage, response: ServerResponse, poll: LivePoll): void {
  if (request.method === "HEAD") {
    response.writeHead(200, { "Content-Type": "text/event-stream" }).end();
    return;
  }
  if (poll.viewers >= VIEWERS_MAX) {
    response.setHeader("Retry-After", "5");
    return refuse(response, 503, `${VIEWERS_MAX} viewers look already, which is all there may be. Close one of them.`);
  }
  const { socket } = request;
  response.writeHead(200, { "Content-Type": "text/event-stream", "X-Accel-Buffering": "no" });
  response.write("retry: 1000\n\n");
  const end = poll.watch((snapshot) => {
    if (response.writableLength > MAX_UNSENT_BYTES) socket.destroy();
    else response.write(`data: ${JSON.stringify(snapshot)}\n\n`);
  });
  // Of requests that came one behind the other on a connection only the first one's response hears of its end.
  socket.setMaxListeners(2 * VIEWERS_MAX).once("close", end);
}
