/**
 * Attackers between a caller and its owner, and strangers at the owner's port. Each gets a closed connection and is served nothing; the
 * caller's calls go on in the next connection, each change made once (hazard H7).
 */
import fs from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { connect as connectTls, createServer as createTlsServer, type TlsOptions } from "node:tls";
import { afterEach, describe, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { type Log, silentLog } from "../../../dlmd/base/log.ts";
import { createKeyring, tlsKeyOf } from "../../../dlmd/tls/keyring.ts";
import { createSecureAcceptor, secureInitiator } from "../../../dlmd/tls/secure-connection.ts";
import { HANDSHAKE_LOOK_MS, HANDSHAKE_TIMEOUT_MS, MAX_UNPROVED_OF_NODE, MAX_UNPROVED_OF_STRANGERS } from "../../../dlmd/tls/unproved.ts";
import { encodeHello, encodeRefused, encodeWelcome } from "../../../overlay/lower/wire/handshake.ts";
import { type OwnerAddress, WELCOME_TIMEOUT_MS } from "../../../overlay/lower/remote/connection.ts";
import { createLowerServer, type LowerServer, MAX_SESSIONS } from "../../../overlay/lower/server/server.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { encodeFrame, FrameReader, FrameType, LOWER_WIRE_VERSION } from "../../../overlay/lower/wire/frame.ts";
import { listenOn, LOOPBACK, TEST_CALLER, TEST_OWNER, TEST_VOLUME, testServerOptions } from "../../compliance/lower-fixture.ts";
import { strangersCertificate } from "../dlmd-shell/strangers-certificate.ts";
import { caller, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const { owner, remote } = lab;
const closers: (() => unknown)[] = [];
afterEach(async () => {
  vi.useRealTimers();
  for (const close of closers.splice(0)) await close();
});

const hello = encodeHello({
  version: LOWER_WIRE_VERSION,
  ...TEST_VOLUME,
  session: { nodeid: TEST_CALLER.nodeid, incarnation: TEST_CALLER.incarnation, clientId: TEST_CALLER.clientId, ownerEpoch: 1 },
});

const welcomeOf = (root: FileId): Buffer =>
  encodeFrame(
    FrameType.WELCOME,
    0,
    encodeWelcome({
      owner: { ...TEST_OWNER, epoch: 1 },
      resumed: true,
      root,
      hasAcls: false,
      exclusive: true,
      cleanAfter: 0,
      letGoAfter: 0,
    }),
  );

async function listening(server: Server): Promise<OwnerAddress> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, LOOPBACK, resolve));
  return { host: LOOPBACK, port: (server.address() as { port: number }).port, ...TEST_OWNER };
}

type Direction = "to owner" | "to caller";
/** What the attacker makes of a chunk; null: it is swallowed. */
type Attack = (chunk: Buffer, direction: Direction) => readonly Buffer[] | null;

interface Path {
  readonly address: OwnerAddress;
  /** Of the connection that is attacked; others go through as they are. */
  attack: Attack | null;
  /** Connections that were made through it, and those of them that have ended. */
  made: number;
  ended: number;
  cut(): void;
}

async function attackedPath(to: Pick<Owner, "address">): Promise<Path> {
  const pairs = new Set<readonly [Socket, Socket]>();
  const server = createServer((near) => {
    path.made += 1;
    const far = connect(to.address.port, LOOPBACK);
    const pair = [near, far] as const;
    pairs.add(pair);
    const forward = (from: Socket, into: Socket, direction: Direction): void => {
      from.on("data", (chunk: Buffer) => {
        for (const each of path.attack === null ? [chunk] : (path.attack(chunk, direction) ?? [])) into.write(each);
      });
      from.on("error", () => undefined);
      from.on("close", () => {
        if (pairs.delete(pair)) path.ended += 1;
        into.destroy();
      });
    };
    forward(near, far, "to owner");
    forward(far, near, "to caller");
  });
  const path: Path = {
    address: await listening(server),
    attack: null,
    made: 0,
    ended: 0,
    cut: () => {
      for (const [near] of pairs) near.destroy();
    },
  };
  return path;
}

/** Once: the next chunk of that direction. */
function once(path: Path, direction: Direction, change: (chunk: Buffer) => readonly Buffer[]): Attack {
  return (chunk, found) => {
    if (found !== direction) return [chunk];
    path.attack = null;
    return change(chunk);
  };
}

const flip = (chunk: Buffer, at: number): Buffer => {
  const damaged = Buffer.from(chunk);
  damaged[at] = (damaged[at] ?? 0) ^ 1;
  return damaged;
};
/** Of a record of TLS: its type, version and length, 5 bytes; then ciphertext. */
const RECORD_HEAD_BYTES = 5;

