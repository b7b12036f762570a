/** C11: MMP's block names a mount that is not the life in the owner's block: it is not cleared, whatever the proof, and a holder that lives is refused with words. */
import { closeSync } from "node:fs";
import { expect, it } from "vitest";
import { nativeAddon } from "../../../native/index.ts";
import { enableVolume } from "../../../overlay/cli/volume.ts";
import { readOwnerBlock, writeOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import { machineName, readMmp } from "../../../overlay/volume/mmp.ts";
import { probeSuperblock } from "../../../overlay/volume/probe.ts";
import type { Ext4Superblock } from "../../../overlay/volume/superblock.ts";
import { attachLoop, withDisk } from "./disk.ts";
import { storedBit, takeLower } from "./take.ts";

const bit = { cluster: "c", volume: "v", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
/** The kernel waits until it has seen the holder write. */
const TIMEOUT_MS = 60_000;

it("C11: with the proof that the owner is fenced, and MMP's block of a stranger that lives: refused, and nothing is cleared", {
  timeout: TIMEOUT_MS,
}, async () => {
  await withDisk("ext4", async ({ device, image }) => {
    await enableVolume(device, bit);
    const { ownerBlock, uuid } = storedBit(device);
    const offset = ownerBlock ?? 0;
    const released = await readOwnerBlock(device, offset, uuid);
    const life = {
      nodeid: 2,
      incarnation: "i2",
      clientId: 1,
      epoch: released.epoch + 1,
      bootId: "another-boot",
      machineId: "m",
      pid: 7,
      startTime: 1n,
      device: "/dev/never-there",
      hostName: machineName(),
    };
    await writeOwnerBlock(device, offset, { ...released, sequence: released.sequence + 1, epoch: life.epoch, state: "owned", life });
    const stranger = attachLoop(image);
    const mount = nativeAddon().mountDetached("ext4", stranger, [], 0, []);
    try {
      const refused = takeLower(device, { proof: { kind: "fenced" } });
      await expect(refused).rejects.toMatchObject({ code: "mounted-elsewhere", exitStatus: 32 });
      await expect(refused).rejects.toThrow(/is mounted on another machine, outside of the cluster: ext4's MMP sees it write/);
      // The block is given back, for whoever comes when the stranger has gone.
      expect(await readOwnerBlock(device, offset, uuid)).toMatchObject({ state: "released" });
      expect(await readMmp(device, probeSuperblock(device) as Ext4Superblock)).toMatchObject({ state: "in-use" });
    } finally {
      closeSync(mount);
    }
  });
});
