/**
 * The proof by a fence, for a life whose node is not in the view and so cannot be asked: the lock managers fence that very life, and then the disk
 * must be quiet. overlay/volume/README.md, "The fence".
 */
import { nodeWord } from "../../dlmd/base/node-word.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { FenceAnswer, FenceQuestion } from "../../dlmd/client/api.ts";
import type { Activity } from "./disk-activity.ts";
import type { Life, Proof } from "./life.ts";
import { isOfRecord } from "./owner-record.ts";
import { QuietDisk } from "./quiet-disk.ts";

/** A node that is heard in another life and does not join for so long is fenced after all: its datagrams come through, and its connections do not. */
export const RETURN_LIMIT_MS = 30_000;

/**
 * A first mount does not fence a node that was never heard in the life that owned the volume before the quorum has been there for so long: after a
 * power failure of all it may be starting. The model is post_join_delay of fenced(8), which is shorter.
 */
export const START_LIMIT_MS = 120_000;

/** Of dlmd's answer to "status" (FencingAnswer in dlmd/query/answer.ts). */
export interface FencesKnown {
  /** How long there has been a quorum here; null: there is none. */
  readonly quorumForMs: number | null;
  readonly history: readonly { readonly nodeid: number; readonly incarnation: string; readonly outcome: string }[];
}

export interface FenceProofOptions {
  /** Asking begins it. */
  readonly fenceLife: (question: FenceQuestion) => Promise<FenceAnswer>;
  readonly isMember: (nodeid: number) => boolean;
  /** What this node's lock manager has heard of that node since it was started; null: nothing. `now`: it hears it still. */
  readonly heard: (nodeid: number) => Promise<{ readonly incarnation: string; readonly now: boolean } | null>;
  readonly fences: () => Promise<FencesKnown>;
  readonly activity: () => Promise<Activity>;
  readonly volume: string;
  readonly nameOf: (nodeid: number) => string;
  readonly log: Log;
  /** Milliseconds: of a clock that never goes back, and of the calendar. */
  readonly nowMs: () => number;
  readonly wallMs: () => number;
}

/** `again`: it is under way, and a moment later there may be a proof. */
export interface FenceJudged {
  readonly proof: Proof;
  readonly again: boolean;
}

export class FenceProof {
  readonly #options: FenceProofOptions;
  /** Of each life that was asked for: a claim asks for two in turn, and what one look has seen must outlive the other's. */
  readonly #seen: Map<string, Seen> = new Map();
  #told: string | null = null;

  constructor(options: FenceProofOptions) {
    this.#options = options;
  }

  /** `first`: by a mount that was never served, of a volume whose record names no owner that died. Null: that life is not one to be fenced. */
  async ask(life: Life, first: boolean): Promise<FenceJudged | null> {
    const { fenceLife, isMember, nameOf, volume, wallMs } = this.#options;
    // Hazard C11.
    if (isMember(life.nodeid)) {
      for (const seen of this.#seen.values()) if (seen.nodeid === life.nodeid) seen.returningSinceMs = null;
      return null;
    }
    const name = nameOf(life.nodeid);
    const heard = await this.#options.heard(life.nodeid);
    const { nodeid, incarnation, bootId } = life;
    const question = { nodeid, incarnation, bootId, why: `owner of volume ${volume}` };
    const forMs = this.#returningForMs(life, heard);
    // In another life it may be starting, too: its first datagrams do not come to all nodes at one moment, and one that has not heard it would fence it.
    const startingMs = first && heard?.incarnation !== incarnation ? await this.#startingForMs(life) : 0;
    const returningMs = forMs === null ? 0 : RETURN_LIMIT_MS - forMs;
    if (forMs !== null && Math.max(returningMs, startingMs) > 0) {
      // Asked for all the same: the lock managers hold that fence as long (dlmd/fencing/returning.ts), and both times run together.
      if (startingMs === 0) await fenceLife(question);
      return under(
        `${name} is heard in another life, and is not in the view yet: it is asked when it is, and fenced if it is not within ${seconds(Math.max(returningMs, startingMs))}. coverlay fence ${name} fences it now`,
      );
    }
    if (startingMs > 0) {
      const found =
        heard === null
          ? "was not heard since the lock manager of this node was started"
          : "was heard in another life, and is not heard now";
      return over(
        `${name} ${found}, and may be starting: a first mount fences it in ${seconds(startingMs)}, if it is not there by then and has a fence device. coverlay fence ${name} fences it now`,
      );
    }
    const answer = await fenceLife(question);
    if (answer.kind === "fenced") return this.#look(life, name, answer.by);
    // For the time in which nothing changes: not a proof of anything.
    await this.#see(life, false).catch(() => null);
    switch (answer.kind) {
      case "running":
        return under(`${name} is being fenced, for ${seconds(wallMs() - answer.sinceMs)}: ${answer.step}`);
      case "failed":
        return over(
          `the fence of ${name} failed: ${answer.why}; it is tried again in ${seconds(answer.againAtMs - wallMs())}. When that machine is off for sure: coverlay fence ack ${nodeWord(name)} --yes`,
        );
      case "refused":
        return over(`${name} is not in the view, and is not fenced: ${answer.why}`);
    }
  }

  /** 0: it need not be waited for any longer, as after a fence that a person has ordered. */
  async #startingForMs({ nodeid, incarnation }: Life): Promise<number> {
    const { quorumForMs, history } = await this.#options.fences();
    const isProved = history.some(
      (row) => row.nodeid === nodeid && row.incarnation === incarnation && ["fenced", "acknowledged"].includes(row.outcome),
    );
    return isProved ? 0 : Math.max(0, START_LIMIT_MS - (quorumForMs ?? 0));
  }

