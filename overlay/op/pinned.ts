/**
 * Work on the lower with locks pinned; the pins go when it has ended, well or not. In the turn wherever nothing has to wait: so is nearly all. `work`
 * answers the call, because what an answer tells is true as long as the pins are held.
 */
import type { Want } from "../coherence/api.ts";
import type { Inode, PinMode } from "../coherence/cover.ts";
import type { Maybe } from "../lower/lower.ts";
import { chain, lastly } from "../lower/maybe.ts";
import type { Call } from "./call.ts";
import type { Mount } from "./mount.ts";

export function pinned<T>({ coherence }: Mount, call: Call, inode: Inode, mode: PinMode, work: () => Maybe<T>): Maybe<T> {
  const held = (): Maybe<T> => lastly(work, () => coherence.unpin(inode, mode));
  return coherence.tryPin(inode, mode) ? held() : coherence.pin(inode, mode, call).then(held);
}

/** In the one lock order. */
export interface Pins {
  readonly wants: readonly Want[];
  /** While the call waits for its locks, and until it is answered, the kernel takes no size of that inode from other replies (KernelSizes.unstable). */
  readonly unstable?: Inode;
}

export function pinnedAll<T>({ coherence }: Mount, call: Call, { wants, unstable }: Pins, work: () => Maybe<T>): Maybe<T> {
  const come = (): Maybe<void> => coherence.pinAll(wants, call);
  const came = unstable === undefined ? come() : lastly(come, coherence.sizes.unstable(unstable));
  return chain(came, () => lastly(work, () => coherence.unpinAll(wants)));
}

export interface DataPin extends Want {
  /** As for Coherence.pinData. */
  readonly cached: boolean;
  /** As above, of this inode. */
  readonly unstable?: boolean;
}

export function pinnedData<T>({ coherence }: Mount, call: Call, pin: DataPin, work: () => Maybe<T>): Maybe<T> {
  const { inode, mode, cached, unstable = false } = pin;
  const come = (): Maybe<void> => coherence.pinData(inode, mode, cached, call);
  const came = unstable ? lastly(come, coherence.sizes.unstable(inode)) : come();
  return chain(came, () => lastly(work, () => coherence.unpinData(inode, mode)));
}
