/** Before an owner's mount is unmounted: what it keeps for mounts that are away would be lost (hazard F35), and they are back in seconds. */
import type { MountEntry } from "../../dlmd/base/mount-table.ts";
import { isServing, readMountRecord, RECORD_DIR } from "../volume/mount-record.ts";

/** Then the mount is unmounted all the same, and those that are away end. */
export const KEPT_WAIT_MS = 30_000;
/** How often it is looked at. */
export const KEPT_LOOK_MS = 50;

/** Mounts of other nodes that the owner behind that mount keeps files for; 0: it is no owner. */
export function keptBehind({ device }: Pick<MountEntry, "device">, dir: string = RECORD_DIR): number {
  const record = readMountRecord(device, dir);
  return record !== null && isServing(record) ? (record.keeps ?? 0) : 0;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export interface KeptHow {
  /** False: what is away ends, and that is said. */
  readonly waits: boolean;
  readonly tell: (line: string) => void;
}

/** Resolves when that is nothing, or after a limit, and says so. */
export async function waitWhileKept(place: string, keeps: () => number, { waits, tell }: KeptHow): Promise<void> {
  if (keeps() === 0) return;
  const words = (): string => `${keeps()} mount(s) of other nodes that wait for their dlmd`;
  if (waits) {
    tell(
      `${place}: its overlay is the owner, and keeps what is open and locked on ${words()}: waiting for them, for ${KEPT_WAIT_MS / 1000} s at most`,
    );
    const untilMs = performance.now() + KEPT_WAIT_MS;
    while (performance.now() < untilMs) {
      await sleep(KEPT_LOOK_MS);
      if (keeps() === 0) return;
    }
  }
  tell(`${place} is unmounted, and so these end: ${words()}`);
}
