import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import { OPCODE } from "../../../overlay/fuse/abi.ts";
import { opcodeRow, opcodeTable } from "../../../overlay/fuse/opcode.ts";
import { damagedUnique, decodeRequest } from "../../../overlay/fuse/decode-request.ts";
import type { IoctlRequest, Request } from "../../../overlay/fuse/request.ts";
import { vectors } from "../../vector/fuse/vectors.ts";

const packets: Buffer[] = vectors.requests.map((v) => Buffer.from(v.hex, "hex"));

interface Parts {
  readonly unique?: bigint;
  readonly nodeid?: bigint;
  readonly extensions?: Buffer;
}

function packet(opcode: number, body: Buffer, parts: Parts = {}): Buffer {
  const extensions = parts.extensions ?? Buffer.alloc(0);
  const head = Buffer.alloc(40);
  head.writeUInt32LE(40 + body.length + extensions.length, 0);
  head.writeUInt32LE(opcode, 4);
  head.writeBigUInt64LE(parts.unique ?? 6n, 8);
  head.writeBigUInt64LE(parts.nodeid ?? 9n, 16);
  head.writeUInt32LE(1000, 24);
  head.writeUInt32LE(100, 28);
  head.writeUInt32LE(4321, 32);
  head.writeUInt16LE(extensions.length / 8, 36);
  return Buffer.concat([head, body, extensions]);
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, i) => bytes.writeUInt32LE(value, i * 4));
  return bytes;
}

