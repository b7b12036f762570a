import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ByteReader, ByteWriter } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { LockStatus, ViewInfo } from "../../../dlmd/client/api.ts";
import { DEMOTED } from "../../../dlmd/wire/flag.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { FrameGatherer, createFrameReader } from "../../../dlmd/wire/frame.ts";
import {
  LOCAL_BATCH_BYTES,
  LOCAL_FRAME_BYTES,
  type RequestSink,
  type ResultSink,
  beginRequests,
  beginResults,
  decodeRequests,
  decodeResults,
  encodeRequest,
  encodeResult,
  gatherAst,
  gatherRequest,
} from "../../../dlmd/wire/local-batch.ts";
import {
  type ClientMessage,
  LOCAL_VERSION,
  type ServerMessage,
  decodeClientMessage,
  decodeServerMessage,
  encodeClientMessage,
  encodeServerMessage,
} from "../../../dlmd/wire/local.ts";
import { queries } from "../../../dlmd/wire/program.ts";

const view: ViewInfo = {
  viewId: "7.1.00ff",
  quorate: true,
  members: [1, 3],
  incarnations: ["aa", "cc"],
  quorumReason: "2 of 3 votes",
  running: false,
};

const fromClient: [message: Exclude<ClientMessage, { kind: "requests" }>, hex: string][] = [
  [
    { kind: "hello", version: LOCAL_VERSION, pid: 4711, program: "ls", owner: "me", bastLimitMs: 1000 },
    "0143564c4410006712000002006c7302006d65e8030000",
  ],
  [{ kind: "bast-limit", limitMs: 60_000 }, "0860ea0000"],
  [{ kind: "open", lockspaceId: 2, name: "data" }, "0202000000040064617461"],
  [{ kind: "gone-ack", goneId: 9 }, "0409000000"],
  [{ kind: "query", queryId: 5, what: "nodes" }, "050500000001"],
  [{ kind: "inspect", queryId: 9, lockspace: "v", resource: "i:1", nodeid: 3, waitingMs: null }, "07090000000100760300693a310300ffffffff"],
  [
    { kind: "ask-life", queryId: 9, nodeid: 3, pid: 4711, startTime: 0x1_0000_0009, device: "/dev/sdb1" },
    "0909000000030067120000090000000100000009002f6465762f73646231",
  ],
  [
    { kind: "fence-life", queryId: 9, nodeid: 3, incarnation: "0123456789abcdef", bootId: "b-1", why: "é" },
    "0a090000000300efcdab89674523010300622d310200c3a9",
  ],
  [{ kind: "purge", purgeId: 5, lockspaceId: 2, nodeid: 3, pid: 4711 }, "060500000002000000030067120000"],
  [{ kind: "keep-locks", requestId: 4, limitMs: 60_000, held: true }, "0b0400000060ea000001"],
  [{ kind: "inherit", requestId: 4, lockspace: "v", fromClientId: 7, skip: 9 }, "0c040000000100760700000009000000"],
  [{ kind: "end-kept", requestId: 4, clientId: 7 }, "0d0400000007000000"],
  [{ kind: "group-join", requestId: 4, group: "g" }, "1804000000010067"],
  [{ kind: "group-leave", requestId: 4, group: "g" }, "1904000000010067"],
  [{ kind: "group-send", requestId: 4, group: "g", count: 1, data: Uint8Array.of(7) }, "1a0400000001006700000100000007"],
  [
    { kind: "group-send", requestId: 4, group: "g", count: 2, data: Uint8Array.of(1, 0, 0, 0, 7, 0, 0, 0, 0) },
    "1a04000000010067010009000000010000000700000000",
  ],
  [{ kind: "group-farewell", requestId: 4, clientId: 7, group: "g", data: Uint8Array.of(7) }, "1b04000000070000000100670100000007"],
];

const member = { nodeid: 3, incarnation: "0123456789abcdef", clientId: 9 };

