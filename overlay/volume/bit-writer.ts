/**
 * Sets and clears the clustered bit. On a device: by a mount that is in no namespace (hazard C2), only when nobody has the device
 * and it is clean, and the result is read back from the disk; with the owner's block and, on ext4, MMP. On a directory: at once.
 */
import { closeSync, constants, fsyncSync, openSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { BIT_XATTR, type Bit, EPOCH_XATTR, type StoredBit, encodeBit } from "./bit.ts";
import { MountAttr, getAttribute, mountDetached, releaseDetached, removeAttribute, setAttribute } from "./detached.ts";
import { PLACE_XATTR, requireNotMounted, requireNotNested, requirePlace, setPlace } from "./directory-place.ts";
import { isFileSystemRoot } from "./file-system-root.ts";
import { describeHolders, isReadOnlyDevice, readDirect, tryExclusive } from "./device.ts";
import { readOwnerBlock } from "./direct-block.ts";
import { MMP_BYTES, decodeMmp, setMmp } from "./mmp.ts";
import { OWNER_BLOCK_BYTES, type OwnerBlock, encodeOwnerBlock } from "./owner-block.ts";
import { stillOwned } from "./owner-claim.ts";
import { checkOwnerFile, createOwnerFile, removeOwnerFile } from "./owner-file.ts";
import { removeOrphanDirectory } from "./orphan-directory.ts";
import { type BitState, type Probe, bitState, dirtyReason, probeDevice, requireJournal } from "./probe.ts";
import { thisMachine } from "./prove-gone.ts";

/** How a change of the bit is followed. */
export interface BitWork {
  /** What is done now, for people. */
  readonly say: (words: string) => void;
  /** Nothing was written before it is called. It throws, and nothing is; after it the change is brought to its end. */
  readonly begin: () => Promise<void>;
}

/**
 * Sets the bit of a device, and makes its owner's block. Where the bit is set to just that already, only what is missing or damaged
 * is made: a block for a bit of format 1, MMP. Throws OperatingError "no-journal", "device-busy", "dirty", "device-read-only", "other-bit",
 * "fast-commit", "bad-bit", "still-owned", "owner-block-version", "name-taken", "owner-file", "mmp", and what probeDevice and `begin` throw.
 */
export async function enableDevice(device: string, bit: Bit, { say, begin }: BitWork): Promise<void> {
  encodeBit(bit); // Words that may not stand in it.
  say(`looking at ${device}`);
  const seen = look(device, "enable");
  const { probe } = seen;
  requireJournal(device, probe.superblock);
  const stored = refuseOtherBit(device, probe.bit, bit);
  const mmp = probe.superblock.type === "ext4" && (stored?.mmp === true || !probe.superblock.hasMmp);
  const isWhole = stored !== null && (await hasOwnerBlock(seen, stored, say));
  await begin();
  if (!isWhole) {
    say(`writing the owner's block and the clustered bit of ${device}`);
    let offset = 0;
    await changeRoot(seen, (rootFd) => {
      offset = createOwnerFile(rootFd, encodeOwnerBlock(firstBlock(bit, epochOf(rootFd, device))), device);
      setAttribute(rootFd, BIT_XATTR, encodeBit(bit, { ownerBlock: offset, mmp }), device);
    });
    await readOwnerBlock(device, offset, bit.uuid);
  }
  if (mmp && probe.superblock.type === "ext4" && !probe.superblock.hasMmp) {
    say(`switching ext4's multiple-mount protection of ${device} on`);
    requireIdle(probeDevice(device), "enable");
    await setMmp(device, true, say);
  }
  const after = probeDevice(device).bit;
  if (after.kind !== "set" || after.bit.uuid !== bit.uuid || after.bit.ownerBlock === null) throw notOnDisk(device, "set");
}

/**
 * Clears the bit, whatever it says, and all that came with it: first the bit, while the kernel holds ext4's MMP, so that no node mounts from then on that has
 * not seen it; then MMP. Of a bit that a later coverlay wrote nobody here knows the owner. True: there was one. Throws as enableDevice, and "bit-version".
 */
export async function disableDevice(device: string, { say, begin }: BitWork): Promise<boolean> {
  say(`looking at ${device}`);
  if (probeDevice(device).bit.kind === "none") return false;
  const seen = look(device, "disable");
  const { probe } = seen;
  if (probe.bit.kind === "bad" && probe.bit.error.code === "bit-version") throw probe.bit.error;
  const stored = probe.bit.kind === "set" ? probe.bit.bit : null;
  if (stored !== null) await hasOwnerBlock(seen, stored, say);
  await begin();
  say(`clearing the clustered bit of ${device}`);
  await changeRoot(seen, (rootFd) => {
    removeAttribute(rootFd, BIT_XATTR, device);
    removeAttribute(rootFd, EPOCH_XATTR, device);
    removeOwnerFile(rootFd, device);
    removeOrphanDirectory(rootFd, false);
  });
  const cleared = probeDevice(device);
  if (cleared.bit.kind !== "none") throw notOnDisk(device, "cleared");
  if (stored?.mmp === true && cleared.superblock.type === "ext4" && cleared.superblock.hasMmp) {
    say(`switching ext4's multiple-mount protection of ${device} off: that waits 11 s for another machine's sign of life`);
    try {
      requireIdle(cleared, "disable");
      await setMmp(device, false, say);
    } catch (error) {
      throw mmpStays(device, error);
    }
  }
  return true;
}

function mmpStays(device: string, cause: unknown): OperatingError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new OperatingError(`${device}: the clustered bit is cleared, but ext4's multiple-mount protection is still on: ${why}`, {
    code: "mmp",
    hint: `Nothing but time is lost by it. When it is mounted nowhere: tune2fs -O ^mmp ${device}`,
    cause,
    exitStatus: 32,
  });
}

