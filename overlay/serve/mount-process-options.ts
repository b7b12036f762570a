/** What the process behind one mount is told of it. */
import type { Log } from "../../dlmd/base/log.ts";
import type { Native } from "../../native/index.ts";
import type { TakeOver } from "../restart/take.ts";
import type { StoredBit } from "../volume/bit.ts";
import type { LowerSource } from "../volume/lower-mount.ts";
import type { Transport } from "../volume/mount-options.ts";
import type { CpuLatency } from "./cpu-latency.ts";

export interface MountProcessOptions {
  readonly native: Native;
  readonly log: Log;
  /** dlmd's local socket. */
  readonly dlmdSocket: string;
  /** Where the knobs of this mount are shown. */
  readonly runDir: string;
  /** What the device says that it is. */
  readonly bit: StoredBit;
  readonly lower: LowerSource;
  /** This node has the device or directory. */
  readonly reachesLower: boolean;
  readonly mountpoint: string;
  /** MS_* of mount(2). */
  readonly mountFlags: number;
  readonly readOnly: boolean;
  readonly metadataCalls: "inline" | "pool";
  /** BAST_LIMIT_MS, but in tests. */
  readonly bastLimitMs: number;
  /** File locks stay in this node's kernel (-o localflocks). */
  readonly localFlocks: boolean;
  /** For requests of the kernel and of other nodes. */
  readonly cpuLatency: CpuLatency;
  /** Not given: the kernel's protocol. */
  readonly transport?: Transport;
  /** This process goes on with the mount of another one (overlay/restart/). */
  readonly takeOver?: TakeOver;
  /** The keeper has started this process, because the one before has crashed (overlay/crash/). */
  readonly afterCrash?: boolean;
  /** Another process is to be found for this mount from now on. */
  readonly leaveStatus: () => void;
  /** Something that is shown changed: role, owner. */
  readonly changed: () => void;
}
