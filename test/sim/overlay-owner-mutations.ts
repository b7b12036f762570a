/** Rules of the owner's failover, and of the lab that cuts and fences nodes. */
import type { Mutation } from "./mutation.ts";

export const overlayOwnerMutations: readonly Mutation[] = [
  {
    id: "r11-limit-alone",
    hazard: "R11",
    breaks: "a write that the kernel held back before the cut comes to the image after it",
    file: "overlay/lab/disk.ts",
    find: "const CUT_OFFSET = 2 ** 62;",
    replace: "const CUT_OFFSET = 0;",
    caughtBy: "test/e2e/lab/cut-disk.alone.test.ts",
  },
];