/** What a command goes by. */
interface Seen {
  readonly probe: Probe;
  readonly verb: Verb;
  /** The owner's block as it is on the disk; null: there is none. */
  readonly block: Buffer | null;
}

type Verb = "enable" | "disable";

function look(device: string, verb: Verb): Seen {
  const probe = probeDevice(device);
  requireIdle(probe, verb);
  return { probe, verb, block: ownerBlockBytes(probe) };
}

function ownerBlockBytes({ device, bit }: Probe): Buffer | null {
  const offset = bit.kind === "set" ? bit.bit.ownerBlock : null;
  return offset === null ? null : readDirect(device, offset, OWNER_BLOCK_BYTES);
}

/** Between the look and the change a person may have mounted it on another node: this command may have stood still for long. */
function requireUnchanged({ probe, verb, block }: Seen): void {
  const now = look(probe.device, verb);
  const isSame = JSON.stringify(now.probe.bit) === JSON.stringify(probe.bit) && isSameBlock(now.block, block);
  if (!isSame) throw changedMeanwhile(probe.device, verb);
}

function isSameBlock(one: Buffer | null, other: Buffer | null): boolean {
  return one === null || other === null ? one === other : one.equals(other);
}

function changedMeanwhile(device: string, verb: Verb): OperatingError {
  return new OperatingError(
    `${device} has changed since this command looked at it: another node has mounted it, or another command changes it`,
    {
      code: "changed-meanwhile",
      hint: `Unmount it everywhere, then run it again: coverlay volume ${verb} ${device}`,
      exitStatus: 32,
    },
  );
}

function firstBlock({ uuid }: Bit, epoch: number): OwnerBlock {
  return { volumeUuid: uuid, sequence: 0, epoch, atMs: Date.now(), state: "released", life: null };
}

/** The epochs of owners go on where they were. */
function epochOf(rootFd: number, device: string): number {
  const epoch = Number(getAttribute(rootFd, EPOCH_XATTR, device)?.toString("latin1") ?? "0");
  return Number.isSafeInteger(epoch) && epoch > 0 ? epoch : 0;
}

/**
 * False: it has to be made anew; its file system is clean and unused, so its owner, if there is one, is none any more, or the command's
 * user did not unmount it elsewhere as the refusal of a damaged block says. Throws "still-owned" if it names a life that may go on, and
 * "owner-block-version" if it may: a later coverlay wrote it.
 */
async function hasOwnerBlock(seen: Seen, stored: StoredBit, say: BitWork["say"]): Promise<boolean> {
  const { device } = seen.probe;
  if (stored.ownerBlock === null) return false;
  let block: OwnerBlock;
  try {
    block = await readOwnerBlock(device, stored.ownerBlock, stored.uuid);
  } catch (error) {
    if (error instanceof OperatingError && error.code === "owner-block-damaged") return false;
    throw error;
  }
  if (block.state === "owned" && !endedHere(block.life)) {
    throw stillOwned(block.life, block.atMs, `node ${block.life.nodeid}`, "its machine or its boot is another one, or the process runs");
  }
  const offset = stored.ownerBlock;
  let inPlace = true;
  say(`looking where the owner's block of ${device} is`);
  await changeRoot(seen, async (rootFd) => {
    try {
      await checkOwnerFile(rootFd, offset, device);
    } catch (error) {
      if (!(error instanceof OperatingError)) throw error;
      inPlace = false;
    }
  });
  return inPlace;
}

/** Its machine is this one, in this boot, and the process is gone; the device is free, as was looked at before. */
function endedHere(life: { readonly bootId: string; readonly pid: number; readonly startTime: bigint }): boolean {
  return life.bootId === thisMachine.bootId() && thisMachine.startTimeOf(life.pid) !== life.startTime;
}

