/**
 * The proof that a life of another node is over: that node's lock manager looks at the process and at the device (dlmd/query/life-asks.ts).
 * A process that was killed a moment ago leaves its device a moment later, so the question is asked again for a while. A node that is not in
 * the view is fenced (fence-proof.ts).
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { LifeAnswer, ProcessLife } from "../../dlmd/client/api.ts";
import type { FenceProof } from "./fence-proof.ts";
import { judgeReboot, type Life, type Proof, type ProveGone } from "./life.ts";
import type { OwnerBlock } from "./owner-block.ts";
import type { ProofQuestion } from "./owner-event.ts";

/** One proof asks for so long at most; then there is none, and the owner role asks again later (owner.ts). */
export const PROVE_LIMIT_MS = 1500;
/** Between two questions of one proof. */
export const PROVE_POLL_MS = 20;
/** As long as a fence is under way: then another node has its turn. */
export const FENCE_LIMIT_MS = 10_000;
export const FENCE_POLL_MS = 100;
/** Meanwhile the owner's block is read so often: an owner without a quorum may let go of its disk by itself (../serve/self-fence.ts). */
export const FENCE_BLOCK_MS = 500;

/** `tell`: what is waited for, in words. Never rejects. */
export type ProveGoneAnywhere = (question: ProofQuestion, tell: (why: string) => void) => Promise<Proof>;

export interface ProveElsewhereOptions {
  readonly nodeid: number;
  readonly nameOf: (nodeid: number) => string;
  /** DlmClient.askLife */
  readonly askLife: (life: ProcessLife) => Promise<LifeAnswer>;
  /** For a life of this node. */
  readonly here: ProveGone;
  /** Asked where the node of that life says nothing; null: never. */
  readonly fence: Pick<FenceProof, "ask"> | null;
  /** Whether the owner's block is as it was read then. */
  readonly isUnchanged: (then: OwnerBlock | null) => Promise<boolean>;
  /** Seams for tests; milliseconds. */
  readonly nowMs?: () => number;
  readonly wait?: (ms: number) => Promise<unknown>;
}

/** `again`: a moment later the answer may be another. `silent`: nobody on that node answered. */
type Judged = { readonly proof: Proof; readonly again: boolean; readonly silent?: true };

export function createProveGoneAnywhere(options: ProveElsewhereOptions): ProveGoneAnywhere {
  const { nodeid, here, askLife, fence, isUnchanged, nowMs = () => performance.now(), wait = sleep } = options;
  const ask = async (life: Life, first: boolean): Promise<Judged> => {
    if (life.nodeid === nodeid) {
      const proof = await here(life);
      return { proof, again: proof.kind === "none" };
    }
    const { pid, startTime, device } = life;
    const answer = await askLife({ nodeid: life.nodeid, pid, startTime: Number(startTime), device });
    const judged = judgeAnswer(life, answer, options.nameOf(life.nodeid));
    // Faster proofs come first; a node that answers is never fenced.
    return judged.silent === true ? ((await fence?.ask(life, first)) ?? judged) : judged;
  };
  return async ({ life, first, block }, tell) => {
    const beganMs = nowMs();
    let readMs = beganMs;
    for (;;) {
      let judged: Judged;
      try {
        judged = await ask(life, first);
        const waits = judged.proof.kind === "none" && judged.proof.underWay === true;
        if (waits && nowMs() - readMs >= FENCE_BLOCK_MS) {
          readMs = nowMs();
          if (!(await isUnchanged(block))) return CHANGED;
        }
        // It may have given the device back before it ended; then the block as it was read says nothing any more.
        if (judged.proof.kind === "ended" && !(await isUnchanged(block))) return CHANGED;
      } catch (error) {
        return none(`${options.nameOf(life.nodeid)} was not asked: ${error instanceof Error ? error.message : String(error)}`);
      }
      const { proof, again } = judged;
      const underWay = proof.kind === "none" && proof.underWay === true;
      if (!again || nowMs() - beganMs >= (underWay ? FENCE_LIMIT_MS : PROVE_LIMIT_MS)) return proof;
      if (underWay) tell(proof.why);
      await wait(underWay ? FENCE_POLL_MS : PROVE_POLL_MS);
    }
  };
}

const CHANGED: Proof = { kind: "none", why: "its owner's block has changed", changed: true };

function none(why: string): Proof {
  return { kind: "none", why };
}

/** What the lock manager of that node saw. */
export function judgeAnswer(life: Life, answer: LifeAnswer, name: string): Judged {
  const over = (proof: Proof): Judged => ({ proof, again: false });
  if ("missing" in answer) return { ...over(none(`${name} says nothing of process ${life.pid}: ${answer.missing}`)), silent: true };
  const { bootId, machineId, process, device } = answer.seen;
  if (bootId === "") return over(none(`${name} cannot say which boot this is`));
  if (bootId !== life.bootId) return over(judgeReboot(life, machineId, name));
  if (process === "alive") return { proof: none(`process ${life.pid} of ${name} runs still`), again: true };
  if (process === "unknown") return over(none(`${name} cannot see whether process ${life.pid} runs`));
  switch (device) {
    case "free":
      return over({ kind: "ended" });
    case "busy":
      return { proof: none(`process ${life.pid} of ${name} has ended, but ${life.device} is in use there still`), again: true };
    case "silent":
      return over(none(`process ${life.pid} of ${name} has ended, but ${life.device} does not answer there`));
    case "missing":
    case "not-a-device":
    case "failed":
      return over(none(`process ${life.pid} of ${name} has ended, but ${life.device} cannot be looked at there (${device})`));
  }
}
