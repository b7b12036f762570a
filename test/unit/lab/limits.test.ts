/** Limits of a lab's options. A directory with a comma is refused after them, so that nothing is made here. */
import { expect, it } from "vitest";
import { MAX_LAB_NODES, MIN_IMAGE_BYTES, MIN_XFS_IMAGE_BYTES } from "../../../overlay/lab/layout.ts";
import { bringUp, type UpOptions } from "../../../overlay/lab/up.ts";
import { UNFOLLOWED } from "../../../overlay/lab/work.ts";

const COMMA = /commas/;

function up(change: Partial<UpOptions>): Promise<unknown> {
  const options: UpOptions = {
    dir: "/tmp/a,b",
    nodes: 3,
    lower: "ext4",
    engine: "builtin",
    sizeBytes: MIN_IMAGE_BYTES,
    fencing: true,
    twoNode: false,
    image: null,
    ...change,
  };
  return bringUp(options, UNFOLLOWED);
}

it("more than MAX_LAB_NODES nodes are refused", async () => {
  await expect(up({ nodes: MAX_LAB_NODES })).rejects.toThrow(COMMA);
  await expect(up({ nodes: MAX_LAB_NODES + 1 })).rejects.toThrow(/1 to 16 nodes/);
});

it.each([
  ["ext4", MIN_IMAGE_BYTES],
  ["xfs", MIN_XFS_IMAGE_BYTES],
] as const)("a smaller image for %s than %i bytes is refused", async (lower, sizeBytes) => {
  await expect(up({ lower, sizeBytes })).rejects.toThrow(COMMA);
  await expect(up({ lower, sizeBytes: sizeBytes - 1 })).rejects.toThrow(/an image for/);
});

it.each([{ nodes: 3 }, { nodes: 2, fencing: false }, { nodes: 2, engine: "corosync" }] as const)(
  "two_node is refused with %o",
  async (change) => {
    await expect(up({ nodes: 2, twoNode: true })).rejects.toThrow(COMMA);
    await expect(up({ twoNode: true, ...change })).rejects.toThrow(/--two-node is for two nodes with fence devices/);
  },
);
