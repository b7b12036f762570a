/**
 * Which member masters a resource: rendezvous (highest random weight) hashing of its name over all members of the view (Thaler
 * and Ravishankar, "Using name-based mappings to increase hit rates", 1998). When a node goes, only what it mastered moves.
 *
 * Over all members, not only over those with the lockspace open: every node then computes the same master from the view alone, and nothing
 * else has to be agreed on when a program opens a lockspace. The price is that a node may master for others only.
 */
import type { Member } from "../wire/view-id.ts";

/** FNV-1a over UTF-16 units; a zero unit parts lockspace and name. */
function hashName(lockspace: string, name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < lockspace.length; i++) hash = Math.imul(hash ^ lockspace.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash, 0x01000193);
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** The 32-bit finalizer of MurmurHash3. */
function mix(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** nodeid; ties go to the lower one. `members` in ascending order of nodeid. */
export function masterOf(members: readonly Member[], lockspace: string, name: string): number {
  const hash = hashName(lockspace, name);
  let best = 0;
  let bestWeight = -1;
  for (const member of members) {
    const weight = mix(hash ^ mix(Math.imul(member.nodeid, 0x9e3779b1)));
    if (weight > bestWeight) {
      bestWeight = weight;
      best = member.nodeid;
    }
  }
  return best;
}
