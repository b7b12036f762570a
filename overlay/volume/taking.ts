/**
 * Taking a device for a mount: the owner's block must be what the claim rests on, names this life before anything else is written, and
 * is given back after the device was released.
 *
 * The block cannot be compared and written in one step. So it is read again right before the write and read back right after it, and
 * the lease of this node must hold before and after: a node that was stopped in between finds that the others may have gone on,
 * and does not mount.
 */
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import { forgetOldErrors, kernelName, readOwnerBlock, writeOwnerBlock } from "./direct-block.ts";
import type { DiskSteps } from "./disk-steps.ts";
import type { Life } from "./life.ts";
import { clearMmp, isHeldBy, machineName, readMmp } from "./mmp.ts";
import { isSameBlock, type OwnerBlock } from "./owner-block.ts";
import type { Claim } from "./owner-event.ts";
import type { ClaimingProcess } from "./owner-record.ts";
import type { VolumeSuperblock } from "./probe.ts";
import { type Machine, thisMachine } from "./prove-gone.ts";

/** A damaged block is read again after that, before the disk counts as another's. */
const DAMAGED_AGAIN_MS = 500;

export interface Taking {
  /** The client of the lock manager that mounts. */
  readonly self: Pick<Life, "nodeid" | "incarnation" | "clientId">;
  readonly claim: Claim;
  /** The lease of this node holds. */
  readonly mayMount: () => boolean;
  readonly disk: Pick<DiskSteps, "ask" | "carryOut">;
  /** Before anything is written: cleanAfter of what is to be mounted, 0: not known. */
  readonly foundClean?: (epoch: number) => void;
}

/** How the owner's block is read and written; a seam for the simulation (test/sim/owner-disk). */
export interface BlockAccess {
  readonly readOwnerBlock: (device: string, offset: number, volumeUuid: string) => Promise<OwnerBlock>;
  readonly writeOwnerBlock: (device: string, offset: number, block: OwnerBlock) => Promise<void>;
  readonly forgetOldErrors: (device: string) => Promise<void>;
  readonly readMmp: typeof readMmp;
  readonly clearMmp: typeof clearMmp;
  /** On which machine that is. */
  readonly machine: Pick<Machine, "bootId" | "machineId" | "startTimeOf">;
}

const deviceAccess: BlockAccess = { readOwnerBlock, writeOwnerBlock, forgetOldErrors, readMmp, clearMmp, machine: thisMachine };

interface Device {
  readonly device: string;
  readonly offset: number;
  readonly volumeUuid: string;
  readonly superblock: VolumeSuperblock;
  /** Nothing can be written: two read-only mounts harm nobody. The rule for reading stays, because an owner elsewhere may write. */
  readonly readOnly: boolean;
  readonly epoch: number;
  readonly taking: Taking;
  /** The device itself, if not given. */
  readonly blocks?: BlockAccess;
}

export interface Taken {
  /** Of the life that the block names now. */
  readonly epoch: number;
  /**
   * To be asked right before mount(2): this node may have been stopped since, and a late write of yet another one may have covered the block, so
   * that the others did not know. Throws "lease-lapsed".
   */
  requireLease(): void;
  /** The mounted file system is on the device of that number (stat.dev): a look at another one says nothing from now on. */
  mountedOn(number: number): void;
  /**
   * The block still names this life: nobody has written it since. Throws "owner-changed", "owner-block-damaged",
   * "owner-block-version", "device-io", "device-moved".
   */
  confirm(): Promise<void>;
  /** After nothing of this mount can reach the device any more. Throws what confirm does, and "owner-block-not-on-disk". */
  giveBack(): Promise<void>;
  /**
   * In place of a mount, which failed or was not tried: gives back and throws `error`. Without a lease nothing is written: then it throws
   * "lease-lapsed" or "not-given-back", and the end of this process is what lets others go on.
   */
  undo(error: unknown): Promise<never>;
}

