/**
 * Growing the file system of a volume while it is mounted on its owner, to the size of its device. By the ioctls that resize2fs(8) and
 * xfs_growfs(8) use: both tools look for a mount point, and the lower has none (hazard C2). It is done in steps, so that a release waits for one
 * step alone. After each the file system is whole: when the owner dies, the next one goes on from there.
 */
import { readFileSync } from "node:fs";
import { E, errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nativeAddon, STATFS } from "../../native/index.ts";
import { deviceBytes, READ_SIZE_AGAIN } from "./device.ts";
import { deviceShort, probeSuperblockInPool } from "./probe.ts";

/** So much is added by one call of the kernel. It cannot be interrupted. */
export const GROW_STEP_BYTES_MAX: number = 2 ** 40;

/** How far it has come. Sizes are in bytes. */
export interface GrowthReport {
  /** `stopped`: the volume was released before the end, or the disk is another's. */
  readonly kind: "growing" | "grown" | "stopped" | "failed";
  readonly fromBytes: number;
  /** Now. */
  readonly bytes: number;
  /** Of the device. */
  readonly toBytes: number;
  readonly tookMs: number;
  /** Why it has stopped or failed, and what to do. */
  readonly code: string | null;
  readonly why: string | null;
  readonly hint: string | null;
}

export interface GrowthDisk {
  readonly device: string;
  readonly type: string;
  readonly rootFd: number;
  /** LowerMount.confirm: the owner's block still names this life. */
  readonly confirm: () => Promise<void>;
}

/** The seams to the kernel, for tests. */
export interface GrowthPort {
  readonly deviceBytes: (device: string) => number;
  readonly fileSystemBytes: (disk: GrowthDisk) => Promise<number>;
  /** 0, or -errno. */
  readonly grow: (disk: GrowthDisk, bytes: number) => Promise<number>;
  /** What statfs(2) counts, of a file system that is being grown. */
  readonly countedBytes: (disk: GrowthDisk) => number;
  /** This process has CAP_SYS_RESOURCE, which ext4 asks for. */
  readonly mayResize: () => boolean;
  readonly nowMs: () => number;
}

/** linux/capability.h: CAP_SYS_RESOURCE, as a bit. */
const CAP_SYS_RESOURCE = 1n << 24n;

/** Of this process. */
export function mayResize(status: string = readFileSync("/proc/self/status", "latin1")): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  return (BigInt(`0x${effective}`) & CAP_SYS_RESOURCE) !== 0n;
}

const kernelPort: GrowthPort = {
  deviceBytes,
  fileSystemBytes: mountedBytes,
  grow: async ({ type, rootFd }, bytes) => {
    const { sync } = nativeAddon().pool;
    if (type !== "xfs") return sync.growExt4(rootFd, bytes);
    const result = await sync.growXfs(rootFd, bytes);
    // Hazard R18: until then the new size stands in the log alone.
    return result < 0 ? result : sync.placeSuperblockXfs(rootFd);
  },
  countedBytes: ({ rootFd }) => {
    const fields = new Float64Array(STATFS.FIELDS);
    if (nativeAddon().sync.statfs(rootFd, fields) < 0) return 0;
    return (fields[STATFS.BLOCKS] ?? 0) * (fields[STATFS.FRSIZE] ?? 0);
  },
  mayResize: () => mayResize(),
  nowMs: () => performance.now(),
};

/**
 * The size of a file system that is mounted here. The kernel writes the superblock of ext4 in its place at the end of each growth, and when it
 * replays the journal. Throws OperatingError "device-short", "size-failed".
 */
export async function mountedBytes({ device, type, rootFd }: Pick<GrowthDisk, "device" | "type" | "rootFd">): Promise<number> {
  if (type !== "xfs") return (await probeSuperblockInPool(device)).bytes;
  const bytes = await nativeAddon().pool.sync.bytesXfs(rootFd);
  if (bytes >= 0) return bytes;
  throw new OperatingError(`${device}: the size of its XFS file system cannot be read: ${errnoName(-bytes)}`, {
    code: "size-failed",
    hint: "See dmesg.",
    exitStatus: 32,
  });
}

/**
 * Hazard R18: the kernel compares the sizes before it replays the journal, and a growth may be in the journal alone. Throws OperatingError
 * "device-short".
 */
export async function requireDeviceWhole(mounted: Pick<GrowthDisk, "device" | "type" | "rootFd">): Promise<void> {
  const { device, type } = mounted;
  const [bytes, has] = [await mountedBytes(mounted), deviceBytes(device)];
  if (has < bytes) throw deviceShort(device, has, `its ${type} file system has ${bytes}`);
}

interface Running {
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly countedBytes: number;
  readonly sinceMs: number;
  bytes: number;
}

/** Of one mounted disk, for as long as it is mounted. */
export class Growth {
  readonly #disk: GrowthDisk;
  readonly #port: GrowthPort;
  #running: Running | null = null;
  #last: GrowthReport | null = null;
  /** Of the growth that is under way, or of what was to begin one. */
  #ended: Promise<unknown> = Promise.resolve();
  #beginning: Promise<GrowthReport> | null = null;
  #isForbidden = false;

  constructor(disk: GrowthDisk, port: GrowthPort = kernelPort) {
    this.#disk = disk;
    this.#port = port;
  }

