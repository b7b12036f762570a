import { describe, expect, test } from "vitest";
import { assertNever } from "../../../dlmd/base/assert.ts";
import { INIT_FLAG, OPCODE } from "../../../overlay/fuse/abi.ts";
import { negotiateInit } from "../../../overlay/fuse/init.ts";
import {
  notifyDelete,
  notifyIncEpoch,
  notifyInvalEntry,
  notifyInvalInode,
  notifyResend,
  notifyStore,
} from "../../../overlay/fuse/notify.ts";
import { opcodeTable } from "../../../overlay/fuse/opcode.ts";
import * as reply from "../../../overlay/fuse/reply.ts";
import { decodeRequest } from "../../../overlay/fuse/decode-request.ts";
import type { InitRequest } from "../../../overlay/fuse/request.ts";
import { type NotificationVector, type ReplySpec, type RequestVector, vectors } from "./vectors.ts";

// Requests come in a buffer that is larger than they are and full of what was there before.
function decodeHex(hex: string): ReturnType<typeof decodeRequest> {
  const packet = Buffer.from(hex, "hex");
  const buffer = Buffer.alloc(packet.length + 100, 0xa5);
  packet.copy(buffer);
  return decodeRequest(buffer, packet.length);
}

describe("what Linux 6.18 sent", () => {
  test.each(vectors.requests.map((v) => [`${v.name}: ${v.expect.op}`, v] as const))("%s", (_name, vector) => {
    expect(decodeHex(vector.hex)).toEqual(vector.expect);
  });

  test("every opcode that is served was seen, but those that an ordinary mount never sends", () => {
    const seen = new Set(vectors.requests.map((v) => Buffer.from(v.hex, "hex").readUInt32LE(4)));
    const unseen = opcodeTable.filter((row) => row.served && !seen.has(row.opcode)).map((row) => row.opcode);
    expect(unseen).toEqual([OPCODE.FUSE_DESTROY, OPCODE.FUSE_NOTIFY_REPLY, OPCODE.FUSE_SYNCFS]);
  });
});

function encode(spec: ReplySpec, vector: RequestVector, buffer: Buffer): number {
  const unique = vector.expect.unique;
  switch (spec.kind) {
    case "empty":
      return reply.encodeEmpty(buffer, unique);
    case "negative":
      return reply.encodeNegativeEntry(buffer, unique);
    case "error":
      return reply.encodeError(buffer, unique, spec.errno);
    case "data": {
      const bytes = reply.encodeDataHead(buffer, unique, spec.body.length);
      return bytes + spec.body.copy(buffer, bytes);
    }
    case "entry":
      return reply.encodeEntry(buffer, unique, spec.fuseNodeid, spec.generation, spec.attr, spec.entryValid, spec.attrValid);
    case "create":
      return reply.encodeCreate(
        buffer,
        unique,
        spec.fuseNodeid,
        spec.generation,
        spec.attr,
        spec.entryValid,
        spec.attrValid,
        spec.fh,
        spec.openFlags,
      );
    case "attr":
      return reply.encodeAttr(buffer, unique, spec.attr, spec.attrValid);
    case "statx":
      return reply.encodeStatx(buffer, unique, spec.attr, spec.attrValid);
    case "open":
      return reply.encodeOpen(buffer, unique, spec.fh, spec.openFlags);
    case "write":
      return reply.encodeWrite(buffer, unique, spec.bytes);
    case "xattrSize":
      return reply.encodeXattrSize(buffer, unique, spec.bytes);
    case "lk":
      return reply.encodeLk(buffer, unique, spec.found);
    case "ioctl": {
      const bytes = reply.encodeIoctlHead(buffer, unique, spec.body?.length ?? 0);
      return bytes + (spec.body?.copy(buffer, bytes) ?? 0);
    }
    case "lseek":
      return reply.encodeLseek(buffer, unique, spec.offset);
    case "statfs":
      return reply.encodeStatfs(buffer, unique, spec.statfs);
    case "readdir": {
      const listing = new reply.DirEncoder(buffer, spec.size, spec.plus);
      for (const e of spec.entries) {
        const fitted =
          e.fuseNodeid === undefined || e.attr === undefined || e.generation === undefined || !spec.plus
            ? listing.add(e.name, e.type, e.ino, e.cookie)
            : listing.addPlus(e.name, e.type, e.cookie, e.fuseNodeid, e.generation, e.attr, true, true);
        if (!fitted) throw new Error(`${e.name.toString()} did not fit`);
      }
      return listing.end(unique);
    }
    case "init": {
      const killpriv = INIT_FLAG.FUSE_HANDLE_KILLPRIV_V2;
      const without = spec.options === "old" ? killpriv | INIT_FLAG.FUSE_DO_READDIRPLUS | INIT_FLAG.FUSE_READDIRPLUS_AUTO : 0n;
      const { reply: bytes } = negotiateInit(decodeHex(vector.hex) as InitRequest, {
        hasAcls: spec.options === "acls",
        fileLocks: spec.options === "locks",
        maxWriteBytes: 1024 * 1024,
        without,
      });
      return bytes.copy(buffer);
    }
    default:
      return assertNever(spec, "kind of reply");
  }
}

describe("what Linux 6.18 took", () => {
  const answered = vectors.requests.flatMap((v) => (v.reply === undefined ? [] : [[`${v.name}: ${v.reply.kind}`, v, v.reply] as const]));

  test.each(answered)("%s", (_name, vector, spec) => {
    const buffer = Buffer.alloc(65536, 0xa5);
    const bytes = encode(spec, vector, buffer);
    expect(buffer.toString("hex", 0, bytes)).toBe(spec.hex);
  });

  function encodeNotification(v: NotificationVector): Buffer {
    switch (v.kind) {
      case "invalInode":
        return notifyInvalInode(v.fuseNodeid, v.offset, v.length);
      case "invalEntry":
        return notifyInvalEntry(v.fuseNodeid, v.name, v.expireOnly);
      case "store":
        return notifyStore(v.fuseNodeid, v.offset, v.data);
      case "delete":
        return notifyDelete(v.fuseNodeid, v.child, v.name);
      case "incEpoch":
        return notifyIncEpoch();
      case "resend":
        return notifyResend();
      default:
        return assertNever(v, "notification");
    }
  }

  test.each(vectors.notifications.map((v) => [v.kind, v] as const))("notification %s", (_kind, vector) => {
    expect(encodeNotification(vector).toString("hex")).toBe(vector.hex);
  });
});
