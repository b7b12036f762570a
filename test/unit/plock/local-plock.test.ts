/** The bytes of file-lock messages on the local socket, and what becomes of damaged ones. */
import { describe, expect, it } from "vitest";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { decodeClientMessage, decodeServerMessage, encodeClientMessage, encodeServerMessage } from "../../../dlmd/wire/local.ts";
import type { PlockClientRequest, PlockResult } from "../../../dlmd/wire/local-plock.ts";

const requests: readonly [PlockClientRequest, string][] = [
  [
    {
      kind: "plock",
      lockspaceId: 2,
      requestId: 0xfffffffe,
      file: "i:1",
      op: "unlock",
      ownerKind: "flock",
      owner: 0xfedcba9876543210n,
      wait: true,
      begun: true,
      heldMs: 0x1_0000_0007,
      first: true,
      type: "write",
      start: 1n,
      end: maxOffset,
      pid: 4711,
    },
    "1402000000feffffff0300693a3101021032547698badcfe010101070000000100000001010100000000000000ffffffffffffff7f67120000",
  ],
  [{ kind: "plock-cancel", requestId: 7 }, "1507000000"],
  [{ kind: "plock-release", lockspaceId: 2, file: null, ownerKind: "ofd", owner: 1n }, "16020000000000010100000000000000"],
  [{ kind: "plock-release", lockspaceId: 2, file: "f", ownerKind: "posix", owner: 1n }, "1602000000010066000100000000000000"],
];
const owner = { nodeid: 3, clientId: 4, kind: "posix", owner: 5n } as const;
const results: readonly [PlockResult, string][] = [
  [{ kind: "plock-result", requestId: 7, errno: 35, conflict: null }, "9407000000230000"],
  [
    { kind: "plock-result", requestId: 7, errno: 0, conflict: { type: "read", start: 1n, end: 2n, pid: 6, owner } },
    "9407000000000001000100000000000000020000000000000006000000030004000000000500000000000000",
  ],
];

function hexOf(encode: (writer: ByteWriter) => void): string {
  const writer = new ByteWriter();
  encode(writer);
  return Buffer.from(writer.view()).toString("hex");
}

describe.each([
  ...requests.map(([message, hex]) => [hexOf((w) => encodeClientMessage(w, message)), hex, message, decodeClientMessage] as const),
  ...results.map(([message, hex]) => [hexOf((w) => encodeServerMessage(w, message)), hex, message, decodeServerMessage] as const),
])("%s", (encoded, hex, message, decode) => {
  it("has the bytes on record and decodes to what was encoded", () => {
    expect(encoded).toBe(hex);
    expect(decode(Buffer.from(hex, "hex"))).toEqual(message);
  });

  it("is refused when cut anywhere, and with a tail", () => {
    const bytes = Buffer.from(hex, "hex");
    for (let length = 0; length < bytes.length; length++) expect(() => decode(bytes.subarray(0, length))).toThrow(WireError);
    expect(() => decode(Buffer.concat([bytes, new Uint8Array(1)]))).toThrow(WireError);
  });
});

it("a range that is none is refused", () => {
  const bytes = Buffer.from(requests[0]?.[1] ?? "", "hex");
  bytes.writeBigUInt64LE(0x8000_0000_0000_0000n, bytes.length - 12);
  expect(() => decodeClientMessage(bytes)).toThrow("ascending offsets");
});