const fromServer: [message: Exclude<ServerMessage, { kind: "results" }>, hex: string][] = [
  [
    {
      kind: "welcome",
      info: {
        clusterName: "lab",
        nodeid: 1,
        incarnation: "ab",
        clientId: 3,
        nodes: [{ nodeid: 1, name: "n", address: "::" }],
        volumes: [{ name: "v", uuid: "u", lower: "device" }],
        preferredOwners: [5],
        overlayKeys: [
          { id: "aa", bytes: Uint8Array.of(1, 2) },
          { id: "bb", bytes: Uint8Array.of(3) },
        ],
      },
      view,
    },
    "8103006c61620100020061620300000001000000010001006e02003a3a010000000100760100750001000000050002020061610200000001020200626201000000030800372e312e3030666601000c0032206f66203320766f7465730200000001000300020000000200616102006363",
  ],
  [{ kind: "opened", lockspaceId: 2, error: "no" }, "820200000002006e6f"],
  [{ kind: "view", view }, "840800372e312e3030666601000c0032206f66203320766f7465730200000001000300020000000200616102006363"],
  [
    {
      kind: "gone",
      goneId: 6,
      clients: [
        { nodeid: 2, incarnation: "cd", clientId: null },
        { nodeid: 2, incarnation: "cd", clientId: 4 },
      ],
    },
    "850600000002000000020002006364000200020063640104000000",
  ],
  [{ kind: "answer", queryId: 5, json: new TextEncoder().encode("{}") }, "8605000000020000007b7d"],
  [{ kind: "error", reason: "no" }, "8702006e6f"],
  [{ kind: "purged", purgeId: 5, locks: 6, error: "no" }, "88050000000600000002006e6f"],
  [{ kind: "overlay-keys", keys: [{ id: "aa", bytes: Uint8Array.of(1, 2) }] }, "890102006161020000000102"],
  [{ kind: "heir-result", requestId: 4, result: "not-kept" }, "8a0400000003"],
  [{ kind: "inherited", requestId: 4, clients: [], next: null }, "8b040000000000000000"],
  [
    {
      kind: "inherited",
      requestId: 4,
      clients: [{ clientId: 7, locks: [{ resource: "r", mode: Mode.EX }] }],
      next: { fromClientId: 7, skip: 1 },
    },
    "8b0400000001000000070000000100000001007205010700000001000000",
  ],
  [{ kind: "group-result", requestId: 4, result: "too-large" }, "980400000003"],
  [
    { kind: "group-members", group: "g", members: [member], joined: [member], left: [{ member, reason: "node-gone" }] },
    "99010067010000000300efcdab896745230109000000010000000300efcdab896745230109000000010000000300efcdab89674523010900000002",
  ],
  [
    { kind: "group-message", group: "g", from: member, seq: 5, count: 1, data: Uint8Array.of(7) },
    "9a0100670300efcdab896745230109000000050000000000000000000100000007",
  ],
  [{ kind: "group-ended", group: "g", reason: "no" }, "9b01006702006e6f"],
];

function hexOf(encode: (writer: ByteWriter) => void): string {
  const writer = new ByteWriter();
  encode(writer);
  return Buffer.from(writer.view()).toString("hex");
}