  /** The one under way, or else the last one; null: there was none. */
  get report(): GrowthReport | null {
    const running = this.#running;
    if (running === null) return this.#last;
    const { fromBytes, toBytes, sinceMs, countedBytes } = running;
    // Within a step ext4 shows what it has added so far.
    const added = Math.max(0, this.#port.countedBytes(this.#disk) - countedBytes);
    const bytes = Math.min(toBytes, Math.max(running.bytes, fromBytes + added));
    return { kind: "growing", fromBytes, bytes, toBytes, tookMs: this.#tookMs(sinceMs), code: null, why: null, hint: null };
  }

  /**
   * Begins, unless one is under way, and gives how far it is; it goes on by itself. Throws OperatingError: "no-room", "device-short", "released",
   * and what `confirm` throws.
   */
  begin(): Promise<GrowthReport> {
    const { report } = this;
    if (report?.kind === "growing") return Promise.resolve(report);
    this.#beginning ??= this.#begin().finally(() => {
      this.#beginning = null;
    });
    return this.#beginning;
  }

  /** The disk is about to be given back: resolves when nothing of this is under way. What is under way ends after its step. */
  async stop(): Promise<void> {
    this.#isForbidden = true;
    await this.#beginning?.catch(() => undefined);
    await this.#ended;
  }

  async #begin(): Promise<GrowthReport> {
    const { device } = this.#disk;
    const fromBytes = await this.#port.fileSystemBytes(this.#disk);
    const toBytes = this.#port.deviceBytes(device);
    if (toBytes < fromBytes) throw deviceShort(device, toBytes, `its file system has ${fromBytes}`);
    if (toBytes === fromBytes) throw noRoom(device, fromBytes);
    await this.#disk.confirm();
    if (this.#isForbidden) throw released(device);
    const countedBytes = this.#port.countedBytes(this.#disk);
    const running = { fromBytes, toBytes, countedBytes, bytes: fromBytes, sinceMs: this.#port.nowMs() };
    this.#running = running;
    this.#ended = this.#run(running);
    return this.report ?? this.#end("growing", running);
  }

  /** Never rejects. */
  async #run(running: Running): Promise<void> {
    this.#last = await this.#goOn(running);
    this.#running = null;
  }

  async #goOn(running: Running): Promise<GrowthReport> {
    const { toBytes } = running;
    try {
      while (running.bytes < toBytes) {
        if (this.#isForbidden) return this.#end("stopped", running, released(this.#disk.device));
        const before = running.bytes;
        await this.#step(before, Math.min(toBytes, before + GROW_STEP_BYTES_MAX));
        running.bytes = await this.#port.fileSystemBytes(this.#disk);
        // The rest is too little for the file system: a group needs some blocks.
        if (running.bytes === before) break;
        await this.#disk.confirm();
      }
      if (running.bytes === running.fromBytes) return this.#end("failed", running, noRoom(this.#disk.device, running.bytes));
      return this.#end("grown", running);
    } catch (error) {
      const known =
        error instanceof OperatingError
          ? error
          : new OperatingError(String(error), { code: "not-grown", hint: "See dmesg.", cause: error });
      return this.#end("failed", running, known);
    }
  }

  async #step(before: number, bytes: number): Promise<void> {
    const result = await this.#port.grow(this.#disk, bytes);
    if (result >= 0) return;
    const { device, type } = this.#disk;
    const errno = -result;
    const hints: Readonly<Record<number, string>> = {
      [E.EPERM]: this.#port.mayResize()
        ? "The kernel has found errors in it: unmount the volume on all nodes, and run fsck."
        : "The mount has no CAP_SYS_RESOURCE, which the kernel asks for: a container has to be given it. Or unmount the volume everywhere, and run resize2fs.",
      [E.EBUSY]: "Another program grows it: wait until that is done.",
      [E.EAGAIN]: "Another program grows it: wait until that is done.",
    };
    throw new OperatingError(`${device}: the ${type} file system cannot be grown from ${before} bytes to ${bytes}: ${errnoName(errno)}`, {
      code: "not-grown",
      hint: hints[errno] ?? "dmesg says why. It is whole, with the size that it has now.",
    });
  }

  #end(kind: GrowthReport["kind"], { fromBytes, bytes, toBytes, sinceMs }: Running, error: OperatingError | null = null): GrowthReport {
    const { code = null, message: why = null, hint = null } = error ?? {};
    return { kind, fromBytes, bytes, toBytes, tookMs: this.#tookMs(sinceMs), code, why, hint };
  }

  #tookMs(sinceMs: number): number {
    return Math.round(this.#port.nowMs() - sinceMs);
  }
}

function noRoom(device: string, bytes: number): OperatingError {
  return new OperatingError(`${device} has no room to grow: its file system has all of its ${bytes} bytes that it can use`, {
    code: "no-room",
    hint: `Make the disk larger first. If that is done, this node still sees its old size. ${READ_SIZE_AGAIN}`,
    exitStatus: 32,
  });
}

function released(device: string): OperatingError {
  return new OperatingError(`${device} is being given up by this node`, {
    code: "released",
    hint: "coverlay status names the node that has the volume: type it there. What was grown stays.",
    exitStatus: 32,
  });
}