describe("somebody in the path", () => {
  it.each<[string, (chunk: Buffer) => readonly Buffer[]]>([
    ["flips a bit of the data", (chunk) => [flip(chunk, RECORD_HEAD_BYTES + 3)]],
    ["flips a bit of the last byte", (chunk) => [flip(chunk, chunk.length - 1)]],
    ["flips a bit of a record's length", (chunk) => [flip(chunk, 4)]],
    ["says that a record is of another type", (chunk) => [flip(chunk, 0)]],
    ["repeats what was sent", (chunk) => [chunk, chunk]],
    ["puts in a record of its own", (chunk) => [Buffer.concat([Buffer.from([23, 3, 3, 0, 64]), Buffer.alloc(64, 9)]), chunk]],
    ["puts in an alert that says goodbye", (chunk) => [Buffer.from([21, 3, 3, 0, 2, 1, 0]), chunk]],
  ])("%s, to the owner and to the caller: that connection ends, and every change is made once", async (_, change) => {
    const to = await owner();
    const path = await attackedPath(to);
    const lower = remote();
    await lower.connect(path.address, 1);
    const { handle } = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
    let text = "";
    for (const [at, direction] of (["to owner", "to caller"] as const).entries()) {
      const { ended } = path;
      path.attack = once(path, direction, change);
      // A second execution of the append would show; one of the mkdir would be EEXIST.
      await Promise.all([
        lower.write(handle, Buffer.from(`line ${at}\n`), 0, true),
        lower.mkdir(lower.root, name(`d${at}`), 0o755, caller),
      ]);
      text += `line ${at}\n`;
      await until(() => path.attack === null && path.ended > ended);
    }
    expect(fs.readFileSync(`${lab.place.path}/f`, "utf8")).toBe(text);
    expect(to.server.sessions.length).toBe(1);
  });

  it("drops a chunk out of the middle: what comes behind it ends the connection", async () => {
    const to = await owner();
    const path = await attackedPath(to);
    const lower = remote();
    await lower.connect(path.address, 1);
    path.attack = once(path, "to owner", () => []);
    const first = lower.mkdir(lower.root, name("dropped"), 0o755, caller);
    await until(() => path.attack === null);
    await Promise.all([first, lower.mkdir(lower.root, name("behind"), 0o755, caller)]);
    expect([path.made, path.ended]).toEqual([2, 1]);
    expect(fs.readdirSync(lab.place.path).sort()).toEqual(["behind", "dropped"]);
  });

  it("cuts in the middle of a record: nothing of it is done before the next connection, then once", async () => {
    const to = await owner();
    const path = await attackedPath(to);
    const lower = remote();
    await lower.connect(path.address, 1);
    path.attack = once(path, "to owner", (chunk) => {
      setImmediate(() => path.cut());
      return [chunk.subarray(0, chunk.length - 1)];
    });
    await lower.mkdir(lower.root, name("d"), 0o755, caller);
    expect([path.attack, path.made, to.server.sessions.length]).toEqual([null, 2, 1]);
  });

  it("says a whole connection again to the owner: it ends in the handshake, and no call of it is made again", async () => {
    const to = await owner();
    const path = await attackedPath(to);
    const said: Buffer[] = [];
    path.attack = (chunk, direction) => {
      if (direction === "to owner") said.push(Buffer.from(chunk));
      return [chunk];
    };
    const lower = remote();
    await lower.connect(path.address, 1);
    await lower.mkdir(lower.root, name("d"), 0o755, caller);
    path.attack = null;
    fs.rmdirSync(`${lab.place.path}/d`);
    const { received, refused } = to.server.counters;
    const again = connect(to.address.port, LOOPBACK);
    // A socket that nobody reads does not show its end.
    again.resume();
    again.on("error", () => undefined);
    const closed = new Promise((resolve) => again.once("close", resolve));
    for (const chunk of said) again.write(chunk);
    await closed;
    await until(() => to.server.counters.refused > refused);
    expect([to.server.counters.received, fs.readdirSync(lab.place.path)]).toEqual([received, []]);
    expect((await lower.getattr(lower.root)).nlink).toBeGreaterThan(0);
  });

  it("sees neither names nor data", async () => {
    const to = await owner();
    const path = await attackedPath(to);
    const seen: Buffer[] = [];
    path.attack = (chunk) => {
      seen.push(Buffer.from(chunk));
      return [chunk];
    };
    const lower = remote();
    await lower.connect(path.address, 1);
    const { handle } = await lower.create(lower.root, name("the-name"), RDWR, 0o644, caller);
    await lower.write(handle, Buffer.from("the-content"), 0, false);
    expect(Buffer.from(await lower.read(handle, 0, 100)).toString()).toBe("the-content");
    const all = Buffer.concat(seen);
    expect(all.length).toBeGreaterThan(1000);
    expect(["the-name", "the-content", TEST_VOLUME.volumeUuid].filter((text) => all.includes(text))).toEqual([]);
  });
});

