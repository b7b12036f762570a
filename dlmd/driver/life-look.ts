/**
 * What the kernel of this node says of one process and one block device: the answer to "ask-life" (query/life-asks.ts). The path comes from the
 * network, so nothing is opened but a block device: O_PATH first, which opens nothing, then the very same inode.
 * The opens run in the thread pool of Node.js: one may wait for a disk that hangs.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { bootId, machineId } from "../base/machine.ts";
import { startTimeOf } from "../base/process.ts";
import type { DeviceState, LifeSeen, ProcessLife, ProcessState } from "../wire/peer-life.ts";

/** An open that has not come back by then is answered as "silent". */
export const DEVICE_OPEN_LIMIT_MS = 1000;
/** Opens that have not come back. One more is answered as "silent" at once: the pool has four threads, and dlmd's own files need some. */
export const MAX_SILENT_OPENS = 2;
/** open(2), Linux; Node.js does not name it. */
const O_PATH = 0x20_0000;

export interface LifeLook {
  /** Never rejects. */
  readonly look: (wanted: Omit<ProcessLife, "nodeid">) => Promise<LifeSeen>;
}

/** /proc does not wait for a disk, so this need not be in the thread pool. */
export function processState(pid: number, startTime: number, proc = "/proc"): ProcessState {
  try {
    const found = startTimeOf(pid, proc);
    return found !== null && Number(found) === startTime ? "alive" : "gone";
  } catch {
    return "unknown";
  }
}

/** "": it cannot be read, and nothing is known of it. */
function readable(id: () => string): string {
  try {
    return id();
  } catch {
    return "";
  }
}

async function openedState(handle: FileHandle, inodeOf: string): Promise<DeviceState> {
  if (!(await handle.stat()).isBlockDevice()) return "not-a-device";
  const exclusive = await open(inodeOf, constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK);
  await exclusive.close();
  return "free";
}

async function openExclusively(device: string): Promise<DeviceState> {
  let handle: FileHandle | null = null;
  try {
    handle = await open(device, O_PATH);
    return await openedState(handle, `/proc/self/fd/${handle.fd}`);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EBUSY") return "busy";
    return code === "ENOENT" || code === "ENXIO" || code === "ENODEV" || code === "ENOMEDIUM" ? "missing" : "failed";
  } finally {
    await handle?.close().catch(() => {});
  }
}

export function createLifeLook(
  opening: (device: string) => Promise<DeviceState> = openExclusively,
  limitMs: number = DEVICE_OPEN_LIMIT_MS,
  ids: { readonly machineId: () => string } = { machineId },
): LifeLook {
  let opens = 0;

  /** Within the limit, or "silent". */
  const deviceState = async (device: string): Promise<DeviceState> => {
    if (!device.startsWith("/")) return "not-a-device";
    if (opens >= MAX_SILENT_OPENS) return "silent";
    opens += 1;
    const opened = opening(device).finally(() => (opens -= 1));
    const enough = new AbortController();
    const late = sleep(limitMs, "silent" as const, { signal: enough.signal, ref: false }).catch(() => "silent" as const);
    const state = await Promise.race([opened, late]);
    enough.abort();
    return state;
  };

  return {
    async look({ pid, startTime, device }) {
      // The process first: only one that has ended can mount nothing between the two looks.
      const process = processState(pid, startTime);
      return { bootId: readable(bootId), machineId: readable(ids.machineId), process, device: await deviceState(device) };
    },
  };
}
