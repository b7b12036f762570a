/**
 * A disk that does not answer: the kernel's throttle of block devices at one byte a second holds back what is sent to it, and sends it once the
 * limit is gone (cgroup v1: blkio, Documentation/admin-guide/cgroup-v1/blkio-controller.rst; v2: io.max).
 *
 * With v1 the limit is also one of the root group, where the kernel's own threads are: everything waits. v2 has no limit there: what the node's
 * processes send waits, and what the journal's thread sends does not.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { deviceNumber } from "../volume/device.ts";
import { type CgroupTree, TakenGroup, cgroupTree, writeCgroup } from "./cgroup.ts";

/** Why no disk can be made to hang here; null: one can. */
export function noHang(tree: CgroupTree = cgroupTree()): string | null {
  if (tree.version === 1) return null;
  const controllers = path.join(tree.root, "cgroup.controllers");
  if (existsSync(controllers) && readFileSync(controllers, "latin1").split(/\s/).includes("io")) return null;
  return "the kernel cannot throttle block devices (cgroup controller blkio or io)";
}

/** A group of processes for which disks hang. Its name is enough to find it again. */
export class HungGroup {
  readonly #tree: CgroupTree;
  readonly #taken: TakenGroup;

  constructor(name: string, tree: CgroupTree = cgroupTree()) {
    this.#tree = tree;
    this.#taken = new TakenGroup(tree, name);
  }

  /** That device hangs for it. */
  hangs(device: string): boolean {
    const file = path.join(this.#taken.path, this.#tree.version === 1 ? "blkio.throttle.read_bps_device" : "io.max");
    return existsSync(file) && existsSync(device) && readFileSync(file, "latin1").includes(`${deviceNumber(device)} `);
  }

  /**
   * That device hangs for those processes and for what they start; `everybody`: for all that are in no group of their own, if the kernel can do
   * that. Throws OperatingError "no-hang", "no-cgroup": nothing hangs then.
   */
  hang(device: string, pids: readonly number[], everybody = false): void {
    const why = noHang(this.#tree);
    if (why !== null) {
      throw new OperatingError(`no disk can be made to hang here: ${why}`, {
        code: "no-hang",
        hint: "`coverlay lab cut` lets its I/O fail instead.",
      });
    }
    try {
      if (this.#tree.version === 2) writeCgroup(this.#tree, this.#tree.root, "cgroup.subtree_control", "+io");
      mkdirSync(this.#taken.path, { recursive: true });
      this.#limit(this.#taken.path, device, 1);
      if (everybody && this.#tree.version === 1) this.#limit(this.#tree.root, device, 1);
      for (const pid of pids) {
        const place = this.#taken.placeFor(pid);
        if (place === null) continue;
        // With v2 a group has the limits of those above it.
        if (this.#tree.version === 1) this.#limit(place, device, 1);
        this.#taken.take(pid, place);
      }
    } catch (error) {
      this.letGo(device);
      this.end();
      throw error;
    }
  }

  /** The disk answers again. */
  letGo(device: string): void {
    if (!existsSync(device)) return;
    const [group, ...mirrors] = this.#taken.groups();
    if (group === undefined) return;
    if (this.#tree.version === 1) for (const one of [this.#tree.root, ...mirrors]) this.#limit(one, device, 0);
    this.#limit(group, device, 0);
  }

  /** The group goes, and what is left of it lives on where it was. No disk hangs for it by then. It stays for as long as a process that ends is in it. */
  end(): void {
    this.#taken.end();
  }

  /** 0: none. */
  #limit(group: string, device: string, bytesPerSecond: number): void {
    const number = deviceNumber(device);
    const put = (file: string, value: string): void => writeCgroup(this.#tree, group, file, `${number} ${value}`);
    if (this.#tree.version === 1) {
      for (const way of ["read", "write"]) put(`blkio.throttle.${way}_bps_device`, String(bytesPerSecond));
      return;
    }
    const rate = bytesPerSecond === 0 ? "max" : String(bytesPerSecond);
    put("io.max", `rbps=${rate} wbps=${rate}`);
  }
}
