/** The page over real sockets of the loopback: what an attacker on this machine, or a page in its browser, could try. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type IncomingHttpHeaders, request } from "node:http";
import { createConnection, type Socket } from "node:net";
import path from "node:path";
import { afterEach, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { NodeFacts } from "../../../overlay/status/facts.ts";
import { readPageFiles } from "../../../overlay/ui/page-files.ts";
import { CONNECTIONS_MAX, MAX_HEADER_BYTES, MAX_UNSENT_BYTES, startUi, type Ui, VIEWERS_MAX } from "../../../overlay/ui/server.ts";
import type { Snapshot } from "../../../overlay/ui/snapshot.ts";
import { aWait, wellNode } from "../status/node.ts";

const started: Ui[] = [];
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const ui of started.splice(0)) await ui.close();
});

async function start(facts: NodeFacts = wellNode, more: { requestTimeoutMs?: number; idleTimeoutMs?: number } = {}): Promise<Ui> {
  const ui = await startUi({ sources: [{ name: "this node", look: async () => facts }], title: "", port: 0, log: silentLog, ...more });
  started.push(ui);
  return ui;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

function ask(ui: Ui, url: string, headers: Record<string, string> = {}, method = "GET", body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port: ui.port, path: url, headers, method, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

interface Entry {
  readonly base: string;
  readonly cookie: string;
}

/** As a browser does it. */
async function enter(ui: Ui): Promise<Entry> {
  const { headers } = await ask(ui, new URL(ui.url).pathname + new URL(ui.url).search);
  return { base: headers.location ?? "", cookie: headers["set-cookie"]?.[0]?.split(";")[0] ?? "" };
}

/** Its answer as far as it came, when `until` is in it, or when it has ended. */
function raw(ui: Ui, text: string, until?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host: "127.0.0.1", port: ui.port });
    sockets.push(socket);
    let seen = "";
    socket.setEncoding("utf8");
    socket.on("error", reject);
    socket.on("data", (chunk: string) => {
      seen += chunk;
      if (until !== undefined && seen.includes(until)) resolve(seen);
    });
    socket.on("close", () => resolve(seen));
    socket.write(text);
  });
}

function streamRequest(ui: Ui, { base, cookie }: Entry): string {
  return `GET ${base}stream HTTP/1.1\r\nHost: 127.0.0.1:${ui.port}\r\nCookie: ${cookie}\r\n\r\n`;
}

it("listens on 127.0.0.1 alone, at the port that its address names", async () => {
  const ui = await start();
  expect(ui.url).toMatch(new RegExp(`^http://127\\.0\\.0\\.1:${ui.port}/\\?token=[\\w-]{43}$`));
  const table = ["tcp", "tcp6"].flatMap((name) => readFileSync(`/proc/net/${name}`, "utf8").split("\n"));
  const port = ui.port.toString(16).toUpperCase().padStart(4, "0");
  const listening = table
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local = "", , state]) => local.endsWith(`:${port}`) && state === "0A");
  expect(listening.map(([, local]) => local)).toEqual([`0100007F:${port}`]);
});

it("gives the token as a cookie for a path that nobody can guess, and there the page, its files, and a snapshot", async () => {
  const ui = await start();
  const welcome = await ask(ui, `/${new URL(ui.url).search}`);
  expect(welcome).toMatchObject({ status: 303, text: "" });
  expect(welcome.headers["set-cookie"]).toEqual([expect.stringMatching(/; Path=\/v\/[\w-]{22}\/; HttpOnly; SameSite=Strict$/)]);
  const { base, cookie } = await enter(ui);
  const page = await ask(ui, base, { Cookie: cookie });
  expect(page).toMatchObject({ status: 200, headers: { "content-type": "text/html; charset=utf-8" } });
  expect(page.text).toContain('<script type="module" src="page.mjs">');
  for (const name of readPageFiles().keys()) expect((await ask(ui, `${base}${name}`, { Cookie: cookie })).status).toBe(200);
  const snapshot = JSON.parse((await ask(ui, `${base}snapshot`, { Cookie: cookie })).text) as Snapshot;
  expect(snapshot).toMatchObject({ title: "demo", level: "well" });
  const head = await ask(ui, base, { Cookie: cookie }, "HEAD");
  expect([head.status, head.text, Number(head.headers["content-length"])]).toEqual([200, "", page.text.length]);
  expect((await ask(ui, `${base}stream`, { Cookie: cookie }, "HEAD")).headers["content-type"]).toBe("text/event-stream");
});

it("another user of this machine, without the token, sees nothing: 403 with words", async () => {
  const ui = await start();
  const { base } = await enter(ui);
  for (const url of ["/", "/?token=x", base, `${base}snapshot`, `${base}stream`, "/snapshot", "/page.mjs"]) {
    const { status, text, headers } = await ask(ui, url);
    expect([url, status]).toEqual([url, 403]);
    expect(text).toContain("the address that `coverlay ui` has printed");
    expect(headers["set-cookie"]).toBeUndefined();
  }
});

