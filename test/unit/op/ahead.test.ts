import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Coherence } from "../../../overlay/coherence/api.ts";
import type { Inode } from "../../../overlay/coherence/cover.ts";
import type { Attr, Fetched, Lower, LowerHandle } from "../../../overlay/lower/lower.ts";
import { Prefetch } from "../../../overlay/op/prefetch.ts";

const inode = { id: { ino: 12, generation: 1 } } as Inode;
const handle = 7 as LowerHandle;
const BYTES = 4096;

/** A file at the owner whose size is its version; every answer comes later. */
class World {
  version = 1;
  hold = 1;
  contended = true;
  failing = false;
  fetches = true;
  /** What a page has, if it is not of interest else. */
  page: Uint8Array | null = null;
  readonly calls: string[] = [];

  readonly lower = {
    getattr: () => this.#answer("getattr", { size: this.version } as Attr),
    read: (_handle: LowerHandle, offset: number) => this.#answer("read", Uint8Array.of(this.version, offset / BYTES)),
    fetch: (_id: unknown, _handle: LowerHandle, offset: number) => {
      const { version, page, fetches } = this;
      const data = page ?? Uint8Array.of(version, offset / BYTES);
      return fetches ? this.#answer<Fetched>("fetch", { attr: { size: version } as Attr, data }) : null;
    },
  } as unknown as Lower;

  readonly coherence: Coherence = { hold: () => this.hold, contended: () => this.contended } as unknown as Coherence;

  readonly ahead: Prefetch = new Prefetch(this.lower, this.coherence);

  #answer<T>(call: string, value: T): Promise<T> {
    this.calls.push(call);
    if (this.failing) return Promise.reject(errnoError(E.EIO));
    return new Promise((resolve) => setImmediate(() => resolve(value)));
  }

  /** A write elsewhere: the lock went and came back. */
  written(): void {
    this.version += 1;
    this.hold += 1;
  }

  async readsAll(): Promise<{ readonly size: number; readonly data: number | undefined }> {
    const { size } = await this.ahead.getattr(inode);
    return { size, data: (await this.ahead.read(inode, handle, 0, BYTES, 1))[0] };
  }

  /** What was asked of the owner since. */
  asked(): string[] {
    return this.calls.splice(0);
  }

  /** Read twice: from then on a reader is expected to want the same. */
  async learned(): Promise<void> {
    await this.readsAll();
    this.written();
    await this.readsAll();
    this.written();
    this.asked();
  }
}

