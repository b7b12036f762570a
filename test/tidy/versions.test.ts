/** packaging/README.md says which versions talk to each other: its numbers are those of the sources. */
import { expect, it } from "vitest";
import { PEER_PROTOCOL_VERSION } from "../../dlmd/driver/handshake.ts";
import { LOCAL_VERSION } from "../../dlmd/wire/local.ts";
import { MOUNT_GROUP_VERSION } from "../../dlmd/wire/mount-group.ts";
import { LOWER_WIRE_VERSION } from "../../overlay/lower/wire/frame.ts";
import { BIT_FORMAT_VERSION } from "../../overlay/volume/bit.ts";
import { OWNER_BLOCK_VERSION } from "../../overlay/volume/owner-block.ts";
import { read } from "./paths.ts";

const versions = {
  PEER_PROTOCOL_VERSION,
  LOCAL_VERSION,
  MOUNT_GROUP_VERSION,
  LOWER_WIRE_VERSION,
  BIT_FORMAT_VERSION,
  OWNER_BLOCK_VERSION,
};

it("packaging/README.md has each version of what nodes say to each other", () => {
  const rows = [...read("packaging/README.md").matchAll(/^\| [^|]+ \| `(\w+_VERSION)` \| (\d+) \|/gm)];
  expect(Object.fromEntries(rows.map(([, name, value]) => [name, Number(value)]))).toEqual(versions);
});
