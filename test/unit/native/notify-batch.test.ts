/** Notifications that several threads write, each the next that none has taken (hazard F1: any of them may wait). */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { bytes, errno, isRoot, native, newHandle, newStat, opened, useScratch } from "./scratch.ts";
import { FILE_NODEID, invalInode, OPCODE, ROOT_NODEID, serveTinyFuse } from "./tiny-fuse.ts";

const O_RDWR = 2;
const MESSAGE_BYTES = invalInode(0).length;
const UNKNOWN = [77, 78];

describe.runIf(isRoot)("a batch of notifications", () => {
  const scratch = useScratch();

  it("is written once each, by however many threads", async () => {
    const file = opened(scratch, native.sync.create(scratch.fd, bytes("f"), O_RDWR, 0o600, 0, 0, 0, newStat(), newHandle()));
    const names = Array.from({ length: 5000 }, (_, at) => String(at).padStart(4, "0"));
    const batch = native.createNotifyBatch(bytes(names.join("")), 4);
    expect(native.notifyBatchBegun(batch)).toBe(0);
    const written = await Promise.all(Array.from({ length: 4 }, () => native.writeNotifyBatch(file, batch)));
    expect([written, native.notifyBatchBegun(batch), native.notifyBatchRefused(batch)]).toEqual([[0, 0, 0, 0], 5000, []]);
    const read = Buffer.alloc(20_001);
    const text = read.toString("utf8", 0, native.sync.read(file, read, 0, read.length, 0, 0));
    expect((text.match(/.{4}/g) ?? []).sort()).toEqual(names);
  });

  it("tells what was refused, by its number, once", async () => {
    const batch = native.createNotifyBatch(bytes("abcd"), 2);
    expect(await native.writeNotifyBatch(-1, batch)).toBe(0);
    expect(native.notifyBatchRefused(batch)).toEqual([0, -errno.EBADF, 1, -errno.EBADF]);
    expect(native.notifyBatchRefused(batch)).toEqual([]);
  });

  it("goes on with another thread where one waits for a page", async () => {
    const fuse = serveTinyFuse(scratch);
    fuse.hold(OPCODE.READ);
    const reading = readFile(path.join(fuse.mountPoint, "f"), "utf8");
    await fuse.held;
    const messages = [FILE_NODEID, ROOT_NODEID, ...UNKNOWN].map(invalInode);
    const batch = native.createNotifyBatch(Buffer.concat(messages), MESSAGE_BYTES);
    let over = false;
    const first = native.writeNotifyBatch(fuse.fd, batch).then(() => (over = true));
    while (native.notifyBatchBegun(batch) === 0) await new Promise(setImmediate);
    expect(await native.writeNotifyBatch(fuse.fd, batch)).toBe(0);
    expect([native.notifyBatchBegun(batch), over]).toEqual([4, false]);
    expect(native.notifyBatchRefused(batch)).toEqual([2, -errno.ENOENT, 3, -errno.ENOENT]);
    fuse.release();
    await first;
    expect([await reading, native.notifyBatchRefused(batch)]).toEqual(["hello", []]);
  });

  it("takes nothing but a batch, and messages of one length", () => {
    expect(() => native.createNotifyBatch(bytes("abc"), 2)).toThrow(RangeError);
    expect(() => native.createNotifyBatch(bytes("abc"), 0)).toThrow(RangeError);
    const untyped = native as unknown as Record<string, (...values: unknown[]) => unknown>;
    for (const name of ["createNotifyBatch", "writeNotifyBatch", "notifyBatchBegun", "notifyBatchRefused"]) {
      expect(() => untyped[name]?.()).toThrow(TypeError);
      expect(() => untyped[name]?.({}, {})).toThrow(TypeError);
    }
  });
});
