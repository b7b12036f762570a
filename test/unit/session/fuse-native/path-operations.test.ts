/** Operations by path, as requests by inode over the real handlers: what is looked up is forgotten, and no name is remembered (hazard F26). */
import { beforeEach, describe, expect, it } from "vitest";
import { E, Errno, errnoError } from "../../../../dlmd/base/errno.ts";
import { silentLog } from "../../../../dlmd/base/log.ts";
import type { FuseNativeBinding, ThreadLocals } from "../../../../overlay/session/fuse-native/binding.ts";
import { createHandlers, errnoOf } from "../../../../overlay/session/fuse-native/handlers.ts";
import { PathOperations } from "../../../../overlay/session/fuse-native/path-operations.ts";
import type { PathRequest } from "../../../../overlay/session/fuse-native/requests.ts";
import { Workbench } from "../../op/workbench.ts";

const FOUND = { ino: 99, generation: 1 };

let bench: Workbench;
let asked: PathRequest[];
let paths: PathOperations;
let dropped: string[];

beforeEach(() => {
  bench = new Workbench();
  bench.lower.found = FOUND;
  asked = [];
  dropped = [];
  const { names } = bench.mount.coherence;
  const drop = names.dropEntry.bind(names);
  names.dropEntry = (dir, name): void => {
    dropped.push(String(name));
    drop(dir, name);
  };
  const ask = async (request: PathRequest): Promise<Buffer> => {
    asked.push(request);
    const reply = await bench.serve(request);
    if (reply === undefined) throw new Error("no reply");
    if (reply.errno !== 0) throw errnoError(reply.errno);
    return Buffer.concat([Buffer.alloc(16), reply.body]);
  };
  paths = new PathOperations({ mount: bench.mount, ask });
});

const ops = (): string[] => asked.map(({ op }) => op);

describe("a path", () => {
  it("is looked up for each operation, and forgotten after it", async () => {
    expect((await paths.stat("/x")).ino).toBe(99);
    expect(ops()).toEqual(["lookup", "getattr"]);
    expect(bench.inodes.withIno(99)).toEqual([]);
    expect(dropped).toEqual(["x"]);
  });

  it("that does not exist leaves no name behind either", async () => {
    bench.lower.errors.set("lookup", [E.ENOENT]);
    await expect(paths.stat("/x")).rejects.toThrow("ENOENT");
    expect(dropped).toEqual(["x"]);
  });

  it("is kept by an open file until it is closed, with the flags of the open", async () => {
    const fh = await paths.open("/x", 0o2001);
    const [record] = bench.inodes.withIno(99);
    expect([record?.openCount, record?.nlookup, record?.useCount]).toEqual([1, 0, 0]);
    expect(await paths.write(fh, Buffer.from("abc"), 5)).toBe(3);
    expect(asked.at(-1)).toMatchObject({ op: "write", flags: 0o2001, offset: 5 });
    await paths.release(fh);
    expect(bench.inodes.withIno(99)).toEqual([]);
    await expect(paths.statOpen(fh)).rejects.toThrow("EBADF");
  });

  it("that another node has made meanwhile is looked up again by the kernel", async () => {
    bench.lower.errors.set("mknod", [E.EEXIST, E.EEXIST]);
    await expect(paths.mknod("/x", 0o100644, 0)).rejects.toThrow("ESTALE");
    await expect(paths.mknod("/x", 0o010644, 0)).rejects.toThrow("EEXIST");
  });
});

/** A package of doubles: each signal says what it was given. */
function bindingOf(signals: unknown[][]): FuseNativeBinding {
  const get = (_target: object, name: string): unknown => {
    if (name.startsWith("op_")) return name === "op_getattr" ? 5 : name === "op_read" ? 23 : name === "op_rename" ? 28 : 1;
    return (...words: unknown[]) => signals.push([name, ...words.slice(1)]);
  };
  return new Proxy({}, { get }) as FuseNativeBinding;
}

describe("a callback", () => {
  const locals = Buffer.alloc(256) as ThreadLocals;
  const called = async (opcode: number, ...words: unknown[]): Promise<unknown[]> => {
    const signals: unknown[][] = [];
    const { handlers } = createHandlers(bindingOf(signals), paths, silentLog);
    handlers[opcode]?.(locals, opcode, ...(words as never[]));
    await expect.poll(() => signals.length).toBe(1);
    return signals[0] ?? [];
  };

  it("is answered with what its signal takes", async () => {
    const [name, result, words] = await called(5, "/x");
    expect([name, result, (words as Uint32Array)[7]]).toEqual(["fuse_native_signal_getattr", 0, 99]);
  });

  it("that fails is answered with the errno, and with all that its signal takes", async () => {
    bench.lower.errors.set("lookup", [E.ENOENT]);
    const [, result, words] = await called(5, "/x");
    expect([result, (words as Uint32Array).length]).toEqual([-E.ENOENT, 18]);
  });

  it("gives libfuse its memory back, also when it fails", async () => {
    const into = Buffer.from(new ArrayBuffer(16));
    expect(await called(23, "/x", 12345, into, 16, 0, 0)).toEqual(["fuse_native_signal_read", -E.EBADF, 0, into.buffer]);
  });

  it("with a bug ends with EIO", () => {
    expect(errnoOf(new TypeError("x"), "read", silentLog)).toBe(E.EIO);
    expect(errnoOf(new Errno(E.EBUSY), "read", silentLog)).toBe(E.EBUSY);
  });
});
