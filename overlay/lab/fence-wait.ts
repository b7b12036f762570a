/**
 * A node that is started while another one fences it would be switched off again: its start waits for the end of that fence. A fence that has
 * failed and pauses, or has no quorum, is not waited for: the node joins, and ends it.
 */
import * as z from "zod";

/** A node that is being fenced for longer is started all the same. */
export const FENCE_WAIT_MS = 60_000;
const LOOK_EVERY_MS = 100;

const shape = z.looseObject({
  quorate: z.boolean(),
  fencing: z.looseObject({
    devices: z.array(z.number()),
    wanted: z.array(z.looseObject({ nodeid: z.number(), againAfterMs: z.number() })),
  }),
});

/** By one dlmd's answer to "status": an agent runs against that node, or is about to. */
export function isBeingFenced(status: unknown, nodeid: number): boolean {
  const { data } = shape.safeParse(status);
  if (data === undefined || !data.quorate || !data.fencing.devices.includes(nodeid)) return false;
  return data.fencing.wanted.some((want) => want.nodeid === nodeid && want.againAfterMs === 0);
}

export interface FenceWait {
  /** What the other nodes of the lab say that answer. */
  readonly statuses: () => Promise<readonly unknown[]>;
  readonly sleep: (ms: number) => Promise<unknown>;
  readonly nowMs: () => number;
}

/** False: it is still being fenced. */
export async function waitForFence(nodeid: number, { statuses, sleep, nowMs }: FenceWait): Promise<boolean> {
  const endMs = nowMs() + FENCE_WAIT_MS;
  while ((await statuses()).some((status) => isBeingFenced(status, nodeid))) {
    if (nowMs() >= endMs) return false;
    await sleep(LOOK_EVERY_MS);
  }
  return true;
}