  /** Null: it is not heard, or in the very life that is asked for. */
  #returningForMs(life: Life, heard: { readonly incarnation: string; readonly now: boolean } | null): number | null {
    if (heard?.now !== true || heard.incarnation === life.incarnation) return null;
    const nowMs = this.#options.nowMs();
    const seen = this.#seenOf(life);
    seen.returningSinceMs ??= nowMs;
    return nowMs - seen.returningSinceMs;
  }

  async #look(life: Life, name: string, by: string): Promise<FenceJudged> {
    const quiet = await this.#see(life, true);
    switch (quiet.kind) {
      case "quiet":
        this.#options.log.info({ node: name, by, epoch: life.epoch }, "the owner before is fenced, and its disk is quiet");
        return { proof: { kind: "fenced" }, again: false };
      case "wait":
        return under(`${name} is fenced (${by}); the disk has to be quiet for ${seconds(quiet.forMs)} more`);
      case "lied": {
        const onlyInRecord = isOfRecord(life);
        const then = onlyInRecord
          ? "unmount the volume everywhere, so that its record is forgotten, and mount it again"
          : `coverlay volume release DEVICE --owner ${name} --yes`;
        const why = `the fence of ${name} (${by}) lied: ${life.device} of ${onlyInRecord ? name : life.hostName} was written after it, so nothing is mounted. Switch that machine off, and see to its fence device; then: ${then}`;
        if (this.#told !== why) this.#options.log.error({ why }, "the disk is not quiet after a fence");
        this.#told = why;
        return over(why);
      }
    }
  }

  async #see(life: Life, fenced: boolean): Promise<ReturnType<QuietDisk["look"]>> {
    const beganMs = this.#options.nowMs();
    const { mark, everyMs } = await this.#options.activity();
    return this.#seenOf(life).quiet.look(mark, everyMs, fenced, beganMs);
  }

  #seenOf({ nodeid, incarnation, clientId, epoch }: Life): Seen {
    const key = `${nodeid} ${incarnation} ${clientId} ${epoch}`;
    const seen = this.#seen.get(key) ?? { nodeid, quiet: new QuietDisk(), returningSinceMs: null };
    this.#seen.set(key, seen);
    return seen;
  }
}

/** Of one owner, from its mount of the device to the end of it. */
interface Seen {
  readonly nodeid: number;
  readonly quiet: QuietDisk;
  /** Since when its node is heard in others: for all of them together, or one that flaps would never be fenced. */
  returningSinceMs: number | null;
}

const over = (why: string): FenceJudged => ({ proof: { kind: "none", why }, again: false });
const under = (why: string): FenceJudged => ({ proof: { kind: "none", why, underWay: true }, again: true });
const seconds = (ms: number): string => `${Math.max(0, ms / 1000).toFixed(1)} s`;
