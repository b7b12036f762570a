/** A server's errors after it listens end no process, and do not fill the log. */
import { createServer, type Server } from "node:net";
import { afterEach, expect, it, vi } from "vitest";
import type { Log } from "../../../dlmd/base/log.ts";
import { logNotTaken, startListening } from "../../../dlmd/base/listening.ts";

const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  vi.restoreAllMocks();
});

function listeningServer(): Server {
  const server = createServer();
  servers.push(server);
  return server;
}

it("the second error is heard like the first: nothing throws", async () => {
  const server = listeningServer();
  const heard: string[] = [];
  await startListening(
    server,
    (listening) => server.listen(0, "127.0.0.1", listening),
    (error) => void heard.push(error.message),
  );
  for (const words of ["accept EMFILE", "accept ENFILE", "accept EMFILE"]) server.emit("error", new Error(words));
  expect(heard).toEqual(["accept EMFILE", "accept ENFILE", "accept EMFILE"]);
});

it("one that cannot listen rejects, is told to nobody else, and may try once more", async () => {
  const heard: string[] = [];
  const start = (server: Server, port: number): Promise<void> =>
    startListening(
      server,
      (listening) => server.listen(port, "127.0.0.1", listening),
      (error) => void heard.push(error.message),
    );
  const first = listeningServer();
  await start(first, 0);
  const address = first.address();
  const second = listeningServer();
  const port = address !== null && typeof address !== "string" ? address.port : 0;
  await expect(start(second, port)).rejects.toMatchObject({ code: "EADDRINUSE" });
  await start(second, 0);
  expect(heard).toEqual([]);
  second.emit("error", new Error("accept EMFILE"));
  second.emit("error", new Error("accept EMFILE"));
  expect(heard).toEqual(["accept EMFILE", "accept EMFILE"]);
});

it("a connection that could not be taken is logged once in LOG_INTERVAL_MS, then less often", () => {
  let now = 0;
  vi.spyOn(performance, "now").mockImplementation(() => now);
  const lines: unknown[] = [];
  const log = { error: (fields: object, message: string) => void lines.push({ ...fields, message }) } as unknown as Log;
  const failed = logNotTaken(log, "a program's connection");
  const line = { error: "accept EMFILE", message: "a program's connection could not be taken" };
  for (let at = 0; at < 1000; at++) failed(new Error("accept EMFILE"));
  now = 9_999;
  failed(new Error("accept EMFILE"));
  expect(lines).toEqual([line]);
  now = 10_000;
  failed(new Error("accept EMFILE"));
  expect(lines).toEqual([line, { ...line, leftOut: 1000 }]);
  now = 29_999;
  failed(new Error("accept EMFILE"));
  expect(lines).toHaveLength(2);
});
