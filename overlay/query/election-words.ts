/**
 * The locks by which a volume finds its owner (volume/owner-core.ts), in words. They are held and waited for as long as a mount lives,
 * so neither a lock that is kept nor a wait of hours means that a program hangs.
 */
import { volumeLockspace } from "../volume/owner.ts";
import type { LockAnswer, ResourceAnswer } from "../../dlmd/wire/inspect-answer.ts";

export interface LockWords {
  /** Of the resource. */
  readonly title: string;
  /** "is the owner" */
  readonly has: (row: LockAnswer) => string;
  /** "is the next heir" */
  readonly waits: (row: LockAnswer, resource: ResourceAnswer) => string;
}

const holdsRecord: Readonly<Record<string, string>> = {
  PW: "is the owner, or is becoming it: it writes the owner's record",
  EX: "changes the owner's record",
  CR: "reads the owner's record: it goes through the owner",
};

function placeInLine(row: LockAnswer, { waitQueue }: ResourceAnswer): string {
  const at = waitQueue.indexOf(row);
  const place = at === 0 ? "is the next heir" : `is heir number ${at + 1}`;
  return `${place}: it waits in line until the owner goes, for as long as it is mounted`;
}

/** null: a lock of another kind. */
export function electionWords(lockspace: string, resource: string): LockWords | null {
  if (!lockspace.startsWith(volumeLockspace(""))) return null;
  if (resource === "next") {
    return {
      title: "the line of heirs to the volume's owner",
      has: () => "is the owner, or is becoming it: it keeps the head of the line for as long as it is mounted",
      waits: placeInLine,
    };
  }
  if (resource === "owner") {
    return {
      title: "the record of the volume's owner",
      has: ({ granted }) => holdsRecord[granted ?? "NL"] ?? `has ${granted}`,
      waits: ({ requested }) => (requested === "CR" ? "waits to read the new owner's record" : "is about to change the owner's record"),
    };
  }
  const nodeid = /^mounter\.(\d+)$/.exec(resource)?.[1];
  if (nodeid === undefined) return null;
  return {
    title: `held while node ${nodeid} has the volume mounted and reaches its device`,
    has: () => "has the volume mounted and reaches its device",
    waits: () => `asks whether node ${nodeid} has it mounted`,
  };
}