it("a page of a site whose name leads to 127.0.0.1 is refused, even with token and cookie", async () => {
  const ui = await start();
  const { base, cookie } = await enter(ui);
  for (const Host of ["rebind.example", `rebind.example:${ui.port}`, "127.0.0.1.rebind.example", "0.0.0.0", "[::1]"]) {
    expect((await ask(ui, `${base}snapshot`, { Cookie: cookie, Host })).status).toBe(403);
    expect((await ask(ui, `/${new URL(ui.url).search}`, { Host })).status).toBe(403);
  }
  expect((await ask(ui, `${base}snapshot`, { Cookie: cookie, Host: "localhost:8080" })).status).toBe(200);
  expect(await raw(ui, `GET ${base} HTTP/1.0\r\nCookie: ${cookie}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 403 /);
});

it("a page of another origin may neither ask, nor frame, nor read: no CORS", async () => {
  const ui = await start();
  const { base, cookie } = await enter(ui);
  for (const site of ["same-site", "cross-site"]) {
    expect((await ask(ui, `${base}snapshot`, { Cookie: cookie, "Sec-Fetch-Site": site, Origin: "http://127.0.0.1:9" })).status).toBe(403);
  }
  const { headers } = await ask(ui, base, { Cookie: cookie, Origin: "http://evil.example" });
  expect(Object.keys(headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
  expect(headers).toMatchObject({
    "content-security-policy": expect.stringMatching(
      /^default-src 'none'; script-src 'self'; .*frame-ancestors 'none'; require-trusted-types-for 'script'$/,
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
  });
  expect(headers["content-security-policy"]).not.toContain("unsafe");
});

it("nothing can be changed: each other method and each body is refused, and the connection closed", async () => {
  const ui = await start();
  const { base, cookie } = await enter(ui);
  for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]) {
    const { status, headers } = await ask(ui, `${base}snapshot`, { Cookie: cookie }, method);
    expect([method, status, headers.allow, headers.connection]).toEqual([method, 405, "GET, HEAD", "close"]);
  }
  expect((await ask(ui, base, { Cookie: cookie, "Content-Length": "3" }, "GET", "abc")).status).toBe(400);
  expect(await raw(ui, `GET ${base} HTTP/1.1\r\nHost: localhost\r\nCookie: ${cookie}\r\nTransfer-Encoding: chunked\r\n\r\n`)).toMatch(
    /^HTTP\/1\.1 400 /,
  );
  expect(await raw(ui, "CONNECT example.com:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")).toBe("");
  expect(await raw(ui, "nonsense\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
});

it("no path reaches the disk", async () => {
  const ui = await start();
  const { base, cookie } = await enter(ui);
  const tries = [
    "../server.ts",
    "..%2f..%2fpackage.json",
    "/etc/passwd",
    "page.css/",
    "./page.css",
    "page.css%00",
    "index.html",
    "__proto__",
    "constructor",
  ];
  for (const name of tries) expect([name, (await ask(ui, `${base}${name}`, { Cookie: cookie })).status]).toEqual([name, 404]);
});

it("the page puts names in as text, and loads nothing from elsewhere", () => {
  const folder = path.resolve(import.meta.dirname, "../../../overlay/ui/page");
  const texts = ["index.html", "page.css", "page.mjs", "parts.mjs", "picture.mjs", "icon.svg"].map((file) =>
    readFileSync(path.join(folder, file), "utf8"),
  );
  const all = texts.join("\n");
  expect(all).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\("(on|style)/);
  expect(all.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:|@import|url\(|\son\w+=/);
});

it("a viewer gets a snapshot at each turn", async () => {
  const ui = await start();
  const seen = await raw(ui, streamRequest(ui, await enter(ui)), "data: {");
  expect(seen).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  expect(seen).toContain("Content-Type: text/event-stream");
  expect(seen).toContain('"title":"demo"');
});

it("one viewer more than VIEWERS_MAX is told to come later, and comes in when one has gone", async () => {
  const ui = await start();
  const entry = await enter(ui);
  for (let viewer = 0; viewer < VIEWERS_MAX; viewer++) await raw(ui, streamRequest(ui, entry), "retry:");
  expect(ui.poll.viewers).toBe(VIEWERS_MAX);
  const late = await raw(ui, streamRequest(ui, entry));
  expect(late).toMatch(/^HTTP\/1\.1 503 /);
  expect(late).toContain("Retry-After: 5");
  sockets[0]?.destroy();
  await expect.poll(() => ui.poll.viewers).toBe(VIEWERS_MAX - 1);
  expect(await raw(ui, streamRequest(ui, entry), "retry:")).toMatch(/^HTTP\/1\.1 200 /);
});

it("one connection more than CONNECTIONS_MAX is closed", async () => {
  const ui = await start();
  const connect = (): Promise<Socket> =>
    new Promise((resolve, reject) => {
      const socket = createConnection({ host: "127.0.0.1", port: ui.port }, () => resolve(socket));
      sockets.push(socket);
      socket.on("error", reject);
    });
  for (let open = 0; open < CONNECTIONS_MAX; open++) await connect();
  const late = await connect();
  let seen = "";
  late.on("error", () => undefined);
  late.on("data", (chunk: Buffer) => (seen += chunk.toString()));
  const closed = new Promise((resolve) => late.once("close", resolve));
  late.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await closed;
  expect(seen).toBe("");
  expect(sockets.filter(({ destroyed }) => !destroyed)).toHaveLength(CONNECTIONS_MAX);
});

it("a viewer that takes nothing in is dropped at MAX_UNSENT_BYTES, and looks no more", async () => {
  const what = "x".repeat(MAX_UNSENT_BYTES);
  const ui = await start({ ...wellNode, waits: [{ ...aWait, what }] });
  const entry = await enter(ui);
  const slow = createConnection({ host: "127.0.0.1", port: ui.port });
  sockets.push(slow);
  slow.on("error", () => undefined);
  slow.write(streamRequest(ui, entry));
  slow.pause();
  await expect.poll(() => ui.poll.viewers).toBe(1);
  // A quick one stays.
  let bytes = 0;
  const quick = createConnection({ host: "127.0.0.1", port: ui.port });
  sockets.push(quick);
  quick.on("data", (chunk: Buffer) => (bytes += chunk.length));
  quick.write(streamRequest(ui, entry));
  await expect.poll(() => ui.poll.viewers).toBe(2);
  await expect.poll(() => ui.poll.viewers, { timeout: 30_000 }).toBe(1);
  expect(quick.destroyed).toBe(false);
  await expect.poll(() => bytes, { timeout: 10_000 }).toBeGreaterThan(MAX_UNSENT_BYTES);
});

it("a request with more than MAX_HEADER_BYTES of headers is refused", async () => {
  const ui = await start();
  const { base, cookie } = await enter(ui);
  const header = (bytes: number): Promise<Answer> => ask(ui, base, { Cookie: cookie, "X-Long": "x".repeat(bytes) });
  expect((await header(MAX_HEADER_BYTES / 2)).status).toBe(200);
  expect((await header(MAX_HEADER_BYTES)).status).toBe(431);
});

it("a request that does not come in, and a connection without one, are ended at their time-outs", async () => {
  const ui = await start(wellNode, { requestTimeoutMs: 50, idleTimeoutMs: 50 });
  const { base, cookie } = await enter(ui);
  expect(await raw(ui, "GET / HTTP/1.1\r\nHost: local")).toMatch(/^HTTP\/1\.1 408 /);
  expect(await raw(ui, `GET ${base} HTTP/1.1\r\nHost: localhost\r\nCookie: ${cookie}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 200 /);
});

it("a port that is in use is refused with words; when closed, nobody is connected and nobody asked", async () => {
  const ui = await start();
  const seen = raw(ui, streamRequest(ui, await enter(ui)));
  await expect.poll(() => ui.poll.viewers).toBe(1);
  await expect(startUi({ sources: [], title: "", port: ui.port, log: silentLog })).rejects.toMatchObject({
    code: "port-in-use",
    message: `port ${ui.port} of 127.0.0.1 is in use`,
    hint: expect.stringContaining("--port 0"),
  });
  await ui.close();
  await seen;
  await expect.poll(() => ui.poll.viewers).toBe(0);
  await expect(ask(ui, "/")).rejects.toThrow("ECONNREFUSED");
});

it("a defect in a look ends the page, and is told", async () => {
  const defect = new TypeError("a defect");
  const ui = await startUi({ sources: [{ name: "x", look: () => Promise.reject(defect) }], title: "", port: 0, log: silentLog });
  started.push(ui);
  void raw(ui, streamRequest(ui, await enter(ui)), "retry:");
  await expect(ui.failed).rejects.toBe(defect);
});

it("viewers that came one behind the other on one connection go with it", async () => {
  const ui = await start();
  const entry = await enter(ui);
  const socket = createConnection({ host: "127.0.0.1", port: ui.port });
  sockets.push(socket);
  socket.write(streamRequest(ui, entry).repeat(VIEWERS_MAX));
  await once(socket, "data");
  const look = async (): Promise<string> => (await raw(ui, streamRequest(ui, entry), "\r\n\r\n")).slice(0, 12);
  expect(await look()).toBe("HTTP/1.1 503");
  socket.destroy();
  await expect.poll(look).toBe("HTTP/1.1 200");
  const others = await Promise.all(Array.from({ length: VIEWERS_MAX - 1 }, look));
  expect(new Set(others)).toEqual(new Set(["HTTP/1.1 200"]));
});
