/** Of those that mount at one place at one moment one has the place; and what was mounted there meanwhile is seen. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseMountinfo } from "../../../dlmd/base/mount-table.ts";
import { nativeAddon } from "../../../native/index.ts";
import { claimPlace } from "../../../overlay/volume/mount-place.ts";
import { refusal } from "../../refusal.ts";

let dir = "";
let place = "";
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-place-"));
  place = path.join(dir, "mnt");
  mkdirSync(place);
  symlinkSync(place, path.join(dir, "link"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const claim = (at: string, table = ""): ReturnType<typeof claimPlace> =>
  claimPlace(nativeAddon(), at, { dir: path.join(dir, "records"), table: () => parseMountinfo(table) });

const refusedWith = async (at: string, table = ""): Promise<string> => (await refusal(() => claim(at, table))).code;

test("one has a place, by whatever name, until it lets it go; other places are free", async () => {
  const first = claim(place);
  expect([await refusedWith(place), await refusedWith(path.join(dir, "link"))]).toEqual(["already-mounting", "already-mounting"]);
  claim(dir).release();
  first.release();
  claim(place).release();
});

test("a clustered mount that is there by now is seen, and the place is free again; what else is mounted there is not in the way", async () => {
  const mounted = (type: string): string => `40 27 0:38 / ${place} rw - ${type} /dev/sda rw\n`;
  expect(await refusedWith(place, mounted("fuse.clustered"))).toBe("already-mounted");
  claim(place, mounted("ext4")).release();
});

test("records that can not be made: in words", async () => {
  writeFileSync(path.join(dir, "records"), "");
  expect(await refusedWith(place)).toBe("no-claim");
});
