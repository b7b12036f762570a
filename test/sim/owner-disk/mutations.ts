/** Rules that keep the disk from two owners, each broken once: the simulation of the owner's role and its disk must notice (../mutation.ts). */
import type { Mutation } from "../mutation.ts";

const simulation = "test/sim/owner-disk/owner-disk.test.ts";
const margins = "test/unit/lease/margins.test.ts";

export const ownerDiskMutations: readonly Mutation[] = [
  {
    id: "c4-lease-runs-too-long",
    breaks: "a lease ends when others may go on, if no clock drifts",
    file: "dlmd/membership/lease.ts",
    find: "export const leaseShare = 0.6;",
    replace: "export const leaseShare = 0.79;",
    caughtBy: simulation,
  },
  {
    id: "c4-others-do-not-wait",
    breaks: "the others go on when the lease ends, by their clocks",
    file: "dlmd/membership/lease.ts",
    find: "export const leaseWaitShare = 0.8;",
    replace: "export const leaseWaitShare = 0.61;",
    caughtBy: simulation,
  },
  {
    id: "c4-no-time-to-drop",
    breaks: "a kernel has cached more than can be dropped before others go on",
    file: "overlay/coherence/cache-limit.ts",
    find: "const DROP_US = 4.5;",
    replace: "const DROP_US = 2.5;",
    caughtBy: margins,
  },
  {
    id: "self-fence-margin-without-drift",
    breaks: "an owner with a fast clock gives up its disk within a time-out, in which the others cannot go on",
    file: "overlay/serve/self-fence.ts",
    find: "export const SELF_FENCE_MARGINS = 5;",
    replace: "export const SELF_FENCE_MARGINS = 2;",
    caughtBy: simulation,
  },
  {
    id: "r5-quiet-for-a-moment",
    breaks: "the looks at a quiet disk are closer together than a mounted file system writes",
    file: "overlay/volume/quiet-disk.ts",
    find: "Math.max(QUIET_MS, everyMs * QUIET_SHARE)",
    replace: "QUIET_MS / 10",
    caughtBy: margins,
  },
  {
    id: "r5-claim-without-proof",
    breaks: "a node claims the volume although nothing proves that its owner is over",
    file: "overlay/volume/owner-election.ts",
    find: 'if (proof.kind === "none") return this.#enterUnproved(proof.why, proof.underWay === true);\n    const [life, ...others] = this.#lives;\n    if (life === this.#state.block?.life) this.#proof = proof;',
    replace:
      'const [life, ...others] = this.#lives;\n    if (life === this.#state.block?.life) this.#proof = proof.kind === "none" ? { kind: "fenced" } : proof;',
    caughtBy: simulation,
  },
  {
    id: "r5-record-not-proved",
    breaks: "a claim proves the life in the owner's block over, and not the one in the record",
    file: "overlay/volume/owner-claim.ts",
    find: "return { lives: [...lives, lifeOf(last)], letGo };",
    replace: "return { lives, letGo };",
    caughtBy: simulation,
  },
  {
    id: "r5-lie-forgotten",
    hazard: "R5",
    breaks: "a fence that lied is forgotten when another life is asked for",
    file: "overlay/volume/fence-proof.ts",
    find: "    this.#seen.set(key, seen);\n",
    replace: "    this.#seen.clear();\n    this.#seen.set(key, seen);\n",
    caughtBy: "test/unit/volume/fence-proof.test.ts",
  },
  {
    id: "r5-record-of-same-epoch",
    hazard: "R5",
    breaks: "of two claims with the same epoch and state the first that was heard of counts",
    file: "overlay/volume/owner-state.ts",
    find: "if (order > 0 || isOther) {",
    replace: "if (order > 0 || (isOther && order > 0)) {",
    caughtBy: "test/unit/volume/owner-proof.test.ts",
  },
  {
    id: "c2-ended-while-busy",
    breaks: "a process that was killed counts as the end, while its kernel writes back",
    file: "overlay/volume/prove-elsewhere.ts",
    find: "return { proof: none(`process ${life.pid} of ${name} has ended, but ${life.device} is in use there still`), again: true };",
    replace: 'return over({ kind: "ended" });',
    caughtBy: simulation,
  },
  {
    id: "c2-stopped-counts-as-ended",
    breaks: "a process that stands still counts as one that has ended",
    file: "overlay/volume/prove-elsewhere.ts",
    find: 'if (process === "alive") return { proof: none(`process ${life.pid} of ${name} runs still`), again: true };',
    replace: 'if (process === "alive") return over({ kind: "ended" });',
    caughtBy: "test/unit/volume/prove-elsewhere.test.ts",
  },
  {
    id: "c3-stale-owner-mounts",
    breaks: "a node that was stopped while it wrote its block mounts, although its lease has ended",
    file: "overlay/volume/taking.ts",
    find: "  requireLease(at);\n  let mounted",
    replace: "  let mounted",
    caughtBy: "test/unit/volume/lapsed-lease.test.ts",
  },
];
