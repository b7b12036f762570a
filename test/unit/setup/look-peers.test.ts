/** A look at a node over real sockets: what it does at each kind of answer, and that none makes it wait beyond its limit. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, type Server, type Socket, createServer } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { type Keyring, createKeyring } from "../../../dlmd/tls/keyring.ts";
import { createSecureAcceptor } from "../../../dlmd/tls/secure-connection.ts";
import { encodeSeen } from "../../../dlmd/wire/look.ts";
import { CHECK_LIMIT_MS, SILENCE_LEAST_MS, askPeerToCheck, lookAtPeer, probeUdp } from "../../../overlay/setup/look-peers.ts";
import { MAX_CHECKED_BYTES, MAX_CHECKED_FRAME_BYTES, encodeCheckNews } from "../../../dlmd/wire/self-check.ts";
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

  it("that closes a connection without a word is asked again, until the limit", async () => {
    const acceptor = createSecureAcceptor(() => keyring);
    let [connections, closes] = [0, 2];
    const port = await listen((raw) =>
      acceptor.accept(raw, {
        secured: ({ socket }) => {
          connections += 1;
          socket.on("error", () => undefined);
          socket.resume();
          if (connections <= closes) socket.end();
          else socket.write(frame(encodeSeen(seen)));
        },
        failed: () => raw.destroy(),
      }),
    );
    expect(await look(port)).toMatchObject({ tcp: { kind: "answers" }, look: { kind: "seen", seen } });
    expect(connections).toBe(3);
    closes = Number.POSITIVE_INFINITY;
    expect((await look(port, 10 * SHORT_MS)).look).toEqual({ kind: "other", words: "it closed the connection" });
    expect(connections).toBeGreaterThan(4);
  });

  it("that closes one connection, and says nothing by the next until the limit, has closed the connection", async () => {
    const acceptor = createSecureAcceptor(() => keyring);
    let connections = 0;
    const port = await listen((raw) =>
      acceptor.accept(raw, {
        secured: ({ socket }) => {
          connections += 1;
          socket.on("error", () => undefined);
          socket.resume();
          if (connections === 1) socket.end();
        },
        failed: () => raw.destroy(),
      }),
    );
    expect((await look(port, 10 * SHORT_MS)).look).toEqual({ kind: "other", words: "it closed the connection" });
    expect(connections).toBe(2);
  });

  it("whose answer came while this process was busy beyond the limit has answered", async () => {
    const port = await listen(() => undefined);
    const look = (target: number): ReturnType<typeof lookAtPeer> =>
      lookAtPeer({ address: "127.0.0.1", port: target, localAddress: null }, null, SHORT_MS);
    const busyWhile = <T>(work: Promise<T>): Promise<T> => {
      // Behind the call that connects.
      process.nextTick(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2 * SHORT_MS));
      return work;
    };
    expect((await busyWhile(look(port))).tcp).toEqual({ kind: "answers" });
    const probe = createSocket("udp4").bind(0, "127.0.0.1");
    await once(probe, "listening");
    const free = probe.address().port;
    await new Promise<void>((resolve) => probe.close(() => resolve()));
    expect((await busyWhile(look(free))).tcp).toEqual({ kind: "refused" });
    expect(await busyWhile(probeUdp({ address: "127.0.0.1", port: free, localAddress: null }, SHORT_MS))).toEqual({ kind: "refused" });
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

describe("a node that is asked to check its machine", () => {
  const ask = (port: number, wholeMs?: number): ReturnType<typeof askPeerToCheck> =>
    askPeerToCheck({ address: "127.0.0.1", port, localAddress: "127.0.0.1", node: "node2" }, keyring, SHORT_MS, wholeMs);
  const going = frame(encodeCheckNews({ kind: "going" }));
  const report = frame(encodeCheckNews({ kind: "printed", text: '{"node":"node2","findings":[]}' }));

  it("tells of it, after a HELLO and words that it goes on", async () => {
    expect(await ask(await peer(Buffer.concat([frame(Buffer.from([1, 2])), going, going, report])))).toEqual({
      kind: "checked",
      findings: [],
    });
  });

  it.each([
    ["cannot", frame(encodeCheckNews({ kind: "failed", words: "busy: w" })), { kind: "other", words: "busy: w" }],
    ["is of an earlier version", frame(refusal("handshake frame of kind 6")), { kind: "earlier" }],
    ["knows another version of the question", frame(refusal("damaged handshake: a check of version 1, 2 expected")), { kind: "earlier" }],
    ["refuses", frame(refusal("why")), { kind: "other", words: "its dlmd refuses to answer: why" }],
    ["says what is no report", frame(encodeCheckNews({ kind: "printed", text: "{" })), { kind: "other", words: "its answer is no JSON" }],
    ["says what cannot be read", frame(Buffer.from([8, 1])), { kind: "other" }],
    ["says that it says more than any", frame(new Uint8Array(8), MAX_CHECKED_FRAME_BYTES + 1), { kind: "other" }],
  ])("and %s is told so", async (_, bytes, found) => {
    expect(await ask(await peer(bytes))).toMatchObject(found);
  });

  it("and says more behind its answer keeps nobody waiting", async () => {
    const begun = vi.spyOn(globalThis, "setTimeout");
    expect(await ask(await peer(Buffer.concat([report, going, going])))).toMatchObject({ kind: "checked" });
    // For a connection, for a first word, and for the whole.
    const limits = begun.mock.calls.map(([, ms]) => ms).filter((ms) => ms !== undefined && ms >= SHORT_MS);
    begun.mockRestore();
    expect(limits).toHaveLength(3);
  });

  it("may say as much as is sent", async () => {
    const found = await ask(await peer(frame(encodeCheckNews({ kind: "printed", text: "x".repeat(MAX_CHECKED_BYTES) }))));
    expect(found).toEqual({ kind: "other", words: "its answer is no JSON" });
  });

  it("and has another key is told so", async () => {
    expect(await ask(await peer(report, stranger))).toMatchObject({ kind: "wrong-key" });
  });

  it("and is there no more is told so", async () => {
    const port = await listen(() => undefined);
    await new Promise((resolve) => server?.close(resolve));
    server = null;
    expect(await ask(port)).toEqual({ kind: "other", words: "it answers no more: refused" });
  });

  it("and goes silent is given up after the time of an answer, which each word begins anew", async () => {
    expect(await ask(await peer(going))).toEqual({ kind: "other", words: `no answer within ${SILENCE_LEAST_MS} ms` });
  });

  it("and goes on for ever is given up after the whole time", async () => {
    expect(CHECK_LIMIT_MS).toBe(75_000);
    const acceptor = createSecureAcceptor(() => keyring);
    const port = await listen((raw) =>
      acceptor.accept(raw, {
        secured: ({ socket }) => {
          const timer = setInterval(() => socket.write(going), 50);
          socket.on("error", () => undefined).on("close", () => clearInterval(timer));
          socket.resume();
        },
        failed: () => raw.destroy(),
      }),
    );
    expect(await ask(port, 1000)).toEqual({ kind: "other", words: "no end of its checks within 1 s" });
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

  it("to an address that cannot be reached from this one is a fact, and no error of the program", async () => {
    // An address of a loop goes nowhere else, whatever routes there are.
    const target = { address: "192.0.2.1", port: 7701, localAddress: "127.0.0.1" };
    expect(await probeUdp(target, LIMIT_MS)).toMatchObject({ kind: "unreachable" });
  });
});
