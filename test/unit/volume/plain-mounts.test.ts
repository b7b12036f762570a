/** Where an owner's disk is mounted past the cluster: by the number of its device, whatever its name. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { MountEntry } from "../../../dlmd/base/mount-table.ts";
import { plainMountsOf } from "../../../overlay/volume/device.ts";

let dir = "";
beforeEach(() => (dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-plain-"))));
afterEach(() => rmSync(dir, { recursive: true }));

const entry = (device: string, mountPoint: string, type: string): MountEntry => ({
  mountId: 1,
  device,
  root: "/",
  mountPoint,
  options: ["rw"],
  type,
  source: "/dev/sdb1",
  superOptions: [],
});
const table = [
  entry("0:45", "/shared", "fuse.clustered"),
  entry("7:77", "/mnt", "ext4"),
  entry("7:78", "/srv", "ext4"),
  entry("7:77", "/a b", "ext4"),
];

test.runIf(process.getuid?.() === 0)("every place of that device is named, and no cluster's mount of it", () => {
  const device = path.join(dir, "disk");
  expect(spawnSync("mknod", [device, "b", "7", "77"]).status).toBe(0);
  expect(plainMountsOf(device, table)).toEqual(["/mnt", "/a b"]);
});

test("a lower directory has none, and a device that is gone", () => {
  writeFileSync(path.join(dir, "file"), "");
  expect(
    [dir, path.join(dir, "file"), path.join(dir, "gone")].map((place) => plainMountsOf(place, [...table, entry("0:0", "/x", "ext4")])),
  ).toEqual([[], [], []]);
});
