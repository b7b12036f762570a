/** Golden vectors of the wire between overlays: a change of any of them is a change of the protocol's version. */
import * as fc from "fast-check";
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import * as handshake from "../../../overlay/lower/wire/handshake.ts";
import { encodeFrame, FrameBatch, FrameReader, FrameType, LOWER_WIRE_VERSION, MAX_FRAME_BYTES } from "../../../overlay/lower/wire/frame.ts";
import { type Codec, decodeWith, encodeWith } from "../../../overlay/lower/wire/call-codecs.ts";
import type { CallName } from "../../../overlay/lower/wire/call-types.ts";
import { CALLS, callOfType } from "../../../overlay/lower/wire/calls.ts";
import { decodeAlive, encodeAlive } from "../../../overlay/lower/wire/heartbeat.ts";
import { SAMPLES } from "./samples.ts";

const file = new URL("calls.json", import.meta.url);
/** Hex of each body by "call request", "call answer". Written anew with COVERLAY_WRITE_VECTORS=1. */
const vectors: Record<string, string> = process.env["COVERLAY_WRITE_VECTORS"] === "1" ? {} : JSON.parse(readFileSync(file, "utf8"));

function withData<T>(codec: Codec<T>, value: T): Buffer {
  return Buffer.concat([encodeWith(codec, value), codec.data?.(value) ?? new Uint8Array(0)]);
}

const bodies: { title: string; codec: Codec<unknown>; value: unknown }[] = (Object.keys(CALLS) as CallName[]).flatMap((call) => [
  { title: `${call} request`, codec: CALLS[call].request as Codec<unknown>, value: SAMPLES[call].request },
  { title: `${call} answer`, codec: CALLS[call].answer as Codec<unknown>, value: SAMPLES[call].answer },
]);

const hello: handshake.Hello = {
  version: LOWER_WIRE_VERSION,
  clusterName: "c",
  volumeUuid: "0b9f5f1e-7f5c-4f0e-9a47-5d4f0f6a1c11",
  session: { nodeid: 2, incarnation: "77.1", clientId: 3, ownerEpoch: 4 },
};
const self: handshake.OwnerId = { nodeid: 1, incarnation: "77.0", clientId: 9, epoch: 4 };
const handshakes: { title: string; bytes: Uint8Array; decode: (body: Uint8Array) => unknown; value: unknown }[] = [
  { title: "hello", bytes: handshake.encodeHello(hello), decode: handshake.decodeHello, value: hello },
  {
    title: "welcome",
    bytes: handshake.encodeWelcome({
      owner: self,
      resumed: true,
      hasAcls: true,
      exclusive: true,
      cleanAfter: 7,
      letGoAfter: 6,
      root: { ino: 2, generation: 0 },
    }),
    decode: handshake.decodeWelcome,
    value: { owner: self, resumed: true, hasAcls: true, exclusive: true, cleanAfter: 7, letGoAfter: 6, root: { ino: 2, generation: 0 } },
  },
  {
    title: "refused",
    bytes: handshake.encodeRefused({ reason: "gone", text: "declared gone", owner: self }),
    decode: handshake.decodeRefused,
    value: { reason: "gone", text: "declared gone", owner: self },
  },
];

afterAll(() => {
  if (process.env["COVERLAY_WRITE_VECTORS"] === "1") writeFileSync(file, `${JSON.stringify(vectors, null, 2)}\n`);
});

function refuses(decode: () => unknown): boolean {
  try {
    decode();
    return false;
  } catch (error) {
    return error instanceof WireError;
  }
}

/** It decodes, or is refused as what it is; nothing else may happen. */
function decodesOrRefuses(decode: () => unknown): boolean {
  try {
    decode();
    return true;
  } catch (error) {
    return error instanceof WireError;
  }
}

describe("the lower's calls", () => {
  it.each(bodies)("$title is what it was", ({ title, codec, value }) => {
    const bytes = withData(codec, value);
    if (process.env["COVERLAY_WRITE_VECTORS"] === "1") vectors[title] = bytes.toString("hex");
    expect(bytes.toString("hex")).toBe(vectors[title]);
    expect(decodeWith(codec, bytes)).toEqual(value);
  });

  it.each(bodies)("$title is refused when cut short or longer", ({ title, codec, value }) => {
    const bytes = withData(codec, value);
    // The tail of these is data of any length.
    const open = title === "read answer" || title === "fetch answer" || title === "write request";
    const fixed = bytes.length - (open ? (codec.data?.(value).byteLength ?? 0) : 0);
    for (let length = 0; length < fixed; length += 1) {
      expect(() => decodeWith(codec, bytes.subarray(0, length)), `${length} bytes`).toThrow(WireError);
    }
    const longer = (): unknown => decodeWith(codec, Buffer.concat([bytes, Buffer.alloc(1)]));
    expect(open || refuses(longer)).toBe(true);
  });

  it("take any bytes without harm", () => {
    const property = fc.property(fc.constantFrom(...bodies), fc.uint8Array({ maxLength: 300 }), ({ codec }, bytes) =>
      decodesOrRefuses(() => decodeWith(codec, bytes)),
    );
    expect(fc.check(property, { numRuns: 5000 })).toMatchObject({ failed: false });
  });

  it("take damaged messages without harm", () => {
    const property = fc.property(fc.constantFrom(...bodies), fc.nat(), fc.integer({ min: 0, max: 255 }), ({ codec, value }, at, byte) => {
      const bytes = withData(codec, value);
      if (bytes.length > 0) bytes[at % bytes.length] = byte;
      return decodesOrRefuses(() => decodeWith(codec, bytes));
    });
    expect(fc.check(property, { numRuns: 5000 })).toMatchObject({ failed: false });
  });

  it("have each a type of their own", () => {
    const types = Object.values(CALLS).map((row) => row.type);
    expect(new Set(types).size).toBe(types.length);
    for (const type of types) expect(type < FrameType.HELLO && callOfType(type) !== undefined).toBe(true);
    expect(callOfType(0x6f)).toBeUndefined();
  });
});