/** Throws OperatingError "owner-changed", "lease-lapsed", "owner-block-damaged", "owner-block-version", "device-io", "mmp". */
export async function takeDevice(at: Device): Promise<Taken> {
  const { device, offset, volumeUuid, superblock, taking, blocks = deviceAccess } = at;
  const { claim } = taking;
  requireLease(at);
  const { disk } = taking;
  const found = await disk.ask("reading the owner's block", () => blocks.readOwnerBlock(device, offset, volumeUuid));
  requireSame(device, found, claim.block);
  const epoch = Math.max(at.epoch, found.epoch + 1);
  if (at.readOnly)
    return {
      epoch: at.epoch,
      confirm: async () => {},
      giveBack: async () => {},
      undo: async (error) => {
        throw error;
      },
      mountedOn: () => {},
      requireLease: () => requireLease(at),
    };
  const owned: OwnerBlock = {
    volumeUuid,
    sequence: found.sequence + 1,
    epoch,
    atMs: Date.now(),
    state: "owned",
    life: ownLife(taking.self, epoch, device, blocks.machine),
  };
  await disk.ask("looking whether it answers", () => blocks.forgetOldErrors(device));
  await disk.carryOut("writing the owner's block", async () => {
    requireLease(at);
    // A write that failed may have reached the disk all the same.
    await blocks.writeOwnerBlock(device, offset, owned).catch((error: unknown) => Promise.reject(notGivenBack(device, error, error)));
  });
  requireLease(at);
  let mounted: number | null = null;
  const look = async (): Promise<void> => {
    const read = blocks.readOwnerBlock(device, offset, volumeUuid).then((block) => requireSame(device, block, owned));
    const found = await read.then(() => null, asUnknown);
    if (found === null || isAnothers(found.error)) requireDevice(device, mounted);
    if (found !== null) throw found.error;
  };
  /** What is thrown away for a damaged block does not come back, so one read is not enough. */
  const lookTwice = (): Promise<void> =>
    look().catch(async (error: unknown) => {
      if (!isDamaged(error)) throw error;
      await sleep(DAMAGED_AGAIN_MS);
      return look();
    });
  // Once it is another's it stays so, also if it cannot be read any more.
  let lost: unknown = null;
  const confirm = async (): Promise<void> => {
    if (lost !== null) throw lost;
    await lookTwice().catch((error: unknown) => {
      if (isAnothers(error)) lost = error;
      throw error;
    });
  };
  const giveBack = async (): Promise<void> => {
    await confirm();
    await blocks.writeOwnerBlock(device, offset, { ...owned, state: "released", sequence: owned.sequence + 1, atMs: Date.now() });
  };
  const undoTaking = async (error: unknown): Promise<never> => {
    if (isLapsed(error)) throw error;
    return undo(device, error, async () => {
      requireLease(at);
      await giveBack();
    });
  };
  try {
    if (superblock.type === "ext4" && claim.proof !== null && found.state === "owned") {
      const mmp = await disk.ask("reading MMP's block", () => blocks.readMmp(device, superblock));
      if (mmp !== null && isHeldBy(mmp, found.life))
        await disk.carryOut("clearing MMP", (report) => blocks.clearMmp(device, () => requireLease(at), report));
    }
  } catch (error) {
    return undoTaking(error);
  }
  const mountedOn = (number: number): void => void (mounted = number);
  return { epoch, confirm, giveBack, undo: undoTaking, mountedOn, requireLease: () => requireLease(at) };
}

const asUnknown = (error: unknown): { readonly error: unknown } => ({ error });
const isLapsed = (error: unknown): boolean => error instanceof OperatingError && error.code === "lease-lapsed";
const isDamaged = (error: unknown): boolean => error instanceof OperatingError && error.code === "owner-block-damaged";

/** A link such as those in /dev/disk may lead to another disk since the mount, to a copy with the same uuid, say. */
function requireDevice(device: string, mounted: number | null): void {
  const number = statSync(device, { throwIfNoEntry: false })?.rdev;
  if (mounted === null || number === mounted) return;
  throw new OperatingError(
    `${device} is not the disk any more that is mounted: it ${number === undefined ? "is gone" : "leads to another"}`,
    {
      code: "device-moved",
      hint: "Two disks may have the same uuid, such as a copy: look at lsblk -f, and take the copy away.",
      exitStatus: 32,
    },
  );
}

/** What Taken.confirm has thrown says that the disk is another's, or may be. A block of a later version is one that this life did not write. */
export function isAnothers(error: unknown): boolean {
  return error instanceof OperatingError && ["owner-changed", "owner-block-damaged", "owner-block-version"].includes(error.code);
}

/** Throws `error`; or "not-given-back", if the block may go on naming this process, whose end alone lets others go on then. */
export async function undo(device: string, error: unknown, giveBack: () => Promise<void>): Promise<never> {
  await giveBack().catch((failure: unknown) => Promise.reject(notGivenBack(device, error, failure)));
  throw error;
}

function notGivenBack(device: string, error: unknown, failure: unknown): OperatingError {
  const words = (one: unknown): string => (one instanceof Error ? one.message : String(one));
  const why = failure === error ? "" : ` (${words(failure)})`;
  return new OperatingError(`${words(error)}; the owner's block of ${device} may name this mount now${why}`, {
    code: "not-given-back",
    hint: "This mount ends, which lets another node go on. See dmesg, and mount again when the disk is well.",
    exitStatus: 32,
    cause: error,
  });
}

function ownLife(self: Taking["self"], epoch: number, device: string, machine: BlockAccess["machine"]): Life {
  const { nodeid, incarnation, clientId } = self;
  const process = claimingProcess(device, machine);
  return { nodeid, incarnation, clientId, epoch, hostName: machineName(), ...process, startTime: BigInt(process.startTime) };
}

/** This process; `device`: null for a directory. Throws OperatingError "device-name", "machine-id-unreadable". */
export function claimingProcess(device: string | null, machine: BlockAccess["machine"] = thisMachine): ClaimingProcess {
  return {
    bootId: machine.bootId(),
    machineId: machine.machineId(),
    pid: process.pid,
    startTime: Number(machine.startTimeOf(process.pid) ?? 0n),
    device: device === null ? "" : kernelName(device),
  };
}

function requireSame(device: string, found: OwnerBlock, expected: OwnerBlock | null): void {
  if (isSameBlock(found, expected)) return;
  const { life } = found;
  const who = life === null ? "nobody" : `process ${life.pid} of node ${life.nodeid} on ${life.hostName}`;
  throw new OperatingError(
    `${device}: the owner's block was written by another node meanwhile: it names ${who} (${found.state}, epoch ${found.epoch})`,
    {
      code: "owner-changed",
      hint: "This node was stopped for long, or cut off: mount again when it is back in the cluster. Or another cluster has the disk, too.",
      exitStatus: 32,
    },
  );
}

function requireLease({ device, taking }: Device): void {
  if (taking.mayMount()) return;
  throw new OperatingError(`${device} is not mounted: the lease of this node ended, so other nodes may have gone on without it`, {
    code: "lease-lapsed",
    hint: "This node was stopped for long, or cut off: mount again when it is back in the cluster.",
    exitStatus: 32,
  });
}
