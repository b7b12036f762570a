/**
 * The write token: a second lock per file, held by the one node whose kernel may have a page cache with write access to it (a
 * cached O_WRONLY or O_RDWR open). Any other node's writing open gets FOPEN_DIRECT_IO: no pages, no shared mapping (hazard F9:
 * what can not be made right is refused). Because of it at most one kernel in the cluster can hold page locks for a write, which
 * is what makes the revoke of hazard F1 free of stale reads.
 *
 * The token is queued for, a few milliseconds: an idle holder gives it up at once, a busy one does not, and then the open is
 * direct. A busy holder may keep it for as long as it likes (MAYKEEP): dlmd expects no answer to that blocking AST.
 *
 * Where a file was made it is implied by the lock of the inode for as long as that has been EX since, and dlmd does not know of it: so whoever did not make the
 * file asks for it only when he has had a lock of the inode (Coherence.openForWrite). Before EX leaves the token is asked for, if it is in use (new-inodes.ts). Pure.
 */
import { AssertionError } from "../../../dlmd/base/assert.ts";
import type { LockStatus } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { handleRegistered, resumeRevoke } from "./revoke.ts";
import { type Cover } from "../cover.ts";
import { type TokenWaiter, WriteToken } from "../cover-parts.ts";
import type { CoherenceState } from "../effect.ts";

/** How long an open waits for an idle holder elsewhere. */
export const TOKEN_WAIT_MS = 20;

/** True: the token is here; else `waiter` is told. */
export function openToken(state: CoherenceState, cover: Cover, waiter: TokenWaiter): boolean {
  cover.token ??= new WriteToken(cover.sinceBirth);
  const token = cover.token;
  if (token.state === "held") {
    token.users += 1;
    return true;
  }
  token.waiters.push(waiter);
  if (token.state === "none") {
    token.state = "asking";
    state.effects.push({ do: "request-token", cover });
  }
  return false;
}

export function closeToken(state: CoherenceState, cover: Cover): void {
  const token = cover.token;
  if (token === null || token.users <= 0) throw new AssertionError(`the write token of ${cover.key} has no users`);
  token.users -= 1;
  if (token.users === 0) token.mapped = false;
  giveUpIfWanted(state, cover, token);
}

export function handleTokenAst(state: CoherenceState, cover: Cover, token: WriteToken, status: LockStatus, now: number): void {
  if (state.registering.has(token)) {
    if (status !== "granted") throw new AssertionError(`the write token of ${cover.key}, born here, was not granted: ${status}`);
    handleRegistered(state, token, now);
    giveUpIfWanted(state, cover, token);
    if (cover.phase === "draining") resumeRevoke(state, cover, now);
    return;
  }
  const granted = status === "granted";
  token.state = granted ? "held" : "none";
  const waiters = token.waiters;
  token.waiters = [];
  if (granted) token.users += waiters.length;
  for (const waiter of waiters) state.effects.push({ do: "settle-token", waiter, result: granted ? "cached" : "direct" });
  giveUpIfWanted(state, cover, token);
}

export function handleTokenBast(state: CoherenceState, cover: Cover, token: WriteToken): void {
  token.wanted = true;
  giveUpIfWanted(state, cover, token);
}

/**
 * Not while a conversion in place is under way, that of a truncate without an open: the next holder of the token would begin one too, and
 * the two wait for each other.
 */
export function giveUpIfWanted(state: CoherenceState, cover: Cover, token: WriteToken): void {
  if (!token.wanted || token.users > 0 || token.state !== "held" || state.registering.has(token)) return;
  if (cover.asking === Mode.EX && cover.mode === Mode.PR) return;
  cover.token = null;
  state.effects.push({ do: "unlock-token", cover });
}
