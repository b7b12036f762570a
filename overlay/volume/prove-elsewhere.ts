/**
 * The proof that a life of another node is over: that node's lock manager looks at the process and at the device (dlmd/query/life-asks.ts).
 * A process that was killed a moment ago leaves its device a moment later, so the question is asked again for a while.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { LifeAnswer, ProcessLife } from "../../dlmd/client/api.ts";
import { judgeReboot, type Life, type Proof, type ProveGone } from "./life.ts";

/** One proof asks for so long at most; then there is none, and the owner role asks again later (owner.ts). */
export const PROVE_LIMIT_MS = 1500;
/** Between two questions of one proof. */
export const PROVE_POLL_MS = 20;

export interface ProveElsewhereOptions {
  readonly nodeid: number;
  readonly nameOf: (nodeid: number) => string;
  /** DlmClient.askLife */
  readonly askLife: (life: ProcessLife) => Promise<LifeAnswer>;
  /** For a life of this node. */
  readonly here: ProveGone;
  /** Seams for tests; milliseconds. */
  readonly nowMs?: () => number;
  readonly wait?: (ms: number) => Promise<unknown>;
}

/** `again`: a moment later the answer may be another. */
type Judged = { readonly proof: Proof; readonly again: boolean };

export function createProveGoneAnywhere(options: ProveElsewhereOptions): ProveGone {
  const { nodeid, here, askLife, nowMs = () => performance.now(), wait = sleep } = options;
  const ask = async (life: Life): Promise<Judged> => {
    if (life.nodeid === nodeid) {
      const proof = await here(life);
      return { proof, again: proof.kind === "none" };
    }
    const { pid, startTime, device } = life;
    const answer = await askLife({ nodeid: life.nodeid, pid, startTime: Number(startTime), device });
    return judgeAnswer(life, answer, options.nameOf(life.nodeid));
  };
  return async (life) => {
    const deadlineMs = nowMs() + PROVE_LIMIT_MS;
    for (;;) {
      let judged: Judged;
      try {
        judged = await ask(life);
      } catch (error) {
        return none(`${options.nameOf(life.nodeid)} was not asked: ${error instanceof Error ? error.message : String(error)}`);
      }
      if (!judged.again || nowMs() >= deadlineMs) return judged.proof;
      await wait(PROVE_POLL_MS);
    }
  };
}

function none(why: string): Proof {
  return { kind: "none", why };
}

/** What the lock manager of that node saw. */
export function judgeAnswer(life: Life, answer: LifeAnswer, name: string): Judged {
  const over = (proof: Proof): Judged => ({ proof, again: false });
  if ("missing" in answer) return over(none(`${name} says nothing of process ${life.pid}: ${answer.missing}`));
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