describe("the handshake", () => {
  it.each(handshakes)("$title is what it was", ({ title, bytes, decode, value }) => {
    const hex = Buffer.from(bytes).toString("hex");
    if (process.env["COVERLAY_WRITE_VECTORS"] === "1") vectors[title] = hex;
    expect(hex).toBe(vectors[title]);
    expect(decode(bytes)).toEqual(value);
    for (let length = 0; length < bytes.byteLength; length += 1) expect(() => decode(bytes.subarray(0, length))).toThrow(WireError);
    expect(() => decode(Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow(WireError);
  });

  it("of another version says that version and nothing else", () => {
    const bytes = handshake.encodeHello({ ...hello, version: LOWER_WIRE_VERSION + 1 });
    expect(handshake.decodeHello(Buffer.concat([bytes, Buffer.alloc(7)]))).toMatchObject({
      version: LOWER_WIRE_VERSION + 1,
      clusterName: "",
    });
  });
});

describe("the sign of life", () => {
  it("is what it was, and says nothing else", () => {
    const frame = encodeFrame(FrameType.ALIVE, 0, encodeAlive());
    expect(frame.toString("hex")).toBe("050000007800000000");
    expect(() => decodeAlive(encodeAlive())).not.toThrow();
    expect(() => decodeAlive(Buffer.alloc(1))).toThrow(WireError);
    const reader = new FrameReader();
    for (let length = 0; length < frame.length; length += 1) {
      new FrameReader().push(frame.subarray(0, length), () => expect.unreachable(`a frame of ${length} bytes`));
    }
    const types: number[] = [];
    reader.push(frame, (type) => types.push(type));
    expect(types).toEqual([FrameType.ALIVE]);
  });
});

describe("frames", () => {
  it("are what they were", () => {
    expect(encodeFrame(2, 0x01020304, Buffer.from("body")).toString("hex")).toBe("090000000204030201626f6479");
  });

  const frames = fc.array(
    fc.record({
      type: fc.integer({ min: 0, max: 255 }),
      id: fc.integer({ min: 0, max: 0xffff_ffff }),
      body: fc.uint8Array({ maxLength: 200 }),
      data: fc.option(fc.uint8Array({ maxLength: 100_000 })),
    }),
    { maxLength: 12 },
  );

  it("come out as they went in, however the stream is cut", () => {
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 }), (sent, cuts) => {
        const batch = new FrameBatch();
        for (const frame of sent) batch.add(frame.type, frame.id, frame.body, frame.data);
        const bytes = batch.bytes;
        const stream = Buffer.concat(batch.take());
        expect(stream.length).toBe(bytes);
        expect(batch.empty).toBe(true);
        const reader = new FrameReader(MAX_FRAME_BYTES);
        const received: { type: number; id: number; body: Buffer }[] = [];
        for (let at = 0, n = 0; at < stream.length; n += 1) {
          const cut = cuts[n % cuts.length] ?? 1;
          reader.push(Buffer.from(stream.subarray(at, at + cut)), (type, id, body) => received.push({ type, id, body: Buffer.from(body) }));
          at += cut;
        }
        const expected = sent.map(({ type, id, body, data }) => ({ type, id, body: Buffer.concat([body, data ?? new Uint8Array(0)]) }));
        expect(received).toEqual(expected);
      }),
      { numRuns: 200 },
    );
  });

  it("are refused when too long or too short", () => {
    const frame = encodeFrame(2, 7, Buffer.from("0123456789"));
    for (const length of [0, 4, 4097, 0xffff_ffff]) {
      const damaged = Buffer.from(frame);
      damaged.writeUInt32LE(length, 0);
      expect(() => new FrameReader().push(damaged, () => undefined), `length ${length}`).toThrow(WireError);
      const reader = new FrameReader();
      reader.push(damaged.subarray(0, 3), () => undefined);
      expect(() => reader.push(damaged.subarray(3), () => undefined), `length ${length}, in two`).toThrow(WireError);
    }
  });

  it("that lie whole in a chunk are handed on without a copy", () => {
    const chunk = encodeFrame(2, 7, Buffer.from("0123456789"));
    let body: Uint8Array = new Uint8Array(0);
    new FrameReader().push(chunk, (_type, _id, given) => {
      body = given;
    });
    expect(body.buffer).toBe(chunk.buffer);
  });
});
