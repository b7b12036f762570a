/**
 * The proof that a life is over, as far as one machine can give it alone: for a life of its own node. A life of another node is
 * proved by that node's lock manager, or by a fence; until then there is no proof.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { type Exclusive, tryExclusiveInPool } from "./device.ts";
import { judgeReboot, type Life, type Proof, type ProveGone } from "./life.ts";
import { bootId, machineId } from "../../dlmd/base/machine.ts";
import { startTimeOf } from "../../dlmd/base/process.ts";
import { probeSuperblockInPool } from "./probe.ts";

/** What is asked of a machine; a seam for tests. */
export interface Machine {
  readonly bootId: () => string;
  readonly machineId: () => string;
  /** Null: no such process runs. */
  readonly startTimeOf: (pid: number) => bigint | null;
  readonly exclusive: (device: string) => Promise<Exclusive>;
  /** False: those two are certainly not paths to one disk. */
  readonly maybeSameDisk: (one: string, other: string) => Promise<boolean>;
}

export const thisMachine: Machine = {
  bootId,
  machineId,
  startTimeOf: (pid) => {
    const time = startTimeOf(pid);
    return time === null ? null : BigInt(time);
  },
  exclusive: tryExclusiveInPool,
  maybeSameDisk: async (one, other) => {
    try {
      return (await probeSuperblockInPool(one)).uuid === (await probeSuperblockInPool(other)).uuid;
    } catch (error) {
      // Another kind of disk took the name; one that cannot be read may be the one.
      return !(error instanceof OperatingError && ["unknown-fs", "ufs", "not-a-device", "device-missing"].includes(error.code));
    }
  },
};

/** `nodeid` and `pid`: this node and this process; `device`: the volume's, by its name here, which may have changed since. */
export async function proveGoneHere(life: Life, self: { nodeid: number; pid: number; device: string }, machine: Machine): Promise<Proof> {
  if (life.nodeid !== self.nodeid) return none(`node ${life.nodeid} has not been asked`);
  if (life.bootId !== machine.bootId()) return judgeReboot(life, machine.machineId(), `this node (nodeid ${life.nodeid})`);
  // A life of this very process has ended when nothing holds the device any more.
  if (life.pid !== self.pid && machine.startTimeOf(life.pid) === life.startTime) return none(`process ${life.pid} of this node runs still`);
  const state = await machine.exclusive(self.device);
  if (state === "gone") return none(`${self.device} cannot be reached`);
  const busy = state === "busy" ? self.device : (await busyByOtherPath(life.device, self.device, machine)) ? life.device : null;
  return busy === null ? { kind: "ended" } : none(`process ${life.pid} of this node has ended, but ${busy} is in use still`);
}

/** It may have had the disk by another path, whose name may be another disk's by now. */
async function busyByOtherPath(path: string, device: string, machine: Machine): Promise<boolean> {
  if (path === device || (await machine.exclusive(path)) !== "busy") return false;
  return machine.maybeSameDisk(path, device);
}

/** For a mount that knows no other way to ask. */
export function createProveGone(self: { nodeid: number; pid: number; device: string }, machine: Machine = thisMachine): ProveGone {
  return async (life) => {
    try {
      return await proveGoneHere(life, self, machine);
    } catch (error) {
      return none(`this machine cannot tell: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
}

function none(why: string): Proof {
  return { kind: "none", why };
}
