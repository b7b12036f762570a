/**
 * A planned move of the owner: who may be the next one, in words if nobody may, and when it is there. What an owner does with its calls:
 * owner-service.ts; who goes first: ../volume/owner-election.ts. The command: ../cli/handover.ts.
 */
import type { ClusterInfo } from "../../dlmd/client/api.ts";
import type { AnswerOf, RequestOf } from "../lower/wire/call-types.ts";
import type { OwnerRole } from "../volume/owner-event.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";

/** From the question on. A hand-over that takes longer is answered as under way, and an owner that has not answered is named. */
export const HAND_OVER_ANSWER_MS = 30_000;

const NOBODY_ELSE = "no other node has the volume mounted and reaches its device";

export interface HandOverHost {
  readonly nodes: ClusterInfo["nodes"];
  readonly role: () => OwnerRole;
  readonly owner: () => OwnerRecord | null;
  readonly why: () => string;
  /** In words; null: the cluster has a quorum. */
  readonly noQuorum: () => string | null;
  /** The lower is a device: else no other node has it. */
  readonly isDevice: boolean;
  /** Other nodes that mount the volume and reach its device, ascending. */
  readonly otherMounters: () => Promise<readonly number[]>;
  /** Asks the owner of that epoch, which is another node. Rejects if it gave no answer. */
  readonly askOwner: (request: RequestOf<"handOver">) => Promise<AnswerOf<"handOver">>;
  /** Why it cannot be given away now, in words: its file system is being grown, or files of a mount that is away are kept. null: it can. */
  readonly busy: () => string | null;
  /** It will be: nothing is kept for mounts that go away from now on. */
  readonly keepNothingMore: () => void;
  /** As the owner: begins to give the volume to that node. */
  readonly give: (heir: number) => void;
  readonly nowMs: () => number;
}

/** How far it has come: the owner was not asked, has not answered, or has begun. */
export const handOverStages = ["not-asked", "asked", "begun"] as const;
export type HandOverStage = (typeof handOverStages)[number];

/** For the command. */
export type HandOverAnswer =
  /** `nobodyElse`: no other node could have the volume. */
  | { readonly kind: "refused"; readonly why: string; readonly nobodyElse: boolean }
  /** There is no quorum, or it was lost meanwhile. */
  | { readonly kind: "no-quorum"; readonly stage: HandOverStage; readonly why: string }
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

/** What ended a wait before there was another owner. */
type Cut = "no-quorum" | "late";

interface Wait {
  readonly tell: (found: Found) => void;
  readonly cutOff: (why: Cut) => void;
}

export class HandOvers {
  readonly #host: HandOverHost;
  #giving: number | null = null;
  #lostMs: number | null = null;
  readonly #waits = new Set<Wait>();
  #isDlmdLost = false;

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
    for (const { tell } of this.#waits) tell({ record, pauseMs });
  }

  /** Without a quorum no owner is found, and no other node's mount. */
  viewChanged(): void {
    if (this.#host.noQuorum() !== null) this.#cutOff();
  }

  /** No lock comes any more, and nothing is heard of other nodes. */
  dlmdLost(): void {
    this.#isDlmdLost = true;
    this.#cutOff();
  }

  #cutOff(): void {
    for (const { cutOff } of this.#waits) cutOff("no-quorum");
  }

  #nameOf(nodeid: number): string {
    return this.#host.nodes.find((node) => node.nodeid === nodeid)?.name ?? `node ${nodeid}`;
  }

