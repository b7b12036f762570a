/** Serving /dev/fuse, on a real mount: requests, promises between them, buffers, the end, exceptions, notifications. */
import { spawnSync } from "node:child_process";
import { open, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { errno, isRoot, MNT_DETACH, native, newStat, useScratch } from "./scratch.ts";
import { FILE_NODEID, invalInode, OPCODE, ROOT_NODEID, serveTinyFuse } from "./tiny-fuse.ts";

describe.runIf(isRoot)("a FUSE device", () => {
  const scratch = useScratch();

  it("serves a mount, in one write and in two", async () => {
    const fuse = serveTinyFuse(scratch);
    expect((await stat(path.join(fuse.mountPoint, "f"))).size).toBe(5);
    expect(await readFile(path.join(fuse.mountPoint, "f"), "utf8")).toBe("hello");
    await expect(stat(path.join(fuse.mountPoint, "none"))).rejects.toMatchObject({ code: "ENOENT" });
    expect(fuse.seen[0]).toBe(OPCODE.INIT);
    expect(fuse.seen).toContain(OPCODE.LOOKUP);
    expect(fuse.seen).toContain(OPCODE.READ);
  });

  it("goes on when a batch is used up", async () => {
    const fuse = serveTinyFuse(scratch, { batch: 1 });
    const names = Array.from({ length: 20 }, (_, index) => path.join(fuse.mountPoint, `none${index}`));
    const results = await Promise.allSettled(names.map((name) => stat(name)));
    expect(results.every((result) => result.status === "rejected" && result.reason.code === "ENOENT")).toBe(true);
  });

  it("reads later requests into the buffer that was set inside a request", async () => {
    const buffers: Buffer[] = [];
    const fuse = serveTinyFuse(scratch, {
      onRequest: (_opcode, setBuffer) => {
        const next = Buffer.alloc(1 << 20);
        buffers.push(next);
        setBuffer(next);
      },
    });
    expect((await stat(path.join(fuse.mountPoint, "f"))).size).toBe(5);
    // All but the last, which nothing was read into yet, hold the request that came after them.
    expect(buffers.slice(0, -1).map((buffer) => buffer.readUInt32LE(4))).toEqual(fuse.seen.slice(1));
  });

  it("drains promises after each request, not after the batch", async () => {
    const order: string[] = [];
    let count = 0;
    const fuse = serveTinyFuse(scratch, {
      onRequest: () => {
        const request = count++;
        order.push(`in${request}`);
        void Promise.resolve()
          .then(() => undefined)
          .then(() => order.push(`out${request}`));
      },
    });
    await Promise.allSettled(Array.from({ length: 8 }, (_, index) => stat(path.join(fuse.mountPoint, `none${index}`))));
    expect(order.slice(0, 2 * count)).toEqual(Array.from({ length: count }, (_, index) => [`in${index}`, `out${index}`]).flat());
    expect(count).toBeGreaterThan(8);
  });

  it("ends once, with ENODEV, when the mount goes", async () => {
    const fuse = serveTinyFuse(scratch);
    await stat(fuse.mountPoint);
    expect(native.umount(fuse.mountPoint, MNT_DETACH)).toBe(0);
    expect(await fuse.ended).toBe(errno.ENODEV);
    native.deviceStop(fuse.device);
    native.deviceSetBuffer(fuse.device, Buffer.alloc(8192));
  });

  it("ends with the errno of a descriptor that is not mounted, and of a buffer that is too small", async () => {
    const fd = native.fuseOpen();
    scratch.later(() => native.sync.close(fd));
    const ended = new Promise((resolve) => native.deviceStart(fd, Buffer.alloc(1 << 20), 1, () => undefined, resolve));
    expect(await ended).toBe(errno.EPERM);
    expect(() =>
      native.deviceStart(
        -1,
        Buffer.alloc(8192),
        1,
        () => undefined,
        () => undefined,
      ),
    ).toThrow("cannot be polled");
    expect(() =>
      native.deviceStart(
        fd,
        Buffer.alloc(8192),
        0,
        () => undefined,
        () => undefined,
      ),
    ).toThrow(RangeError);
    expect(native.deviceWrite(fd, Buffer.alloc(16), 16)).toBe(-errno.EPERM);
    expect(native.deviceWrite2(-1, Buffer.alloc(16), 16, Buffer.alloc(1), 0, 1)).toBe(-errno.EBADF);
  });

  it("serves no more once stopped", async () => {
    const fuse = serveTinyFuse(scratch);
    await stat(fuse.mountPoint);
    native.deviceStop(fuse.device);
    native.deviceStop(fuse.device);
    const before = fuse.seen.length;
    const waiting = stat(path.join(fuse.mountPoint, "none"));
    // Turns of the loop, so that a request would have come.
    for (let turn = 0; turn < 100; turn++) await native.pool.sync.stat(scratch.fd, newStat());
    expect(fuse.seen.length).toBe(before);
    fuse.end();
    await expect(waiting).rejects.toMatchObject({ code: /ECONNABORTED|ENOTCONN|EIO/ });
  });

  it("looks on for more after answers, and not while the sender of the last request waits for its own", async () => {
    let arrived: () => void = () => undefined;
    let looksThen = 0;
    const fuse = serveTinyFuse(scratch, {
      onRequest: (opcode) => {
        if (opcode !== OPCODE.LOOKUP) return;
        looksThen = native.deviceLooks(fuse.device);
        arrived();
      },
    });
    const missing = async (name: string): Promise<unknown> => stat(path.join(fuse.mountPoint, name)).catch((error: unknown) => error);
    const looks = (): number => native.deviceLooks(fuse.device);
    for (let round = 0; looks() < 3; round++) {
      await missing(`answered${round}`);
      const came = new Promise<void>((resolve) => {
        arrived = resolve;
      });
      fuse.hold(OPCODE.LOOKUP);
      const waiting = missing(`held${round}`);
      await came;
      // Turns of the loop, in which it would look on.
      for (let turn = 0; turn < 3; turn++) await native.pool.sync.stat(scratch.fd, newStat());
      expect(looks()).toBe(looksThen);
      fuse.release();
      await waiting;
    }
  });

  it("answers FLUSH by itself once told to, but for the inodes whose FLUSHes are asked for", async () => {
    const fuse = serveTinyFuse(scratch);
    const flushesOfOneClose = async (): Promise<{ seen: number; counted: number }> => {
      const seen = fuse.seen.filter((opcode) => opcode === OPCODE.FLUSH).length;
      const counted = native.deviceFlushes(fuse.device);
      const file = await open(path.join(fuse.mountPoint, "f"));
      await file.close();
      return {
        seen: fuse.seen.filter((opcode) => opcode === OPCODE.FLUSH).length - seen,
        counted: native.deviceFlushes(fuse.device) - counted,
      };
    };
    expect(await flushesOfOneClose()).toEqual({ seen: 1, counted: 0 });
    native.deviceAnswerFlush(fuse.device);
    expect(await flushesOfOneClose()).toEqual({ seen: 0, counted: 1 });
    native.deviceAskFlush(fuse.device, FILE_NODEID + 1, true);
    expect(await flushesOfOneClose()).toEqual({ seen: 0, counted: 1 });
    native.deviceAskFlush(fuse.device, FILE_NODEID, true);
    expect(await flushesOfOneClose()).toEqual({ seen: 1, counted: 0 });
    native.deviceAskFlush(fuse.device, FILE_NODEID, false);
    expect(await flushesOfOneClose()).toEqual({ seen: 0, counted: 1 });
  });

  it("64 notifications that wait for a page do not hold another (hazard F3)", async () => {
    const fuse = serveTinyFuse(scratch);
    fuse.hold(OPCODE.READ);
    const reading = readFile(path.join(fuse.mountPoint, "f"), "utf8");
    await fuse.held;
    let settled = 0;
    const blocked = Array.from({ length: 64 }, () => native.notify(fuse.fd, [invalInode(FILE_NODEID)]));
    for (const each of blocked) void each.then(() => settled++);
    expect(await native.notify(fuse.fd, [invalInode(ROOT_NODEID), invalInode(77)])).toEqual([0, -errno.ENOENT]);
    expect(settled).toBe(0);
    fuse.release();
    expect(await Promise.all(blocked)).toEqual(Array.from({ length: 64 }, () => [0]));
    expect(await reading).toBe("hello");
  });

  it("an exception of a request is an uncaughtException, and serving goes on", () => {
    const result = spawnSync(process.execPath, [fileURLToPath(new URL("./throwing-server.mjs", import.meta.url)), scratch.dir], {
      encoding: "utf8",
      timeout: 20_000,
    });
    expect([result.status, result.stdout, result.stderr]).toEqual([0, "uncaught: thrown by a request\nsecond request\n", ""]);
  });
});
