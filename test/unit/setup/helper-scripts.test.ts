/** The scripts that mount(8) calls: on the disk before they have their names, since an empty one would keep its file systems from being mounted; and their words. */
import { spawnSync } from "node:child_process";
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

it.each([
  [0, ["/dev/sdb1", "/a b", "-v", "-o", "ro,noatime"], ["-i", "-t", "ext4", "/dev/sdb1", "/a b", "-v", "-o", "ro,noatime"]],
  [65_534, ["/dev/sdb1", "/a b", "-o", "rw,nosuid,user"], ["-i", "/a b"]],
  [65_534, ["/dev/sdb1", "/a b", "-v", "-o", "nosuid,ro,user"], ["-i", "-r", "-v", "/a b"]],
])("of user %i, with the words %j: mount(8) is given what it lets that user say", (uid, words, given) => {
  installHelpers(dir, helperScripts(programs, ["ext4"]));
  fs.chmodSync(dir, 0o755);
  fs.writeFileSync(path.join(dir, "mount"), "#!/bin/sh\nprintf '%s\\n' \"$@\"\n", { mode: 0o755 });
  const env = { PATH: `${dir}:${process.env["PATH"]}` };
  const { stdout } = spawnSync(path.join(dir, "mount.ext4"), words, { encoding: "utf8", uid, env, cwd: "/" });
  expect(stdout.split("\n").slice(0, -1)).toEqual(given);
});
