/** What a node is to the volume: its owner, one that asks the owner, or one that waits for one. */
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { until } from "./actor.ts";
import type { TestLab } from "./lab.ts";

const STATE_TIMEOUT_MS = 60_000;
const POLL_MS = 100;

/** Resolves when the lab says that the node is in that role. */
export async function untilRole(lab: TestLab, nodeid: number, role: string): Promise<void> {
  const deadline = performance.now() + STATE_TIMEOUT_MS;
  for (;;) {
    const node = (await lab.status()).find((one) => one.nodeid === nodeid);
    if (node?.role === role) return;
    if (performance.now() > deadline) throw new Error(`node${nodeid} should be ${role}, is ${node?.role} (${node?.state})`);
    await new Promise((resolve) => {
      setTimeout(resolve, POLL_MS);
    });
  }
}

/** On a machine so busy that the others go on without a node, its mount ends. Who waits there is told a moment before. */
export function untilMountEnded(runDir: string): Promise<void> {
  return until("the mount has ended", async () => (await queryOverlayStatus(runDir).catch(() => null)) === null);
}

/** Of a lab of three nodes. */
export async function rolesOf(lab: TestLab): Promise<[owner: number, near: number, far: number]> {
  const owner = await lab.owner();
  return [owner, ...([1, 2, 3].filter((nodeid) => nodeid !== owner) as [number, number])];
}
