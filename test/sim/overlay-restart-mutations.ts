/** Hazard F33: another process goes on with a mount. */
import type { Mutation } from "./mutation.ts";

export const overlayRestartMutations: readonly Mutation[] = [
  {
    id: "f33-damaged-state",
    hazard: "F33",
    breaks: "a state that was damaged on its way is taken",
    file: "overlay/restart/state.ts",
    find: "if (!digestOf(body).equals(bytes.subarray(HEAD_BYTES - DIGEST_BYTES, HEAD_BYTES))) throw",
    replace: "if (bodyBytes < 0) throw",
    caughtBy: "test/unit/restart/state.test.ts",
  },
  {
    id: "f33-owner-changed",
    hazard: "F33",
    breaks: "the old process lets go although the files were opened at another owner",
    file: "overlay/restart/give.ts",
    find: "host.refusal() ?? (host.ownerEpoch() === state.ownerEpoch ? null",
    replace: "host.refusal() ?? (host.ownerEpoch() !== null ? null",
    caughtBy: "test/unit/restart/give.test.ts",
  },
  {
    id: "f33-kept-in-the-buffer",
    hazard: "F33",
    breaks: "a request that is kept lies in the buffer of the next one",
    file: "overlay/session/dispatch.ts",
    find: "kept ? buffer : Buffer.from(buffer.subarray(0, bytes))",
    replace: "buffer.subarray(0, bytes)",
    caughtBy: "test/unit/session/hold.test.ts",
  },
  {
    id: "f33-own-threads-wait",
    hazard: "F33",
    breaks: "a revoke waits for a look at its own mount, which is kept for the next process",
    file: "overlay/session/dispatch.ts",
    find: "        return this.#held?.passes.isOwn(request.pid) === true;",
    replace: "        return false;",
    caughtBy: "test/unit/session/hold.test.ts",
  },
];
