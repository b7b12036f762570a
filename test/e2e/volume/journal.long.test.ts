/** A file system without a journal, or with one that does not hold, is no volume: after a crash of its owner nobody could go on with it. */
import { expect, test } from "vitest";
import { disableVolume, enableVolume, showVolume } from "../../../overlay/cli/volume.ts";
import type { Bit } from "../../../overlay/volume/bit.ts";
import { mountLower } from "../../../overlay/volume/lower-mount.ts";
import { checkMount } from "../../../overlay/volume/mount-checks.ts";
import { refusal } from "../../refusal.ts";
import { run, withDisk } from "./disk.ts";
import { anyPlace, takingOf } from "./take.ts";

const bit: Bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const neverAsked = (): Promise<never> => Promise.reject(new Error("the cluster was asked"));

test("ext2, and ext4 without a journal, are refused at enable; with tune2fs -j they are volumes", async () => {
  for (const mkfs of [["mkfs.ext2"], ["mkfs.ext4", "-O", "^has_journal"]]) {
    await withDisk("none", async ({ device }) => {
      run(mkfs[0] as string, ...mkfs.slice(1), "-q", "-F", device);
      const refused = await refusal(enableVolume(device, bit));
      expect([refused.code, refused.exitStatus]).toEqual(["no-journal", 32]);
      expect(refused.message).toBe(
        `${device} holds ext2, or ext4 without a journal of its own: after a crash of its owner it could not be recovered`,
      );
      expect(showVolume(device)).toMatchObject({ clustered: false });

      // What the hint says.
      run("sh", "-c", refused.hint.replace(/^.*: (tune2fs .*), then (e2fsck .*)$/, "$1 && $2 -y"));
      await enableVolume(device, bit);
      expect(showVolume(device)).toMatchObject({ clustered: true, ...bit });
    });
  }
});

test("a volume that has lost its journal is not mounted, and can be made plain again", async () => {
  await withDisk("ext4", async ({ device, mountPoint, dir }) => {
    await enableVolume(device, bit);
    run("tune2fs", "-O", "^has_journal", device);
    expect((await refusal(checkMount(device, mountPoint, dir, neverAsked))).code).toBe("no-journal");
    expect(
      (await refusal(mountLower({ kind: "device", path: device }, anyPlace(bit), false, 0, takingOf({ block: null, proof: null })))).code,
    ).toBe("no-journal");
    expect(showVolume(device)).toMatchObject({ clustered: true });
    expect(await disableVolume(device)).toBe(true);
  });
});

test("R8: ext4 with fast_commit is refused at enable and at each mount; without the feature it is a volume", async () => {
  await withDisk("ext4", async ({ device, mountPoint, dir }) => {
    run("tune2fs", "-O", "fast_commit", device);
    const refused = await refusal(enableVolume(device, bit));
    expect([refused.code, refused.exitStatus]).toEqual(["fast-commit", 32]);
    expect(refused.hint).toContain(`tune2fs -O ^fast_commit ${device}`);

    run("tune2fs", "-O", "^fast_commit", device);
    await enableVolume(device, bit);
    run("tune2fs", "-O", "fast_commit", device);
    expect((await refusal(checkMount(device, mountPoint, dir, neverAsked))).code).toBe("fast-commit");
    expect(
      (await refusal(mountLower({ kind: "device", path: device }, anyPlace(bit), false, 0, takingOf({ block: null, proof: null })))).code,
    ).toBe("fast-commit");
    expect(showVolume(device)).toMatchObject({ clustered: true });
    expect(await disableVolume(device)).toBe(true);
  });
});
