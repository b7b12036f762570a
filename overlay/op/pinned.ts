/**
 * Work on the lower with locks pinned; the pins go when it has ended, well or not. In the turn wherever nothing has to wait: so is nearly all. `work`
 * answers the call, because what an answer tells is true as long as the pins are held. Work on what it may change begins when no change of a killed caller is
 * under way: what it looks at before its own change is as that has left it (hazard F50).
 */
import type { Want } from "../coherence/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Inode, PinMode } from "../coherence/cover.ts";
import { andThen, finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { changing } from "./orphans.ts";
import type { Mount } from "./mount.ts";

/** Only what may change the inode waits for others' changes. */
function begun<T>(mount: Mount, call: Call, inode: Inode, mode: PinMode, work: () => MaybePromise<T>): MaybePromise<T> {
  return mode === Mode.EX ? changing(mount, call, [inode], work) : work();
}

export function pinned<T>(mount: Mount, call: Call, inode: Inode, mode: PinMode, work: () => MaybePromise<T>): MaybePromise<T> {
  const { coherence } = mount;
  const held = (): MaybePromise<T> =>
    finallyDo(
      () => begun(mount, call, inode, mode, work),
      () => coherence.unpin(inode, mode),
    );
  return coherence.tryPin(inode, mode) ? held() : coherence.pin(inode, mode, call).then(held);
}

/** In the one lock order. */
export interface Pins {
  readonly wants: readonly Want[];
  /** While the call waits for its locks, and until it is answered, the kernel takes no size of that inode from other replies (KernelSizes.unstable). */
  readonly unstable?: Inode;
}

export function pinnedAll<T>(mount: Mount, call: Call, { wants, unstable }: Pins, work: () => MaybePromise<T>): MaybePromise<T> {
  const { coherence } = mount;
  const come = (): MaybePromise<void> => coherence.pinAll(wants, call);
  const came = unstable === undefined ? come() : finallyDo(come, coherence.sizes.unstable(unstable));
  const inodes = wants.flatMap(({ inode, mode }) => (mode === Mode.EX ? [inode] : []));
  return andThen(came, () =>
    finallyDo(
      () => (inodes.length > 0 ? changing(mount, call, inodes, work) : work()),
      () => coherence.unpinAll(wants),
    ),
  );
}

export interface DataPin extends Want {
  /** As for Coherence.pinData. */
  readonly cached: boolean;
  /** As above, of this inode. */
  readonly unstable?: boolean;
}

export function pinnedData<T>(mount: Mount, call: Call, pin: DataPin, work: () => MaybePromise<T>): MaybePromise<T> {
  const { coherence } = mount;
  const { inode, mode, cached, unstable = false } = pin;
  const come = (): MaybePromise<void> => coherence.pinData(inode, mode, cached, call);
  const came = unstable ? finallyDo(come, coherence.sizes.unstable(inode)) : come();
  return andThen(came, () =>
    finallyDo(
      () => begun(mount, call, inode, mode, work),
      () => coherence.unpinData(inode, mode),
    ),
  );
}
