import fs from "node:fs";
import { describe } from "vitest";
import {
  directoryPlace,
  type Fixture,
  type Image,
  localFixture,
  lockedRemoteFixture,
  makeImage,
  type Place,
  remoteFixture,
} from "./lower-fixture.ts";
import { fullDiskCompliance, lowerCompliance, readOnlyCompliance, shortFilesCompliance } from "./lower.ts";

/** The image goes with its fixture. */
async function onImage(image: Image, make: (place: Place) => Fixture | Promise<Fixture>, readOnly = false): Promise<Fixture> {
  let place: Place | null = null;
  try {
    place = image.mount(readOnly);
    const fixture = await make(place);
    return {
      ...fixture,
      async release() {
        await fixture.release();
        image.remove();
      },
    };
  } catch (error) {
    await place?.release();
    image.remove();
    throw error;
  }
}

async function withFile(type: "ext4" | "xfs"): Promise<Image> {
  const image = makeImage(type, type === "ext4" ? 32 : 320);
  const place = image.mount();
  fs.writeFileSync(`${place.path}/f`, "content");
  await place.release();
  return image;
}

describe("lower", () => {
  lowerCompliance("local on a directory", async () => localFixture(directoryPlace()));
  lowerCompliance("local on a directory, kept apart", async () => localFixture(directoryPlace(), "inline", true));
  lowerCompliance("local on a directory, kept apart, changes in the pool", async () => localFixture(directoryPlace(), "pool", true));
  lowerCompliance("local on a directory, changes in the pool", async () => localFixture(directoryPlace(), "pool"));
  lowerCompliance("local on a directory of tmpfs", async () => localFixture(directoryPlace("/dev/shm")));
  lowerCompliance("local on a detached ext4", async () => await onImage(makeImage("ext4", 256), localFixture));
  lowerCompliance("local on a detached XFS", async () => await onImage(makeImage("xfs", 320), localFixture));
  lowerCompliance("remote on a directory", async () => await remoteFixture(directoryPlace()));
  lowerCompliance("remote on a directory, with every lock", async () => await lockedRemoteFixture(directoryPlace()));
  lowerCompliance("remote on a detached XFS, with every lock", async () => await onImage(makeImage("xfs", 320), lockedRemoteFixture));
  lowerCompliance("remote on a detached XFS", async () => await onImage(makeImage("xfs", 320), remoteFixture));

  fullDiskCompliance("local on ext4", async () => await onImage(makeImage("ext4", 16), localFixture));
  fullDiskCompliance("local on XFS", async () => await onImage(makeImage("xfs", 320), localFixture));
  fullDiskCompliance("remote on ext4", async () => await onImage(makeImage("ext4", 16), remoteFixture));

  const indirect = async (): Promise<Fixture> => await onImage(makeImage("ext4", 32, ["-O", "^extent,^64bit"]), localFixture);
  // What three levels of indirect blocks reach (fs/ext4/super.c, ext4_max_bitmap_size).
  shortFilesCompliance("local on ext4 without extents", indirect, 4_402_345_721_856);

  readOnlyCompliance("local on ext4", async () => await onImage(await withFile("ext4"), localFixture, true));
  readOnlyCompliance("local on XFS", async () => await onImage(await withFile("xfs"), localFixture, true));
  readOnlyCompliance("remote on ext4", async () => await onImage(await withFile("ext4"), remoteFixture, true));
});
