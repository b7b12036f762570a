/** Mounts a device as its owner's mount does, for tests that have no cluster. */
import type { Bit, StoredBit } from "../../../overlay/volume/bit.ts";
import { readOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import { DiskSteps } from "../../../overlay/volume/disk-steps.ts";
import { type LowerMount, mountLower } from "../../../overlay/volume/lower-mount.ts";
import type { Proof } from "../../../overlay/volume/life.ts";
import type { Claim } from "../../../overlay/volume/owner-event.ts";
import { probeDevice } from "../../../overlay/volume/probe.ts";
import type { Taking } from "../../../overlay/volume/taking.ts";

export function storedBit(device: string): StoredBit {
  const state = probeDevice(device).bit;
  if (state.kind !== "set") throw new Error(`${device}: the bit is ${state.kind}`);
  return state.bit;
}

/** A bit where nothing is read any more, because the mount is refused before. */
export function anyPlace(bit: Bit): StoredBit {
  return { ...bit, ownerBlock: 4096, mmp: false };
}

export function takingOf(claim: Claim, nodeid = 1): Taking {
  return { self: { nodeid, incarnation: `i${nodeid}`, clientId: 1 }, claim, mayMount: () => true, disk: new DiskSteps("/dev/x") };
}

export interface TakeOptions {
  readonly bit?: Bit;
  readonly readOnly?: boolean;
  readonly epochAbove?: number;
  readonly nodeid?: number;
  readonly proof?: Exclude<Proof, { readonly kind: "none" }>;
}

export async function takeLower(device: string, options: TakeOptions = {}): Promise<LowerMount> {
  const stored = storedBit(device);
  const block = await readOwnerBlock(device, stored.ownerBlock ?? 0, stored.uuid);
  const { bit = stored, readOnly = false, epochAbove = 0, nodeid = 1, proof = null } = options;
  return mountLower({ kind: "device", path: device }, { ...stored, ...bit }, readOnly, epochAbove, takingOf({ block, proof }, nodeid));
}
