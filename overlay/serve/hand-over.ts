/**
 * A planned move of the owner: who may be the next one, in words if nobody may, and when it is there. What an owner does with its calls:
 * owner-service.ts; who goes first: ../volume/owner-election.ts. The command: ../cli/handover.ts.
 */
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import type { AnswerOf, RequestOf } from "../lower/wire/call-types.ts";
import type { OwnerRole } from "../volume/owner-event.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";

/** A hand-over that takes longer is answered as under way. */
export const HAND_OVER_ANSWER_MS = 30_000;

export interface HandOverHost {
  readonly nodes: ClusterInfo["nodes"];
  readonly role: () => OwnerRole;
  readonly owner: () => OwnerRecord | null;
  readonly why: () => string;
  /** The lower is a device: else no other node has it. */
  readonly isDevice: boolean;
  /** Other nodes that mount the volume and reach its device, ascending. */
  readonly otherMounters: () => Promise<readonly number[]>;
  /** Asks the owner of that epoch, which is another node. Rejects if it gave no answer. */
  readonly askOwner: (request: RequestOf<"handOver">) => Promise<AnswerOf<"handOver">>;
  /** As the owner: begins to give the volume to that node. */
  readonly give: (heir: number) => void;
  readonly nowMs: () => number;
}

/** For the command. */
export type HandOverAnswer =
  | { readonly kind: "refused"; readonly why: string }
  | { readonly kind: "under-way"; readonly from: number; readonly to: number; readonly why: string }
  /** `owner`: who has the volume now. `pauseMs`: without an owner, as this mount saw it. */
  | {
      readonly kind: "done";
      readonly from: number;
      readonly to: number;
      readonly owner: number;
      readonly pauseMs: number;
      readonly why: string;
    };

interface Found {
  readonly record: OwnerRecord;
  readonly pauseMs: number;
}

export class HandOvers {
  readonly #host: HandOverHost;
  #giving: number | null = null;
  #lostMs: number | null = null;
  #waiting: ((found: Found) => void)[] = [];

  constructor(host: HandOverHost) {
    this.#host = host;
  }

  /** Calls wait from now on. */
  ownerLost(): void {
    this.#lostMs ??= this.#host.nowMs();
  }

  ownerFound(record: OwnerRecord): void {
    this.#giving = null;
    const nowMs = this.#host.nowMs();
    const pauseMs = Math.round(nowMs - (this.#lostMs ?? nowMs));
    this.#lostMs = null;
    for (const tell of this.#waiting.splice(0)) tell({ record, pauseMs });
  }

  #nameOf(nodeid: number): string {
    return this.#host.nodes.find((node) => node.nodeid === nodeid)?.name ?? `node ${nodeid}`;
  }

  /** At the owner: begins, after the answer; or says why not. */
  async begin({ epoch, heir }: RequestOf<"handOver">): Promise<AnswerOf<"handOver">> {
    const { role, owner, why, isDevice, otherMounters, give } = this.#host;
    const refuse = (refused: string): AnswerOf<"handOver"> => ({ heir: 0, refused });
    const now = owner();
    if (role() !== "owner" || now === null || now.epoch !== epoch) return refuse(`the owner has changed: ${why()}`);
    if (heir === now.nodeid) return refuse(`${this.#nameOf(heir)} is the owner already`);
    if (!isDevice) return refuse("the volume is a directory of the owner's node: no other node has it");
    const others = await otherMounters();
    const next = heir === 0 ? others[0] : others.find((nodeid) => nodeid === heir);
    if (next === undefined) {
      if (others.length === 0) return refuse("no other node has the volume mounted and reaches its device");
      const words = others.map((nodeid) => this.#nameOf(nodeid)).join(", ");
      return refuse(`${this.#nameOf(heir)} does not have the volume mounted, or does not reach its device: ${words} could have it`);
    }
    if (this.#giving !== null) return refuse(`the volume is being handed over to ${this.#nameOf(this.#giving)}`);
    this.#giving = next;
    setImmediate(() => give(next));
    return { heir: next, refused: "" };
  }

  /** For the command, on any node. Resolves when there is another owner. */
  async request(heir: number): Promise<HandOverAnswer> {
    const { owner, role, why, askOwner } = this.#host;
    const before = owner();
    if (before === null || role() === "waiting") return { kind: "refused", why: `there is no owner now: ${why()}` };
    const { epoch, nodeid: from } = before;
    const found = this.#nextOwner(epoch);
    let told: AnswerOf<"handOver">;
    try {
      told = role() === "owner" ? await this.begin({ epoch, heir }) : await askOwner({ epoch, heir });
    } catch (error) {
      return { kind: "refused", why: `${this.#nameOf(from)}, the owner, gave no answer: ${String(error)}` };
    }
    if (told.refused !== "") return { kind: "refused", why: told.refused };
    const next = await found();
    if (next === null) return { kind: "under-way", from, to: told.heir, why: why() };
    return { kind: "done", from, to: told.heir, owner: next.record.nodeid, pauseMs: next.pauseMs, why: why() };
  }

  /** Heard from now on; null: it has not come in time. */
  #nextOwner(epoch: number): () => Promise<Found | null> {
    let limit: NodeJS.Timeout | undefined;
    const came = new Promise<Found>((resolve) => {
      const hear = (found: Found): void => (found.record.epoch > epoch ? resolve(found) : void this.#waiting.push(hear));
      this.#waiting.push(hear);
    });
    return async () => {
      const late = new Promise<null>((resolve) => {
        limit = setTimeout(() => resolve(null), HAND_OVER_ANSWER_MS);
      });
      const found = await Promise.race([came, late]);
      clearTimeout(limit);
      return found;
    };
  }
}
