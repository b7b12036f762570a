/** Hazard H7: TLS between dlmds against rogues of every kind: no key, another key, a certificate, other versions, garbage, silence. */
import { randomBytes } from "node:crypto";
import { type Server, type Socket, createConnection, createServer } from "node:net";
import { type ConnectionOptions, type TlsOptions, connect as connectTls, createServer as createTlsServer } from "node:tls";
import { afterEach, expect, test } from "vitest";
import { strangersCertificate } from "./strangers-certificate.ts";
import { type Keyring, createKeyring, tlsKeyOf } from "../../../dlmd/tls/keyring.ts";
import { type SecureConnection, createSecureAcceptor, secureInitiator } from "../../../dlmd/tls/secure-connection.ts";

const ours = createKeyring([Buffer.alloc(32, 7)]);
const theirs = createKeyring([Buffer.alloc(32, 8)]);
const identityOf = (keyring: Keyring): string => `coverlay ${keyring.first.id}`;

type End = SecureConnection | string;
const open: (Socket | Server)[] = [];
afterEach(() => {
  for (const each of open.splice(0)) {
    if ("destroy" in each) each.destroy();
    else each.close();
  }
});

function listen(server: Server): Promise<number> {
  open.push(server);
  server.on("connection", (socket: Socket) => {
    open.push(socket);
    socket.on("error", () => undefined);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port)));
}
/** A dlmd's acceptor; what became of the first connection. */
async function acceptor(keyring: Keyring = ours): Promise<{ port: number; end: Promise<End> }> {
  const secure = createSecureAcceptor(() => keyring);
  let ended: (end: End) => void = () => undefined;
  const end = new Promise<End>((resolve) => (ended = resolve));
  const server = createServer((raw) => secure.accept(raw, { secured: ended, failed: ended }));
  return { port: await listen(server), end };
}
/** A dlmd's initiator on a connection to that port. */
function initiator(port: number, keyring: Keyring = ours): Promise<End> {
  return new Promise((resolve) => {
    const raw = createConnection({ port, host: "127.0.0.1" });
    open.push(raw);
    raw.once("connect", () => secureInitiator(raw, keyring, { secured: resolve, failed: resolve }));
  });
}
/** Somebody's own TLS client; whether the handshake succeeded for it. */
function stranger(port: number, options: ConnectionOptions): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, checkServerIdentity: () => undefined, ...options });
    open.push(socket);
    socket.once("secureConnect", () => resolve(true));
    socket.once("error", () => resolve(false));
    socket.once("close", () => resolve(false));
  });
}
const strangeServer = (options: TlsOptions): Promise<number> => {
  const server = createTlsServer(options, (socket) => socket.on("error", () => undefined));
  server.on("tlsClientError", () => undefined);
  return listen(server);
};

test("two with the key: TLS 1.3, ephemeral keys, no certificate, the same binding at both ends", async () => {
  const { port, end } = await acceptor();
  const a = (await initiator(port)) as SecureConnection;
  const b = (await end) as SecureConnection;
  expect([a.socket.getProtocol(), a.socket.getCipher().name]).toEqual(["TLSv1.3", "TLS_AES_128_GCM_SHA256"]);
  expect(a.socket.getEphemeralKeyInfo()).toMatchObject({ type: "ECDH" });
  expect([a.key, b.key]).toEqual([ours.first, ours.first]);
  expect(a.binding).toEqual(b.binding);
  const heard = new Promise((resolve) => b.socket.once("data", (data) => resolve(data.toString())));
  a.socket.write("over TLS");
  expect(await heard).toBe("over TLS");
});

test("another connection has another binding", async () => {
  const { port, end } = await acceptor();
  const first = (await initiator(port)) as SecureConnection;
  await end;
  const second = await acceptor();
  expect(((await initiator(second.port)) as SecureConnection).binding).not.toEqual(first.binding);
});

