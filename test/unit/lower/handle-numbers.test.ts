/** A call that waits while its file is closed, as when its caller is killed, is made with no other file (overlay/lower/local/open-handles.ts). */
import fs from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { LowerHandle } from "../../../overlay/lower/lower.ts";
import { directoryPlace } from "../../compliance/lower-fixture.ts";
import { errnoOf, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const cleanUps: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

/** A disk that has no room for the next call, but what was removed a moment ago; that is given back once `mayFree` is called. */
async function fullDisk() {
  const place = directoryPlace();
  const addon = nativeAddon();
  const { data } = addon.pool;
  const isFull = { now: true };
  let mayFree = (): void => undefined;
  const freed = new Promise<void>((resolve) => (mayFree = resolve));
  const unlessFull = (make: () => Promise<number>): Promise<number> => {
    if (!isFull.now) return make();
    isFull.now = false;
    return Promise.resolve(-E.ENOSPC);
  };
  const calls: typeof data = {
    ...data,
    write: (...args) => unlessFull(() => data.write(...args)),
    fallocate: (...args) => unlessFull(() => data.fallocate(...args)),
    copyFileRange: (...args) => unlessFull(() => data.copyFileRange(...args)),
    close: async (fd) => {
      await freed;
      return await data.close(fd);
    },
  };
  const native = { ...addon, pool: { ...addon.pool, data: calls } };
  const lower = createLocalLower({ native, rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
  cleanUps.push(async () => {
    mayFree();
    await lower.shutdown();
    await place.release();
  });
  for (const one of ["one", "other", "source", "gone"]) fs.writeFileSync(path.join(place.path, one), one);
  const { id } = await lower.lookup(lower.root, name("gone"));
  await lower.unlink(lower.root, name("gone"), id);
  const open = async (file: string): Promise<LowerHandle> => lower.open((await lower.lookup(lower.root, name(file))).id, RDWR);
  return { lower, open, isFull, mayFree, textOf: (file: string) => fs.readFileSync(path.join(place.path, file), "utf8") };
}

const text = Buffer.from("of a program that was killed");
const CHANGES: Readonly<Record<string, (lower: LocalLower, file: LowerHandle, source: LowerHandle) => unknown>> = {
  write: (lower, file) => lower.write(file, text, 0, false),
  fallocate: (lower, file) => lower.fallocate(file, 0, 0, 100),
  copyFileRange: (lower, file, source) => lower.copyFileRange(source, 0, file, 0, 100),
};

describe("a change for which there was no room, whose file is closed before it is tried again, changes no other file", () => {
  it.each(Object.keys(CHANGES))("%s", async (change) => {
    const { lower, open, isFull, mayFree, textOf } = await fullDisk();
    const source = await open("source");
    const file = await open("one");
    const made = errnoOf(async () => await CHANGES[change]?.(lower, file, source));
    lower.close(file);
    await until(() => !isFull.now);
    await new Promise((resolve) => setImmediate(resolve));
    await open("other");
    mayFree();
    expect(await made).toBe(E.EBADF);
    expect(textOf("other")).toBe("other");
  });
});

describe("a fetch whose attributes are waited for", () => {
  const lab = remoteLab();

  it("brings no data of another file, if its own is closed meanwhile", async () => {
    let tell = (): void => undefined;
    const mayTell = new Promise<void>((resolve) => (tell = resolve));
    let asked = 0;
    const to = await lab.owner(1, (lower) => ({
      ...lower,
      getattr(id) {
        asked += 1;
        // As of an inode that the kernel has to read.
        return mayTell.then(() => lower.getattr(id));
      },
    }));
    const reader = lab.remote();
    await reader.connect(to.address, 1);
    for (const one of ["one", "other"]) fs.writeFileSync(path.join(lab.place.path, one), one);
    const one = await reader.lookup(reader.root, name("one"));
    const other = await reader.lookup(reader.root, name("other"));
    const file = await reader.open(one.id, RDWR);
    const fetched = reader.fetch(one.id, file, 0, 100)?.then(
      ({ data }) => Buffer.from(data).toString(),
      (error: unknown) => error,
    );
    await until(() => asked === 1);
    reader.close(file);
    await until(() => to.lower.openHandles === 0);
    await reader.open(other.id, RDWR);
    tell();
    expect(await fetched).toBe(errnoError(E.EBADF));
  });
});