async function changeRoot(seen: Seen, change: (rootFd: number) => void | Promise<void>): Promise<void> {
  const { probe, verb, block } = seen;
  const attributes = MountAttr.NODEV | MountAttr.NOEXEC | MountAttr.NOSUID;
  const mount = await mountDetached(probe.device, probe.superblock.type, [], attributes, () => requireUnchanged(seen));
  let failure: unknown;
  try {
    // A node that claims writes the block before it mounts.
    if (!isSameBlock(ownerBlockBytes(probe), block)) throw changedMeanwhile(probe.device, verb);
    await change(mount.rootFd);
  } catch (error) {
    failure = error;
  }
  await releaseDetached(mount, probe.device);
  if (failure !== undefined) throw failure;
}

function requireIdle(probe: Probe, verb: Verb): void {
  const { device } = probe;
  if (tryExclusive(device) !== "free") {
    throw new OperatingError(`${device} is ${describeHolders(device)}`, {
      code: "device-busy",
      hint: `Unmount it everywhere first, on all nodes: coverlay volume ${verb} changes a disk that nobody uses.`,
      exitStatus: 32,
    });
  }
  if (isReadOnlyDevice(device)) {
    throw new OperatingError(`${device} is a read-only device`, {
      code: "device-read-only",
      hint: "The bit is stored on the disk: make the device writable (blockdev --setrw), or name its writable original.",
      exitStatus: 32,
    });
  }
  requireMmpClean(probe);
  const dirty = dirtyReason(device, probe.superblock);
  if (dirty === null) return;
  const fsck = probe.superblock.type === "ext4" ? `e2fsck -f ${device}` : `mount it once, unmount it, and xfs_repair -n ${device}`;
  throw new OperatingError(`${device} (${probe.superblock.type}) is not clean: ${dirty}`, {
    code: "dirty",
    hint: `Either another machine has it mounted: unmount it there. Or it was not unmounted: check it first (${fsck}).`,
    exitStatus: 32,
  });
}

function requireMmpClean({ device, superblock }: Probe): void {
  if (superblock.type !== "ext4" || !superblock.hasMmp) return;
  const mmp = decodeMmp(readDirect(device, superblock.mmpOffset, MMP_BYTES));
  if (mmp === null || mmp.state === "clean") return;
  throw new OperatingError(`${device}: ext4's MMP says that ${mmp.hostName} has it in use, as ${mmp.deviceName}`, {
    code: "dirty",
    hint: `Unmount it there. If that machine went down with it: e2fsck -f ${device}`,
    exitStatus: 32,
  });
}

/** The bit that is there, if it is set to just that. */
function refuseOtherBit(where: string, state: BitState, wanted: Bit): StoredBit | null {
  if (state.kind === "none") return null;
  if (state.kind === "bad") throw state.error;
  const found = state.bit;
  if (found.cluster === wanted.cluster && found.uuid === wanted.uuid && found.volume === wanted.volume) return found;
  throw new OperatingError(`${where} belongs already to cluster ${found.cluster} as volume ${found.volume} (${found.uuid})`, {
    code: "other-bit",
    hint: `If that cluster does not use it any more: coverlay volume disable ${where}`,
    exitStatus: 32,
  });
}

function notOnDisk(device: string, what: string): OperatingError {
  return new OperatingError(`${device}: the bit was ${what}, but the disk does not say so`, {
    code: "bit-not-on-disk",
    hint: "Something between here and the disk keeps writes back: see dmesg, and whether the path is the one you think.",
    exitStatus: 32,
  });
}

/** The bit of a directory. */
export function probeDirectory(directory: string): BitState {
  return withDirectory(directory, (fd) => bitState(getAttribute(fd, BIT_XATTR, directory), directory));
}

/** Hazard R20. Throws OperatingError "copied-directory", "nested-volume". */
export function requireOwnPlace(directory: string): void {
  withDirectory(directory, (fd) => requirePlace(fd, directory));
  requireNotNested(directory);
}

/** As enableDevice, for a lower of kind `directory`. */
export function enableDirectory(directory: string, bit: Bit): void {
  const value = encodeBit(bit);
  withDirectory(directory, (fd) => {
    // For its refusals.
    isFileSystemRoot(fd, directory);
    requireNotNested(directory);
    if (refuseOtherBit(directory, bitState(getAttribute(fd, BIT_XATTR, directory), directory), bit) !== null) {
      return requirePlace(fd, directory);
    }
    requireNotMounted(directory);
    setPlace(fd, directory);
    setAttribute(fd, BIT_XATTR, value, directory);
    fsyncSync(fd);
  });
}

export function disableDirectory(directory: string): boolean {
  return withDirectory(directory, (fd) => {
    const was = getAttribute(fd, BIT_XATTR, directory) !== null;
    requireNotMounted(directory);
    removeAttribute(fd, BIT_XATTR, directory);
    removeAttribute(fd, EPOCH_XATTR, directory);
    removeAttribute(fd, PLACE_XATTR, directory);
    removeOrphanDirectory(fd, true);
    fsyncSync(fd);
    return was;
  });
}

function withDirectory<T>(directory: string, use: (fd: number) => T): T {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}
