import { describe, expect, it } from "vitest";
import { decodeMountinfo } from "../../../overlay/lab/fuse-mounts.ts";

describe("mountinfo", () => {
  it("gives the minor that names the FUSE connection, and names with spaces", () => {
    const text = [
      "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard",
      "91 27 0:53 / /tmp/a\\040b/node1/mnt rw,nosuid shared:7 master:2 - fuse.clustered /dev/loop3 rw,user_id=0",
      "",
    ].join("\n");
    expect(decodeMountinfo(text)).toEqual([
      { deviceMinor: 0, mountpoint: "/", type: "ext4", source: "/dev/vda" },
      { deviceMinor: 53, mountpoint: "/tmp/a b/node1/mnt", type: "fuse.clustered", source: "/dev/loop3" },
    ]);
  });
});