test("no session ticket is given: it would outlive the key", async () => {
  const { port, end } = await acceptor();
  const a = (await initiator(port)) as SecureConnection;
  const b = (await end) as SecureConnection;
  let tickets = 0;
  a.socket.on("session", () => tickets++);
  const heard = new Promise((resolve) => a.socket.once("data", resolve));
  b.socket.write("tickets would come before this");
  await heard;
  expect(tickets).toBe(0);
});

test("any of several keys is accepted, and the one that was used is known", async () => {
  const { port, end } = await acceptor(createKeyring([theirs.first.bytes, ours.first.bytes]));
  expect(await initiator(port)).toMatchObject({ key: { id: ours.first.id } });
  expect(await end).toMatchObject({ key: { id: ours.first.id } });
});

test("another key: both ends know", async () => {
  const { port, end } = await acceptor(theirs);
  expect(await initiator(port)).toContain(`wrong key: the peer does not have cluster key ${ours.first.id}`);
  expect(await end).toBe(`wrong key: the peer speaks with cluster key ${ours.first.id}, this node has ${theirs.first.id}`);
});

test("the right name for a wrong key, as a client and as a server", async () => {
  const { port, end } = await acceptor();
  const liar = { psk: Buffer.alloc(32, 1), identity: identityOf(ours) };
  expect(await stranger(port, { pskCallback: () => liar, minVersion: "TLSv1.3" })).toBe(false);
  expect(await end).toContain("wrong key");
  const server = await strangeServer({ pskCallback: () => Buffer.alloc(32, 1), minVersion: "TLSv1.3" });
  expect(await initiator(server)).toContain("wrong key");
});

test("a rogue server with a certificate and no key is refused", async () => {
  expect(await initiator(await strangeServer(strangersCertificate))).toContain("no key: the peer answered with a certificate");
});

test("a rogue server with a certificate and another key is refused", async () => {
  const port = await strangeServer({ ...strangersCertificate, pskCallback: (_, id) => (id === "other" ? Buffer.alloc(32, 1) : null) });
  expect(await initiator(port)).toContain("no key: the peer answered with a certificate");
});

test.each<[string, ConnectionOptions]>([
  ["no key", {}],
  ["a certificate", strangersCertificate],
  ["TLS 1.2 and no key", { maxVersion: "TLSv1.2" }],
  [
    "TLS 1.2 and the very key",
    { maxVersion: "TLSv1.2", ciphers: "PSK", pskCallback: () => ({ psk: tlsKeyOf(ours.first), identity: identityOf(ours) }) },
  ],
  ["the key under another name", { minVersion: "TLSv1.3", pskCallback: () => ({ psk: tlsKeyOf(ours.first), identity: "root" }) }],
])("a rogue client with %s is refused", async (_name, options) => {
  const { port, end } = await acceptor();
  expect(await stranger(port, options)).toBe(false);
  expect(await end).toMatch(/^(no key|wrong key|no TLS 1.3 with a cluster key)/);
});

test("a client with the key and a certificate is a member: the certificate is not even asked for", async () => {
  const { port, end } = await acceptor();
  expect(
    await stranger(port, { ...strangersCertificate, pskCallback: () => ({ psk: tlsKeyOf(ours.first), identity: identityOf(ours) }) }),
  ).toBe(true);
  expect(await end).toMatchObject({ key: ours.first });
});

test("bytes that are no TLS, and a connection that says nothing and goes", async () => {
  for (const bytes of [randomBytes(1000), Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(0)]) {
    const { port, end } = await acceptor();
    const raw = createConnection({ port, host: "127.0.0.1" });
    open.push(raw);
    raw.on("error", () => undefined);
    raw.end(bytes);
    expect(await end).toContain("no TLS 1.3 with a cluster key");
    const server = createServer((socket) => socket.end(bytes));
    expect(await initiator(await listen(server))).toContain("no TLS 1.3 with a cluster key");
  }
});

test("a peer that closes the connection without a word may have another key, and that is said", async () => {
  const closing = createServer((socket) => void socket.once("data", () => socket.destroy()));
  expect(await initiator(await listen(closing))).toContain("the peer closed the connection (it may have another key: see its log)");
});
