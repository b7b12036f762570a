/** What a person who changes the configuration waits for: that the cluster decides. The change itself goes on without the command. */
import type { OperatingError } from "../../dlmd/base/error.ts";
import { interruptedError, unlessAborted } from "./interrupt.ts";

export const LOOK_EVERY_MS = 1000;

export interface ApplyPort {
  /** Resolves with the version that is in force. */
  readonly apply: () => Promise<number>;
  readonly look: () => Promise<ApplyState>;
  readonly sleep: (ms: number) => Promise<unknown>;
  readonly say: (words: string) => void;
  readonly signal: AbortSignal;
}

export interface ApplyState {
  readonly inForce: number;
  /** Proposed, and not decided. */
  readonly pending: number | null;
  /** The view of this node, in words. */
  readonly view: string;
}

/** Says for what the change waits until it is in force. Throws the reason of `signal`: the change itself goes on then. */
export async function followApply(wanted: number, { apply, look, sleep: pause, say, signal }: ApplyPort): Promise<number> {
  say(`proposing version ${wanted}`);
  const applied = unlessAborted(apply(), signal);
  const over = applied.then(
    () => "over" as const,
    () => "over" as const,
  );
  for (;;) {
    // That dlmd does not answer now is told by the answer to `apply`.
    const state = await Promise.race([over, look().catch(() => null)]);
    if (state === "over") break;
    if (state !== null) say(waitWords(wanted, state));
    if ((await Promise.race([over, pause(LOOK_EVERY_MS)])) === "over") break;
  }
  return applied;
}

function waitWords(wanted: number, { inForce, pending, view }: ApplyState): string {
  if (inForce >= wanted) return `version ${inForce} is in force here`;
  if (pending === wanted) return `version ${wanted} is proposed, and waits until all members and the majorities have it on disk; ${view}`;
  return `version ${wanted} is not proposed yet; ${view}`;
}

/** What is known of a change that nobody waits for any more. */
export function interruptedApply(wanted: number, state: ApplyState | null): OperatingError {
  const { inForce = 0, pending = null } = state ?? {};
  const hint = "`coverlay config show` prints the version in force, and one that is proposed and not decided.";
  if (inForce >= wanted) return interruptedError(`version ${inForce} is in force`, hint);
  const isKnown = pending === wanted ? "is proposed, and not decided" : "was given to dlmd";
  return interruptedError(`version ${wanted} ${isKnown}: it may still come into force, and this node cannot take it back`, hint);
}
