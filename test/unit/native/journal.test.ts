/** Memory that outlives a process: a memfd, mapped for writing; descriptors by other numbers; a request that the kernel sends once more. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fstatSync, readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { text } from "node:stream/consumers";
import path from "node:path";
import { describe, expect, it, vi } from "vitest";
import type { Device } from "../../../native/index.ts";
import { notifyResend } from "../../../overlay/fuse/notify.ts";
import { bytes, errno, isRoot, native, opened, useScratch } from "./scratch.ts";
import { OPCODE, serveTinyFuse } from "./tiny-fuse.ts";

const GIB = 2 ** 30;
/** <fcntl.h> */
const O_CLOEXEC = 0o2000000;
const RESENT = 1n << 63n;
const [major, minor] = native.kernelVersion();
const hasResend = major > 6 || (major === 6 && minor >= 9);

function mapped(fd: number, size: number): Uint8Array {
  const memory = native.mapJournal(fd, size);
  if (typeof memory === "number") throw new Error(`mapJournal: errno ${-memory}`);
  return new Uint8Array(memory);
}

/** The lines of /proc/self/maps that name it. */
function mappings(name: string): number {
  return readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes(`memfd:${name}`)).length;
}

describe("a memfd", () => {
  const scratch = useScratch();

  it("is there in its whole length, without memory, and neither shrinks nor grows", () => {
    const fd = opened(scratch, native.memfdCreate("sparse", GIB));
    expect(fstatSync(fd)).toMatchObject({ size: GIB, blocks: 0 });
    expect([native.sync.ftruncate(fd, GIB - 1), native.sync.ftruncate(fd, GIB + 1)]).toEqual([-errno.EPERM, -errno.EPERM]);
    expect(native.sync.write(fd, bytes("written"), 0, 7, 4096, 0)).toBe(7);
    expect(fstatSync(fd)).toMatchObject({ size: GIB, blocks: 8 });
    expect(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")).toMatch(new RegExp(`^flags:\\t0?${(O_CLOEXEC | 0o100002).toString(8)}$`, "m"));
  });

  it("takes no size but 1 byte to 1 GiB, and no name that the kernel does not take", () => {
    for (const size of [0, -1, GIB + 1, 2 ** 60]) {
      expect(() => native.memfdCreate("size", size)).toThrow(RangeError);
      expect(() => native.mapJournal(0, size)).toThrow("1 to 1073741824 bytes");
    }
    expect(native.memfdCreate("n".repeat(250), 1)).toBe(-errno.EINVAL);
    expect(() => native.memfdCreate("a\0b", 1)).toThrow(RangeError);
  });

  it("mapped: what is written is in the file, and in each mapping of it, from its first to its last byte", () => {
    const fd = opened(scratch, native.memfdCreate("shared", GIB));
    const [one, other] = [mapped(fd, GIB), mapped(fd, GIB)];
    expect([one.length, one[0], one[GIB - 1]]).toEqual([GIB, 0, 0]);
    one.set(bytes("first"), 0);
    one.set(bytes("last"), GIB - 4);
    expect(Buffer.from(other.subarray(0, 5)).toString()).toBe("first");
    const read = Buffer.alloc(4);
    expect([native.sync.read(fd, read, 0, 4, GIB - 4, 0), read.toString()]).toEqual([4, "last"]);
    native.freeArrayBuffer(one.buffer as ArrayBuffer);
    native.freeArrayBuffer(other.buffer as ArrayBuffer);
  });

  it("mapped: goes on without its descriptor, and is unmapped after the ArrayBuffer is freed", async () => {
    const fd = native.memfdCreate("unmapped", 8192);
    const memory = mapped(fd, 8192);
    native.sync.close(fd);
    memory[8191] = 7;
    expect([memory[8191], mappings("unmapped")]).toEqual([7, 1]);
    native.freeArrayBuffer(memory.buffer as ArrayBuffer);
    expect(memory.length).toBe(0);
    // In a later turn of the loop.
    await vi.waitFor(() => expect(mappings("unmapped")).toBe(0), { timeout: 30_000, interval: 1 });
  });

  it("is not mapped beyond its end, nor for reading only, nor without a descriptor", () => {
    const fd = opened(scratch, native.memfdCreate("short", 100));
    expect([native.mapJournal(fd, 101), native.mapJournal(-1, 1)]).toEqual([-errno.ENODATA, -errno.EBADF]);
    const readOnly = opened(scratch, native.open(`/proc/self/fd/${fd}`, 0, 0));
    expect(native.mapJournal(readOnly, 100)).toBe(-errno.EACCES);
  });

  it("given to a child by its place in stdio: it has it, under that number, and its own children do not", async () => {
    const fd = opened(scratch, native.memfdCreate("given", 100));
    native.sync.write(fd, bytes("from the parent"), 0, 15, 0, 0);
    const script = `
      const { readFileSync, readlinkSync, readSync } = require("fs");
      const read = Buffer.alloc(15);
      readSync(4, read, 0, 15, 0);
      const { stdout } = require("child_process").spawnSync("readlink", ["/proc/self/fd/3", "/proc/self/fd/4"], { encoding: "utf8" });
      console.log(JSON.stringify({ read: read.toString(), link: readlinkSync("/proc/self/fd/4"), below: stdout }));
    `;
    const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit", "pipe", fd] });
    const ended = once(child, "exit");
    const said = JSON.parse(await text(child.stdout as NonNullable<typeof child.stdout>)) as Record<string, unknown>;
    expect([said, await ended]).toEqual([{ read: "from the parent", link: "/memfd:given (deleted)", below: "" }, [0, null]]);
  });

  it("V8 collects no more often for a large one", async () => {
    const script = `
      const native = require(process.argv[1]);
      const { PerformanceObserver, constants } = require("perf_hooks");
      const fd = native.memfdCreate("large", 2 ** 30);
      globalThis.kept = native.mapJournal(fd, 2 ** 30);
      let major = 0;
      const count = (list) => { for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) major += 1; };
      const observer = new PerformanceObserver(count);
      observer.observe({ entryTypes: ["gc"] });
      let turns = 0;
      const turn = () => {
        for (let at = 0; at < 200; at++) Buffer.allocUnsafeSlow(20_000);
        turns += 1;
        if (turns < 100) setImmediate(turn);
        else setTimeout(() => console.log(major), 10);
      };
      turn();
    `;
    const addon = path.join(import.meta.dirname, "../../../native/build/Release/coverlay.node");
    const child = spawn(process.execPath, ["-e", script, addon], { stdio: ["ignore", "pipe", "inherit"] });
    // 20,000 buffers, of 400 MB together; a collection for each would be what is feared.
    expect(Number(await text(child.stdout))).toBeLessThan(40);
  });
});

describe("a descriptor", () => {
  const scratch = useScratch();

  it("is doubled at the first free number from the least one on", () => {
    const first = opened(scratch, native.duplicateFd(scratch.fd, 700));
    const second = opened(scratch, native.duplicateFd(scratch.fd, 700));
    expect([first, second]).toEqual([700, 701]);
    expect(fstatSync(first).ino).toBe(fstatSync(scratch.fd).ino);
    expect(readFileSync(`/proc/self/fdinfo/${first}`, "utf8")).toMatch(/^flags:\t02[0-7]{6}$/m);
  });

  it("is not doubled where there is none, and not to where none can be", () => {
    expect([native.duplicateFd(-1, 0), native.duplicateFd(scratch.fd, -1), native.duplicateFd(scratch.fd, 2 ** 40)]).toEqual([
      -errno.EBADF,
      -errno.EINVAL,
      -errno.EINVAL,
    ]);
  });
});

describe.runIf(isRoot && hasResend)("RESEND", () => {
  const scratch = useScratch();

  it("what was read and not answered comes to another descriptor, with the highest bit of its number, and is answered by that", async () => {
    const fuse = serveTinyFuse(scratch);
    await stat(fuse.mountPoint);
    fuse.hold(OPCODE.LOOKUP);
    // It may be refused before this test looks at it: handled from here on.
    const refused = stat(path.join(fuse.mountPoint, "none")).catch((error: unknown) => error);
    await fuse.held;
    const sent = fuse.heldUnique();
    const fd = opened(scratch, native.duplicateFd(fuse.fd, 3));
    fuse.leave();

    const buffer = Buffer.alloc(1 << 20);
    const came = new Promise<{ length: number; unique: bigint; taken: number[] }>((resolve) => {
      const serve = (length: number): void => {
        native.deviceStop(device);
        const unique = buffer.readBigUInt64LE(8);
        const taken = [sent, unique].map((number) => {
          const reply = Buffer.alloc(16);
          reply.writeUInt32LE(16, 0);
          reply.writeInt32LE(-errno.ENOENT, 4);
          reply.writeBigUInt64LE(number, 8);
          return native.deviceWrite(fd, reply, 16);
        });
        resolve({ length, unique, taken });
      };
      const device: Device = native.deviceStart(fd, buffer, 1, serve, () => undefined);
    });
    expect(await native.notify(fd, [notifyResend()])).toEqual([0]);
    // By the number that it had first the kernel knows nothing any more.
    expect(await came).toEqual({ length: 40 + "none\0".length, unique: sent | RESENT, taken: [-errno.ENOENT, 16] });
    expect(await refused).toMatchObject({ code: "ENOENT" });
  });
});