  /** At the owner: begins, after the answer; or says why not. */
  async begin({ epoch, heir }: RequestOf<"handOver">): Promise<AnswerOf<"handOver">> {
    const { role, owner, why, isDevice, give, busy } = this.#host;
    const refuse = (refused: string): AnswerOf<"handOver"> => ({ heir: 0, refused });
    const now = owner();
    if (role() !== "owner" || now === null || now.epoch !== epoch) return refuse(`the owner has changed: ${why()}`);
    if (heir === now.nodeid) return refuse(`${this.#nameOf(heir)} is the owner already`);
    if (!isDevice) return refuse("the volume is a directory of the owner's node: no other node has it");
    const others = await this.#otherMounters(epoch);
    // The command has ended then, and no move is expected when the quorum is back.
    if (others === "no-quorum") return refuse(`${this.#nameOf(now.nodeid)}, the owner, says: ${this.#noQuorum}`);
    if (others === "late") return refuse(`which nodes have the volume mounted was not found out in ${HAND_OVER_ANSWER_MS / 1000} s`);
    const next = heir === 0 ? others[0] : others.find((nodeid) => nodeid === heir);
    if (next === undefined) {
      if (others.length === 0) return refuse(NOBODY_ELSE);
      const words = others.map((nodeid) => this.#nameOf(nodeid)).join(", ");
      return refuse(`${this.#nameOf(heir)} does not have the volume mounted, or does not reach its device: ${words} could have it`);
    }
    if (this.#giving !== null) return refuse(`the volume is being handed over to ${this.#nameOf(this.#giving)}`);
    const words = busy();
    if (words !== null) return refuse(words);
    this.#giving = next;
    this.#host.keepNothingMore();
    setImmediate(() => give(next));
    return { heir: next, refused: "" };
  }

  /** Its locks are asked for, which waits for a quorum. */
  async #otherMounters(epoch: number): Promise<readonly number[] | Cut> {
    const { noQuorum, otherMounters } = this.#host;
    if (noQuorum() !== null || this.#isDlmdLost) return "no-quorum";
    const wait = this.#wait(epoch);
    try {
      return await Promise.race([wait.cut, otherMounters()]);
    } finally {
      wait.end();
    }
  }

  get #noQuorum(): string {
    return this.#host.noQuorum() ?? (this.#isDlmdLost ? "dlmd of this node is gone" : "the cluster had no quorum for a while");
  }

  /** For the command, on any node. Resolves when there is another owner. */
  async request(heir: number): Promise<HandOverAnswer> {
    const { owner, role, why, noQuorum } = this.#host;
    const noQuorumAt = (stage: HandOverStage): HandOverAnswer => ({ kind: "no-quorum", stage, why: this.#noQuorum });
    if (noQuorum() !== null || this.#isDlmdLost) return noQuorumAt("not-asked");
    const before = owner();
    const refused = (words: string, nobodyElse = false): HandOverAnswer => ({ kind: "refused", why: words, nobodyElse });
    if (before === null || role() === "waiting") return refused(`there is no owner now: ${why()}`);
    const { epoch, nodeid: from } = before;
    const wait = this.#wait(epoch);
    try {
      const told = await Promise.race([wait.cut, this.#ask(from, { epoch, heir })]);
      if (told === "no-quorum") return noQuorumAt("asked");
      if (told === "late")
        return refused(`${this.#nameOf(from)}, the owner, has not answered in ${HAND_OVER_ANSWER_MS / 1000} s; it may do so later`);
      if (told.refused !== "") return refused(told.refused, told.refused === NOBODY_ELSE);
      const next = await Promise.race([wait.found, wait.cut]);
      if (next === "no-quorum") return noQuorumAt("begun");
      if (next === "late") return { kind: "under-way", from, to: told.heir, why: why() };
      return { kind: "done", from, to: told.heir, owner: next.record.nodeid, pauseMs: next.pauseMs, why: why() };
    } finally {
      wait.end();
    }
  }

  async #ask(from: number, request: RequestOf<"handOver">): Promise<AnswerOf<"handOver">> {
    try {
      return await (this.#host.role() === "owner" ? this.begin(request) : this.#host.askOwner(request));
    } catch (error) {
      return { heir: 0, refused: `${this.#nameOf(from)}, the owner, gave no answer: ${String(error)}` };
    }
  }

  /** From now on, until `end`: the next owner after that epoch, and what ends the wait for it. */
  #wait(epoch: number): { readonly found: Promise<Found>; readonly cut: Promise<Cut>; readonly end: () => void } {
    let tell: (found: Found) => void = () => {};
    let cutOff: (why: Cut) => void = () => {};
    const found = new Promise<Found>((resolve) => {
      tell = (one) => (one.record.epoch > epoch ? resolve(one) : undefined);
    });
    const cut = new Promise<Cut>((resolve) => {
      cutOff = resolve;
    });
    const limit = setTimeout(() => cutOff("late"), HAND_OVER_ANSWER_MS);
    const wait: Wait = { tell, cutOff };
    this.#waits.add(wait);
    return {
      found,
      cut,
      end: () => {
        clearTimeout(limit);
        this.#waits.delete(wait);
      },
    };
  }
}