describe("in place of the owner", () => {
  const refusal = encodeFrame(
    FrameType.REFUSED,
    0,
    encodeRefused({ reason: "gone", text: "declared gone", owner: { ...TEST_OWNER, epoch: 1 } }),
  );
  const welcome = welcomeOf({ ino: 2, generation: 0 });
  const tls = (options: TlsOptions) => (): Server => {
    const server = createTlsServer(options, (socket) => {
      socket.on("error", () => undefined);
      socket.write(refusal);
    });
    server.on("tlsClientError", () => undefined);
    return server;
  };
  const plain =
    (...frames: Buffer[]) =>
    (): Server =>
      createServer((socket) => frames.forEach((frame) => socket.write(frame)));

  it.each<[string, () => Server]>([
    ["plain TCP that refuses", plain(refusal)],
    ["plain TCP that welcomes", plain(welcome)],
    ["TLS with a certificate", tls(strangersCertificate)],
    ["TLS with a certificate and another key", tls({ ...strangersCertificate, pskCallback: () => Buffer.alloc(32, 1) })],
    ["TLS with another key", tls({ minVersion: "TLSv1.3", pskCallback: () => Buffer.alloc(32, 1) })],
    ["nothing but the end", () => createServer((socket) => socket.end())],
  ])("%s ends no mount: calls wait, and go on with the owner", async (_, stranger) => {
    const to = await owner();
    const server = stranger();
    const rogue = await listening(server);
    let calls = 0;
    server.on("connection", () => (calls += 1));
    const refusals: string[] = [];
    const lower = remote({}, silentLog, { onRefused: ({ code }) => void refusals.push(code) });
    await lower.connect(to.address, 1);
    lower.ownerLost();
    lower.ownerFound(rogue, 1);
    const waiting = lower.mkdir(lower.root, name("d"), 0o755, caller);
    await until(() => calls > 1);
    expect([lower.ownerWait?.calls, lower.disconnected]).toEqual([1, true]);
    lower.ownerFound(to.address, 1);
    await waiting;
    expect(refusals).toEqual([]);
  });

  it("one that says nothing is left after the time-out, and not before", async () => {
    const to = await owner();
    const server = createServer();
    const rogue = await listening(server);
    let ended = 0;
    server.on("connection", (socket) => {
      socket.resume();
      socket.on("close", () => (ended += 1));
    });
    const lower = remote();
    await lower.connect(to.address, 1);
    lower.ownerLost();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const called = new Promise((resolve) => server.once("connection", resolve));
    lower.ownerFound(rogue, 1);
    await called;
    vi.advanceTimersByTime(WELCOME_TIMEOUT_MS - 1);
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(ended).toBe(0);
    vi.advanceTimersByTime(1);
    await until(() => ended === 1);
  });
});

