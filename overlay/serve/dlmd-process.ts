/** Whether the dlmd of this node is dead, when a connection to it has ended (hazard F42). */
import { setTimeout as sleep } from "node:timers/promises";
import type { Native } from "../../native/index.ts";

/** A process that dies closes its connections first. One that is there after this time has closed this one only. */
export const DLMD_END_MS = 250;
const LOOK_MS = 5;

export class DlmdProcess {
  readonly #native: Pick<Native, "pidfdEnded">;
  /** -1: it is not to be seen from here. */
  readonly #pidfd: number;

  /** `connection`: a descriptor of it, while dlmd answers there. */
  constructor(native: Pick<Native, "peerPidfd" | "pidfdEnded">, connection: number) {
    this.#native = native;
    this.#pidfd = native.peerPidfd(connection);
  }

  /** False: it lives, or nobody can know. */
  async hasEnded(): Promise<boolean> {
    if (this.#pidfd < 0) return false;
    const endMs = performance.now() + DLMD_END_MS;
    while (this.#native.pidfdEnded(this.#pidfd) !== 1) {
      if (performance.now() >= endMs) return false;
      await sleep(LOOK_MS);
    }
    return true;
  }
}
