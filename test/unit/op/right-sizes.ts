/** Test double: a kernel whose sizes are always right, and which has taken every reply. */
import type { KernelSizes } from "../../../overlay/coherence/size/kernel-sizes.ts";

export const rightSizes: KernelSizes = {
  heard() {},
  settled() {},
  locked() {},
  mayBeSeek: () => true,
  begin() {},
  made() {},
  end() {},
  unstable: () => () => {},
  replied() {},
  told() {},
  toldSentinel() {},
  known: () => true,
  tell: async (_inode, _waiter, read, answer) => answer(await read()),
  seen: () => Promise.resolve(null),
  isReading: () => false,
  toldAsker() {},
  anticipate() {},
  mark: () => 0,
  confirmEnd: () => true,
  own: { isOwnThread: () => false, getattr: () => "no", tell: (_inode, work) => work(), lock: () => null },
};
