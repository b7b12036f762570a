/** Hazard H8: the kernel reports a failed write-back once for each descriptor, so all syncs of a mount go through one that stays open. */
import { fstatSync } from "node:fs";
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createLocalLower } from "../../../overlay/lower/local/local.ts";
import { nativeAddon } from "../../../native/index.ts";
import { directoryPlace } from "../../compliance/lower-fixture.ts";

it("every syncfs of a mount uses one descriptor, which is open from its beginning to its end", async () => {
  const place = directoryPlace();
  const addon = nativeAddon();
  const opened: number[] = [];
  const used: number[] = [];
  const openat2: typeof addon.sync.openat2 = (...args) => {
    const fd = addon.sync.openat2(...args);
    opened.push(fd);
    return fd;
  };
  const syncfs: typeof addon.pool.sync.syncfs = (fd) => {
    used.push(fd);
    return addon.pool.sync.syncfs(fd);
  };
  const native = { ...addon, sync: { ...addon.sync, openat2 }, pool: { ...addon.pool, sync: { ...addon.pool.sync, syncfs } } };
  const lower = createLocalLower({ native, rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
  const openedFirst = opened[0];
  await lower.syncfs();
  await lower.syncfs();
  expect(used).toEqual([openedFirst, openedFirst]);
  expect(fstatSync(openedFirst ?? -1).isDirectory()).toBe(true);
  await lower.shutdown();
  expect(() => fstatSync(openedFirst ?? -1)).toThrow("EBADF");
  await place.release();
});
