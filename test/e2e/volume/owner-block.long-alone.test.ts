/** The owner's block and MMP on real file systems: written before a mount, given back after it, and what is refused when they are not right. */
import { closeSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { disableVolume, enableVolume, showVolume } from "../../../overlay/cli/volume.ts";
import { BIT_XATTR, type Bit, encodeBit } from "../../../overlay/volume/bit.ts";
import { mountDetached, releaseDetached, setAttribute } from "../../../overlay/volume/detached.ts";
import { readDeviceBlock, readOwnerBlock, writeOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import { mountLower } from "../../../overlay/volume/lower-mount.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import { checkMount } from "../../../overlay/volume/mount-checks.ts";
import { releaseByWord } from "../../../overlay/volume/operator-release.ts";
import { OWNER_BLOCK_BYTES, OWNER_BLOCK_VERSION, type OwnerBlock, encodeOwnerBlock } from "../../../overlay/volume/owner-block.ts";
import { thisMachine } from "../../../overlay/volume/prove-gone.ts";
import { withVersion } from "../../owner-block-version.ts";
import { refusal } from "../../refusal.ts";
import { type Disk, attachLoop, checkFileSystem, run, withDisk } from "./disk.ts";
import { storedBit, takeLower, takingOf } from "./take.ts";

const bit: Bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const TIMEOUT_MS = 120_000;
/** The kernel waits for 11 s at least where MMP is not clean (mmp.ts). */
const MMP_WAIT_MS = 11_000;

const blockOf = (device: string): Promise<OwnerBlock> => readOwnerBlock(device, storedBit(device).ownerBlock ?? 0, bit.uuid);

/** Writes into the image, below everything. */
function overwrite(disk: Disk, offset: number, bytes: Buffer): void {
  const fd = openSync(disk.image, "r+");
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

/** A copy of the disk as a crash leaves it, on a device of its own. */
async function crashed<T>(disk: Disk, use: (device: string) => Promise<T>): Promise<T> {
  const copy = path.join(disk.dir, "crashed");
  run("cp", "--sparse=always", disk.image, copy);
  const device = attachLoop(copy);
  try {
    return await use(device);
  } finally {
    run("losetup", "--detach", device);
  }
}

function ofNode(nodeid: number, change: Partial<Life> = {}): Life {
  const startTime = thisMachine.startTimeOf(process.pid) ?? 0n;
  const machine = { bootId: thisMachine.bootId(), machineId: thisMachine.machineId() };
  const life = { incarnation: `i${nodeid}`, clientId: 1, epoch: 1, ...machine, pid: process.pid, startTime };
  return { nodeid, ...life, device: "/dev/gone", hostName: hostname(), ...change };
}

async function nameOwner(device: string, life: Life): Promise<void> {
  const block = await blockOf(device);
  const { ownerBlock } = storedBit(device);
  const { sequence, atMs } = block;
  const next = { volumeUuid: bit.uuid, sequence: sequence + 1, atMs, epoch: life.epoch, state: "owned" as const, life };
  await writeOwnerBlock(device, ownerBlock ?? 0, next);
}

describe("the owner's block", () => {
  for (const type of ["ext4", "xfs"] as const) {
    test(`${type}: names the owner while it is mounted, and nobody after`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        expect(await blockOf(disk.device)).toMatchObject({ state: "released", life: null, sequence: 0, epoch: 0 });
        const lower = await takeLower(disk.device, { nodeid: 3, epochAbove: 6 });
        const owned = await blockOf(disk.device);
        const life = { nodeid: 3, incarnation: "i3", epoch: 7, pid: process.pid, device: disk.device, hostName: hostname() };
        expect([owned, lower.epoch]).toMatchObject([{ state: "owned", sequence: 1, epoch: 7, life }, 7]);
        expect(showVolume(disk.device).owner).toMatchObject({ state: "owned", nodeid: 3, epoch: 7 });
        expect(showVolume(disk.device).mmp?.state).toBe(type === "ext4" ? "in-use" : undefined);
        // The file's page is that of before the mount; nobody writes through it.
        const file = `/proc/self/fd/${lower.rootFd}/.coverlay.owner`;
        expect(() => writeFileSync(file, "x")).toThrow(/EPERM/);
        expect(readFileSync(file).length).toBe(4096);
        await lower.release();
        expect(await blockOf(disk.device)).toMatchObject({ state: "released", sequence: 2, epoch: 7, life });
        checkFileSystem(type, disk.device);
        // Set again: it stays as it is.
        await enableVolume(disk.device, bit);
        expect((await blockOf(disk.device)).sequence).toBe(2);
        await disableVolume(disk.device);
        run("mount", disk.device, disk.mountPoint);
        expect(run("ls", "-A", disk.mountPoint).trim()).toBe(type === "ext4" ? "lost+found" : "");
        run("umount", disk.mountPoint);
        checkFileSystem(type, disk.device);
      });
    });

    test(`${type}: a bit of format 1 is refused with words, and enable makes the block`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        const mount = await mountDetached(disk.device, type, [], 0);
        setAttribute(mount.rootFd, BIT_XATTR, encodeBit(bit), disk.device);
        setAttribute(mount.rootFd, `${BIT_XATTR}.epoch`, Buffer.from("41"), disk.device);
        await releaseDetached(mount, disk.device);
        const neverAsked = (): Promise<never> => Promise.reject(new Error("asked"));
        const refused = await refusal(checkMount(disk.device, disk.mountPoint, disk.dir, neverAsked));
        expect([refused.code, refused.exitStatus]).toEqual(["bit-version", 32]);
        expect(refused.hint).toContain(`coverlay volume enable ${disk.device} --cluster demo --name shared --uuid ${bit.uuid}`);
        expect(showVolume(disk.device).problem).toContain("format version 1");
        await enableVolume(disk.device, bit);
        expect(await blockOf(disk.device)).toMatchObject({ state: "released", epoch: 41 });
        const lower = await takeLower(disk.device);
        expect(lower.epoch).toBe(42);
        await lower.release();
      });
    });

    test(`${type}: a damaged block is refused with words, and enable makes it anew`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        overwrite(disk, storedBit(disk.device).ownerBlock ?? 0, Buffer.from("CovOther"));
        const refused = await refusal(takeLower(disk.device));
        expect([refused.code, refused.exitStatus]).toEqual(["owner-block-damaged", 32]);
        expect(refused.hint).toContain("coverlay volume enable");
        expect(showVolume(disk.device).problem).toContain("is damaged, or lies elsewhere");
        await enableVolume(disk.device, bit);
        await (await takeLower(disk.device)).release();
        checkFileSystem(type, disk.device);
      });
    });

    test(`${type}: a block of a later version is refused with words, and nothing is written over it`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        const before = await blockOf(disk.device);
        const offset = storedBit(disk.device).ownerBlock ?? 0;
        const onDisk = (): Promise<Buffer> => readDeviceBlock(disk.device, offset, OWNER_BLOCK_BYTES);
        const own = await onDisk();
        const later = withVersion(own, OWNER_BLOCK_VERSION + 1);
        overwrite(disk, offset, later);
        const taking = takingOf({ block: before, proof: null });
        const cluster = { info: { nodeid: 1, nodes: [] } as never, view: { quorate: true, members: [1] } as never };
        for (const [what, work] of [
          ["mount", () => mountLower({ kind: "device", path: disk.device }, storedBit(disk.device), false, 0, taking)],
          ["enable", () => enableVolume(disk.device, bit)],
          ["disable", () => disableVolume(disk.device)],
          ["release", () => releaseByWord(disk.device, "2", async () => cluster)],
        ] as const) {
          const refused = await refusal(work());
          expect([what, refused.code, refused.exitStatus]).toEqual([what, "owner-block-version", 32]);
          expect((await onDisk()).equals(later)).toBe(true);
        }
        expect(storedBit(disk.device).ownerBlock).toBe(offset);
        expect(showVolume(disk.device).problem).toContain("a later coverlay wrote the owner's block");
        // One of an earlier version is read, and the next owner writes its own.
        overwrite(disk, offset, withVersion(own, 1));
        expect(await blockOf(disk.device)).toEqual(before);
        const lower = await takeLower(disk.device);
        expect((await onDisk()).readUInt16LE(8)).toBe(OWNER_BLOCK_VERSION);
        await lower.release();
        checkFileSystem(type, disk.device);
      });
    });

    test(`${type}: a block that was moved, or can be, is found by the mount, which is undone`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        const stored = storedBit(disk.device);
        // As a tool that moves blocks does: the same bytes, another place.
        run("mount", disk.device, disk.mountPoint);
        run("chattr", "-i", `${disk.mountPoint}/.coverlay.owner`);
        run("umount", disk.mountPoint);
        const loose = await refusal(takeLower(disk.device));
        expect([loose.code, loose.message]).toEqual(["owner-block-moved", expect.stringContaining("not immutable")]);
        expect(await blockOf(disk.device)).toMatchObject({ state: "released", sequence: 2 });
        run("mount", disk.device, disk.mountPoint);
        run("cp", "--reflink=never", `${disk.mountPoint}/.coverlay.owner`, `${disk.mountPoint}/moved`);
        renameSync(`${disk.mountPoint}/moved`, `${disk.mountPoint}/.coverlay.owner`);
        run("chattr", "+i", `${disk.mountPoint}/.coverlay.owner`);
        run("umount", disk.mountPoint);
        const moved = await refusal(takeLower(disk.device));
        expect([moved.code, moved.message]).toEqual(["owner-block-moved", expect.stringContaining(`${stored.ownerBlock} expected`)]);
        expect(showVolume(disk.device).inUse).toBeUndefined();
        await enableVolume(disk.device, bit);
        await (await takeLower(disk.device)).release();
      });
    });

    test(`${type}: a block that another node wrote meanwhile, a lease that ended: no mount`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        const stored = storedBit(disk.device);
        const source = { kind: "device", path: disk.device } as const;
        const before = await blockOf(disk.device);
        await nameOwner(disk.device, ofNode(2));
        const taking = takingOf({ block: before, proof: null });
        expect((await refusal(mountLower(source, stored, false, 0, taking))).code).toBe("owner-changed");
        const block = await blockOf(disk.device);
        expect(block).toMatchObject({ sequence: 1, life: { nodeid: 2 } });
        const proved = takingOf({ block, proof: { kind: "fenced" } });
        const lapsed = await refusal(mountLower(source, stored, false, 0, { ...proved, mayMount: () => false }));
        expect([lapsed.code, (await blockOf(disk.device)).sequence]).toEqual(["lease-lapsed", 1]);
        // A late write of another life, with the same number.
        const other = takingOf({
          block: { ...block, life: { ...ofNode(3), epoch: block.epoch } },
          proof: { kind: "fenced" },
        });
        expect((await refusal(mountLower(source, stored, false, 0, other))).code).toBe("owner-changed");
        // It ends between the look and the write: the block is as it was.
        const lapsing = async (holds: number, from: typeof proved): Promise<string> => {
          let asked = 0;
          return (await refusal(mountLower(source, stored, false, 0, { ...from, mayMount: () => (asked += 1) <= holds }))).code;
        };
        expect([await lapsing(1, proved), await blockOf(disk.device)]).toMatchObject([
          "lease-lapsed",
          { sequence: 1, life: { nodeid: 2 } },
        ]);
        // After the write, and right before the mount: the block names this process, nothing is mounted.
        for (const [holds, sequence] of [
          [2, 2],
          [3, 3],
        ] as const) {
          const from = takingOf({ block: await blockOf(disk.device), proof: { kind: "fenced" } });
          const named = { state: "owned", sequence, life: { nodeid: 1 } };
          expect([await lapsing(holds, from), await blockOf(disk.device)]).toMatchObject(["lease-lapsed", named]);
          expect(showVolume(disk.device).inUse).toBeUndefined();
        }
      });
    });

    test(`${type}: a volume whose block names a living owner is neither set anew nor cleared`, { timeout: TIMEOUT_MS }, async () => {
      await withDisk(type, async (disk) => {
        await enableVolume(disk.device, bit);
        await nameOwner(disk.device, ofNode(2, { bootId: "another-boot" }));
        expect((await refusal(enableVolume(disk.device, bit))).code).toBe("still-owned");
        expect((await refusal(disableVolume(disk.device))).code).toBe("still-owned");
        await nameOwner(disk.device, ofNode(2, { pid: 2 ** 22 + 1 }));
        expect(await disableVolume(disk.device)).toBe(true);
      });
    });
  }

  test("a read-only device: two mounts harm nobody, and nothing is written", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const before = readFileSync(disk.image);
      const other = attachLoop(disk.image);
      for (const device of [disk.device, other]) run("blockdev", "--setro", device);
      const mounts = [await takeLower(disk.device, { readOnly: true }), await takeLower(other, { readOnly: true, nodeid: 2 })];
      expect(mounts.map((mount) => mount.readOnly)).toEqual([true, true]);
      for (const mount of mounts) await mount.release();
      expect(readFileSync(disk.image).equals(before)).toBe(true);
      run("blockdev", "--setrw", disk.device, other);
    });
  });

  test("an operator's word: only for the node that the block names, and only while it is not there", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const nodes = [1, 2].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: "10.0.0.1" }));
      const cluster = (members: number[], quorate = true, nodeid = 1): Parameters<typeof releaseByWord>[2] =>
        (async () => ({ info: { nodes, nodeid }, view: { members, quorate, quorumReason: "1 of 3 votes" } })) as unknown as Parameters<
          typeof releaseByWord
        >[2];
      const code = async (owner: string, at: Parameters<typeof releaseByWord>[2]): Promise<string> =>
        (await refusal(releaseByWord(disk.device, owner, at))).code;
      expect(await code("node2", cluster([1]))).toBe("not-owned");
      await nameOwner(disk.device, ofNode(2, { bootId: "another-boot" }));
      expect(await code("node1", cluster([1]))).toBe("other-owner");
      expect(await code("node2", cluster([1, 2]))).toBe("node-is-there");
      expect(await code("node2", cluster([1], false))).toBe("no-quorum");
      run("mount", disk.device, disk.mountPoint);
      expect(await code("node2", cluster([1]))).toBe("device-busy");
      run("umount", disk.mountPoint);
      // Another node claims it while the command looks.
      const claim = Buffer.from(encodeOwnerBlock({ ...(await blockOf(disk.device)), state: "owned", life: ofNode(3, {}), sequence: 9 }));
      const offset = storedBit(disk.device).ownerBlock ?? 0;
      // At the last that it asks before it writes.
      let asked = 0;
      const claimed: Parameters<typeof releaseByWord>[2] = async () => {
        asked += 1;
        if (asked === 2) overwrite(disk, offset, claim);
        return cluster([1])();
      };
      expect(await code("node2", claimed)).toBe("changed-meanwhile");
      expect((await blockOf(disk.device)).life).toMatchObject({ nodeid: 3 });
      await nameOwner(disk.device, ofNode(2, { bootId: "another-boot" }));
      // The owner is back while the command looks: it is mounted there, and writes no block.
      const looks = [cluster([1]), cluster([1, 2])];
      const back = async () => (looks.shift() ?? cluster([1, 2]))();
      expect([await code("node2", back), (await blockOf(disk.device)).state]).toEqual(["node-is-there", "owned"]);
      expect(await releaseByWord(disk.device, "2", cluster([1]))).toMatchObject({ nodeid: 2 });
      await (await takeLower(disk.device)).release();
      // Of its own place the node itself may say it, if that was another boot.
      await nameOwner(disk.device, ofNode(2, { bootId: thisMachine.bootId() }));
      expect(await code("node2", cluster([1, 2], true, 2))).toBe("node-is-there");
      await nameOwner(disk.device, ofNode(2, { bootId: "another-boot" }));
      expect(await releaseByWord(disk.device, "2", cluster([1, 2], true, 2))).toMatchObject({ nodeid: 2 });
      await (await takeLower(disk.device)).release();
    });
  });

  test("MMP: cleared with the proof that the owner it names is over, else the kernel waits", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const lower = await takeLower(disk.device, { nodeid: 2 });
      try {
        await crashed(disk, async (device) => {
          expect(showVolume(device).mmp).toMatchObject({ state: "in-use", hostName: hostname(), device: path.basename(disk.device) });
          // The dead machine had that very device name and host name: cleared.
          const began = performance.now();
          await (await takeLower(device, { proof: { kind: "fenced" } })).release();
          expect(performance.now() - began).toBeLessThan(MMP_WAIT_MS);
          expect(showVolume(device).mmp?.state).toBe("clean");
        });
        await crashed(disk, async (device) => {
          // The proof is for another machine than the one that MMP names (a stray mount after the death).
          await nameOwner(device, ofNode(2, { device: disk.device, hostName: "another" }));
          const began = performance.now();
          const waits = takeLower(device, { proof: { kind: "fenced" } });
          // This thread goes on meanwhile.
          let turns = 0;
          const ticking = setInterval(() => (turns += 1), 100);
          await (await waits).release();
          clearInterval(ticking);
          expect(performance.now() - began).toBeGreaterThan(MMP_WAIT_MS);
          expect(turns).toBeGreaterThan(50);
        });
      } finally {
        await lower.release();
      }
    });
  });

  test("MMP of somebody else stays when the volume is cleared; ours goes", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("ext4", async (disk) => {
      const on = (): boolean => showVolume(disk.device).mmp !== undefined;
      await enableVolume(disk.device, bit);
      expect([on(), storedBit(disk.device).mmp]).toEqual([true, true]);
      await disableVolume(disk.device);
      expect(on()).toBe(false);
      run("tune2fs", "-O", "mmp", disk.device);
      await enableVolume(disk.device, bit);
      expect([on(), storedBit(disk.device).mmp]).toEqual([true, false]);
      await disableVolume(disk.device);
      expect(on()).toBe(true);
    });
  });

  test("MMP: a plain mount of the disk on another machine is refused while the owner has it", { timeout: TIMEOUT_MS }, async () => {
    await withDisk("ext4", async (disk) => {
      await enableVolume(disk.device, bit);
      const lower = await takeLower(disk.device);
      const stray = attachLoop(disk.image);
      try {
        expect(() => run("mount", stray, disk.mountPoint)).toThrow(/already mounted|busy/i);
        const elsewhere = await refusal(mountDetached(stray, "ext4", [], 0));
        expect([elsewhere.code, elsewhere.exitStatus]).toEqual(["mounted-elsewhere", 32]);
        writeFileSync(`/proc/self/fd/${lower.rootFd}/goes`, "on");
      } finally {
        await lower.release();
      }
      checkFileSystem("ext4", disk.device);
    });
  });
});
