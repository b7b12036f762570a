/** How long work on a lab is followed, and ended: by the command that does it, or by none. */

export interface LabWork {
  /** What is done, or waited for, now, for people. */
  readonly say: (words: string) => void;
  /** A line that stays. */
  readonly note: (words: string) => void;
  /** When it aborts, no step is begun, and waits end. */
  readonly signal: AbortSignal;
}

/** Nobody looks on, and nothing ends it. */
export const UNFOLLOWED: LabWork = { say: () => undefined, note: () => undefined, signal: new AbortController().signal };
