/**
 * A disk that hangs for some processes: their I/O to that block device waits, and goes on when they are let go. By the kernel's throttle of block
 * devices (cgroup v1: blkio, Documentation/admin-guide/cgroup-v1/blkio-controller.rst; v2: io.max), at one byte a second.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { deviceNumber } from "../../overlay/volume/device.ts";

const V1 = "/sys/fs/cgroup/blkio";
const V2 = "/sys/fs/cgroup";

/** Why no disk can be made to hang here; null: one can. */
export function noHang(): string | null {
  if (existsSync(path.join(V1, "blkio.throttle.read_bps_device"))) return null;
  const controllers = path.join(V2, "cgroup.controllers");
  if (existsSync(controllers) && readFileSync(controllers, "latin1").split(/\s/).includes("io")) return null;
  return "the kernel cannot throttle block devices (cgroup controller blkio or io)";
}

export class HungDisk {
  readonly #group: string;
  readonly #device: string;
  readonly #pids: number[] = [];
  readonly #v1 = existsSync(path.join(V1, "blkio.throttle.read_bps_device"));

  constructor(device: string) {
    this.#device = deviceNumber(device);
    this.#group = path.join(this.#v1 ? V1 : V2, `coverlay-test-${process.pid}-${this.#device.replace(":", "-")}`);
    if (!this.#v1) writeFileSync(path.join(V2, "cgroup.subtree_control"), "+io");
    mkdirSync(this.#group);
  }

  /** That process, and those that it starts from now on. */
  hang(pid: number): void {
    this.#pids.push(pid);
    this.#limit(1);
    writeFileSync(path.join(this.#group, "cgroup.procs"), String(pid));
  }

  /** The disk answers again. */
  letGo(): void {
    this.#limit(0);
  }

  /** To be called in any case; processes that were started by others meanwhile have ended by then. */
  end(): void {
    this.letGo();
    const root = path.join(path.dirname(this.#group), "cgroup.procs");
    for (const pid of readFileSync(path.join(this.#group, "cgroup.procs"), "latin1").split("\n").filter(Boolean)) {
      try {
        writeFileSync(root, pid);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    rmdirSync(this.#group);
  }

  #limit(bytesPerSecond: number): void {
    if (this.#v1) {
      for (const way of ["read", "write"])
        writeFileSync(path.join(this.#group, `blkio.throttle.${way}_bps_device`), `${this.#device} ${bytesPerSecond}`);
      return;
    }
    const rate = bytesPerSecond === 0 ? "max" : String(bytesPerSecond);
    writeFileSync(path.join(this.#group, "io.max"), `${this.#device} rbps=${rate} wbps=${rate}`);
  }
}
