/**
 * Damaged input between overlays, from an end that has the key and went mad: it is refused with a WireError or understood, never anything
 * else, and nothing grows. Some thousands here; more with COVERLAY_FUZZ_FRAMES, and over sockets with COVERLAY_FUZZ_LIVE.
 */
import { createServer } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type Random, seededRandom } from "../../seeded-random.ts";
import { createSecureAcceptor, secureInitiator } from "../../../dlmd/tls/secure-connection.ts";
import * as handshake from "../../../overlay/lower/wire/handshake.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { encodeFrame, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "../../../overlay/lower/wire/frame.ts";
import { type Codec, decodeWith } from "../../../overlay/lower/wire/call-codecs.ts";
import type { CallName } from "../../../overlay/lower/wire/call-types.ts";
import { CALLS } from "../../../overlay/lower/wire/calls.ts";
import { LOOPBACK, TEST_CALLER, TEST_OWNER, TEST_VOLUME } from "../../compliance/lower-fixture.ts";
import { SAMPLES } from "../../vector/lower/samples.ts";
import { mutate } from "../dlmd-shell/mutate.ts";
import { name, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();
const FRAMES = Number(process.env["COVERLAY_FUZZ_FRAMES"] ?? 3000);
/** Connections. */
const LIVE = Number(process.env["COVERLAY_FUZZ_LIVE"] ?? 30);
const TIMEOUT_MS = 60_000 + FRAMES + 100 * LIVE;
/** What a run may keep, however long it is: compiled code and caches that have an end. */
const MAX_GROWTH_BYTES = 32 * 1024 * 1024;
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

function usedBytes(): number {
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

function bytesOf<T>(codec: Codec<T>, value: T): Buffer {
  const writer = new ByteWriter();
  codec.write(writer, value);
  return Buffer.concat([writer.copy(), codec.data?.(value) ?? new Uint8Array(0)]);
}

const calls = Object.keys(CALLS) as CallName[];
const requests = calls.map((call) => bytesOf(CALLS[call].request as Codec<unknown>, SAMPLES[call].request));
const answers = calls.map((call) => bytesOf(CALLS[call].answer as Codec<unknown>, SAMPLES[call].answer));
const session = { nodeid: TEST_CALLER.nodeid, incarnation: TEST_CALLER.incarnation, clientId: 99, ownerEpoch: 1 };
const hello = handshake.encodeHello({ version: LOWER_WIRE_VERSION, ...TEST_VOLUME, session });
const self: handshake.OwnerId = { ...TEST_OWNER, epoch: 1 };
const welcome = handshake.encodeWelcome({
  owner: self,
  resumed: false,
  hasAcls: false,
  exclusive: true,
  cleanAfter: 0,
  letGoAfter: 0,
  root: { ino: 2, generation: 0 },
});
const refused = handshake.encodeRefused({ reason: "gone", text: "declared gone", owner: self });
const requestFrames = calls.map((call, at) => encodeFrame(CALLS[call].type, at + 1, requests[at] as Buffer));
const answerFrames = calls.map((call, at) => encodeFrame(CALLS[call].type | FrameType.ANSWER, at + 1, answers[at] as Buffer));

const any = (random: Random): CallName => calls[random.below(calls.length)] as CallName;

it.each<[string, readonly Uint8Array[], (bytes: Uint8Array, random: Random) => unknown]>([
  ["requests", requests, (bytes, random) => decodeWith(CALLS[any(random)].request as Codec<unknown>, bytes)],
  ["answers", answers, (bytes, random) => decodeWith(CALLS[any(random)].answer as Codec<unknown>, bytes)],
  ["hellos", [hello], (bytes) => handshake.decodeHello(bytes)],
  ["welcomes", [welcome], (bytes) => handshake.decodeWelcome(bytes)],
  ["refusals", [refused], (bytes) => handshake.decodeRefused(bytes)],
  [
    "streams",
    [Buffer.concat(requestFrames), Buffer.concat(answerFrames)],
    (bytes) => new FrameReader(4096).push(Buffer.from(bytes), () => 0),
  ],
])(
  "%s: understood, or refused as what they are",
  (_, corpus, decode) => {
    const random = seededRandom(corpus.length);
    const before = usedBytes();
    let refusals = 0;
    for (let frame = 0; frame < FRAMES; frame++) {
      const bytes = mutate(random, corpus);
      try {
        decode(bytes, random);
      } catch (error) {
        if (!(error instanceof WireError)) throw new Error(`frame ${frame} ${Buffer.from(bytes).toString("hex")}`, { cause: error });
        refusals += 1;
      }
    }
    expect(refusals).toBeGreaterThan(FRAMES / 50);
    expect(usedBytes() - before).toBeLessThan(MAX_GROWTH_BYTES);
  },
  TIMEOUT_MS,
);

/** Refuses every call: what is damaged names any inode of this machine. */
function harmless(lower: LocalLower): LocalLower {
  const refuse = (): never => {
    throw errnoError(E.ESTALE);
  };
  const kept = new Set<string | symbol>(["root", "hasAcls", "shutdown", "close", "syncfs", "failedSyncs", "leaveOrphans"]);
  return new Proxy(lower, { get: (target, key) => (kept.has(key) ? Reflect.get(target, key) : refuse) });
}

it(
  "a caller that went mad, inside TLS: its connections end, and others are served meanwhile",
  async () => {
    const to = await lab.owner(1, harmless);
    const random = seededRandom(12);
    const honest = lab.remote();
    await honest.connect(to.address, 1);
    const before = usedBytes();
    for (let round = 0; round < LIVE; round++) {
      const ended = new Promise<void>((resolve) => {
        secureInitiator({ host: LOOPBACK, port: to.address.port }, TEST_VOLUME.keyring(), {
          failed: (reason) => {
            throw new Error(reason);
          },
          secured({ socket }) {
            socket.on("close", () => resolve());
            socket.resume();
            socket.write(encodeFrame(FrameType.HELLO, 0, round % 2 === 0 ? hello : mutate(random, [hello])));
            for (let frame = 0; frame < 10; frame++) socket.write(mutate(random, requestFrames));
            // Whatever it understood of that, this it cannot have.
            socket.write(Buffer.alloc(2 * MAX_FRAME_BYTES, 0xff));
          },
        });
      });
      await ended;
      await expect(Promise.resolve().then(() => honest.getattr(honest.root))).rejects.toMatchObject({ errno: E.ESTALE });
    }
    expect(to.server.sessions.length).toBe(2);
    expect(usedBytes() - before).toBeLessThan(MAX_GROWTH_BYTES);
  },
  TIMEOUT_MS,
);

it(
  "an owner that went mad, inside TLS: its connections end, and calls wait for another one",
  async () => {
    const random = seededRandom(12);
    const acceptor = createSecureAcceptor(TEST_VOLUME.keyring);
    let connections = 0;
    const mad = createServer((raw) => {
      raw.on("error", () => undefined);
      acceptor.accept(raw, {
        failed: () => undefined,
        secured({ socket }) {
          connections += 1;
          socket.resume();
          if (connections % 2 === 0) socket.write(encodeFrame(FrameType.WELCOME, 0, welcome));
          for (let frame = 0; frame < 10; frame++) socket.write(mutate(random, answerFrames));
          socket.write(Buffer.alloc(2 * MAX_FRAME_BYTES, 0xff));
        },
      });
    });
    await new Promise<void>((resolve) => mad.listen(0, LOOPBACK, resolve));
    try {
      const lower = lab.remote({}, silentLog);
      const { port } = mad.address() as { port: number };
      lower.ownerFound({ host: LOOPBACK, port, ...TEST_OWNER }, 1);
      const waiting = Promise.resolve(lower.lookup({ ino: 2, generation: 0 }, name("f"))).catch((error: { errno: number }) => error.errno);
      await until(() => connections > 8);
      expect(lower.ownerWait?.calls).toBe(1);
      lower.shutdown();
      expect(await waiting).toBe(E.EIO);
    } finally {
      await new Promise<void>((resolve) => mad.close(() => resolve()));
    }
  },
  TIMEOUT_MS,
);
