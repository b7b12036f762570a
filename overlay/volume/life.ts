/**
 * One life of a process that has, or had, the device of a volume mounted, as it is named in the owner's block of the volume; and the
 * proofs that such a life is over. Without a proof no other node mounts the device: a second writer destroys it.
 */
import { UNKNOWN_MACHINE } from "../../dlmd/base/machine.ts";

export interface Life {
  readonly nodeid: number;
  /** With nodeid and clientId: the client of the lock manager that it is (hazard C7). */
  readonly incarnation: string;
  readonly clientId: number;
  /** Of the owner: rises with every owner of the volume. */
  readonly epoch: number;
  /** /proc/sys/kernel/random/boot_id of its machine. */
  readonly bootId: string;
  /** Of its machine, hashed (dlmd/base/machine.ts), or UNKNOWN_MACHINE. "": the block is of version 1, which did not keep it. */
  readonly machineId: string;
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, in clock ticks since boot: with pid, one process of one boot. */
  readonly startTime: bigint;
  /** The device, by its name on that node. */
  readonly device: string;
  readonly hostName: string;
}

/**
 * `released`: the device was unmounted, and that was proved; `let-go`: so it was, but not all that was executed is on it; `ended`: the
 * machine runs still, the process is gone, and nothing there has the device open; `rebooted`: that very machine runs with another boot id;
 * `fenced`: the machine cannot write to the device.
 */
export type Proof =
  | { readonly kind: "released" | "let-go" | "ended" | "rebooted" | "fenced" }
  /** `underWay`: a fence, so that there may be one soon. `changed`: the owner's block names that life no more, and is to be read again. */
  | { readonly kind: "none"; readonly why: string; readonly underWay?: true; readonly changed?: true };

/** Never rejects: a question that failed is `none`, with the reason in words. */
export type ProveGone = (life: Life) => Promise<Proof>;

/**
 * The node of that life runs with another boot id: that proves that the life is over, unless another machine has the nodeid now. Two machines
 * without an id cannot be told apart, so one of them proves nothing of the other.
 */
export function judgeReboot(life: Life, machineId: string, name: string): Proof {
  if (isKnown(machineId) && life.machineId === machineId) return { kind: "rebooted" };
  const then = `the one that had ${life.device} mounted (${life.hostName})`;
  if (isKnown(machineId) && isKnown(life.machineId)) {
    const why = `${name} is another machine than ${then}: its machine id differs, so its boot says nothing of that one`;
    return { kind: "none", why };
  }
  const itself = machineId === "" ? "its /etc/machine-id cannot be read" : "it has no /etc/machine-id";
  const which = isKnown(machineId) ? "the block names no machine id" : itself;
  return { kind: "none", why: `nothing tells whether ${name} is the same machine as ${then}: ${which}, so its boot proves nothing` };
}

function isKnown(machineId: string): boolean {
  return machineId !== "" && machineId !== UNKNOWN_MACHINE;
}
