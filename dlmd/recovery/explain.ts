/** What recovery waits for, in words. */
import type { Phase } from "./recovery-port.ts";

export interface RecoveryState {
  readonly phase: Phase;
  /** A later view was promised. */
  readonly stopped: boolean;
  /** Nodeids of the other members of the view. */
  readonly others: readonly number[];
  /** Who has said MARK, DONE 1 and DONE 2. */
  readonly marks: ReadonlySet<number>;
  readonly done: readonly [ReadonlySet<number>, ReadonlySet<number>];
  /** All that a restart must know is on disk. */
  readonly stable: boolean;
  readonly serving: boolean;
}

/** `gates`: what single lockspaces wait for. */
export function explainRecovery({ phase, stopped, others, marks, done, stable, serving }: RecoveryState, gates: () => string[]): string {
  const missing = (have: ReadonlySet<number>): string => others.filter((nodeid) => !have.has(nodeid)).join(" ");
  if (stopped) return "a view change is under way";
  switch (phase) {
    case "none":
      return "waiting for a first view";
    case "blocked":
      return "waiting for quorum";
    case "mark":
      if (marks.size < others.length) return `recovering: waiting for MARK of nodes ${missing(marks)}`;
      if (!stable) return "recovering: waiting for the disk that keeps this node's state";
      return `recovering: waiting for nodes ${missing(done[0])} to be ready`;
    case "rebuild":
      return `recovering: waiting for the locks of nodes ${missing(done[1])}`;
    case "wait":
      return "recovering: waiting until no node outside the view can be serving";
    case "settle":
      return "recovering: granting what can be granted";
    case "run":
      if (!serving) return "waiting: too long since a quorum of the view was heard";
      return ["running", ...gates().filter((words) => words !== "")].join("; ");
  }
}
