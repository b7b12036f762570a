/** The scripts that mount(8) calls are on the disk before they have their names: an empty one would keep its file systems from being mounted. */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, expect, it, vi } from "vitest";
import { helperScripts, installHelpers } from "../../../overlay/mount-helper/install.ts";

const did: string[] = [];
let failing = "";
vi.mock("node:fs", async (original) => {
  const real = await original<typeof import("node:fs")>();
  const name = (file: unknown): string => path.basename(String(file));
  return {
    ...real,
    writeFileSync: (...[file, text, options]: Parameters<typeof real.writeFileSync>) => {
      did.push(`write ${name(file)} ${JSON.stringify(options)}`);
      real.writeFileSync(file, text, options);
    },
    renameSync: (from: string, to: string) => {
      if (name(to) === failing) throw Object.assign(new Error("played"), { code: "EROFS" });
      did.push(`rename ${name(to)}`);
      real.renameSync(from, to);
    },
    fsyncSync: (fd: number) => {
      did.push(`sync ${name(real.readlinkSync(`/proc/self/fd/${fd}`))}`);
      real.fsyncSync(fd);
    },
  };
});

const dir = fs.mkdtempSync(path.join(os.tmpdir(), "coverlay-helpers-"));
const folder = path.basename(dir);
afterEach(() => {
  failing = "";
  for (const file of fs.readdirSync(dir)) fs.rmSync(path.join(dir, file));
  did.length = 0;
});
afterAll(() => fs.rmSync(dir, { recursive: true }));
const programs = { node: "/usr/bin/node", program: "/usr/lib/coverlay/main.js" };

it("each is written, synced, named, and its folder synced", () => {
  expect(installHelpers(dir, helperScripts(programs, ["ext4"]))).toHaveLength(4);
  const of = (script: string): string[] => [`write ${script}.new {"flush":true}`, `rename ${script}`, `sync ${folder}`];
  expect(did).toEqual(["mount.clustered", "mount.fuse.clustered", "umount.fuse.clustered", "mount.ext4"].flatMap(of));
});

it("one that cannot be named leaves nothing beside it", () => {
  failing = "mount.clustered";
  expect(() => installHelpers(dir, helperScripts(programs, []))).toThrow(/cannot be written: EROFS/);
  expect(fs.readdirSync(dir)).toEqual([]);
});