describe("single messages", () => {
  test.each(fromClient)("client: $kind", (message, hex) => {
    expect(hexOf((writer) => encodeClientMessage(writer, message))).toBe(hex);
    expect(decodeClientMessage(Buffer.from(hex, "hex"))).toEqual(message);
  });
  test.each([
    ["longer than it is", "1a0400000001006701000900000001000000070100000000".slice(0, -2)],
    ["shorter than it is", "1a0400000001006701000a0000000100000007000000000a"],
    ["of fewer messages", "1a04000000010067020009000000010000000700000000"],
  ])("client: a row of messages that is %s", (_, hex) => {
    expect(() => decodeClientMessage(Buffer.from(hex, "hex"))).toThrow(WireError);
  });
  test.each(fromServer)("server: $kind", (message, hex) => {
    expect(hexOf((writer) => encodeServerMessage(writer, message))).toBe(hex);
    const decoded = decodeServerMessage(new Uint8Array(Buffer.from(hex, "hex")));
    expect(decoded).toEqual(message);
  });

  test("each cut anywhere, or with a byte more, is refused", () => {
    const all: [hex: string, decode: (bytes: Uint8Array) => unknown][] = [
      ...fromClient.map(([, hex]) => [hex, decodeClientMessage] as [string, (bytes: Uint8Array) => unknown]),
      ...fromServer.map(([, hex]) => [hex, decodeServerMessage] as [string, (bytes: Uint8Array) => unknown]),
    ];
    for (const [hex, decode] of all) {
      const whole = Buffer.from(hex, "hex");
      for (let bytes = 0; bytes < whole.length; bytes++) expect(() => decode(whole.subarray(0, bytes))).toThrow(WireError);
      expect(() => decode(Buffer.concat([whole, Buffer.of(0)]))).toThrow(WireError);
    }
  });

  test("strangers", () => {
    expect(() => decodeClientMessage(Buffer.from("01435600440100", "hex"))).toThrow("a coverlay client expected");
    expect(() => decodeClientMessage(Buffer.of(99))).toThrow("message of kind 99 from a client");
    expect(() => decodeServerMessage(Buffer.of(1))).toThrow("message of kind 1 from dlmd");
    expect(() => decodeClientMessage(Buffer.from("050500000009", "hex"))).toThrow("unknown query");
  });
});

/** Whether it ends with WireError; any other error goes on. */
function isRefused(decode: () => unknown): boolean {
  try {
    decode();
    return false;
  } catch (error) {
    if (error instanceof WireError) return true;
    throw error;
  }
}

/** The body of the one batch, in hexadecimal. */
function batchOf(begin: (writer: ByteWriter) => void, fill: (gatherer: FrameGatherer) => void): string {
  const gatherer = new FrameGatherer(LOCAL_FRAME_BYTES, LOCAL_BATCH_BYTES, begin);
  fill(gatherer);
  return Buffer.from(gatherer.take().subarray(4)).toString("hex");
}

/** A sink that writes down what it is told, as plain data. */
function requestsOf(body: Uint8Array): unknown[] {
  const seen: unknown[] = [];
  const plain = (lvb: Uint8Array | null): number[] | null => (lvb === null ? null : [...lvb]);
  const sink: RequestSink = {
    lock: (...entry) => seen.push(["lock", ...entry]),
    convert: (lockId, mode, flags, lvb, ...more) => seen.push(["convert", lockId, mode, flags, plain(lvb), ...more]),
    unlock: (lockId, flags, lvb) => seen.push(["unlock", lockId, flags, plain(lvb)]),
    down: (lockId, mode, flags, lvb) => seen.push(["down", lockId, mode, flags, plain(lvb)]),
    giveUp: (lockId, flags, lvb) => seen.push(["giveUp", lockId, flags, plain(lvb)]),
    cancel: (...entry) => seen.push(["cancel", ...entry]),
  };
  const message = decodeClientMessage(body);
  if (message.kind === "requests") decodeRequests(message.entries, sink);
  return seen;
}
function resultsOf(body: Uint8Array): unknown[] {
  const seen: unknown[] = [];
  const sink: ResultSink = {
    ast: (lockId, status, mode, sbFlags, lvbRead, lvb, lvbValid) =>
      seen.push(["ast", lockId, status, mode, sbFlags, lvbRead, lvb === null ? null : [...lvb], lvbValid]),
    bast: (...entry) => seen.push(["bast", ...entry]),
    refused: (...entry) => seen.push(["refused", ...entry]),
  };
  const message = decodeServerMessage(body);
  if (message.kind === "results") decodeResults(message.entries, sink);
  return seen;
}

