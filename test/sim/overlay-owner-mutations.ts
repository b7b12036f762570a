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
  {
    id: "c3-path-back-too-early",
    hazard: "C3",
    breaks: "a fenced node of the lab gets its disk back while a file system of it is mounted",
    file: "overlay/lab/power.ts",
    find: 'if (tryExclusive(node.device) === "busy") {',
    replace: 'if (tryExclusive(node.device) === "gone") {',
    caughtBy: "test/e2e/lab/fence-agent.test.ts",
  },
  {
    id: "r11-killed-before-cut",
    hazard: "R11",
    breaks: "the lab's fence kills a node that still reaches its disk, and its kernel writes back",
    file: "overlay/lab/power.ts",
    find: `    await cutPath(lab, now);
    await setCable(lab, now, false);`,
    replace: "    await setCable(lab, now, false);",
    caughtBy: "test/e2e/lab/fence-agent.test.ts",
  },
];