describe("what a reader will want next", () => {
  it("is fetched with the attributes once the same range was read twice, and told once", async () => {
    const world = new World();
    await world.learned();
    expect(await world.readsAll()).toEqual({ size: 3, data: 3 });
    expect(world.asked()).toEqual(["fetch"]);
    expect(await world.readsAll()).toEqual({ size: 3, data: 3 });
    expect(world.asked()).toEqual(["getattr", "read"]);
  });

  it("is not fetched of a file that nobody writes elsewhere", async () => {
    const world = new World();
    world.contended = false;
    await world.learned();
    await world.readsAll();
    expect(world.asked()).toEqual(["getattr", "read"]);
  });

  it("F8: is there before the reader asks when the lock came before it, and is gone with the hold under which it was fetched", async () => {
    const world = new World();
    await world.learned();
    world.ahead.startUnderLock(inode);
    expect(await world.readsAll()).toEqual({ size: 3, data: 3 });
    expect(world.asked()).toEqual(["fetch"]);
    world.written();
    world.ahead.startUnderLock(inode);
    world.written();
    expect(await world.readsAll()).toEqual({ size: 5, data: 5 });
    world.written();
    world.ahead.startUnderLock(inode);
    // Written here.
    world.hold = 0;
    world.version += 1;
    expect(await world.readsAll()).toEqual({ size: 7, data: 7 });
  });

  it("not wanted, it is not fetched again until he has read twice", async () => {
    const world = new World();
    await world.learned();
    for (let turn = 0; turn < 3; turn += 1) {
      world.ahead.startUnderLock(inode);
      world.written();
    }
    expect(world.asked()).toEqual(["fetch", "fetch"]);
    await world.readsAll();
    expect(world.asked()).toEqual(["getattr", "read"]);
  });

  it("of another range than expected, he is answered from the lower", async () => {
    const world = new World();
    await world.learned();
    world.ahead.startUnderLock(inode);
    expect((await world.ahead.read(inode, handle, BYTES, BYTES, 1))[0]).toBe(3);
    expect(world.asked()).toEqual(["fetch", "read"]);
    expect((await world.ahead.read(inode, handle, 0, BYTES, 1))[0]).toBe(3);
    expect(world.asked()).toEqual(["read"]);
  });

  it("of another range that is read while it is being fetched, and again, he is not given what was fetched", async () => {
    const world = new World();
    await world.learned();
    const attr = world.ahead.getattr(inode);
    expect([...(await world.ahead.read(inode, handle, BYTES, BYTES, 2))]).toEqual([3, 1]);
    expect(await attr).toMatchObject({ size: 3 });
    expect([...(await world.ahead.read(inode, handle, BYTES, BYTES, 2))]).toEqual([3, 1]);
    expect([...(await world.ahead.read(inode, handle, 0, BYTES, 1))]).toEqual([3, 0]);
  });

  it("less than a page brings the page, which answers what is read of it under that hold", async () => {
    const world = new World();
    const read = async (offset: number, bytes: number): Promise<number[]> => [...(await world.ahead.read(inode, handle, offset, bytes, 1))];
    world.page = Uint8Array.of(10, 11, 12, 13);
    expect([await read(1, 2), await read(0, BYTES), await read(3, 9), await read(9, 9)]).toEqual([[11, 12], [10, 11, 12, 13], [13], []]);
    expect(world.asked()).toEqual(["fetch"]);
    world.written();
    world.page = Uint8Array.of(20, 21);
    expect(await read(1, 2)).toEqual([21]);
    expect(world.asked()).toEqual(["fetch"]);
  });

  it("of a page that is not the one that was fetched, of two pages, and of a whole one it brings no page", async () => {
    const world = new World();
    const read = async (offset: number, bytes: number): Promise<unknown> => await world.ahead.read(inode, handle, offset, bytes, 1);
    await read(8, 8);
    expect(world.asked()).toEqual(["fetch"]);
    for (const [offset, bytes] of [
      [BYTES, BYTES],
      [BYTES - 1, 2],
      [0, BYTES + 1],
    ] as const)
      await read(offset, bytes);
    expect(world.asked()).toEqual(["read", "read", "read"]);
    await read(BYTES + 8, 8);
    expect(world.asked()).toEqual(["fetch"]);
  });

  it("of a page is asked for anew where the page could not be fetched, where there is no hold, and where the lower fetches nothing", async () => {
    const world = new World();
    world.failing = true;
    await expect(async () => await world.ahead.read(inode, handle, 8, 8, 1)).rejects.toMatchObject({ errno: E.EIO });
    expect(world.asked()).toEqual(["fetch", "read"]);
    world.failing = false;
    world.hold = 0;
    await world.ahead.read(inode, handle, 8, 8, 1);
    expect(world.asked()).toEqual(["read"]);
    world.hold = 9;
    world.fetches = false;
    await world.ahead.read(inode, handle, 8, 8, 1);
    expect(world.asked()).toEqual(["read"]);
  });

  it("that could not be fetched is asked for anew, and the error is his who asks then", async () => {
    const world = new World();
    await world.learned();
    world.failing = true;
    world.ahead.startUnderLock(inode);
    await expect(async () => await world.ahead.getattr(inode)).rejects.toMatchObject({ errno: E.EIO });
    world.failing = false;
    expect(await world.readsAll()).toEqual({ size: 3, data: 3 });
  });

  it.each([
    [65_536, "fetch"],
    [65_537, "getattr"],
  ])("of %i bytes: it is fetched ahead up to AHEAD_BYTES_MAX", async (bytes, call) => {
    const world = new World();
    for (let times = 0; times < 2; times++) await world.ahead.read(inode, handle, 0, bytes, 1);
    world.asked();
    await world.ahead.getattr(inode);
    expect(world.asked()).toEqual([call]);
  });

  it.each([
    [63, "fetch"],
    [64, "getattr"],
  ])("is remembered among AHEAD_FILES_MAX files: with %i others read since", async (others, call) => {
    const world = new World();
    for (let times = 0; times < 2; times++) await world.ahead.read(inode, handle, 0, BYTES, 1);
    for (let at = 0; at < others; at++) await world.ahead.read({ id: { ino: 100 + at, generation: 1 } } as Inode, handle, 0, BYTES, 1);
    world.asked();
    await world.ahead.getattr(inode);
    expect(world.asked()).toEqual([call]);
  });
});
