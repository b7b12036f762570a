import { describe, expect, it } from "vitest";
import { minorOf, parseMountinfo } from "../../../dlmd/base/mount-table.ts";

describe("mountinfo", () => {
  it("gives the minor that names the FUSE connection, and names with spaces", () => {
    const text = [
      "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard",
      "91 27 0:53 / /tmp/a\\040b/node1/mnt rw,nosuid shared:7 master:2 - fuse.clustered /dev/loop3 rw,user_id=0",
      "",
    ].join("\n");
    const table = parseMountinfo(text);
    expect(table.map(minorOf)).toEqual([0, 53]);
    expect(table).toMatchObject([
      { mountPoint: "/", type: "ext4", source: "/dev/vda" },
      { mountPoint: "/tmp/a b/node1/mnt", type: "fuse.clustered", source: "/dev/loop3" },
    ]);
  });
});
