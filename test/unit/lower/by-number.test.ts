/** Hazard F29: what coverlay hides is found by no number, nor what is outside of a directory as lower. */
import fs from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { fileHandleFormat } from "../../../overlay/lower/local/file-handle.ts";
import { HiddenInodes } from "../../../overlay/lower/local/hidden-inodes.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { bytes, errnoOf, RDWR, root } from "../../compliance/lower-bench.ts";
import { directoryPlace, type Image, makeImage, ownedLower, type Place } from "../../compliance/lower-fixture.ts";
import { idOf } from "./id-of.ts";

const native = nativeAddon();

describe.each(["ext4", "xfs"] as const)("%s", (type) => {
  let image: Image;
  let place: Place;
  let lower: LocalLower;

  beforeEach(() => {
    image = makeImage(type, type === "ext4" ? 32 : 320);
    place = image.mount();
  });
  afterEach(async () => {
    await lower.shutdown();
    await place.release();
    image.remove();
  });
  const at = (name: string): string => path.join(place.path, name);
  const found = (file: string): Promise<number> => errnoOf(() => lower.byNumber(fs.lstatSync(at(file)).ino));

  it("finds nothing of what is below the names of coverlay in the root, and what has such a name elsewhere", async () => {
    fs.mkdirSync(at(".coverlay/deep/er"), { recursive: true });
    fs.mkdirSync(at("dir/.coverlay/deep"), { recursive: true });
    for (const file of [".coverlay.owner", ".coverlay/deep/f", ".coverlayer", "dir/.coverlay.owner"]) fs.writeFileSync(at(file), "");
    fs.symlinkSync("f", at(".coverlay/deep/s"));
    lower = await ownedLower(place.rootFd);
    const hidden = [".coverlay.owner", ".coverlay", ".coverlay/deep", ".coverlay/deep/er", ".coverlay/deep/f", ".coverlay/deep/s"];
    for (const name of [...hidden, ".coverlay.orphans"]) expect([name, await found(name)]).toEqual([name, E.ESTALE]);
    for (const name of [".coverlayer", "dir", "dir/.coverlay", "dir/.coverlay/deep", "dir/.coverlay.owner"])
      expect([name, await found(name)]).toEqual([name, 0]);
    expect(await errnoOf(() => lower.parentOf(idOf(at(".coverlay/deep/er"), type)))).toBe(E.ESTALE);
    expect(await errnoOf(() => lower.parentOf(lower.root))).toBe(E.ESTALE);
  });

  it("finds no file that is open without a name: neither one of an earlier owner, nor one of this", async () => {
    lower = await ownedLower(place.rootFd);
    const made = async (name: string): Promise<number> => {
      const { entry, handle } = await lower.create(lower.root, bytes(name), RDWR, 0o644, root);
      expect(await errnoOf(() => lower.byNumber(entry.id.ino))).toBe(0);
      await lower.unlink(lower.root, bytes(name), entry.id);
      expect([name, await errnoOf(() => lower.byNumber(entry.id.ino))]).toEqual([name, E.ESTALE]);
      void handle;
      return entry.id.ino;
    };
    const earlier = await made("earlier");
    await lower.shutdown();
    await place.release();
    place = image.mount();
    lower = await ownedLower(place.rootFd);
    expect(lower.orphanCount).toBe(1);
    expect(await errnoOf(() => lower.byNumber(earlier))).toBe(E.ESTALE);
    await made("later");
  });

  it("finds a file that was made without a name once it has one", async () => {
    lower = await ownedLower(place.rootFd);
    const { entry } = await lower.tmpfile(lower.root, RDWR, 0o644, root, true);
    // What is hidden is looked at now.
    expect(await errnoOf(() => lower.byNumber(entry.id.ino))).toBe(E.ESTALE);
    await lower.link(entry.id, lower.root, bytes("named"));
    expect(await found("named")).toBe(0);
  });

  it("shows a file that has a name in the directory of those without one only while another name of it is replaced", async () => {
    lower = await ownedLower(place.rootFd);
    fs.writeFileSync(at("f"), "");
    fs.linkSync(at("f"), at(".coverlay.orphans/f"));
    expect(await found("f")).toBe(0);
  });

  it("finds nothing at all where more is hidden than coverlay has", async () => {
    fs.mkdirSync(at(".coverlay"));
    for (let n = 0; n < 4; n += 1) fs.writeFileSync(at(`.coverlay/${n}`), "");
    fs.writeFileSync(at("f"), "");
    lower = await ownedLower(place.rootFd);
    const rootFd = native.open(place.path, 0o200000, 0);
    const handle = Buffer.alloc(136);
    native.sync.handleOf(rootFd, handle);
    const format = fileHandleFormat(handle, type);
    const options = { native, root: lower.root, rootFd, format, log: silentLog };
    const has = (limit: number): Promise<boolean> => new HiddenInodes({ ...options, limit }).has(idOf(at("f"), type));
    // .coverlay, what is in it, and .coverlay.orphans.
    expect([await has(6), await has(5)]).toEqual([false, true]);
    fs.closeSync(rootFd);
  });
});

it("finds nothing outside of a directory as lower, nor above it", async () => {
  const place = directoryPlace();
  const inside = path.join(place.path, "inside");
  fs.mkdirSync(path.join(inside, "d"), { recursive: true });
  fs.writeFileSync(path.join(inside, "d/f"), "");
  fs.writeFileSync(path.join(place.path, "secret"), "");
  const rootFd = native.open(inside, 0o200000, 0);
  const lower = await ownedLower(rootFd, "inline", false, true);
  const ino = (file: string): number => fs.statSync(path.join(place.path, file)).ino;
  for (const file of ["secret", "."]) expect([file, await errnoOf(() => lower.byNumber(ino(file)))]).toEqual([file, E.ESTALE]);
  for (const file of ["inside", "inside/d", "inside/d/f"])
    expect([file, await errnoOf(() => lower.byNumber(ino(file)))]).toEqual([file, 0]);
  expect((await lower.parentOf(idOf(path.join(inside, "d"), "ext4"))).id).toEqual(lower.root);
  expect(await errnoOf(() => lower.parentOf(lower.root))).toBe(E.ESTALE);
  fs.renameSync(path.join(inside, "d"), path.join(place.path, "d"));
  expect(await errnoOf(() => lower.byNumber(ino("d")))).toBe(E.ESTALE);
  expect(await errnoOf(() => lower.parentOf(idOf(path.join(place.path, "d"), "ext4")))).toBe(E.ESTALE);
  expect(await errnoOf(() => lower.pathOf(idOf(path.join(place.path, "d"), "ext4")))).toBe(E.ESTALE);
  await lower.shutdown();
  fs.closeSync(rootFd);
  await place.release();
});
