/**
 * A disk that does not answer: the kernel's throttle of block devices at one byte a second holds back what is sent to it, and sends it once the
 * limit is gone (cgroup v1: blkio, Documentation/admin-guide/cgroup-v1/blkio-controller.rst; v2: io.max).
 *
 * With v1 the limit is also one of the root group, where the kernel's own threads are: everything waits. v2 has no limit there: what the node's
 * processes send waits, and what the journal's thread sends does not.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { deviceNumber } from "../volume/device.ts";

const V1 = "/sys/fs/cgroup/blkio";
const V2 = "/sys/fs/cgroup";
const isV1 = (): boolean => existsSync(path.join(V1, "blkio.throttle.read_bps_device"));
const groups = (): string => (isV1() ? V1 : V2);

/** Why no disk can be made to hang here; null: one can. */
export function noHang(): string | null {
  if (isV1()) return null;
  const controllers = path.join(V2, "cgroup.controllers");
  if (existsSync(controllers) && readFileSync(controllers, "latin1").split(/\s/).includes("io")) return null;
  return "the kernel cannot throttle block devices (cgroup controller blkio or io)";
}

/** A group of processes for which disks hang. Its name is enough to find it again. */
export class HungGroup {
  readonly #group: string;

  constructor(name: string) {
    this.#group = path.join(groups(), name);
  }

  /** That device hangs for it. */
  hangs(device: string): boolean {
    const file = path.join(this.#group, isV1() ? "blkio.throttle.read_bps_device" : "io.max");
    return existsSync(file) && existsSync(device) && readFileSync(file, "latin1").includes(`${deviceNumber(device)} `);
  }

  /** That device hangs for those processes and for what they start; `everybody`: for all that are in no group of their own, if the kernel can do that. */
  hang(device: string, pids: readonly number[], everybody = false): void {
    const why = noHang();
    if (why !== null) {
      throw new OperatingError(`no disk can be made to hang here: ${why}`, {
        code: "no-hang",
        hint: "`coverlay lab cut` lets its I/O fail instead.",
      });
    }
    if (!isV1()) writeFileSync(path.join(V2, "cgroup.subtree_control"), "+io");
    mkdirSync(this.#group, { recursive: true });
    limit(this.#group, device, 1);
    if (everybody && isV1()) limit(V1, device, 1);
    for (const pid of pids) unlessGone(() => writeFileSync(path.join(this.#group, "cgroup.procs"), String(pid)));
  }

  /** The disk answers again. */
  letGo(device: string): void {
    if (!existsSync(device) || !existsSync(this.#group)) return;
    if (isV1()) limit(V1, device, 0);
    limit(this.#group, device, 0);
  }

  /** The group goes, and what is left of it lives on. No disk hangs for it by then. It stays for as long as a process that ends is in it. */
  end(): void {
    if (!existsSync(this.#group)) return;
    for (const pid of readFileSync(path.join(this.#group, "cgroup.procs"), "latin1").split("\n").filter(Boolean))
      unlessGone(() => writeFileSync(path.join(groups(), "cgroup.procs"), pid));
    try {
      rmdirSync(this.#group);
    } catch (error) {
      // Such a process cannot be moved. The group has no limit any more.
      if ((error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
    }
  }
}

function unlessGone(work: () => void): void {
  try {
    work();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** 0: none. */
function limit(group: string, device: string, bytesPerSecond: number): void {
  const number = deviceNumber(device);
  if (isV1()) {
    for (const way of ["read", "write"]) writeFileSync(path.join(group, `blkio.throttle.${way}_bps_device`), `${number} ${bytesPerSecond}`);
    return;
  }
  const rate = bytesPerSecond === 0 ? "max" : String(bytesPerSecond);
  writeFileSync(path.join(group, "io.max"), `${number} rbps=${rate} wbps=${rate}`);
}
