import { describe, expect, it } from "vitest";
import { type Machine, checkPrerequisites, missingFor } from "../../../overlay/lab/prerequisites.ts";
import { refusal } from "../../refusal.ts";

const whole: Machine = { uid: 0, device: () => null, hasTool: () => true };

describe("what a lab needs", () => {
  it("is all there", () => expect(missingFor("xfs", whole)).toEqual([]));

  it("names root first, without which nothing else can be known", () => {
    const found = missingFor("ext4", { ...whole, uid: 1000, device: () => "EACCES" });
    expect(found).toEqual([{ what: "root is needed, found user id 1000", todo: "run it as root (sudo)" }]);
  });

  it("names /dev/fuse and why", () => {
    const found = missingFor("ext4", { ...whole, device: (path) => (path === "/dev/fuse" ? "it is not there" : null) });
    expect(found).toHaveLength(1);
    expect(found[0]?.what).toBe("/dev/fuse cannot be opened: it is not there");
    expect(found[0]?.todo).toContain("modprobe fuse");
  });

  it("names loop devices, unless the lower is a directory", () => {
    const machine: Machine = { ...whole, device: (path) => (path === "/dev/loop-control" ? "EPERM" : null) };
    expect(missingFor("ext4", machine).map(({ what }) => what)).toEqual(["loop devices cannot be had, /dev/loop-control: EPERM"]);
    expect(missingFor("directory", machine)).toEqual([]);
  });

  it.each([
    ["ip", "iproute2"],
    ["nsenter", "util-linux"],
    ["mkfs.ext4", "e2fsprogs"],
    ["losetup", "mount"],
  ])("names the Debian package of %s", (tool, name) => {
    expect(missingFor("ext4", { ...whole, hasTool: (asked) => asked !== tool }).map(({ todo }) => todo)).toEqual([
      `apt-get install ${name}`,
    ]);
  });

  it("asks for mkfs.xfs only for XFS", () => {
    const machine: Machine = { ...whole, hasTool: (asked) => asked !== "mkfs.xfs" };
    expect(missingFor("ext4", machine)).toEqual([]);
    expect(missingFor("xfs", machine).map(({ todo }) => todo)).toEqual(["apt-get install xfsprogs"]);
  });

  it("says once what several need", async () => {
    const machine: Machine = { ...whole, hasTool: (asked) => !["mount", "umount", "losetup"].includes(asked) };
    expect((await refusal(() => checkPrerequisites("ext4", "builtin", machine))).hint).toBe("apt-get install mount.");
  });

  it("is refused with everything that is missing at once", () => {
    const machine: Machine = { uid: 0, device: () => "it is not there", hasTool: () => false };
    expect(() => checkPrerequisites("ext4", "builtin", machine)).toThrow(/\/dev\/fuse.*loop-control.*ip.*nsenter.*mkfs\.ext4/);
  });
});
