/**
 * An owner that nobody shares its volume with gets a new process (overlay/restart/README.md, hazard F43): it gives its disk back, and is no client of dlmd any more. As long as
 * there is no owner nobody can change or lock anything. The next process is the next owner, or ends. Where others keep what it has, one of them is that (hazard F44).
 */
import { inTime } from "../../dlmd/base/maybe-promise.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { RemoteLower } from "../lower/remote/remote.ts";
import type { RestartState } from "../restart/state.ts";
import type { OwnerBlock } from "../volume/owner-block.ts";
import { OTHER_OWNER } from "../restart/take.ts";

/** The locks of its role are waited for so long: without a quorum they do not come. */
export const ROLE_LEAVE_MS = 5000;
/** After a rehearsal the group of the mounters has to be as before within this time; else the owner goes on. */
export const ALONE_LIMIT_MS = 5000;
/** How often that is looked at. */
const ALONE_LOOK_MS = 2;

export interface Leaving {
  readonly owner: { readonly leave: () => Promise<void> } | null;
  /** CoherenceShell.beAlone */
  readonly coherence: { readonly beAlone: () => void } | null;
  readonly group: { readonly leave: () => void } | null;
  readonly client: { readonly close: () => Promise<void> } | null;
  readonly log: Log;
}

/**
 * The disk is given back: dlmd has no lock of this process any more. The session may not have ended, for a notification may wait for a page whose request the next process
 * answers.
 */
export async function leaveDlmd({ owner, coherence, group, client, log }: Leaving): Promise<void> {
  // The block has said all that counts: the locks of the role may go with the connection.
  if (owner !== null && !(await inTime(owner.leave(), ROLE_LEAVE_MS)))
    log.warn({ waitedMs: ROLE_LEAVE_MS }, "the locks of the owner's role did not come: they go with the connection to dlmd");
  coherence?.beAlone();
  group?.leave();
  await client?.close();
}

/** The group has heard that the one who rehearsed is gone. If it does not in time, who asks next hears that others have the volume mounted. */
export async function untilAlone(isAlone: () => boolean): Promise<void> {
  const untilMs = performance.now() + ALONE_LIMIT_MS;
  while (!isAlone() && performance.now() < untilMs) await new Promise((resolve) => setTimeout(resolve, ALONE_LOOK_MS));
}

/**
 * That process, after the owner with the epoch `after`, has become the owner, and has given its disk back clean: its epoch. null: it has not, or somebody else was the owner since.
 * Never rejects.
 */
export async function epochGivenBackBy(
  readBlock: () => Promise<OwnerBlock>,
  { pid, bootId, after }: { readonly pid: number; readonly bootId: string; readonly after: number },
  log: Log,
): Promise<number | null> {
  try {
    const { state, life, epoch } = await readBlock();
    return state === "released" && life?.pid === pid && life.bootId === bootId && epoch === after + 1 ? epoch : null;
  } catch (error) {
    log.warn({ error: String(error) }, "the owner's block could not be read: who was the owner since is not known");
    return null;
  }
}

/**
 * Throws if anybody was the owner between the process before and the present owner: then others may have changed and locked what this kernel has. That owner has to be this node, or,
 * where others keep what the process before had (hazard F44), another one.
 */
export function requireNoOwnerBetween(
  isOwner: boolean,
  { openedAt }: Pick<RemoteLower, "openedAt">,
  { ownerEpoch, custody }: Pick<RestartState, "ownerEpoch" | "custody">,
): void {
  const isToOwn = custody === null;
  if (isOwner === isToOwn && openedAt?.cleanAfter === ownerEpoch) return;
  const found = isOwner === isToOwn ? `there was one between, with epoch ${openedAt?.cleanAfter ?? 0}` : `it is ${nodeWords(isOwner)}`;
  throw new OperatingError(`this node was the owner with epoch ${ownerEpoch}, and ${nodeWords(isToOwn)} is to be the next one; ${found}`, {
    code: OTHER_OWNER,
    hint: "umount -l, and mount again.",
  });
}

const nodeWords = (isThis: boolean): string => (isThis ? "this node" : "another node");
