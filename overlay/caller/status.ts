/** What /proc/PID/status says of a calling thread (proc(5)): who it is, and whether it is being killed. */
import { readFileSync } from "node:fs";
import { errnoError } from "../../dlmd/base/errno.ts";

const SIGKILL_BIT = 0x100n;

/** A caller as the kernel's checks see it. */
export interface Credentials {
  /** fsuid and fsgid. */
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  /** Effective capabilities, a bit each. */
  readonly capabilities: bigint;
  /** The ids for which these count (hazard F36): those that its user namespace has (user_namespaces(7)); absent: all. */
  readonly idMaps?: IdMaps;
}

interface IdRange {
  readonly from: number;
  readonly count: number;
}

/** Ids of ours that a user namespace has. */
export interface IdMaps {
  readonly uids: readonly IdRange[];
  readonly gids: readonly IdRange[];
}

/** So many ids has the first user namespace. */
const ALL_IDS = 2 ** 32 - 1;

/** /proc/PID/status; null: there is no such thread any more. Throws Errno: it cannot be seen now (EMFILE, hazard F11). */
export function readStatus(pid: number, proc = "/proc"): string | null {
  try {
    return readFileSync(`${proc}/${pid}/status`, "latin1");
  } catch (error) {
    // ENOENT: gone; ESRCH: gone while it was read.
    const { code, errno } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return null;
    throw errno === undefined ? error : errnoError(-errno);
  }
}

/** From /proc/PID/status; null if it does not look like one. */
export function credentialsOf(status: string): Credentials | null {
  const fields = new Map<string, string>();
  for (const line of status.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  const uid = fields.get("Uid")?.split(/\s+/)[3];
  const gid = fields.get("Gid")?.split(/\s+/)[3];
  const capabilities = fields.get("CapEff");
  if (uid === undefined || gid === undefined || capabilities === undefined) return null;
  const groups = (fields.get("Groups") ?? "").split(/\s+/).filter((group) => group !== "");
  return { uid: Number(uid), gid: Number(gid), groups: groups.map(Number), capabilities: BigInt(`0x${capabilities}`) };
}

/** /proc/PID/uid_map and gid_map as they are for a reader of the first user namespace; null: all ids, undefined: not to be seen. */
export function readIdMaps(pid: number): IdMaps | null | undefined {
  try {
    const [uids, gids] = ["uid_map", "gid_map"].map((name) => idRanges(readFileSync(`/proc/${pid}/${name}`, "latin1")));
    if (uids === undefined || gids === undefined) return undefined;
    return [uids, gids].every(([first]) => first !== undefined && first.from === 0 && first.count === ALL_IDS) ? null : { uids, gids };
  } catch {
    return undefined;
  }
}

/** Lines of "first id inside, first id outside, count". */
export function idRanges(map: string): readonly IdRange[] {
  const lines = map.split("\n").map((line) => line.trim().split(/\s+/).map(Number));
  return lines.flatMap(([, from, count]) => (from === undefined || count === undefined ? [] : [{ from, count }]));
}

export function hasId(ranges: readonly IdRange[], id: number): boolean {
  return ranges.some(({ from, count }) => id >= from && id < from + count);
}

/** Is SIGKILL pending for the thread with that /proc/PID/status, or for its process? */
export function sigkillPending(status: string): boolean {
  let pending = 0n;
  for (const match of status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)) pending |= BigInt(`0x${match[1]}`);
  return (pending & SIGKILL_BIT) !== 0n;
}
