/**
 * The bytes of every message between nodes. messages.json holds what they are; a change of it is a change of the
 * protocol and needs a new version number (COVERLAY_WRITE_VECTORS=1 writes it anew).
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { ByteReader } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { decodeDatagram, encodeDatagram } from "../../../dlmd/wire/datagram.ts";
import { decodeFencingMessage, encodeFencingMessage } from "../../../dlmd/wire/fencing-group.ts";
import { decodeLockspaceMessage, encodeLockspaceMessage } from "../../../dlmd/wire/lockspace-group.ts";
import { decodeMountGroupMessage, encodeMountGroupMessage } from "../../../dlmd/wire/mount-group.ts";
import { decodeGroupMessage, encodeGroupMessage } from "../../../dlmd/engine/corosync/message.ts";
import { decodeSeen, encodeSeen } from "../../../dlmd/wire/look.ts";
import { decodeFrame, encodeFrames, type PeerMessage, peerVersion } from "../../../dlmd/wire/peer.ts";
import { decodeCheckNews, encodeCheck, encodeCheckNews, readCheck } from "../../../dlmd/wire/self-check.ts";
import {
  checkNews,
  datagrams,
  fencingMessages,
  groupMessages,
  lockspaceMessages,
  mountGroupMessages,
  peerMessages,
  seen,
  view,
} from "./samples.ts";

const path = fileURLToPath(new URL("messages.json", import.meta.url));
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const frame = (message: PeerMessage): Uint8Array => (encodeFrames(view, [message])[0] as Uint8Array).slice();

const readWholeCheck = (bytes: Uint8Array): number => {
  const reader = new ByteReader(bytes);
  reader.u8();
  return readCheck(reader);
};

const rows: [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown][] = [
  ...datagrams.map((m): [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown] => [
    `datagram ${m.kind}`,
    encodeDatagram(m),
    decodeDatagram,
    m,
  ]),
  ...peerMessages.map((m): [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown] => [
    `peer ${m.kind}`,
    frame(m),
    decodeFrame,
    { view, messages: [m] },
  ]),
  ...lockspaceMessages.map((m): [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown] => [
    `ordered ${m.kind}`,
    encodeLockspaceMessage(m),
    decodeLockspaceMessage,
    m,
  ]),
  ...fencingMessages.map((m): [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown] => [
    `ordered ${m.kind}`,
    encodeFencingMessage(m),
    decodeFencingMessage,
    m,
  ]),
  ...mountGroupMessages.map((m, at): [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown] => [
    `mounters ${at} ${m.kind}`,
    encodeMountGroupMessage(m),
    decodeMountGroupMessage,
    m,
  ]),
  ...groupMessages.map((m): [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown] => [
    `corosync ${m.kind}`,
    encodeGroupMessage(m),
    decodeGroupMessage,
    m,
  ]),
  ["look seen", encodeSeen(seen), decodeSeen, seen],
  ...checkNews.map((news): [string, Uint8Array, (bytes: Uint8Array) => unknown, unknown] => [
    `check ${news.kind}`,
    encodeCheckNews(news),
    decodeCheckNews,
    news,
  ]),
  ["check", encodeCheck(4000), readWholeCheck, 4000],
];

if (process.env["COVERLAY_WRITE_VECTORS"] === "1") {
  writeFileSync(path, `${JSON.stringify(Object.fromEntries(rows.map(([name, bytes]) => [name, hex(bytes)])), null, 2)}\n`);
}
const vectors = JSON.parse(readFileSync(path, "utf8")) as Record<string, string>;

describe.each(rows)("%s", (name, bytes, decode, message) => {
  it("has the bytes on record", () => expect(hex(bytes)).toBe(vectors[name]));

  it("decodes to what was encoded", () => expect(decode(bytes)).toEqual(message));

  it("is refused when cut anywhere, and with a tail", () => {
    for (let length = 0; length < bytes.byteLength; length++)
      expect(() => decode(bytes.slice(0, length)), `${length} bytes`).toThrow(WireError);
    expect(() => decode(Buffer.concat([bytes, new Uint8Array(1)]))).toThrow(WireError);
  });

  it("any changed byte gives a message or a WireError, nothing else", () => {
    const wrong: unknown[] = [];
    for (let at = 0; at < bytes.byteLength; at++) {
      for (const value of [0, 1, 6, 0x7f, 0x80, 0xff]) {
        const damaged = bytes.slice();
        damaged[at] = value;
        try {
          decode(damaged);
        } catch (error) {
          if (!(error instanceof WireError)) wrong.push([at, value, error]);
        }
      }
    }
    expect(wrong).toEqual([]);
  });
});

describe("frames", () => {
  it("carry many messages, and are cut when they grow", () => {
    const many = Array.from({ length: 20_000 }, () => peerMessages).flat();
    const frames = encodeFrames(view, many);
    expect(frames.length).toBeGreaterThan(10);
    expect(frames.flatMap((bytes) => decodeFrame(bytes).messages)).toHaveLength(many.length);
    for (const bytes of frames) expect(bytes.byteLength).toBeLessThan(300_000);
  });

  it("of another version are refused by name", () => {
    const bytes = frame({ kind: "cancel", lkbId: 1 });
    bytes[0] = peerVersion + 1;
    expect(() => decodeFrame(bytes)).toThrow(`version ${peerVersion + 1}`);
  });

  it("with an unknown message are refused", () => {
    const bytes = frame({ kind: "cancel", lkbId: 1 });
    bytes[bytes.byteLength - 9] = 99;
    expect(() => decodeFrame(bytes)).toThrow("unknown type 99");
  });
});
