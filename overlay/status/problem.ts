/** What may be wrong with a node: the codes and their levels, which are stable. Pure. README.md says when each is found. */

/** In this order the worst is the last. */
export const levels = ["well", "degraded", "down", "unknown"] as const;
export type Level = (typeof levels)[number];

export type ProblemCode =
  | "dlmd-silent"
  | "no-quorum"
  | "locks-wait"
  | "unfenced"
  | "mount-gone"
  | "mount-silent"
  | "lease-lapsed"
  | "no-owner"
  | "owner-silent"
  | "disk-silent"
  | "mount-blocked"
  | "mount-paused"
  | "node-away"
  | "node-refused"
  | "fence-failed"
  | "multicast-gone"
  | "channel-down"
  | "disk-withdrawn"
  | "disk-read-only"
  | "disk-unread"
  | "changes-unseen"
  | "mounted-plainly"
  | "mount-waits"
  | "lock-wait"
  | "call-wait"
  | "calls-unknown"
  | "waits-unknown";

export const problemLevels: Readonly<Record<ProblemCode, Level>> = {
  "dlmd-silent": "unknown",
  "no-quorum": "down",
  "locks-wait": "down",
  unfenced: "down",
  "mount-gone": "down",
  "mount-silent": "down",
  "lease-lapsed": "down",
  "no-owner": "down",
  "owner-silent": "down",
  "disk-silent": "down",
  "mount-blocked": "down",
  "mount-paused": "down",
  "node-away": "degraded",
  "node-refused": "degraded",
  "fence-failed": "degraded",
  "multicast-gone": "degraded",
  "channel-down": "degraded",
  "disk-withdrawn": "degraded",
  "disk-read-only": "degraded",
  "disk-unread": "degraded",
  "changes-unseen": "degraded",
  "mounted-plainly": "degraded",
  "mount-waits": "degraded",
  "lock-wait": "degraded",
  "call-wait": "degraded",
  "calls-unknown": "degraded",
  "waits-unknown": "degraded",
};
export const problemCodes: readonly ProblemCode[] = Object.keys(problemLevels) as ProblemCode[];

export interface Problem {
  readonly code: ProblemCode;
  readonly level: Level;
  /** Of which it is the problem. */
  readonly node: string | null;
  readonly volume: string | null;
  readonly mountpoint: string | null;
  readonly found: string;
  /** What to do. */
  readonly action: string;
}

export interface About {
  readonly node?: string;
  readonly volume?: string;
  readonly mountpoint?: string;
}

export function problem(code: ProblemCode, about: About, found: string, action: string): Problem {
  const { node = null, volume = null, mountpoint = null } = about;
  return { code, level: problemLevels[code], node, volume, mountpoint, found, action };
}

export function worstOf(problems: readonly Problem[]): Level {
  return levels[Math.max(0, ...problems.map(({ level }) => levels.indexOf(level)))] ?? "well";
}

/** The worst first; those of one level stay in their order. */
export function worstFirst<P extends Problem>(problems: readonly P[]): P[] {
  return problems.toSorted((a, b) => levels.indexOf(b.level) - levels.indexOf(a.level));
}

/** "0.4 s", "12 s", "3 min", "5 h": two digits are enough for people. */
export function shortTime(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** "768 MiB" */
export function sizeWords(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let value = bytes;
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024;
  return `${Number(value.toFixed(1))} ${units[at]}`;
}