describe("strangers at the owner's port", () => {
  /** An owner of its own whose nodes are at the addresses that are given, and what it logs. */
  async function ownerWith(nodes: readonly string[], said: unknown[] = []): Promise<{ server: LowerServer; address: OwnerAddress }> {
    const log: Log = { ...silentLog, warn: (fields) => void said.push(fields) };
    const server = createLowerServer({ ...testServerOptions((await owner()).lower, 1), nodeAddresses: () => nodes, log });
    closers.push(() => server.close());
    return { server, address: await listenOn(server) };
  }
  async function enter(port: number, localAddress: string = LOOPBACK): Promise<Socket> {
    const socket = connect({ port, host: LOOPBACK, localAddress });
    socket.resume();
    closers.push(() => socket.destroy());
    socket.on("error", () => undefined);
    // It may be reset before it hears that it was accepted.
    await new Promise<void>((resolve) => socket.once("connect", resolve).once("close", resolve));
    return socket;
  }
  const closed = async (socket: Socket): Promise<void> => {
    if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
  };

  it.each<[string, (port: number) => Promise<Socket>]>([
    ["HTTP", async (port) => (await enter(port)).end("GET / HTTP/1.1\r\n\r\n")],
    [
      "a hello in plain TCP",
      async (port) => {
        const socket = await enter(port);
        socket.write(encodeFrame(FrameType.HELLO, 0, hello));
        return socket;
      },
    ],
    ["TLS without a key", async (port) => connectTls({ port, host: LOOPBACK, rejectUnauthorized: false })],
    ["TLS with a certificate", async (port) => connectTls({ port, host: LOOPBACK, rejectUnauthorized: false, ...strangersCertificate })],
    [
      "TLS with another key under the name of the cluster's",
      async (port) => {
        const identity = `coverlay ${TEST_VOLUME.keyring().first.id}`;
        return connectTls({ port, host: LOOPBACK, pskCallback: () => ({ psk: Buffer.alloc(32, 1), identity }) });
      },
    ],
    [
      "TLS with a key of its own",
      async (port) => {
        const { first } = createKeyring([Buffer.alloc(32, 3)]);
        return connectTls({ port, host: LOOPBACK, pskCallback: () => ({ psk: tlsKeyOf(first), identity: `coverlay ${first.id}` }) });
      },
    ],
  ])("that speak %s are not served", async (_, speak) => {
    const { server, address } = await ownerWith([LOOPBACK]);
    const socket = await speak(address.port);
    closers.push(() => socket.destroy());
    socket.on("error", () => undefined);
    await closed(socket);
    await until(() => server.counters.refused === 1);
    expect([server.sessions.length, server.counters.received]).toEqual([0, 0]);
  });

  it("that say nothing have few places and little time, and take none of a node's", async () => {
    const said: unknown[] = [];
    const { server, address } = await ownerWith(["127.0.0.2"], said);
    const silent: Promise<void>[] = [];
    const fill = async (count: number, from: string): Promise<void> => {
      for (let at = 0; at < count; at++) silent.push(closed(await enter(address.port, from)));
    };
    const started = performance.now();
    await fill(MAX_UNPROVED_OF_STRANGERS, LOOPBACK);
    await closed(await enter(address.port));
    expect(server.counters.refused).toBe(1);
    // A node is served meanwhile: as many as it may have, and one that proves itself.
    await fill(MAX_UNPROVED_OF_NODE - 1, "127.0.0.2");
    const raw = connect({ port: address.port, host: LOOPBACK, localAddress: "127.0.0.2" });
    await new Promise<void>((resolve) => raw.once("connect", resolve));
    const member = secureInitiator(raw, TEST_VOLUME.keyring(), {
      secured: ({ socket }) => socket.write(encodeFrame(FrameType.HELLO, 0, hello)),
      failed: () => undefined,
    });
    closers.push(() => member.destroy());
    await until(() => server.sessions.length === 1);
    await fill(1, "127.0.0.2");
    // One more of that node takes the place of its oldest.
    await fill(1, "127.0.0.2");
    await silent[MAX_UNPROVED_OF_STRANGERS];
    expect(server.counters.refused).toBe(2);
    await Promise.all(silent);
    expect(performance.now() - started).toBeGreaterThan(HANDSHAKE_TIMEOUT_MS);
    expect([server.sessions.length, member.destroyed]).toEqual([1, false]);
    // Strangers and that node, too many and too late: four kinds, a line each.
    expect([server.counters.refused, said.length]).toEqual([1 + silent.length, 4]);
  });

  it("of one kind are logged once in LOG_INTERVAL_MS", async () => {
    const said: unknown[] = [];
    const { server, address } = await ownerWith([LOOPBACK], said);
    vi.useFakeTimers({ toFake: ["performance"] });
    const refuse = async (): Promise<void> => {
      const refused = server.counters.refused + 1;
      (await enter(address.port)).end("GET / HTTP/1.1\r\n\r\n");
      await until(() => server.counters.refused === refused);
    };
    await refuse();
    vi.advanceTimersByTime(9999);
    await refuse();
    expect(said).toEqual([{ peer: LOOPBACK, reason: expect.any(String) }]);
    vi.advanceTimersByTime(1);
    await refuse();
    expect(said.slice(1)).toEqual([{ peer: LOOPBACK, reason: expect.any(String), leftOut: 1 }]);
  });

  it("that have the key, are refused and do not go, lose the connection with their time", async () => {
    const { server, address } = await ownerWith([LOOPBACK]);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const raw = connect({ port: address.port, host: LOOPBACK });
    closers.push(() => raw.destroy());
    const other = encodeHello({
      version: LOWER_WIRE_VERSION,
      ...TEST_VOLUME,
      clusterName: "other",
      session: { ...TEST_CALLER, ownerEpoch: 1 },
    });
    // Nobody reads here, so its end is not seen.
    const secured = new Promise<Socket>((resolve) =>
      raw.once("connect", () =>
        secureInitiator(raw, TEST_VOLUME.keyring(), { secured: ({ socket }) => resolve(socket), failed: () => undefined }),
      ),
    );
    (await secured).write(encodeFrame(FrameType.HELLO, 0, other));
    await until(() => server.counters.refused === 1);
    for (let passed = HANDSHAKE_LOOK_MS; passed < HANDSHAKE_TIMEOUT_MS; passed += HANDSHAKE_LOOK_MS) {
      vi.advanceTimersByTime(HANDSHAKE_LOOK_MS);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(server.counters.refused).toBe(1);
    vi.advanceTimersByTime(HANDSHAKE_LOOK_MS);
    await until(() => server.counters.refused === 2);
    expect(server.sessions.length).toBe(0);
  });

  it("that have the key cannot have more sessions than there are; who has one goes on, and a place is taken when it is free", async () => {
    const owned = await ownerWith([LOOPBACK]);
    const { server, address } = owned;
    const first = remote();
    await first.connect(address, 1);
    for (let clientId = 1000; server.sessions.length < MAX_SESSIONS; clientId++) {
      const session = { ...TEST_CALLER, clientId, ownerEpoch: 1 };
      const welcomed = new Promise<void>((resolve) =>
        secureInitiator({ host: LOOPBACK, port: address.port }, TEST_VOLUME.keyring(), {
          failed: () => undefined,
          secured({ socket }) {
            socket.write(encodeFrame(FrameType.HELLO, 0, encodeHello({ version: LOWER_WIRE_VERSION, ...TEST_VOLUME, session })));
            socket.once("data", () => {
              socket.destroy();
              resolve();
            });
          },
        }),
      );
      await welcomed;
    }
    const said: string[] = [];
    const say = (_: unknown, message: string): void => void said.push(message);
    const late = remote({ clientId: 6 }, { ...silentLog, warn: say, error: say });
    const path = await attackedPath(owned);
    await expect(late.connect(path.address, 1)).rejects.toMatchObject({ code: "too-many" });
    // It goes on trying, and says so once.
    await until(() => path.made > 4);
    expect(said).toEqual(["no connection to the owner: trying again"]);
    expect((await first.getattr(first.root)).nlink).toBeGreaterThan(0);
    await server.closeSessions([{ nodeid: TEST_CALLER.nodeid, incarnation: TEST_CALLER.incarnation, clientId: 1000 }]);
    expect((await late.getattr({ ...first.root })).nlink).toBeGreaterThan(0);
  });

  it("that come by the hundred cost the log a line", async () => {
    const said: unknown[] = [];
    const { server, address } = await ownerWith([], said);
    for (let at = 1; at <= 200; at++) {
      (await enter(address.port)).end("GET / HTTP/1.1\r\n\r\n");
      await until(() => server.counters.refused === at);
    }
    expect(said.length).toBe(1);
  });
});

describe("an owner that went mad", () => {
  it.each<[string, number, Uint8Array]>([
    ["fails", FrameType.FAILED, new Uint8Array([E.EIO, 0, 0, 0])],
    ["says that it was given up", FrameType.FAILED, new Uint8Array([E.ECANCELED, 0, 0, 0])],
    ["has something behind its end", CALLS.claimed.type | FrameType.ANSWER, new Uint8Array(1)],
  ])("what a caller says of its open files %s: the connection ends, and calls wait for another owner", async (_, type, body) => {
    const next = await owner(2);
    const { root } = next.lower;
    const acceptor = createSecureAcceptor(TEST_VOLUME.keyring);
    let connections = 0;
    const mad = createServer((raw) => {
      acceptor.accept(raw, {
        failed: () => undefined,
        secured({ socket }) {
          connections += 1;
          const reader = new FrameReader();
          socket.on("data", (chunk: Buffer) =>
            reader.push(chunk, (asked, id) => {
              if (asked === FrameType.HELLO) socket.write(welcomeOf(root));
              if (asked === CALLS.claimed.type) socket.write(encodeFrame(type, id, body));
            }),
          );
        },
      });
    });
    const address = await listening(mad);
    const lower = remote();
    lower.ownerFound(address, 1);
    const waiting = Promise.resolve(lower.getattr(root)).then(() => "answered");
    await until(() => connections > 2);
    expect(lower.ownerWait?.calls).toBeGreaterThan(0);
    lower.ownerFound(next.address, 2);
    expect(await waiting).toBe("answered");
  });
});
