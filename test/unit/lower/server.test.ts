/** The owner's server at its ends: an error of its listening, and callers that come while it says farewell. */
import { connect, Server, type Socket } from "node:net";
import { afterEach, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { secureInitiator } from "../../../dlmd/tls/secure-connection.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { MAX_IO_BYTES } from "../../../overlay/lower/limits.ts";
import { encodeWith } from "../../../overlay/lower/wire/call-codecs.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { encodeFrame, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "../../../overlay/lower/wire/frame.ts";
import { decodeRefused, encodeHello, type Refused } from "../../../overlay/lower/wire/handshake.ts";
import { createLowerServer } from "../../../overlay/lower/server/server.ts";
import { listenOn, LOOPBACK, TEST_VOLUME, testServerOptions } from "../../compliance/lower-fixture.ts";
import { caller, errnoOf, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
afterEach(() => void vi.restoreAllMocks());

it("tells of each message of a caller: its processors are not to sleep deeply then (serve/cpu-latency.ts)", async () => {
  let received = 0;
  const server = createLowerServer({ ...testServerOptions((await lab.owner()).lower, 1), received: () => void (received += 1) });
  const remote = lab.remote();
  await remote.connect(await listenOn(server), 1);
  const before = received;
  await remote.create(remote.root, name("made"), RDWR, 0o600, caller);
  expect([received > before, received]).toEqual([true, server.counters.received]);
  await server.close();
});

it("says when connections cannot be taken, once for many, and goes on", async () => {
  const said: unknown[] = [];
  const listen = vi.spyOn(Server.prototype, "listen");
  const options = testServerOptions((await lab.owner()).lower, 1);
  const server = createLowerServer({ ...options, log: { ...silentLog, warn: (fields) => void said.push(fields) } });
  const address = await listenOn(server);
  const listening = listen.mock.contexts.at(-1);
  if (!(listening instanceof Server)) throw new Error("it listens");
  for (let at = 0; at < 3; at++) listening.emit("error", new Error("accept ENFILE"));
  expect(said).toEqual([{ error: "accept ENFILE" }]);
  await lab.remote().connect(address, 1);
  expect(server.sessions.length).toBe(1);
  await server.close();
});

async function securedSocket(port: number): Promise<Socket> {
  const raw = connect({ port, host: LOOPBACK });
  await new Promise<void>((resolve) => raw.once("connect", resolve));
  return new Promise<Socket>((resolve, reject) =>
    secureInitiator(raw, TEST_VOLUME.keyring(), {
      secured: ({ socket }) => resolve(socket),
      failed: (reason) => reject(new Error(reason)),
    }),
  );
}

it("refuses a caller of another version, and names both", async () => {
  const { server, address } = await lab.owner(1);
  const socket = await securedSocket(address.port);
  const reader = new FrameReader();
  const refused = new Promise<Refused>((resolve) => {
    socket.on("data", (chunk: Buffer) =>
      reader.push(chunk, (type, _id, body) => {
        if (type === FrameType.REFUSED) resolve(decodeRefused(body));
      }),
    );
  });
  const session = { nodeid: 9, incarnation: "other", clientId: 1, ownerEpoch: 1 };
  socket.write(encodeFrame(FrameType.HELLO, 0, encodeHello({ version: LOWER_WIRE_VERSION + 1, ...TEST_VOLUME, session })));
  expect(await refused).toMatchObject({
    reason: "version",
    text: `protocol version ${LOWER_WIRE_VERSION} expected, found ${LOWER_WIRE_VERSION + 1}`,
  });
  expect(server.sessions.length).toBe(0);
  await server.close();
});

it("gives nobody a session while it says farewell", async () => {
  let release: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  let begin: () => void = () => undefined;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const { server, address } = await lab.owner(1, (lower) => ({
    ...lower,
    async syncfs() {
      begin();
      await gate;
      await lower.syncfs();
    },
  }));
  await lab.remote().connect(address, 1);
  // Has proved its key, and ends its HELLO once the owner ends its service.
  const late = await securedSocket(address.port);
  const ended = new Promise<string>((resolve) => late.once("close", () => resolve("ended")));
  const welcomed = new Promise<string>((resolve) => late.once("data", () => resolve("welcome")));
  const session = { nodeid: 9, incarnation: "late", clientId: 1, ownerEpoch: 1 };
  const hello = encodeFrame(FrameType.HELLO, 0, encodeHello({ version: LOWER_WIRE_VERSION, ...TEST_VOLUME, session }));
  const before = server.counters.bytesReceived;
  late.write(hello.subarray(0, 1));
  await until(() => server.counters.bytesReceived > before);
  const closing = server.close();
  await begun;
  late.write(hello.subarray(1));
  try {
    expect(await Promise.race([ended, welcomed])).toBe("ended");
    expect(server.sessions.length).toBe(1);
  } finally {
    release();
    await closing;
  }
});

/** What a caller hears of an owner's end, and how often the disk was synced; `has`: the owner's disk, each time that it is asked for. */
async function endWith(has: readonly boolean[]): Promise<{ readonly syncs: number; readonly asked: number; readonly unsynced: number }> {
  let [syncs, asked] = [0, 0];
  const wrap = (lower: LocalLower): LocalLower => ({
    ...lower,
    syncfs: () => {
      syncs += 1;
      return lower.syncfs();
    },
  });
  const hasDisk = (): Promise<boolean> => Promise.resolve(has[asked++] ?? true);
  const { server, address } = await lab.owner(1, wrap, () => false, { hasDisk });
  const remote = lab.remote();
  await remote.connect(address, 1);
  const { handle } = await remote.create(remote.root, name(`f${has.join("-")}`), RDWR, 0o644, caller);
  await remote.write(handle, Buffer.from("not synced"), 0, false);
  await server.close();
  const next = await lab.owner(
    2,
    (lower) => lower,
    () => false,
    { letGoAfter: 1 },
  );
  remote.ownerFound(next.address, 2);
  return { syncs, asked, unsynced: await errnoOf(() => remote.fsync(handle, false)) };
}

it("that ends syncs and says farewell only while it has its disk: else callers know that what they have not synced may be lost", async () => {
  expect(await endWith([true, true])).toEqual({ syncs: 1, asked: 2, unsynced: 0 });
  expect(await endWith([false])).toEqual({ syncs: 0, asked: 1, unsynced: E.EIO });
  expect(await endWith([true, false])).toEqual({ syncs: 1, asked: 2, unsynced: E.EIO });
});

it("says welcome before it answers what a slow link had kept from being begun, when its caller connects again", async () => {
  const { lower, server, address } = await lab.owner(1);
  const made = await lower.create(lower.root, name("f"), RDWR, 0o600, caller);
  await lower.write(made.handle, new Uint8Array(MAX_IO_BYTES), 0, false);
  const session = { nodeid: 2, incarnation: "i1", clientId: 5, ownerEpoch: 1 };
  const hello = encodeFrame(FrameType.HELLO, 0, encodeHello({ version: LOWER_WIRE_VERSION, ...TEST_VOLUME, session }));
  const open = { id: made.entry.id, flags: RDWR, handle: 1, promised: false };
  const read = encodeWith(CALLS.read.request, { handle: 1, offset: 0, bytes: MAX_IO_BYTES, open: null });
  const slow = await securedSocket(address.port);
  slow.pause();
  slow.write(Buffer.concat([hello, encodeFrame(CALLS.open.type, 1, encodeWith(CALLS.open.request, open))]));
  // In one chunk more than its socket takes, with the kernel's memory for it.
  slow.write(Buffer.concat(Array.from({ length: 64 }, (_, at) => encodeFrame(CALLS.read.type, at + 2, read))));
  await until(() => server.sessions[0]?.full === true);
  slow.destroy();
  await until(() => server.sessions[0]?.sink === null);
  const socket = await securedSocket(address.port);
  const types: number[] = [];
  const reader = new FrameReader(MAX_FRAME_BYTES);
  socket.on("data", (chunk: Buffer) => reader.push(chunk, (type) => void types.push(type)));
  socket.write(hello);
  await until(() => types.length > 1);
  expect(types.slice(0, 2)).toEqual([FrameType.WELCOME, CALLS.read.type | FrameType.ANSWER]);
  socket.destroy();
});
