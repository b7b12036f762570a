import { expect, it } from "vitest";
import { parseMountinfo } from "../../../dlmd/base/mount-table.ts";
import { connectionNumber, detachMount, setReadAhead } from "../../../overlay/session/connection.ts";

const table = parseMountinfo(`22 27 0:21 / /proc rw - proc proc rw
40 27 0:38 / /mnt/a rw - fuse.clustered /dev/sda rw
41 27 0:39 / /mnt/a\\040b rw - fuse.clustered /dev/sdb rw
42 27 0:40 / /mnt/a rw - fuse.clustered /dev/sdc rw
`);

it("finds the topmost mount, and paths with spaces", () => {
  expect(connectionNumber("/mnt/a", table)).toBe(40);
  expect(connectionNumber("/mnt/a b", table)).toBe(39);
  expect(connectionNumber("/mnt/c", table)).toBeNull();
});

it("takes out what is seen at its place if that is this mount, and nothing that is mounted over it", () => {
  const taken: string[] = [];
  const native = { umount: (path: string) => taken.push(path) - 1 };
  expect([40, 38, 12].map((connection) => detachMount(native, "/mnt/a", connection, table))).toEqual([true, false, false]);
  expect(detachMount(native, "/mnt/c", 40, table)).toBe(false);
  expect(detachMount({ umount: () => -16 }, "/mnt/a b", 39, table)).toBe(false);
  expect(taken).toEqual(["/mnt/a"]);
});

it("goes on where the read-ahead can not be set, and says why", () => {
  expect(setReadAhead(1 << 20)?.message).toContain("/sys/class/bdi/0:1048576/read_ahead_kb");
});
