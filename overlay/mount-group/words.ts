/** What people are told of the group of a volume's mounters. */
import { assertNever } from "../../dlmd/base/assert.ts";
import { notReopened, servingOwner } from "../../dlmd/mount-group/group-state.ts";
import type { MounterId, MountGroupState } from "../../dlmd/wire/mount-group.ts";

type NameOf = (mounter: MounterId) => string;

export const MOUNT_AGAIN = "umount, and mount again.";

export const REFUSED_HINTS = {
  "no-jid": "Unmount the volume on nodes that do not need it. Dirty jids are free again when there is an owner.",
  version: "All nodes that mount a volume run the same version of coverlay: see coverlay --version there.",
  "no-state": "The first mounter stands still: see coverlay status on its node, and end its overlay.",
} as const;

/** For what a recovery waits: "until ...". */
export function recoveryWords(state: MountGroupState | null, nameOf: NameOf): string {
  if (state === null) return "the other mounters have sent their state";
  switch (state.step) {
    case "idle":
      return "the last owner has released the volume";
    case "stopping":
      return `${namesOf(
        state.members.filter(({ mustStop }) => mustStop),
        nameOf,
      )} let go of the dead`;
    case "claiming":
      return "there is an owner";
    case "reopening":
      return `${namesOf(notReopened(state), nameOf)} has opened its files at the owner`;
    case "recovering": {
      const owner = servingOwner(state);
      const what = state.allDirty ? "everything" : `jid ${state.dirty.map(({ jid }) => jid).join(", ")}`;
      return `${owner === null ? "the owner" : nameOf(owner)} has put ${what} in order`;
    }
    default:
      return assertNever(state.step, "step of a recovery");
  }
}

function namesOf(mounters: readonly MounterId[], nameOf: NameOf): string {
  return mounters.map(nameOf).join(", ");
}
