/** What a person who orders a fence waits for: a row of the history. It ends, too, when the order was lost, or its time is over. */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Fences, HistoryRow } from "./fence-words.ts";

export const LOOK_EVERY_MS = 200;
/** An order of which nothing is known for so long came to nothing: a view that ends takes along what was not ordered in it. */
export const LOST_AFTER_MS = 10_000;
/** `--wait`, if it is not given: as long as one run of an agent may take. */
export const WAIT_MS = 600_000;

export interface FollowOptions {
  readonly nodeid: number;
  /** That of the order, and of no other one: another person's may be refused meanwhile. */
  readonly by: string;
  /** As it was before the order. */
  readonly before: Fences;
  readonly waitMs: number;
  readonly look: () => Promise<Fences>;
  readonly sleep: (ms: number) => Promise<unknown>;
  readonly nowMs: () => number;
  /** What is done now; each time that it changes. */
  readonly say: (words: string) => void;
  readonly signal?: AbortSignal;
}

const keyOf = (row: HistoryRow): string => JSON.stringify(row);

/** Until the request has an end, or every level has failed once more. OperatingError: "fence-lost", "fence-goes-on". Throws the reason of `signal`. */
export async function followOrder({ nodeid, by, before, waitMs, look, sleep, nowMs, say, signal }: FollowOptions): Promise<HistoryRow> {
  const known = new Set(before.fencing.history.map(keyOf));
  const rounds = before.fencing.wanted.find((one) => one.nodeid === nodeid)?.rounds ?? 0;
  const fromMs = nowMs();
  let [seenMs, said] = [fromMs, ""];
  for (;;) {
    const { wanted, history } = (await look()).fencing;
    const news = history.filter((row) => row.nodeid === nodeid && !known.has(keyOf(row)));
    // Rows of what goes on without this order may stand behind it.
    const refused = news.find((row) => row.outcome === "refused" && row.by === by);
    if (refused !== undefined) return refused;
    const last = news.findLast((row) => row.outcome !== "refused");
    const open = wanted.find((one) => one.nodeid === nodeid);
    if (last !== undefined && (last.outcome === "known" || open === undefined || open.rounds > rounds)) return last;
    if (open !== undefined) seenMs = nowMs();
    if (open !== undefined && open.step !== said) say((said = open.step));
    if (nowMs() - seenMs >= LOST_AFTER_MS) throw lost(nodeid);
    if (nowMs() - fromMs >= waitMs) throw goesOn(nodeid, waitMs, said);
    signal?.throwIfAborted();
    await sleep(LOOK_EVERY_MS);
  }
}

function lost(nodeid: number): OperatingError {
  return new OperatingError(`the order to fence node ${nodeid} came to nothing: the view has changed meanwhile`, {
    code: "fence-lost",
    hint: "Give it again; `coverlay fence show` says what is done.",
  });
}

function goesOn(nodeid: number, waitMs: number, step: string): OperatingError {
  return new OperatingError(
    `node ${nodeid} is not fenced after ${waitMs / 1000} s, and the fence goes on${step === "" ? "" : `: ${step}`}`,
    {
      code: "fence-goes-on",
      hint: "`coverlay fence show` says what is done, `coverlay fence history` how it ended.",
    },
  );
}
