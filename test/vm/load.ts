/** A program that writes numbers to a file of the volume, one line each, while nodes fail; and whether all is there that it was promised. */

/** In the machine: numbers whose append and sync succeeded, and those of which one failed. */
const SYNCED = "/run/load.synced";
const UNSURE = "/run/load.unsure";

/** A number is written once: where that fails, the next line has the next number. */
export const LOAD_SCRIPT: string = `: >${SYNCED}
: >${UNSURE}
n=0
while n=$((n + 1)); do
  if echo $n >>/shared/load && sync /shared/load; then
    echo $n >>${SYNCED}
  else
    echo $n >>${UNSURE}
    sleep 1
  fi
done
`;
/** How many were synced so far. */
export const LOAD_COUNT: string = `wc -l <${SYNCED}`;
export const LOAD_SAID: { readonly synced: string; readonly unsure: string } = { synced: `cat ${SYNCED}`, unsure: `cat ${UNSURE}` };

export interface LoadSaid {
  /** Each is a number a line. */
  readonly file: string;
  readonly synced: string;
  readonly unsure: string;
}

const linesOf = (text: string): string[] => text.split("\n").filter((line) => line !== "");

/**
 * Faults in words; none: all is well. The load may have been stopped between an append and its record, so the number after the last recorded one may be there.
 */
export function loadFaults({ file, synced, unsure }: LoadSaid): string[] {
  const lines = linesOf(file);
  const promised = linesOf(synced);
  const tried = new Set([...promised, ...linesOf(unsure)]);
  const present = new Set(lines);
  const last = String(tried.size + 1);
  return [
    ...(file === "" || file.endsWith("\n") ? [] : ["the last line has no end"]),
    ...promised.filter((line) => !present.has(line)).map((line) => `${line} was synced, and is not there`),
    ...lines.filter((line) => !tried.has(line) && line !== last).map((line) => `nobody wrote ${JSON.stringify(line)}`),
    ...lines.flatMap((line, index) => {
      const before = lines[index - 1];
      return before === undefined || Number(before) < Number(line) ? [] : [`${line} comes after ${before}`];
    }),
  ];
}
