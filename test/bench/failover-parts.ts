/** From what the programs of a lab logged to the parts of a failover. All clocks are one: a lab is one machine. Pure. */

/** A line: milliseconds of the day (UTC), and the words behind the time. */
export interface LogLine {
  readonly ms: number;
  readonly words: string;
}

export interface NodeLog {
  readonly node: string;
  readonly lines: readonly LogLine[];
}

const DAY_MS = 86_400_000;
const LINE = /^(\d\d):(\d\d):(\d\d)\.(\d\d\d) (.*)$/;

export function nodeLog(node: string, texts: readonly string[]): NodeLog {
  const lines = texts.flatMap((text) =>
    text.split("\n").flatMap((line): LogLine[] => {
      const found = LINE.exec(line);
      if (found === null) return [];
      const [hours = 0, minutes = 0, seconds = 0, ms = 0] = found.slice(1, 5).map(Number);
      return [{ ms: ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms, words: found[5] ?? "" }];
    }),
  );
  return { node, lines };
}

/** Milliseconds after `sinceMs` (Unix time) of the first such line of any of them; null: there is none within `withinMs`. */
export function firstAfter(logs: readonly NodeLog[], sinceMs: number, withinMs: number, words: RegExp): number | null {
  const passed = logs
    .flatMap(({ lines }) => lines)
    .filter((line) => words.test(line.words))
    .map(({ ms }) => (((ms - sinceMs) % DAY_MS) + DAY_MS) % DAY_MS)
    .filter((ms) => ms <= withinMs);
  return passed.length === 0 ? null : Math.min(...passed);
}

/** Milliseconds, one after the other; null: it is not in the logs. */
export interface FailoverParts {
  /** From the death until it is called lost. */
  readonly detectionMs: number | null;
  /** From there to a view without it. */
  readonly viewMs: number | null;
  /** From there to the proof: the agent, the time that the device needs, and the quiet disk. */
  readonly fenceMs: number | null;
  /** From the proof to the mounted lower: the claim, mount(2) with the replay of the journal, and the server. */
  readonly mountMs: number | null;
  /** From there to the end of the longest round of the others. */
  readonly answerMs: number;
}

/** `logs`: of the nodes that live. `restMs`: from the death to that end. */
export function failoverParts(logs: readonly NodeLog[], deathMs: number, dead: number, restMs: number): FailoverParts {
  const at = (words: RegExp): number | null => firstAfter(logs, deathMs, restMs, words);
  const view = at(new RegExp(`^info  view .*members=\\[(?!(\\d+,)*${dead}[,\\]]).*quorate=true`));
  const lost = at(/^info  proposing a view .*why="lost/);
  const proof = at(/the owner before is fenced, and its disk is quiet/);
  const mounted = at(/lower mounted/);
  const between = (from: number | null, to: number | null): number | null => (from === null || to === null ? null : to - from);
  return {
    detectionMs: lost,
    viewMs: between(lost, view),
    fenceMs: between(view, proof),
    mountMs: between(proof, mounted),
    answerMs: restMs - (mounted ?? 0),
  };
}
