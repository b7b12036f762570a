/** What is said when the kernel refuses a group of processes, as it does in a container with cgroup v2. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { CgroupTree } from "../../../overlay/lab/cgroup.ts";
import { HungGroup } from "../../../overlay/lab/hang.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(path.join(os.tmpdir(), "coverlay-cgroup-"));
  writeFileSync(path.join(root, "cgroup.controllers"), "cpu io memory\n");
});
afterEach(() => rmSync(root, { recursive: true }));

/** Its kernel refuses the first write with that errno. */
function hangOn(code: string): unknown {
  const write = (): void => {
    throw Object.assign(new Error(`${code}: refused, write`), { code });
  };
  const tree: CgroupTree = { root, version: 2, write, cgroupOf: () => "0::/\n" };
  try {
    new HungGroup("node1", tree).hang("/dev/null", [process.pid]);
  } catch (error) {
    return error;
  }
  return null;
}

it.each([
  [
    "EBUSY",
    "a group without processes of its own, as only a machine's root group may have them beside groups with limits, expected",
    "Move them:",
  ],
  ["EOPNOTSUPP", "a group that takes whole processes, not threads (cgroup.type: domain), expected", "See cgroup.type"],
  ["EROFS", "a cgroup tree that may be changed expected", "read-write"],
  ["EACCES", "a cgroup tree that may be changed expected", "read-write"],
])("%s: what was expected and found, and what to do; nothing is left", (code, expected, hint) => {
  expect(hangOn(code)).toMatchObject({
    code: "no-cgroup",
    message: `${expected}, found that +io into ${root}/cgroup.subtree_control gives ${code}`,
    hint: expect.stringMatching(new RegExp(`${hint}.*coverlay lab cut`)),
  });
  expect(readdirSync(root)).toEqual(["cgroup.controllers"]);
});

it("another error is what it was", () => {
  expect(hangOn("ENOSPC")).toMatchObject({ code: "ENOSPC", message: "ENOSPC: refused, write" });
});
