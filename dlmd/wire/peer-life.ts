/** The question about a process of another node, and its answer (query/life-asks.ts). Rows of peer.ts. */
import { oneOf, type Rows, row, text, u32, u64 } from "./field.ts";

/**
 * One process of one boot of a node, and a block device: whether the process runs still, and whether anything has the device. dlmd of that
 * node looks (driver/life-look.ts). An owner of a volume is proved gone with it (overlay/volume/life.ts).
 */
export interface ProcessLife {
  readonly nodeid: number;
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: with pid, one process of one boot. */
  readonly startTime: number;
  /** A path on that node; "": none. */
  readonly device: string;
}

/** `gone`: no thread of it runs. `unknown`: /proc could not be read. */
const processStates = ["unknown", "alive", "gone"] as const;
export type ProcessState = (typeof processStates)[number];

/**
 * `free`: open(2) with O_EXCL succeeded after the process was looked at, so nothing on that machine has it mounted. `silent`: the open
 * did not come back. `failed`: it ended with another error.
 */
const deviceStates = ["failed", "free", "busy", "missing", "not-a-device", "silent"] as const;
export type DeviceState = (typeof deviceStates)[number];

/** What that node's dlmd saw. */
export interface LifeSeen {
  /** /proc/sys/kernel/random/boot_id of that node, now: another one means that the process is gone. */
  readonly bootId: string;
  /** Of that node, hashed (base/machine.ts); "unknown": it has none. "": it could not be read. Another one means that another machine has that nodeid now. */
  readonly machineId: string;
  readonly process: ProcessState;
  readonly device: DeviceState;
}

/** What was seen, or in words why nothing was. */
export type LifeAnswer = { readonly seen: LifeSeen } | { readonly missing: string };

/** Of a device's path. */
export const MAX_DEVICE_BYTES = 1024;
/** A boot id is a UUID. */
const BOOT_ID_BYTES = 64;
/** A machine id is 32 hex digits, or a word. */
const MACHINE_ID_BYTES = 64;

/** Does that process run still, and is that device free? Answered by "life-seen" in every phase, as "inspect" is. */
export interface AskLifeMessage {
  readonly kind: "ask-life";
  readonly askId: number;
  readonly pid: number;
  readonly startTime: number;
  readonly device: string;
}
export interface LifeSeenMessage extends LifeSeen {
  readonly kind: "life-seen";
  readonly askId: number;
}
export type LifeMessage = AskLifeMessage | LifeSeenMessage;

export const lifeRows: Rows<LifeMessage> = {
  "ask-life": row("ask-life", 31, { askId: u32, pid: u32, startTime: u64, device: text(MAX_DEVICE_BYTES) }),
  "life-seen": row("life-seen", 32, {
    askId: u32,
    bootId: text(BOOT_ID_BYTES),
    machineId: text(MACHINE_ID_BYTES),
    process: oneOf(processStates, "state of a process"),
    device: oneOf(deviceStates, "state of a device"),
  }),
};
