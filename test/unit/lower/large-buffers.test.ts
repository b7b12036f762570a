/** Memory of large data that is used again: nobody's data changes under him, and in the end there is little of it. */
import fs from "node:fs";
import { describe, expect, it } from "vitest";
import { FREE_BUFFERS_MAX, LARGE_BUFFER_BYTES, LARGE_BYTES, LargeBuffers, largeBuffers } from "../../../overlay/lower/large-buffers.ts";
import { encodeFrame, FrameReader, MAX_FRAME_BYTES } from "../../../overlay/lower/wire/frame.ts";
import { createLowerServer } from "../../../overlay/lower/server/server.ts";
import { nativeAddon } from "../../../native/index.ts";
import { listenOn, testServerOptions } from "../../compliance/lower-fixture.ts";
import { caller, name, RDWR, remoteLab } from "./remote-lab.ts";

const MIB = 2 ** 20;

describe("a large buffer", () => {
  it("is used again when it was given back, by any part of it, and not before", () => {
    const buffers = new LargeBuffers();
    const first = buffers.take(LARGE_BYTES);
    expect(first.byteLength).toBe(LARGE_BYTES);
    expect(buffers.take(MIB).buffer === first.buffer).toBe(false);
    buffers.giveBack(first.subarray(13));
    expect(buffers.take(LARGE_BUFFER_BYTES).buffer === first.buffer).toBe(true);
  });

  it("that is given back twice is there once", () => {
    const buffers = new LargeBuffers();
    const first = buffers.take(MIB);
    buffers.giveBack(first);
    buffers.giveBack(first);
    expect(buffers.free).toBe(1);
  });

  it("is none if it is small or larger than there are, and other memory is not taken", () => {
    const buffers = new LargeBuffers();
    for (const bytes of [0, LARGE_BYTES - 1, LARGE_BUFFER_BYTES + 1]) {
      const taken = buffers.take(bytes);
      expect(taken.byteLength).toBe(bytes);
      buffers.giveBack(taken);
    }
    buffers.giveBack(Buffer.alloc(MIB));
    expect(buffers.free).toBe(0);
  });

  it("is kept among so many and no more, and only as long as somebody wants one now and then", () => {
    const buffers = new LargeBuffers();
    const taken = Array.from({ length: FREE_BUFFERS_MAX + 3 }, () => buffers.take(MIB));
    for (const one of taken) buffers.giveBack(one);
    expect(buffers.free).toBe(FREE_BUFFERS_MAX);
    buffers.trim();
    const [one, two] = [buffers.take(MIB), buffers.take(MIB)];
    for (const buffer of [one, two]) buffers.giveBack(buffer);
    buffers.trim();
    expect(buffers.free).toBe(2);
    buffers.trim();
    expect(buffers.free).toBe(0);
  });
});

describe("a frame", () => {
  it("that came in a chunk which is overwritten stays as it was, small and large", () => {
    const bodies = [10, 5000, LARGE_BYTES, 200_000].map((bytes, at) => Buffer.alloc(bytes, at + 1));
    const chunk = Buffer.concat(bodies.map((body, at) => encodeFrame(2, at, body)));
    const found: Uint8Array[] = [];
    new FrameReader(MAX_FRAME_BYTES).push(chunk, (_type, _id, body) => found.push(body), true);
    chunk.fill(0xff);
    expect(bodies.map((body, at) => body.equals(found[at] ?? Buffer.alloc(0)))).toEqual(bodies.map(() => true));
    for (const body of found) largeBuffers.giveBack(body);
  });
});

describe("the data of many reads and writes at a time", () => {
  const lab = remoteLab();
  /** Caller and owner are one process here, and both have buffers of each call. */
  const FEW = Array.from({ length: 3 }, (_, at) => at);
  /** More than a socket takes before somebody reads from it. */
  const MANY = Array.from({ length: 24 }, (_, at) => at);
  const content = (at: number, round: number): Buffer => Buffer.alloc(MIB, `${at} of ${round}, `);

  it("is what it should be, in memory that is used again", async () => {
    const to = await lab.owner();
    const from = lab.remote();
    await from.connect(to.address, 1);
    const { handle } = await from.create(from.root, name("f"), RDWR, 0o644, caller);
    const memory = new Set<ArrayBufferLike>();
    for (let round = 0; round < 20; round++) {
      await Promise.all(FEW.map(async (at) => from.write(handle, content(at, round), at * MIB, false)));
      const onDisk = fs.readFileSync(`${lab.place.path}/f`);
      for (const at of FEW) expect(onDisk.subarray(at * MIB, (at + 1) * MIB).equals(content(at, round)), `${at} in ${round}`).toBe(true);
      const reads = FEW.map(async (at) => {
        const data = await from.read(handle, at * MIB, MIB);
        // Others come meanwhile.
        await new Promise((resolve) => setImmediate(resolve));
        expect(content(at, round).equals(data), `${at} read in ${round}`).toBe(true);
        memory.add(data.buffer);
        largeBuffers.giveBack(data);
      });
      await Promise.all(reads);
    }
    expect(memory.size).toBeLessThan(2 * FREE_BUFFERS_MAX);
  });

  it("does not stay in the chunks in which it came to the owner", async () => {
    const freed: number[] = [];
    const native = nativeAddon();
    const freeMemory = (memory: ArrayBuffer): void => {
      freed.push(memory.byteLength);
      native.freeArrayBuffer(memory);
      expect(memory.byteLength).toBe(0);
    };
    const server = createLowerServer({ ...testServerOptions((await lab.owner()).lower, 1), freeMemory });
    try {
      const from = lab.remote();
      await from.connect(await listenOn(server), 1);
      const { handle } = await from.create(from.root, name("f"), RDWR, 0o644, caller);
      // Chunks hold parts of large ones, and several small ones.
      for (let round = 0; round < 20; round++) {
        const bytes = round % 2 === 0 ? MIB : 20_000;
        const piece = (at: number): Buffer => content(at, round).subarray(0, bytes);
        await Promise.all(MANY.map(async (at) => from.write(handle, piece(at), at * bytes, false)));
        const onDisk = fs.readFileSync(`${lab.place.path}/f`);
        for (const at of MANY) expect(piece(at).equals(onDisk.subarray(at * bytes, (at + 1) * bytes)), `${at} in ${round}`).toBe(true);
      }
    } finally {
      await server.close();
    }
    // All but small chunks: nine tenths, and nothing twice.
    const bytes = freed.reduce((sum, one) => sum + one, 0);
    expect(bytes).toBeGreaterThan(0.9 * 10 * MANY.length * MIB);
    expect(bytes).toBeLessThan(server.counters.bytesReceived + 1);
  });

  it("may be cut in the middle: nobody is given what another has, and the caller's reads end as they should", async () => {
    const to = await lab.owner();
    const proxy = await lab.proxyTo(to);
    const from = lab.remote();
    await from.connect(proxy.address, 1);
    const { handle } = await from.create(from.root, name("f"), RDWR, 0o644, caller);
    for (let round = 0; round < 4; round++) {
      const writes = MANY.map(async (at) => from.write(handle, content(at, round), at * MIB, false));
      proxy.onRequest = (): void => {
        proxy.onRequest = null;
        proxy.cut();
      };
      await Promise.all(writes);
      const reads = MANY.map(async (at) => from.read(handle, at * MIB, MIB));
      await new Promise((resolve) => setImmediate(resolve));
      proxy.cut();
      for (const [at, read] of reads.entries()) {
        const data = await read;
        expect(content(at, round).equals(data), `${at} read in ${round}`).toBe(true);
        largeBuffers.giveBack(data);
      }
    }
  });
});
