/** Asks for the volume on a node that prefers to be its owner, when ../volume/preferred-owner.ts says so: a planned move, so no call ends with an error. */
import type { Log } from "../../dlmd/base/log.ts";
import { PreferredOwner, type PreferredSituation } from "../volume/preferred-owner.ts";
import type { HandOverAnswer } from "./hand-over.ts";

/** How often it is looked whether it is time. */
export const PREFERRED_LOOK_MS = 1000;

export interface PreferredMoveOptions {
  readonly nodeid: number;
  /** ClusterInfo.preferredOwners */
  readonly preferred: readonly number[];
  readonly situation: () => PreferredSituation;
  /** Other nodes that mount the volume and reach its device. */
  readonly otherMounters: () => Promise<readonly number[]>;
  /** HandOvers.request for this node. */
  readonly request: () => Promise<HandOverAnswer>;
  readonly log: Log;
  readonly nowMs: () => number;
}

export class PreferredMove {
  readonly #options: PreferredMoveOptions;
  readonly #core: PreferredOwner;
  #timer: NodeJS.Timeout | null = null;
  #asking = false;
  #ended = false;

  constructor(options: PreferredMoveOptions) {
    this.#options = options;
    this.#core = new PreferredOwner(options.nodeid, options.preferred);
  }

  /** The mount answers. Nothing happens on a node that does not prefer to be the owner. */
  begin(): void {
    if (!this.#options.preferred.includes(this.#options.nodeid)) return;
    this.look();
    this.#timer = setInterval(() => this.look(), PREFERRED_LOOK_MS);
    this.#timer.unref();
  }

  end(): void {
    this.#ended = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** PreferredOwner.hasOwned */
  get hasOwned(): boolean {
    return this.#core.hasOwned;
  }

  becameOwner(): void {
    this.#core.becameOwner();
  }

  /** Also at each change of the owner. */
  look(): void {
    const isTime = this.#isTime();
    if (this.#asking || !isTime) return;
    this.#asking = true;
    void this.#ask().finally(() => {
      this.#asking = false;
    });
  }

  #isTime(): boolean {
    return !this.#ended && this.#core.look(this.#options.situation(), this.#options.nowMs());
  }

  async #ask(): Promise<void> {
    const { nodeid, log, nowMs } = this.#options;
    const first = this.#core.leavesItTo(await this.#options.otherMounters());
    // That took as long as other nodes let it: this mount may have ended, or be unwell, and another node may be the owner.
    if (!this.#isTime()) return;
    if (first !== null) {
      log.info({ first }, "this node prefers to be the owner, and leaves the volume to one of a lower nodeid that does");
      return this.#core.cameToNothing(nowMs());
    }
    log.info({}, "this node prefers to be the owner: it asks for the volume");
    const answer = await this.#options.request();
    if (answer.kind === "done" && answer.owner === nodeid) return;
    log.warn({ answer }, "this node prefers to be the owner, and is not");
    this.#core.cameToNothing(nowMs());
  }
}
