/**
 * "Does that process of that node run still, and has anything its device?" asked of the dlmd of the node, for proofs that an owner of a
 * volume is gone. It changes nothing and belongs to no view: it passes in any phase of a recovery, as `inspect` does. Each question
 * ends with one answer: what was seen, or in words why nothing was. The look itself is the driver's (driver/life-look.ts).
 */
import type { Client } from "../clients/client.ts";
import type { LifeMessage, LifeAnswer, LifeSeen, ProcessLife } from "../wire/peer-life.ts";
import type { PeerMessage } from "../wire/peer-message.ts";
import type { Member } from "../wire/view-id.ts";

/** A node that has not answered by then is taken for silent. */
export const LIFE_ASK_LIMIT_MS = 2000;
/** Questions of this node's programs under way; one more is answered with that reason. */
export const MAX_LIFE_ASKS = 64;
/** Looks of this node for others under way; one more is not answered, and its asker says so after LIFE_ASK_LIMIT_MS. */
export const MAX_LIFE_LOOKS = 64;

export interface LifeAsksPort {
  /** Members of the view; empty before the first. */
  members(): readonly Member[];
  /** Answered by `seen`, once. */
  look(lookId: number, wanted: Omit<ProcessLife, "nodeid">): void;
  send(nodeid: number, message: PeerMessage): void;
  toClient(client: Client, event: { readonly kind: "answer"; readonly queryId: number; readonly data: unknown }): void;
}

interface Ask {
  readonly client: Client;
  readonly queryId: number;
  readonly of: Member;
  readonly deadlineMs: number;
}

export class LifeAsks {
  readonly #nodeid: number;
  readonly #port: LifeAsksPort;
  readonly #asks: Map<number, Ask> = new Map();
  /** Looks under way: for an own question (`from` null) or for another node's. */
  readonly #looks: Map<number, { readonly from: Member | null; readonly askId: number }> = new Map();
  #lastId = 0;

  constructor(nodeid: number, port: LifeAsksPort) {
    this.#nodeid = nodeid;
    this.#port = port;
  }

  ask(client: Client, { queryId, nodeid, pid, startTime, device }: ProcessLife & { readonly queryId: number }, nowMs: number): void {
    const refuse = (missing: string): void => this.#port.toClient(client, { kind: "answer", queryId, data: { missing } });
    const of = this.#port.members().find((member) => member.nodeid === nodeid);
    if (of === undefined) return refuse(`node ${nodeid} is not in the view`);
    if (this.#asks.size >= MAX_LIFE_ASKS) return refuse(`this node has ${MAX_LIFE_ASKS} such questions under way`);
    const askId = this.#newId();
    this.#asks.set(askId, { client, queryId, of, deadlineMs: nowMs + LIFE_ASK_LIMIT_MS });
    const wanted = { pid, startTime, device };
    if (nodeid === this.#nodeid) this.#look(null, askId, wanted);
    else this.#port.send(nodeid, { kind: "ask-life", askId, ...wanted });
  }

  #newId(): number {
    return (this.#lastId = (this.#lastId + 1) >>> 0);
  }

  #look(from: Member | null, askId: number, wanted: Omit<ProcessLife, "nodeid">): void {
    const lookId = this.#newId();
    this.#looks.set(lookId, { from, askId });
    this.#port.look(lookId, wanted);
  }

  /** The look is done. */
  seen(lookId: number, { bootId, machineId, process, device }: LifeSeen): void {
    const look = this.#looks.get(lookId);
    if (look === undefined) return;
    this.#looks.delete(lookId);
    const seen = { bootId, machineId, process, device };
    if (look.from === null) return this.#answer(look.askId, { seen });
    if (this.#isMember(look.from)) this.#port.send(look.from.nodeid, { kind: "life-seen", askId: look.askId, ...seen });
  }

  receive(from: number, message: LifeMessage): void {
    if (message.kind === "life-seen") {
      const { bootId, machineId, process, device } = message;
      const seen = { bootId, machineId, process, device };
      if (this.#asks.get(message.askId)?.of.nodeid === from) this.#answer(message.askId, { seen });
      return;
    }
    const member = this.#port.members().find(({ nodeid }) => nodeid === from);
    if (member === undefined || this.#looks.size >= MAX_LIFE_LOOKS) return;
    const { askId, pid, startTime, device } = message;
    this.#look(member, askId, { pid, startTime, device });
  }

  #answer(askId: number, data: LifeAnswer): void {
    const ask = this.#asks.get(askId);
    if (ask === undefined) return;
    this.#asks.delete(askId);
    this.#port.toClient(ask.client, { kind: "answer", queryId: ask.queryId, data });
  }

  #isMember({ nodeid, incarnation }: Member): boolean {
    return this.#port.members().some((member) => member.nodeid === nodeid && member.incarnation === incarnation);
  }

  /** Another view: a node that is not in it any more, in the life in which it was asked, will not answer. */
  viewChanged(): void {
    for (const [askId, { of }] of this.#asks) {
      if (!this.#isMember(of)) this.#answer(askId, { missing: `node ${of.nodeid} left the view before it answered` });
    }
  }

  get deadlineMs(): number {
    const [first] = this.#asks.values();
    return first?.deadlineMs ?? Number.POSITIVE_INFINITY;
  }

  expire(nowMs: number): void {
    for (const [askId, { of, deadlineMs }] of this.#asks) {
      if (nowMs < deadlineMs) return;
      this.#answer(askId, { missing: `dlmd of node ${of.nodeid} did not answer within ${LIFE_ASK_LIMIT_MS / 1000} s` });
    }
  }
}
