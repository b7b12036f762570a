/** Lines that would mount the volume's device plainly, by whatever name they have for it. */
import { expect, it } from "vitest";
import { type DeviceNames, judgeMountLines, parseFstab, parseMountUnit, pathOf, udevText } from "../../../overlay/setup/fstab.ts";

const device: DeviceNames = {
  device: "/dev/sdb1",
  tags: new Map([
    ["UUID", "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11"],
    ["LABEL", "my disk"],
    ["PARTUUID", "00ff"],
    ["PARTLABEL", ""],
  ]),
  paths: new Set(["/dev/disk/by-id/x"]),
};
const judgeText = (text: string): string => judgeMountLines(parseFstab(text, "/etc/fstab"), device).status;

it.each([
  "/dev/sdb1 /mnt ext4 defaults 0 2",
  "/dev/disk/by-id/x /mnt ext4",
  "UUID=6B1C0B5E-3f0e-4f0a-9d5c-2f8c6a0c4d11 /mnt auto rw",
  'UUID="6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" /mnt xfs',
  "LABEL=my\\040disk /mnt ext4",
  "\t PARTUUID=00FF\t/mnt\text4\tnofail",
  "/dev/sdb1 none swap sw",
])("%s: it would be mounted plainly", (line) => {
  expect(judgeText(`# nothing\n\n${line}\n`)).toBe("fail");
});

it.each([
  "/dev/sdb1 /shared clustered rw,_netdev 0 0",
  "/dev/sdb1 /shared ext4 rw,clustered 0 0",
  "#/dev/sdb1 /mnt ext4",
  "/dev/sdb2 /mnt ext4",
  "LABEL=MY\\040DISK /mnt ext4",
  "PARTLABEL=none /mnt ext4",
  "/dev/sdb1",
])("%s: it is none", (line) => {
  expect(judgeText(line)).toBe("ok");
});

it("a tag that is not known of the device is no proof that a line does not name it", () => {
  const judged = (text: string, names: Partial<DeviceNames>): string =>
    judgeMountLines(parseFstab(text, "/etc/fstab"), { ...device, ...names }).status;
  const tags = new Map([["UUID", "00-11"]]);
  expect(judged("PARTUUID=aa /mnt ext4", { tags })).toBe("unknown");
  expect(judged("PARTUUID=aa /mnt clustered", { tags })).toBe("ok");
  expect(judged("PARTUUID=aa /mnt ext4\nUUID=00-11 /mnt ext4", { tags })).toBe("fail");
  expect(judged("PARTLABEL= /mnt ext4", {})).toBe("ok");
  expect(judged("/dev/disk/by-id/y /mnt ext4", { paths: null })).toBe("unknown");
  expect(judged("server:/export /mnt nfs", { paths: null })).toBe("ok");
});

it("a name in other bytes than ASCII, in single quotes, or by its id is the same name", () => {
  const tags = new Map([["LABEL", "m\u00fc disk"]]);
  const judged = (text: string): string => judgeMountLines(parseFstab(text, "/etc/fstab"), { ...device, tags }).status;
  expect(judged("LABEL=m\\303\\274\\040disk /mnt ext4")).toBe("fail");
  expect(judged("LABEL='m\u00fc\\040disk' /mnt ext4")).toBe("fail");
  expect(judged("ID=x /mnt ext4")).toBe("fail");
  expect(judged("ID=y /mnt ext4")).toBe("ok");
  expect([pathOf("ID=y"), pathOf("/a"), pathOf("server:/a")]).toEqual(["/dev/disk/by-id/y", "/a", null]);
});

it("a link that udev makes of a tag is the tag, also while the link is not there; one of the kind that is not known is no proof", () => {
  const tags = new Map([...device.tags, ["LABEL", "m\u00fc disk"]]);
  const judged = (link: string, names: Partial<DeviceNames> = {}): string =>
    judgeMountLines(parseFstab(`/dev/disk/${link} /mnt ext4`, "/etc/fstab"), { ...device, tags, ...names }).status;
  expect(judged("by-uuid/6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11")).toBe("fail");
  expect(judged("by-label/m\u00fc\\134x20disk")).toBe("fail");
  expect(judged("by-partuuid/00ff", { paths: null })).toBe("fail");
  expect([judged("by-uuid/00-11"), judged("by-partlabel/x")]).toEqual(["ok", "ok"]);
  expect([judged("by-partlabel/x", { tags: new Map() }), judged("by-uuid/00-11", { paths: null })]).toEqual(["unknown", "unknown"]);
});

