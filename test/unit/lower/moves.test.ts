/** What an owner tells of directories that were renamed (hazard F46): to each caller, before the answers to what is asked after that. */
import fs from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { directoryPlace, type Place } from "../../compliance/lower-fixture.ts";
import { caller, errnoOf, name, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();

it("each caller hears of a move on its connection, and that it may have missed some on each new one", async () => {
  const owner = await lab.owner(1);
  const heard: (string | number)[] = [];
  const moves = { moved: ({ ino }: FileId): void => void heard.push(ino), missed: (): void => void heard.push("missed") };
  const proxy = await lab.proxyTo(owner);
  const remote = lab.remote({}, undefined, { moves });
  await remote.connect(proxy.address, 1);
  expect(heard).toEqual(["missed"]);
  owner.server.tellMoved({ ino: 77, generation: 3 });
  // In the order in which they were said.
  await remote.getattr(remote.root);
  expect(heard).toEqual(["missed", 77]);
  proxy.cut();
  owner.server.tellMoved({ ino: 78, generation: 3 });
  await remote.getattr(remote.root);
  expect(heard).toEqual(["missed", 77, "missed"]);
  await until(() => heard.length === 3);
});

describe("the lower of an owner", () => {
  let place: Place;
  let lower: LocalLower;
  let told: number[];

  beforeEach(() => {
    place = directoryPlace();
    told = [];
    const moved = ({ ino }: FileId): void => void told.push(ino);
    lower = createLocalLower({ native: nativeAddon(), rootFd: place.rootFd, metadataCalls: "inline", moved, log: silentLog });
  });
  afterEach(async () => {
    await lower.shutdown();
    await place.release();
  });

  it("tells of directories that are renamed, of both that change places, and of no file", async () => {
    const [one, two, file] = ["one", "two", "file"].map((file) => path.join(place.path, file)) as [string, string, string];
    fs.mkdirSync(one);
    fs.mkdirSync(two);
    fs.writeFileSync(file, "");
    const { root } = lower;
    const ids = await Promise.all(["one", "two", "file"].map(async (wanted) => (await lower.lookup(root, name(wanted))).id));
    const [oneId, twoId, fileId] = ids as [FileId, FileId, FileId];
    await lower.rename(root, name("file"), twoId, name("file"), 0, fileId, null);
    expect(told).toEqual([]);
    await lower.rename(root, name("one"), twoId, name("in"), 0, oneId, null);
    expect(told.splice(0)).toEqual([oneId.ino]);
    const three = await lower.mkdir(root, name("three"), 0o755, caller);
    await lower.rename(root, name("three"), twoId, name("in"), 2, three.id, oneId);
    expect(new Set(told.splice(0))).toEqual(new Set([oneId.ino, three.id.ino]));
    expect(await errnoOf(() => lower.rename(root, name("three"), twoId, name("in"), 1, oneId, three.id))).toBe(E.EEXIST);
    expect(told).toEqual([]);
    let deep = three.id;
    const above: FileId[] = [];
    const long = name("d".repeat(255));
    for (let depth = 0; depth < 17; depth += 1) {
      above.push(deep);
      deep = (await lower.mkdir(deep, long, 0o755, caller)).id;
    }
    // No path of that length can be had, and that is no bug.
    expect(await errnoOf(() => lower.pathOf(deep))).toBe(E.ENAMETOOLONG);
    for (const parent of above.reverse()) {
      const { id } = await lower.lookup(parent, long);
      await lower.rmdir(parent, long, id);
    }
    expect([await lower.pathOf(oneId), await lower.pathOf(three.id)].map(String)).toEqual(["three", "two/in"]);
  });
});
