/**
 * Makes a script that fails shorter while it still fails: whole stretches of what was done are left out, halves first, then smaller ones
 * (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002), and the weather is made fair.
 */
import { Cluster } from "./cluster.ts";
import type { Script } from "./deed.ts";
import { type Failure, runCluster } from "./simulations.ts";

export interface Shrunk {
  readonly script: Script;
  readonly failure: Failure;
  readonly runs: number;
}

/** The same fault shows itself in other places and modes; a failure of another kind is not looked for here. */
function kindOf({ words }: Failure): string {
  return words.replaceAll(/[0-9a-f]{16}|\d+|\b(?:NL|CR|CW|PR|PW|EX|alpha|beta|gamma)\b/g, "").replaceAll(/\(.*?\)/g, "");
}

/** `attempts`: runs at most; every run is at most as long as the one that failed. */
export function shrink(first: Failure, attempts: number): Shrunk {
  let failure = first;
  let script = first.script as Script;
  let runs = 0;
  const stillFails = (candidate: Script): boolean => {
    if (runs >= attempts || candidate.deeds.length === 0) return false;
    runs++;
    const { failure: found } = runCluster(new Cluster(candidate), Number.POSITIVE_INFINITY);
    if (found === null || kindOf(found) !== kindOf(first)) return false;
    // Kept as it was run, but without what came after the failure.
    const deeds = (found.script as Script).deeds;
    script = { ...candidate, deeds, quietMs: Math.min(candidate.quietMs, (found.script as Script).quietMs) };
    failure = found;
    return true;
  };
  /** From the end, because what came last is most often too much. False: every stretch of that size is needed. */
  const leaveOut = (size: number): boolean => {
    let shorter = false;
    let to = script.deeds.length;
    while (to > 0) {
      const from = Math.max(0, to - size);
      if (stillFails({ ...script, deeds: [...script.deeds.slice(0, from), ...script.deeds.slice(to)] })) shorter = true;
      to = Math.min(from, script.deeds.length);
    }
    return shorter && runs < attempts;
  };
  for (const name of ["loss", "duplicate", "late"] as const) {
    if (script.weather[name] > 0) stillFails({ ...script, weather: { ...script.weather, [name]: 0 } });
  }
  let size = script.deeds.length;
  while (size > 1) {
    size = Math.ceil(size / 2);
    while (leaveOut(size));
  }
  return { script, failure, runs };
}
