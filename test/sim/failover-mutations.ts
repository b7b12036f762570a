/** Rules of failover.md that no other list has, each broken once: the file system of a volume, and what a fence's agents can prove. */
import type { Mutation } from "./mutation.ts";

const gone = "dlmd/recovery/gone-gate.ts";
const mmp = "overlay/volume/mmp.ts";
const sbd = "dlmd/fence-agent/sbd.ts";
const guard = "dlmd/fence-agent/run-agent.ts";
const mmpTest = "test/unit/volume/mmp.test.ts";
const sbdTest = "test/unit/fence-agent/sbd.test.ts";
const guardTest = "test/e2e/dlmd/agent-guard.test.ts";

export const failoverMutations: readonly Mutation[] = [
  {
    id: "r7-all-lockspaces-wait",
    hazard: "R7",
    breaks: "a program that hangs in one lockspace holds up all of them",
    file: gone,
    find: "if (all || lockspaces.has(lockspace)) return true;",
    replace: "if (all || lockspaces.size > 0) return true;",
    caughtBy: "test/scenario/scenario.test.ts",
  },
  {
    id: "r8-fast-commit-not-seen",
    hazard: "R8",
    breaks: "an ext4 that a crash may leave unmountable is a volume",
    file: "overlay/volume/superblock.ts",
    find: "const COMPAT_FAST_COMMIT = 0x400;",
    replace: "const COMPAT_FAST_COMMIT = 0;",
    caughtBy: "test/unit/volume/codec.test.ts",
  },
  {
    id: "r8-fast-commit-mounted",
    hazard: "R8",
    breaks: "an owner mounts an ext4 that its own crash may leave unmountable",
    file: "overlay/volume/probe.ts",
    find: "  if (superblock.hasFastCommit) {",
    replace: "  if (superblock.hasFastCommit && !superblock.hasJournal) {",
    caughtBy: "test/e2e/volume/journal.test.ts",
  },
  {
    id: "r12-machine-alone",
    hazard: "R12",
    breaks: "MMP of another device of the same machine is cleared",
    file: mmp,
    find: " && mmp.deviceName === path.basename(life.device)",
    replace: "",
    caughtBy: mmpTest,
  },
  {
    id: "r12-device-alone",
    hazard: "R12",
    breaks: "MMP of a stranger whose device has the same name is cleared, and it has the volume mounted",
    file: mmp,
    find: " && mmp.hostName === life.hostName",
    replace: "",
    caughtBy: mmpTest,
  },
  {
    id: "r13-bit-not-read-again",
    hazard: "R13",
    breaks: "what was read before the journal was replayed is believed after the mount",
    file: "overlay/volume/lower-mount.ts",
    find: "      await requireSameBit(mount.rootFd, expected, device);\n",
    replace: "",
    caughtBy: "test/e2e/volume/bit.alone.test.ts",
  },
  {
    id: "r17-busy-is-released",
    hazard: "R17",
    breaks: "a superblock that something keeps alive counts as released",
    file: "overlay/volume/detached.ts",
    find: '    if (state === "free") return;',
    replace: "    return;",
    caughtBy: "test/unit/volume/timers.test.ts",
  },
  {
    id: "sbd-msgwait-too-short",
    breaks: "a fence is over before sbd has fed the watchdog for the last time",
    file: sbd,
    find: "const leastMs = watchdogMs + loopMs + SBD_IO_MS;",
    replace: "const leastMs = watchdogMs;",
    caughtBy: sbdTest,
  },
  {
    id: "sbd-off-not-settled",
    breaks: "a second try of a killed fence waits for nobody, because the slot says off already",
    file: sbd,
    find: 'if (action === "off" && settleMs < msgwaitMs)',
    replace: 'if (action === "off" && settleMs < 0)',
    caughtBy: sbdTest,
  },
  {
    id: "sbd-disks-differ",
    breaks: "the node's sbd goes by the longer time of another disk",
    file: sbd,
    find: "  if (!areEqual(known.flatMap",
    replace: "  if (!areEqual([]) && !areEqual(known.flatMap",
    caughtBy: sbdTest,
  },
  {
    id: "sbd-killed-at-power-timeout",
    breaks: "fence_sbd kills its sbd within msgwait, and the wait that is the proof is cut",
    file: sbd,
    find: "powerTimeoutS * 1000 > msgwaitMs",
    replace: "powerTimeoutS * 1000 > 0",
    caughtBy: sbdTest,
  },
  {
    id: "agent-without-guard",
    hazard: "M2",
    breaks: "an agent goes on when its dlmd stands still, and shoots a node after the next lease has begun",
    file: guard,
    find: 'kill -KILL -- "-$2"\'',
    replace: "true'",
    caughtBy: guardTest,
  },
];
