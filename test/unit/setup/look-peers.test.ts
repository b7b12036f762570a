/** A look at a node over real sockets: what it does at each kind of answer, and that none makes it wait beyond its limit. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, type Server, type Socket, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { type Keyring, createKeyring } from "../../../dlmd/tls/keyring.ts";
import { createSecureAcceptor } from "../../../dlmd/tls/secure-connection.ts";
import { encodeSeen } from "../../../dlmd/wire/look.ts";
import { lookAtPeer, probeUdp } from "../../../overlay/setup/look-peers.ts";
import { seen } from "../../vector/dlmd/samples.ts";

const keyring = createKeyring([Buffer.alloc(32, 1)]);
const stranger = createKeyring([Buffer.alloc(32, 2)]);
const LIMIT_MS = 3000;
const SHORT_MS = 200;

let server: Server | null = null;
const sockets = new Set<Socket>();
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  const closing = server;
  server = null;
  if (closing !== null) await new Promise((resolve) => closing.close(resolve));
});

async function listen(connected: (socket: Socket) => void): Promise<number> {
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    connected(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

const frame = (body: Uint8Array, length = body.byteLength): Buffer => {
  const head = Buffer.alloc(4);
  head.writeUInt32LE(length);
  return Buffer.concat([head, body]);
};

const refusal = (reason: string): Uint8Array => new ByteWriter().u8(3).string(reason).copy();

/** A peer that has that key, and says these bytes. */
function peer(bytes: Uint8Array, ring: Keyring = keyring): Promise<number> {
  const acceptor = createSecureAcceptor(() => ring);
  return listen((raw) =>
    acceptor.accept(raw, {
      secured: ({ socket }) => {
        socket.on("error", () => undefined);
        socket.resume();
        socket.write(bytes);
      },
      failed: () => raw.destroy(),
    }),
  );
}

const look = (port: number, limitMs = LIMIT_MS, ring: Keyring | null = keyring): ReturnType<typeof lookAtPeer> =>
  lookAtPeer({ address: "127.0.0.1", port, localAddress: "127.0.0.1" }, ring, limitMs);

describe("a node", () => {
  it("that answers is seen, after a HELLO that is passed over, with the difference of the clocks", async () => {
    const wallMs = Date.now() + 60_000;
    const port = await peer(Buffer.concat([frame(Buffer.from([1, 2, 3])), frame(encodeSeen({ ...seen, wallMs }))]));
    const found = await look(port);
    expect(found).toMatchObject({ tcp: { kind: "answers" }, look: { kind: "seen", seen: { ...seen, wallMs } } });
    const { offsetMs, doubtMs } = found.look as { offsetMs: number; doubtMs: number };
    expect(Math.abs(offsetMs - 60_000)).toBeLessThan(2000);
    expect(doubtMs).toBeGreaterThan(0);
  });

  it("that nobody listens at is refused", async () => {
    const port = await listen(() => undefined);
    await new Promise((resolve) => server?.close(resolve));
    server = null;
    expect(await look(port)).toEqual({ tcp: { kind: "refused" }, look: { kind: "none" } });
  });

  it("with another key is told from one that is no dlmd", async () => {
    expect((await look(await peer(frame(encodeSeen(seen)), stranger))).look).toMatchObject({ kind: "wrong-key" });
  });

  it("that is no dlmd", async () => {
    const port = await listen((socket) => void socket.end("220 mail\r\n"));
    expect(await look(port)).toMatchObject({ tcp: { kind: "answers" }, look: { kind: "other" } });
  });

  it.each([
    ["a damaged answer", frame(encodeSeen(seen).slice(0, -1)), "cannot be read"],
    ["an answer of a later version", frame(encodeSeen(seen).map((byte, at) => (at === 1 ? 9 : byte))), "version 9"],
    ["an answer that says that it is larger than any", frame(new Uint8Array(8), 64 * 1024 + 1), "65537 bytes"],
    ["a refusal", frame(refusal("this dlmd begins a new life")), "refuses to answer: this dlmd begins a new life"],
    ["a refusal of an earlier dlmd", frame(refusal("handshake frame of kind 4")), "earlier version"],
    ["a refusal that is cut off", frame(Buffer.from([3])), "cannot be read"],
  ])("with %s is not believed", async (_, bytes, words) => {
    expect((await look(await peer(bytes))).look).toMatchObject({ kind: "other", words: expect.stringContaining(words) as unknown });
  });

  it.each([
    ["accepts and says nothing", () => listen(() => undefined)],
    ["agrees on TLS and says nothing", () => peer(new Uint8Array())],
  ])("that %s is given up after the limit of an answer, which begins when it is connected", async (_, start) => {
    const target = { address: "127.0.0.1", port: await start(), localAddress: "127.0.0.1" };
    expect(await lookAtPeer(target, keyring, LIMIT_MS, SHORT_MS)).toMatchObject({
      tcp: { kind: "answers" },
      look: { kind: "other", words: "no answer within 200 ms" },
    });
  });

  it("is connected to without a key, and asked nothing", async () => {
    const port = await listen(() => undefined);
    expect(await look(port, LIMIT_MS, null)).toEqual({ tcp: { kind: "answers" }, look: { kind: "none" } });
  });
});

describe("a datagram", () => {
  it("to a port that nobody has is refused; one that is taken is silent", async () => {
    const socket = createSocket("udp4");
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    const target = { address: "127.0.0.1", port: socket.address().port, localAddress: "127.0.0.1" };
    expect(await probeUdp(target, SHORT_MS)).toEqual({ kind: "silent" });
    await new Promise<void>((resolve) => socket.close(resolve));
    expect(await probeUdp(target, LIMIT_MS)).toEqual({ kind: "refused" });
  });
});
