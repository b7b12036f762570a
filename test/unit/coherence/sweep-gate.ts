/** Of a model's kernel: the gate before the last step of a sweep of pages and size. What comes first shuts it, or passes. */
export interface SweepGate {
  /** True: the last step is not taken. */
  readonly shut: () => boolean;
  /** False: it was shut before. */
  readonly pass: () => boolean;
}

export function sweepGate(): SweepGate {
  let state: "open" | "shut" | "passed" = "open";
  const become = (next: "shut" | "passed"): boolean => {
    if (state === "open") state = next;
    return state === next;
  };
  return { shut: () => become("shut"), pass: () => become("passed") };
}
