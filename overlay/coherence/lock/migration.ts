/**
 * Files that nodes read and then write, one after the other, as those of SQLite: each node would ask for PR, and a moment later for EX, by which the others lose
 * PR again. Where that happened MIGRATIONS_MIN times in a row, EX is asked for at once (migratory sharing: Cox and Fowler, "Adaptive Cache Coherency for
 * Detecting Migratory Shared Data", ISCA 1993). That is only ever more than is needed; EX under which nothing was changed was the last one. Hazard F47. Pure.
 */
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Cover } from "../cover.ts";
import { FileFight } from "../cover-parts.ts";

const MIGRATIONS_MIN = 2;
/** A lock that comes back within that time goes to and fro; so long after the last change it is forgotten that it did. */
const FOUGHT_MS = 500;

/** EX is about to be asked for under PR, to change the file. */
export function noteUpgrade(cover: Cover, now: number): void {
  const { kind, mode, revokedAt, grantedAt } = cover;
  if (kind !== "file" || mode !== Mode.PR || revokedAt === null || grantedAt - revokedAt > FOUGHT_MS) return;
  cover.fight ??= new FileFight();
  const { fight } = cover;
  fight.upgrades = now - fight.upgradedAt <= FOUGHT_MS ? fight.upgrades + 1 : 1;
  fight.upgradedAt = Math.ceil(now);
}

/** It goes from node to node, and each of them changes the file. */
export function migrates({ fight }: Cover): boolean {
  return fight !== null && fight.upgrades >= MIGRATIONS_MIN;
}

/** Whether somebody who wants to look is to have EX, from NL. */
export function asksAhead(cover: Cover, now: number): boolean {
  const { fight } = cover;
  if (fight === null || cover.mode !== Mode.NL || !migrates(cover) || now - fight.upgradedAt > FOUGHT_MS) return false;
  fight.upgradedAt = Math.ceil(now);
  fight.ahead = true;
  return true;
}

/** Its lock is about to be given up. What was long ago does not count for what comes then (revoke.ts, returnExpected), either. */
export function endMigration({ fight }: Cover, now: number): void {
  if (fight === null) return;
  if (fight.ahead || now - fight.upgradedAt > FOUGHT_MS) fight.upgrades = 0;
  fight.ahead = false;
}
