/**
 * The owner's part of `coverlay volume grow`: who may grow the volume, and how far it is. The command asks the overlay of its own node alone, and asks again
 * while the growth goes on. So an interrupted command changes nothing. The growth: ../volume/growth.ts; the command: ../cli/grow.ts.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Growth, GrowthReport } from "../volume/growth.ts";
import type { OwnerRole } from "../volume/owner-event.ts";

export interface GrowHost {
  readonly role: () => OwnerRole;
  /** Of the present owner; null: there is none. */
  readonly ownerNodeid: () => number | null;
  readonly why: () => string;
  /** Of the disk that is mounted here; null: none is, or the lower is a directory. */
  readonly growth: () => Growth | null;
  readonly isDevice: boolean;
  readonly readOnly: boolean;
  readonly leaseHolds: () => boolean;
  /** What is wrong with the disk, in words; null: nothing that is known. */
  readonly trouble: () => string | null;
}

/** For the command. */
export type GrowAnswer =
  | { readonly kind: "refused"; readonly code: string; readonly why: string; readonly hint: string }
  /** `owner`: that has the volume; null: none has. */
  | { readonly kind: "elsewhere"; readonly owner: number | null; readonly why: string }
  | GrowthReport;

const refused = (code: string, why: string, hint: string): GrowAnswer => ({ kind: "refused", code, why, hint });

/** Begins, or joins the one that is under way. */
export async function beginGrowth(host: GrowHost): Promise<GrowAnswer> {
  const { role, ownerNodeid, why, growth, isDevice, readOnly, leaseHolds, trouble } = host;
  if (!isDevice) return refused("directory", "the volume is a directory of one node", "Grow the file system that the directory is of.");
  const disk = growth();
  if (role() !== "owner" || disk === null) return { kind: "elsewhere", owner: ownerNodeid(), why: why() };
  if (readOnly) return refused("read-only", "the owner has it mounted read-only", "Mount it without -o ro on every node, then grow it.");
  if (!leaseHolds())
    return refused("no-lease", "the lease of this node has ended", "coverlay status says what it waits for; grow the volume after that.");
  const found = trouble();
  if (found !== null) return refused("disk-trouble", found, "coverlay status says what to do about the disk.");
  try {
    return await disk.begin();
  } catch (error) {
    if (error instanceof OperatingError) return refused(error.code, error.message, error.hint);
    throw error;
  }
}

/** In words, for what may not be done meanwhile; null: none is under way. */
export function growthUnderWay(growth: Growth | null): string | null {
  const report = growth?.report;
  return report?.kind === "growing" ? `the volume is being grown: it has ${report.bytes} of ${report.toBytes} bytes` : null;
}
