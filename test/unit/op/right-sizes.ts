/** Test double: a kernel whose sizes are always right, and which has taken every reply. */
import type { KernelSizes } from "../../../overlay/coherence/size-check.ts";

export const rightSizes: KernelSizes = {
  heard() {},
  locked() {},
  replied() {},
  told() {},
  toldSentinel() {},
  asked: () => 0,
  certain: () => true,
  toldAsker() {},
  mark: () => 0,
  confirmEnd: () => true,
  ownGetattr: () => "no",
  ownLock: () => false,
};