const requestBatch =
  "03010200000005010000000200000007000000" +
  "0500666f6fc3a90800000003006261720507000000020000000501000100e8030000090000000300666f6f" +
  "020700000003040000000200aabb06070000000304000000e8030000ffffffffffff" +
  "060700000003040000000000000000000000ffff030700000000000000ffff0407000000" +
  "070700000003040000000200aabb080400000002000000070000000200aabb08000000ffff";
const resultBatch =
  "83010700000000050b0200aabb01070000000400040207000000050307000000021000040062757379" +
  "040502000000070000000800000004030100000009000000010a000000000304";

describe("batches", () => {
  test("golden requests", () => {
    const hex = batchOf(beginRequests, (gatherer) => {
      gatherRequest.lock(gatherer, 7, 2, "fooé", Mode.EX, 1);
      gatherRequest.lock(gatherer, 8, 2, "bar", Mode.EX, 1);
      encodeRequest.lock(gatherer.entry(), 7, 2, "foo", Mode.EX, 0x10001, 1000, 9);
      encodeRequest.convert(gatherer.entry(), 7, Mode.PR, 4, Uint8Array.of(0xaa, 0xbb));
      encodeRequest.convert(gatherer.entry(), 7, Mode.PR, 4, null, 1000);
      encodeRequest.convert(gatherer.entry(), 7, Mode.PR, 4, null, 0, 0);
      encodeRequest.unlock(gatherer.entry(), 7, 0, null);
      encodeRequest.cancel(gatherer.entry(), 7);
      encodeRequest.down(gatherer.entry(), 7, Mode.PR, 4, Uint8Array.of(0xaa, 0xbb));
      gatherRequest.giveUp(gatherer, 7, 4, Uint8Array.of(0xaa, 0xbb));
      gatherRequest.giveUp(gatherer, 8, 4, null);
    });
    expect(hex).toBe(requestBatch);
    expect(requestsOf(Buffer.from(hex, "hex"))).toEqual([
      ["lock", 7, 2, "fooé", Mode.EX, 1, 0, 0],
      ["lock", 8, 2, "bar", Mode.EX, 1, 0, 0],
      ["lock", 7, 2, "foo", Mode.EX, 0x10001, 1000, 9],
      ["convert", 7, Mode.PR, 4, [0xaa, 0xbb], 0, undefined],
      ["convert", 7, Mode.PR, 4, null, 1000, undefined],
      ["convert", 7, Mode.PR, 4, null, 0, 0],
      ["unlock", 7, 0, null],
      ["cancel", 7],
      ["down", 7, Mode.PR, 4, [0xaa, 0xbb]],
      ["giveUp", 7, 4, [0xaa, 0xbb]],
      ["giveUp", 8, 4, null],
    ]);
  });

  test("golden results", () => {
    const hex = batchOf(beginResults, (gatherer) => {
      gatherAst(gatherer, 7, "granted", Mode.EX, 4, true, Uint8Array.of(0xaa, 0xbb), true);
      gatherAst(gatherer, 7, "unlocked", Mode.NL, 1, false, null, false);
      encodeResult.bast(gatherer.entry(), 7, Mode.EX);
      encodeResult.refused(gatherer.entry(), 7, Mode.CW, 16, "busy");
      gatherAst(gatherer, 7, "granted", Mode.EX, 0, false, null, true);
      gatherAst(gatherer, 8, "granted", Mode.EX, 0, false, null, false);
      gatherAst(gatherer, 9, "granted", Mode.PR, 0, false, null, false);
      gatherAst(gatherer, 10, "granted", Mode.PR, DEMOTED, false, null, false);
    });
    expect(hex).toBe(resultBatch);
    expect(resultsOf(Buffer.from(hex, "hex"))).toEqual([
      ["ast", 7, "granted", Mode.EX, 4, true, [0xaa, 0xbb], true],
      ["ast", 7, "unlocked", Mode.NL, 1, false, null, false],
      ["bast", 7, Mode.EX],
      ["refused", 7, Mode.CW, 16, "busy"],
      ["ast", 7, "granted", Mode.EX, 0, false, null, false],
      ["ast", 8, "granted", Mode.EX, 0, false, null, false],
      ["ast", 9, "granted", Mode.PR, 0, false, null, false],
      ["ast", 10, "granted", Mode.PR, DEMOTED, false, null, false],
    ]);
  });

  test("a cut batch hands on what is whole and then says so", () => {
    const whole = Buffer.from(requestBatch, "hex");
    const ends = new Set([1, 35, 62, 76, 96, 116, 127, 132, 146, 169]);
    for (let bytes = 1; bytes <= whole.length; bytes++) {
      expect([bytes, isRefused(() => requestsOf(whole.subarray(0, bytes)))]).toEqual([bytes, !ends.has(bytes)]);
    }
  });

  test("a list that is cut hands on what is whole and then says so", () => {
    const seen: number[] = [];
    const sink = { lock: (lockId: number) => seen.push(lockId) } as unknown as RequestSink;
    const cut = new ByteReader(Buffer.from(requestBatch, "hex").subarray(1, 34));
    expect(isRefused(() => decodeRequests(cut, sink))).toBe(true);
    expect(seen).toEqual([7]);
  });

  test("a list of none is refused", () => {
    const refusal = "a list of no locks, at least 1 expected";
    expect(() => requestsOf(new ByteWriter().u8(3).u8(1).u32(1).u8(5).u32(0).u32(0).copy())).toThrow(refusal);
    expect(() => requestsOf(new ByteWriter().u8(3).u8(8).u32(0).u32(0).copy())).toThrow(refusal);
    expect(() => resultsOf(new ByteWriter().u8(131).u8(4).u8(5).u32(0).copy())).toThrow(refusal);
  });

  test("what is asked in a row for many locks alike is one entry, and nothing else is", () => {
    const entries: number[] = [];
    const gatherer = new FrameGatherer(LOCAL_FRAME_BYTES, 120, beginRequests);
    const lock = (lockId: number, resource: string, mode: Mode, flags: number): void => {
      gatherRequest.lock(gatherer, lockId, 2, resource, mode, flags);
      if (gatherer.beganList) entries.push(lockId);
    };
    lock(1, "a", Mode.EX, 0);
    lock(2, "b", Mode.EX, 0);
    lock(3, "c", Mode.PR, 0);
    lock(4, "d", Mode.PR, 4);
    gatherRequest.giveUp(gatherer, 9, 4, null);
    lock(5, "e", Mode.PR, 4);
    encodeRequest.cancel(gatherer.entry(), 5);
    lock(6, "f", Mode.PR, 4);
    gatherer.message((writer) => encodeClientMessage(writer, { kind: "gone-ack", goneId: 1 }));
    lock(7, "g", Mode.PR, 4);
    gatherer.take();
    // After 120 bytes another batch begins, and another list with it.
    for (let lockId = 10; lockId < 30; lockId++) lock(lockId, "h", Mode.PR, 4);
    expect(entries).toEqual([1, 3, 4, 5, 6, 7, 10, 25]);
    const seen: unknown[] = [];
    createFrameReader({ maxBytes: 200, crc32: null }).push(gatherer.take(), (body) => seen.push(...requestsOf(body)));
    expect(seen).toEqual(Array.from({ length: 20 }, (_, at) => ["lock", 10 + at, 2, "h", Mode.PR, 4, 0, 0]));
  });

  test("names, modes and value blocks out of range", () => {
    const lock = (mode: number, name: string): Buffer => {
      const writer = new ByteWriter().u8(3).u8(1).u32(1).u8(mode).u32(0).u32(1).u32(1).string(name);
      return Buffer.from(writer.copy());
    };
    expect(() => requestsOf(lock(6, "a"))).toThrow("lock mode 6");
    expect(() => requestsOf(lock(5, ""))).toThrow("name of 0 bytes");
    expect(() => requestsOf(lock(5, "a".repeat(65)))).toThrow("name of 65 bytes");
    expect(requestsOf(lock(5, "a".repeat(64)))).toHaveLength(1);
    expect(() => requestsOf(Buffer.from(new ByteWriter().u8(3).u8(3).u32(1).u32(0).u16(257).bytes(new Uint8Array(257)).copy()))).toThrow(
      "value block of 257 bytes",
    );
  });

  test("random requests survive the trip", () => {
    const lvb = fc.option(fc.uint8Array({ maxLength: 256 }));
    const id = fc.nat({ max: 0xffffffff });
    const word = fc.nat({ max: 0xffffffff });
    const mode = fc.constantFrom(...Object.values(Mode));
    const status = fc.constantFrom<LockStatus>("granted", "again", "canceled", "deadlock", "unlocked", "error", "timeout");
    fc.assert(
      fc.property(
        id,
        id,
        fc.string({ unit: "binary", minLength: 1, maxLength: 16 }),
        mode,
        word,
        lvb,
        status,
        (lockId, space, name, m, flags, block, s) => {
          const plain = block === null ? null : [...block];
          const requests = batchOf(beginRequests, (gatherer) => {
            gatherRequest.lock(gatherer, lockId, space, name, m, flags);
            encodeRequest.convert(gatherer.entry(), lockId, m, flags, block);
            gatherRequest.giveUp(gatherer, lockId, flags, block);
          });
          expect(requestsOf(Buffer.from(requests, "hex"))).toEqual([
            ["lock", lockId, space, name, m, flags, 0, 0],
            ["convert", lockId, m, flags, plain, 0, undefined],
            ["giveUp", lockId, flags, plain],
          ]);
          const results = batchOf(beginResults, (gatherer) => gatherAst(gatherer, lockId, s, m, DEMOTED, true, block, true));
          expect(resultsOf(Buffer.from(results, "hex"))).toEqual([["ast", lockId, s, m, DEMOTED, true, plain, true]]);
        },
      ),
    );
  });

  test("random bytes are decoded or refused, nothing else", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 3, 4, 5, 6, 129, 130, 131, 132, 133, 134, 135, 136, 0),
        fc.uint8Array({ maxLength: 80 }),
        (kind, tail) => {
          const body = Uint8Array.of(kind, ...tail);
          expect(typeof isRefused(() => requestsOf(body))).toBe("boolean");
          expect(typeof isRefused(() => resultsOf(body))).toBe("boolean");
        },
      ),
      { numRuns: 3000 },
    );
  });
});

test("a question that is asked no more, or anew, makes another version", () => {
  // Else a program of an older release is told that its frame is damaged, not to run programs of this release.
  expect([LOCAL_VERSION, queries]).toEqual([16, ["status", "nodes"]]);
});

test("a gatherer closes a batch before another message, and when it has grown too long", () => {
  const gatherer = new FrameGatherer(LOCAL_FRAME_BYTES, 64, beginRequests);
  for (let lockId = 0; lockId < 20; lockId++) encodeRequest.cancel(gatherer.entry(), lockId);
  gatherer.message((writer) => encodeClientMessage(writer, { kind: "gone-ack", goneId: 1 }));
  encodeRequest.cancel(gatherer.entry(), 20);
  const kinds: unknown[] = [];
  createFrameReader({ maxBytes: 80, crc32: null }).push(gatherer.take(), (body) => {
    kinds.push(decodeClientMessage(body).kind === "requests" ? requestsOf(body).length : "gone-ack");
  });
  expect(kinds).toEqual([12, 8, "gone-ack", 1]);
  expect(gatherer.length).toBe(0);
  expect(new ByteReader(gatherer.take()).remaining).toBe(0);
});
