/** Every call that changes an inode of a real directory is known as the owner's own; what another program does there is not. */
import { closeSync, lstatSync, openSync, utimesSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { notedLower } from "../../../overlay/local-changes/noted-lower.ts";
import { OwnTimes, TICK_MS } from "../../../overlay/local-changes/own-times.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import { O } from "../../../overlay/lower/linux.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { directoryPlace, type Place } from "../../compliance/lower-fixture.ts";

const ROOT = { uid: 0, gid: 0, umask: 0o022 };
const name = (text: string): Buffer => Buffer.from(text);
let place: Place;
let local: LocalLower;
let lower: LocalLower;
let times: OwnTimes;

beforeEach(async () => {
  place = directoryPlace();
  local = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", log: silentLog });
  await local.openOrphans(false);
  times = new OwnTimes();
  lower = notedLower(local, times, () => Date.now());
});
afterEach(async () => {
  await lower.shutdown();
  await place.release();
});

const ctime = (file: string): number => lstatSync(path.join(place.path, file)).ctimeMs;
/** Another program changed it: the clock of inodes has gone on since. */
function changedByOther(file: string): void {
  const afterMs = Date.now() + 2 * TICK_MS;
  do utimesSync(path.join(place.path, file), 1, 2);
  while (ctime(file) < afterMs);
}

it("each change is the owner's own", async () => {
  const { entry, handle } = await lower.create(lower.root, name("a"), O.RDWR, 0o644, ROOT);
  const a = entry.id;
  const { id: d } = await lower.mkdir(lower.root, name("d"), 0o755, ROOT);
  const { id: s } = await lower.symlink(lower.root, name("s"), name("a"), ROOT);
  const { id: p } = await lower.mknod(lower.root, name("p"), 0o010_644, 0, 0, ROOT);
  const out = await lower.open(a, O.WRONLY);
  const rows: readonly (readonly [string, () => unknown, readonly (readonly [string, FileId])[]])[] = [
    [
      "create and others",
      () => undefined,
      [
        ["a", a],
        ["d", d],
        ["s", s],
        ["p", p],
        [".", lower.root],
      ],
    ],
    ["write", () => lower.write(handle, Buffer.from("data"), 0, false), [["a", a]]],
    ["fallocate", () => lower.fallocate(handle, 0, 0, 8192), [["a", a]]],
    ["copyFileRange", () => lower.copyFileRange(handle, 0, out, 4096, 2), [["a", a]]],
    ["setattr", () => lower.setattr(a, { mode: 0o600 }, null), [["a", a]]],
    ["setxattr", () => lower.setxattr(a, name("user.x"), Buffer.from("1"), 0), [["a", a]]],
    ["removexattr", () => lower.removexattr(a, name("user.x")), [["a", a]]],
    ["open with O_TRUNC", async () => lower.close(await lower.open(a, O.WRONLY | O.TRUNC)), [["a", a]]],
    [
      "link",
      () => lower.link(a, d, name("b")),
      [
        ["a", a],
        ["d", d],
      ],
    ],
    [
      "rename",
      () => lower.rename(lower.root, name("a"), d, name("c"), 0, a, null),
      [
        ["d/c", a],
        ["d", d],
        [".", lower.root],
      ],
    ],
    [
      "unlink",
      () => lower.unlink(d, name("c"), a),
      [
        ["d/b", a],
        ["d", d],
      ],
    ],
  ];
  for (const [what, change, ids] of rows) {
    const began = Date.now();
    await change();
    for (const [file, id] of ids) {
      expect(ctime(file)).toBeGreaterThan(began - 10_000);
      expect(times.isOwn(id, ctime(file)), `${what}: ${file}`).toBe(true);
    }
    const [file, id] = ids[0] as (typeof ids)[number];
    changedByOther(file);
    expect(times.isOwn(id, ctime(file)), `after ${what} by another program: ${file}`).toBe(false);
  }
  lower.close(handle);
  lower.close(out);
});

it("what another program writes is not, nor what is only read", async () => {
  writeFileSync(path.join(place.path, "theirs"), "x");
  const { id } = await lower.lookup(lower.root, name("theirs"));
  const handle = await lower.open(id, O.RDONLY);
  await lower.read(handle, 0, 1);
  const fd = openSync(path.join(place.path, "theirs"), "a");
  writeSync(fd, "y");
  closeSync(fd);
  expect(times.isOwn(id, ctime("theirs"))).toBe(false);
  lower.close(handle);
});

it("what is counted when it is asked for stays so", async () => {
  expect(lower.openHandles).toBe(0);
  const { handle } = await lower.create(lower.root, name("a"), O.RDWR, 0o644, ROOT);
  expect([lower.openHandles, local.openHandles]).toEqual([1, 1]);
  lower.close(handle);
});
