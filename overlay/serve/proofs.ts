/** Proofs that a life of an owner is over, as a mount asks for them: of this machine, of other nodes, and by a fence (../volume/README.md). */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient } from "../../dlmd/client/api.ts";
import { isReadOnlyDevice } from "../volume/device.ts";
import { diskActivity } from "../volume/disk-activity.ts";
import type { DiskSteps } from "../volume/disk-steps.ts";
import { FenceProof, type FencesKnown } from "../volume/fence-proof.ts";
import { isSameBlock, type OwnerBlock } from "../volume/owner-block.ts";
import { createProveGoneAnywhere, type ProveGoneAnywhere } from "../volume/prove-elsewhere.ts";
import { createProveGone } from "../volume/prove-gone.ts";
import type { MountProcessOptions } from "./mount-process-options.ts";

/** What is used of dlmd's answer to "nodes" (NodeAnswer in dlmd/query/answer.ts). */
export interface HeardNode {
  readonly nodeid: number;
  readonly incarnation: string | null;
  readonly state: string;
  readonly heardAgoMs: number | null;
}

/** With these it may be about to join: no life of it is shot for one that is over. */
const THERE: ReadonlySet<string> = new Set(["heard", "connected", "other-config"]);

/** What FenceProof is to know of a node. A life that had a connection for a moment and was never heard tells nothing. */
export function heardLife(node: HeardNode | undefined): { readonly incarnation: string; readonly now: boolean } | null {
  if (node === undefined || node.incarnation === null) return null;
  const now = THERE.has(node.state);
  return now || node.heardAgoMs !== null ? { incarnation: node.incarnation, now } : null;
}

/** What tells whether a mount can write to its device. */
type Mounted = Pick<MountProcessOptions, "lower" | "readOnly" | "reachesLower">;

/**
 * The kernel lets nobody write to the device, and the mount asks for nothing else: a life that needs no proof. A read-only mount of another device
 * may write its journal back.
 */
export function cannotWrite({ lower, readOnly, reachesLower }: Mounted, isReadOnly: typeof isReadOnlyDevice = isReadOnlyDevice): boolean {
  return lower.kind === "device" && reachesLower && readOnly && isReadOnly(lower.path);
}

/** Before each mount(2) of a life whose record says so. Throws OperatingError "device-writable". */
export function requireStill(mounted: Mounted, isReadOnly: typeof isReadOnlyDevice = isReadOnlyDevice): void {
  if (cannotWrite(mounted, isReadOnly)) return;
  throw new OperatingError(
    `${mounted.lower.path} is a read-only device no more: this mount began when it was one, and does not touch it now`,
    {
      code: "device-writable",
      hint: "Unmount the volume here, and mount it again.",
      exitStatus: 32,
    },
  );
}

export interface ProofsOptions {
  readonly client: DlmClient;
  /** By its name in the configuration. */
  readonly volume: string;
  readonly device: string;
  readonly disk: DiskSteps;
  /** null: the lower has no such block. */
  readonly readOwnerBlock: () => Promise<OwnerBlock | null>;
  readonly log: Log;
}

export function createProofs({ client, volume, device, disk, readOwnerBlock, log }: ProofsOptions): ProveGoneAnywhere {
  const { nodeid, nodes } = client.info;
  const nameOf = (wanted: number): string => nodes.find((node) => node.nodeid === wanted)?.name ?? `node ${wanted}`;
  const proveHere = createProveGone({ nodeid, pid: process.pid, device });
  return createProveGoneAnywhere({
    nodeid,
    nameOf,
    askLife: (life) => client.askLife(life),
    here: (life) => disk.ask("looking whether it is in use", () => proveHere(life)),
    isUnchanged: async (then) => isSameBlock(await readOwnerBlock(), then),
    fence: new FenceProof({
      fenceLife: (question) => client.fenceLife(question),
      isMember: (wanted) => client.view.members.includes(wanted),
      heard: async (wanted) => {
        const known = (await client.query("nodes")) as readonly HeardNode[];
        return heardLife(known.find(({ nodeid: one }) => one === wanted));
      },
      fences: async () => ((await client.query("status")) as { readonly fencing: FencesKnown }).fencing,
      activity: () => disk.ask("looking whether it is written", () => diskActivity(device)),
      volume,
      nameOf,
      log,
      nowMs: () => performance.now(),
      wallMs: () => Date.now(),
    }),
  });
}