it("words of a line are parted by blanks and tabs alone", () => {
  const tags = new Map([["LABEL", "a\u00a0b"]]);
  const [line] = parseFstab(" LABEL=a\u00a0b\t/mnt  ext4 \r\n", "/etc/fstab");
  expect(line).toMatchObject({ source: "LABEL=a\u00a0b", mountPoint: "/mnt", type: "ext4", options: ["defaults"] });
  expect(judgeMountLines(line === undefined ? [] : [line], { ...device, tags }).status).toBe("fail");
});

it("what udev keeps of a name is read as the name", () => {
  const raw = Buffer.from("m\u00fc", "utf8").toString("latin1");
  expect(udevText(`my\\x20disk ${raw}\\xc3\\xbc`)).toBe("my disk m\u00fc\u00fc");
});

it("files that could not be read are told, and an automount is mounted by itself", () => {
  expect(judgeMountLines([], device, ["/etc/fstab: EACCES"])).toMatchObject({
    status: "unknown",
    found: "not all could be read: /etc/fstab: EACCES",
  });
  expect(judgeText("/dev/sdb1 /mnt ext4 noauto,x-systemd.automount")).toBe("fail");
});

it("a line with noauto is a warning, and the finding names file, line and place", () => {
  const found = judgeMountLines(parseFstab("\n/dev/sdb1 /mnt ext4 ro,noauto\n", "/etc/fstab"), device);
  expect(found).toMatchObject({ status: "warn", found: expect.stringContaining("/etc/fstab line 2: /dev/sdb1 at /mnt") as unknown });
});

it("a mount unit counts as fstab's line does: more if another unit wants it", () => {
  const text =
    "[Unit]\nWhat=/dev/sdc\n[Mount]\n# What=/dev/sdd\nWhat = /dev/sdb1\nWhere=/mnt\nType=ext4\n[Install]\nWantedBy=multi-user.target\nWhat=/dev/sdc\n";
  const unit = parseMountUnit([{ file: "mnt.mount", text }], true);
  expect(unit).toMatchObject({ source: "/dev/sdb1", mountPoint: "/mnt", type: "ext4", isAutomatic: true });
  const judged = (isWanted: boolean): string => {
    const line = parseMountUnit([{ file: "mnt.mount", text }], isWanted);
    return judgeMountLines(line === null ? [] : [line], device).status;
  };
  expect([judged(true), judged(false)]).toEqual(["fail", "warn"]);
  expect(parseMountUnit([{ file: "mnt.mount", text: "[Mount]\nWhere=/mnt\n" }], true)).toBeNull();
});

it.each([
  ["What=\\\n  /dev/sdb1\nWhere=/mnt", "/dev/sdb1", "/mnt"],
  ["What=\\\n# What=/dev/sdc\n\t; another\n/dev/sdb1\nWhere=/mnt", "/dev/sdb1", "/mnt"],
  ["What\\\n\\\n=/dev/sdb1\nWhere=/mnt", "/dev/sdb1", "/mnt"],
  ["What=/dev/sdb1\nWhere=/mnt\\", "/dev/sdb1", "/mnt"],
  ["What=/dev/sdb1\\\r\n\r\nWhere=/mnt", "/dev/sdb1", "/mnt"],
  ["# no line goes on here: \\\nWhat=/dev/sdb1\nWhere=/mnt", "/dev/sdb1", "/mnt"],
  ["What=/dev/sdb1\nWhere=/a\\\\\nWhere=/mnt", "/dev/sdb1", "/mnt"],
  ["What=/dev/sdb1\\ \nWhere=/mnt", "/dev/sdb1\\", "/mnt"],
  ["What=/dev/sdb1\\\nWhere=/mnt", "/dev/sdb1 Where=/mnt", "?"],
])("lines of a unit go on as systemd has them: %j", (words, source, mountPoint) => {
  expect(parseMountUnit([{ file: "mnt.mount", text: `[Mount]\n${words}` }], true)).toMatchObject({ source, mountPoint });
});
