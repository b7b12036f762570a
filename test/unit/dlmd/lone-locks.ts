/** The lock manager of node 1 without a node around it: what it says is heard, and time stands still unless the test moves it. */
import type { LockPort } from "../../../dlmd/lock/holder.ts";
import { LockManager } from "../../../dlmd/lock/lock-manager.ts";

export function loneLocks(port: Partial<LockPort> = {}): { readonly manager: LockManager; readonly time: { nowMs: number } } {
  const nothing = {
    toPeer: () => {},
    toClient: () => {},
    protest: () => {},
    blocks: () => false,
    opensLockspace: () => true,
    closesLockspace: () => {},
  };
  const limits = { locksPerClient: 10, savedMessagesPerPeer: 65_536, deadlockAfterMs: 1000 };
  const time = { nowMs: 0 };
  return { manager: new LockManager(1, time, { ...nothing, ...port }, limits), time };
}