function longs(...values: bigint[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  values.forEach((value, i) => bytes.writeBigInt64LE(BigInt.asIntN(64, value), i * 8));
  return bytes;
}

function decode(bytes: Buffer): Request {
  return decodeRequest(bytes, bytes.length);
}

const head = { unique: 6, fuseNodeid: 9, uid: 1000, gid: 100, pid: 4321 };

describe("requests that an ordinary mount of this kernel does not send", () => {
  test("DESTROY and SYNCFS", () => {
    expect(decode(packet(OPCODE.FUSE_DESTROY, Buffer.alloc(0)))).toEqual({ op: "destroy", ...head });
    expect(decode(packet(OPCODE.FUSE_SYNCFS, longs(0n)))).toEqual({ op: "syncfs", ...head });
  });

  test.each([1, 64, 65, 255])("a name of %i bytes is copied whole: the buffer is read into again", (length) => {
    const name = Buffer.from(Array.from({ length }, (_, at) => 1 + (at % 255)));
    const bytes = packet(OPCODE.FUSE_LOOKUP, Buffer.concat([name, Buffer.alloc(1)]));
    const request = decode(bytes);
    bytes.fill(0xff);
    expect(request).toEqual({ op: "lookup", ...head, name });
  });

  test("NOTIFY_REPLY, with exactly the data that it says", () => {
    const reply = (size: number): Buffer => Buffer.concat([longs(0n, 4096n), words(size, 0), longs(0n, 0n), Buffer.from("in the page")]);
    expect(decode(packet(OPCODE.FUSE_NOTIFY_REPLY, reply(11)))).toEqual({ op: "notifyReply", ...head, data: Buffer.from("in the page") });
    for (const size of [10, 12]) expect(() => decode(packet(OPCODE.FUSE_NOTIFY_REPLY, reply(size)))).toThrow(WireError);
  });

  test("INIT of kernels before 5.17, with 16 bytes", () => {
    expect(decode(packet(OPCODE.FUSE_INIT, words(7, 32, 131072, 0x1234)))).toEqual({
      op: "init",
      ...head,
      major: 7,
      minor: 32,
      maxReadahead: 131072,
      flags: 0x1234n,
    });
  });

  test("RELEASE that ends a flock", () => {
    const body = Buffer.concat([longs(5n), words(0o2, 2), longs(77n)]);
    expect(decode(packet(OPCODE.FUSE_RELEASE, body))).toEqual({
      op: "release",
      ...head,
      fh: 5,
      flags: 2,
      flockUnlock: true,
      lockOwner: 77n,
    });
  });

  test("LSEEK to a negative offset", () => {
    const body = Buffer.concat([longs(5n, -3n), words(3, 0)]);
    expect(decode(packet(OPCODE.FUSE_LSEEK, body))).toMatchObject({ op: "lseek", offset: -3 });
  });

  test("an opcode newer than the table", () => {
    expect(decode(packet(99, longs(1n)))).toEqual({ op: "unserved", ...head, opcode: 99, name: "opcode 99", errno: 38 });
  });
});

describe("extensions", () => {
  const body = Buffer.concat([words(0o755, 0o22), Buffer.from("dir\0")]);
  const groups = words(20, 32, 2, 500, 0xffff_fffe, 0);

  test("groups, behind a security context that nobody asked for", () => {
    const context = words(13, 1, 0x61, 0x62);
    const extensions = Buffer.concat([context, groups]);
    expect(decode(packet(OPCODE.FUSE_MKDIR, body, { extensions }))).toMatchObject({
      name: Buffer.from("dir"),
      supplementaryGids: [500, 0xffff_fffe],
    });
  });

  test.each([
    ["too large", words(32, 32, 2, 500, 501, 0)],
    ["too small", words(7, 32, 2, 500, 501, 0)],
    ["of no size", words(0, 0)],
    ["with more groups than it holds", words(20, 32, 3, 500, 501, 0)],
    ["without a count", words(8, 32)],
  ])("an extension %s is damage", (_what, extensions) => {
    expect(() => decode(packet(OPCODE.FUSE_MKDIR, body, { extensions }))).toThrow(WireError);
  });

  test("more extensions than the request has bytes", () => {
    const bytes = packet(OPCODE.FUSE_MKDIR, body);
    bytes.writeUInt16LE(60000, 36);
    expect(() => decode(bytes)).toThrow(WireError);
  });
});

describe("numbers", () => {
  test("a nodeid that is no safe integer cannot be ours, and is asked for by a file handle all the same", () => {
    for (const nodeid of [2n ** 53n, 2n ** 64n - 1n])
      expect(decode(packet(OPCODE.FUSE_READLINK, Buffer.alloc(0), { nodeid })).fuseNodeid).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
    expect(decode(packet(OPCODE.FUSE_READLINK, Buffer.alloc(0), { nodeid: 2n ** 53n - 1n })).fuseNodeid).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("an offset keeps the sentinel to the bit, and a cookie all of its bits", () => {
    const read = Buffer.concat([longs(5n, 0x5a00_0000_0000_0000n), words(4096, 0), longs(9n), words(0, 0)]);
    expect(decode(packet(OPCODE.FUSE_READ, read))).toMatchObject({ offset: 0x5a00_0000_0000_0000, lockOwner: 0n });
    const readdir = Buffer.concat([longs(5n, 0x7fff_ffff_ffff_fffdn), words(4096, 0), longs(0n), words(0, 0)]);
    expect(decode(packet(OPCODE.FUSE_READDIR, readdir))).toMatchObject({ cookie: 0x7fff_ffff_ffff_fffdn });
  });
});

describe("lifetimes", () => {
  test("names are copies, payloads are views", () => {
    const bytes = packet(OPCODE.FUSE_SETXATTR, Buffer.concat([words(2, 0), Buffer.from("user.a\0vv")]));
    const request = decode(bytes);
    bytes.fill(0);
    expect(request).toMatchObject({ name: Buffer.from("user.a"), value: Buffer.from("\0\0") });
  });
});

describe("setxattr, of which there are two headers", () => {
  test.each([
    [
      "the short one, with a name of one byte and a value of zeros",
      Buffer.concat([words(7, 1), Buffer.from("\u0001\0\0\0\0\0\0\0\0")]),
      "\u0001",
      false,
    ],
    ["the long one, with a flag", Buffer.concat([words(3, 1, 1, 0), Buffer.from("n\0vvv")]), "n", true],
    ["the long one, without a value", Buffer.concat([words(0, 0, 0, 0), Buffer.from("n\0")]), "n", false],
    ["the short one, without a value", Buffer.concat([words(0, 0), Buffer.from("a-rather-long-name\0")]), "a-rather-long-name", false],
  ])("%s", (_what, body, name, aclKillSgid) => {
    expect(decode(packet(OPCODE.FUSE_SETXATTR, body))).toMatchObject({ name: Buffer.from(name), aclKillSgid });
  });
});

describe("damage", () => {
  // The long header with its flag, cut so that the value begins right behind that flag, is a whole request with the short header and the
  // name "\u0001": nothing in it tells the two apart.
  function isAnotherSetxattr(bytes: Buffer): boolean {
    return (
      bytes.length >= 50 &&
      bytes.readUInt32LE(4) === OPCODE.FUSE_SETXATTR &&
      bytes.length - bytes.readUInt32LE(40) === 50 &&
      bytes.readUInt16LE(48) === 1
    );
  }

  test("a request cut short at any length is refused, whatever its header says", () => {
    for (const bytes of packets) {
      // Of an unserved request nothing but the header is read.
      const least = opcodeRow(bytes.readUInt32LE(4)).served ? bytes.length : 40;
      for (let length = 0; length < least; length++) {
        const cut = Buffer.from(bytes.subarray(0, length));
        expect(() => decodeRequest(cut, length)).toThrow(WireError);
        if (length >= 4) cut.writeUInt32LE(length, 0);
        if (isAnotherSetxattr(cut)) continue;
        expect(() => decodeRequest(cut, length), `opcode ${bytes.readUInt32LE(4)} at ${length}`).toThrow(WireError);
      }
    }
  });

  test("locks of no known type, of no bytes, or beyond the last byte that a file can have", () => {
    const lk = (start: bigint, end: bigint, type: number): Buffer => Buffer.concat([longs(5n, -1n, start, end), words(type, 77, 1, 0)]);
    const max = (1n << 63n) - 1n;
    const whole = { ...head, fh: 5, owner: (1n << 64n) - 1n, start: 0n, end: max };
    expect(decode(packet(OPCODE.FUSE_SETLKW, lk(0n, max, 1)))).toEqual({
      op: "setlk",
      ...whole,
      type: "write",
      lockPid: 77,
      flock: true,
      wait: true,
    });
    expect(decode(packet(OPCODE.FUSE_GETLK, lk(0n, max, 0)))).toEqual({ op: "getlk", ...whole, type: "read" });
    for (const body of [lk(0n, max, 3), lk(5n, 4n, 1), lk(0n, max + 1n, 1), lk(-1n, -1n, 1)])
      expect(() => decode(packet(OPCODE.FUSE_SETLK, body))).toThrow(WireError);
    expect(decode(packet(OPCODE.FUSE_GETLK, lk(0n, max, 2)))).toEqual({ op: "getlk", ...whole, type: "unlock" });
  });

  test("names without an end, empty, or followed by something", () => {
    for (const body of ["name", "\0", "name\0more\0", "name\0x"]) {
      expect(() => decode(packet(OPCODE.FUSE_LOOKUP, Buffer.from(body)))).toThrow(WireError);
    }
    for (const body of ["old\0new", "old\0\0", "\0new\0", "old\0new\0more\0"]) {
      expect(() => decode(packet(OPCODE.FUSE_RENAME, Buffer.concat([longs(4n), Buffer.from(body)])))).toThrow(WireError);
    }
  });

  test("a WRITE with another size than it has data", () => {
    const body = Buffer.concat([longs(5n, 0n), words(4, 0), longs(0n), words(0, 0), Buffer.from("12345")]);
    expect(() => decode(packet(OPCODE.FUSE_WRITE, body))).toThrow(WireError);
  });

  test("whatever comes, nothing but WireError is thrown", () => {
    const opcode = fc.oneof(fc.constantFrom(...opcodeTable.map((row) => row.opcode)), fc.nat(5000));
    const any = fc.tuple(opcode, fc.uint8Array({ maxLength: 200 }), fc.nat(30)).map(([code, body, words8]) => {
      const bytes = packet(code, Buffer.from(body));
      bytes.writeUInt16LE(words8 < 20 ? 0 : words8 - 20, 36);
      return bytes;
    });
    const flipped = fc
      .tuple(fc.constantFrom(...packets), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }))
      .map(([original, changes]) => {
        const bytes = Buffer.from(original);
        // The length is kept right, or nothing behind it would be tried.
        for (const [at, value] of changes) bytes[4 + (at % (bytes.length - 4))] = value;
        return bytes;
      });
    let decoded = 0;
    fc.assert(
      fc.property(fc.oneof(any, flipped), (bytes) => {
        try {
          decodeRequest(bytes, bytes.length);
          decoded++;
        } catch (error) {
          if (!(error instanceof WireError)) throw error;
        }
      }),
      { numRuns: 20_000 },
    );
    expect(decoded).toBeGreaterThan(1000);
  });

  test("the number of a damaged request can still be told, to answer it", () => {
    const bytes = packet(OPCODE.FUSE_LOOKUP, Buffer.from("name"), { unique: 1234n });
    expect(damagedUnique(bytes, bytes.length)).toBe(1234);
    expect(damagedUnique(bytes, 39)).toBeNull();
    expect(damagedUnique(packet(1, Buffer.alloc(0), { unique: 2n ** 60n }), 40)).toBeNull();
  });
});

describe("the table", () => {
  test("has one row per opcode, each under its name", () => {
    expect(opcodeTable.map((row) => [row.name, row.opcode])).toEqual(Object.entries(OPCODE));
  });

  test("says for each whether it is served or what it is answered with and why", () => {
    const unclear = opcodeTable.filter((row) => !(row.served ? row.errno === 0 && row.why === "" : row.errno > 0 && row.why !== ""));
    expect(unclear).toEqual([]);
  });
});

test("what chattr(1) sets is the request's own: it may wait for the lease, and the buffer is used again", () => {
  const body = Buffer.alloc(32 + 4);
  // FS_IOC_SETFLAGS of a C long, as the kernel itself sends it: no pointer of a program.
  body.writeUInt32LE(0x40086602, 12);
  body.writeUInt32LE(4, 24);
  body.writeUInt32LE(0x80, 32);
  const bytes = packet(OPCODE.FUSE_IOCTL, body);
  const request = decode(bytes) as IoctlRequest;
  bytes.fill(0x4a);
  expect(request.value).toEqual(Buffer.from([0x80, 0, 0, 0]));
});
