/** Of those that mount at one place, or one volume on one node, at one moment one has the claim; and what was mounted meanwhile is seen. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { nativeAddon } from "../../../native/index.ts";
import { type ClaimedMount, type MountClaim, claimMount } from "../../../overlay/volume/mount-claim.ts";
import { refusal } from "../../refusal.ts";

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-claim-"));
  for (const name of ["a", "b", "run"]) mkdirSync(path.join(dir, name));
  symlinkSync(path.join(dir, "a"), path.join(dir, "link"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function claim(place: string, volume: string, check = (): void => undefined, runDir = "run"): MountClaim {
  const wanted: ClaimedMount = { mountPoint: path.join(dir, place), runDir: path.join(dir, runDir), volume };
  return claimMount(nativeAddon(), wanted, check, path.join(dir, "records"));
}
const refused = async (...words: Parameters<typeof claim>): Promise<[string, string]> => {
  const { code, message } = await refusal(() => claim(...words));
  return [code, message.replace(dir, "")];
};

test("one has a place, by whatever name, and a volume of its node, until it lets go; others are free", async () => {
  const first = claim("a", "one");
  const atPlace = ["already-mounting", "another process mounts at /link just now (EAGAIN)"];
  expect(await refused("link", "two")).toEqual(atPlace);
  expect(await refused("b", "one")).toEqual(["already-mounting", "another process mounts this volume on this node just now (EAGAIN)"]);
  // A refused one has left nothing; and another dlmd is another node.
  claim("b", "two").release();
  claim("b", "one", undefined, "b").release();
  first.release();
  claim("link", "one").release();
});

test("it looks again once it has the claim; what that says against it leaves the place free", async () => {
  const seen: string[] = [];
  const check = (): void => {
    seen.push("looked");
    throw new Error("mounted meanwhile");
  };
  const first = claim("a", "one");
  await refused("a", "one", check);
  expect(seen).toEqual([]);
  first.release();
  expect(() => claim("a", "one", check)).toThrow("mounted meanwhile");
  expect(seen).toEqual(["looked"]);
  claim("a", "one").release();
});

test("nothing of it is left: places come and go, and the records are kept in memory", async () => {
  const records = path.join(dir, "records");
  const first = claim("a", "one");
  expect(readdirSync(records)).toHaveLength(2);
  // A refused one leaves those of the other.
  await refused("a", "two");
  await refused("b", "one");
  expect(readdirSync(records)).toHaveLength(2);
  first.release();
  expect(readdirSync(records)).toEqual([]);
});

test("a file that its holder removes after another one has opened it is no claim", async () => {
  const first = claim("a", "one");
  const tryLock = (fd: number): number => {
    first.release();
    return nativeAddon().tryLock(fd);
  };
  const wanted: ClaimedMount = { mountPoint: path.join(dir, "a"), runDir: path.join(dir, "run"), volume: "one" };
  const late = await refusal(() => claimMount({ tryLock }, wanted, () => undefined, path.join(dir, "records")));
  expect([late.code, late.message.replace(dir, "")]).toEqual(["already-mounting", "another process mounts at /a just now (it ends)"]);
  const next = claim("a", "one");
  expect(await refused("a", "two")).toEqual(["already-mounting", "another process mounts at /a just now (EAGAIN)"]);
  next.release();
  expect(existsSync(path.join(dir, "records"))).toBe(true);
});

test("records that can not be made: in words", async () => {
  writeFileSync(path.join(dir, "records"), "");
  expect((await refused("a", "one"))[0]).toBe("no-claim");
});
