/**
 * Nothing is granted in a lockspace that needs fencing before every node that died in it is known to be dead. What makes that sure comes
 * from outside: a fence device's result, or, where there is no device, a person's acknowledgement. A result is bound to
 * (nodeid, incarnation) and to the view that went on without that node (hazard M2); it is refused for a member (hazard C11).
 *
 * Which lockspaces need it is configuration; those that do not go on at once, on the lease alone (hazards C4, M1). A dead node is taken
 * to have been in every lockspace that needs fencing. Who waits and what is known is on disk: a restart forgets neither.
 */
import type { Victim } from "../wire/peer-message.ts";
import { hasMember, type Member, sameView, viewName } from "../wire/view-id.ts";

/** Results that are remembered, so that a node which has not heard yet can be told; the oldest goes first. */
const rememberedResults = 64;

/** What is kept on disk. */
export interface KeptFences {
  /** Not yet known to be dead; at most one life of a node, the last. */
  readonly open: readonly Victim[];
  readonly fenced: readonly Victim[];
}

export const noFences: KeptFences = { open: [], fenced: [] };

export interface FenceGateHost {
  /** A lockspace waits for that from now on. */
  waits(victim: Victim): void;
  /** Known to be dead. */
  known(victim: Victim): void;
  keep(fences: KeptFences): void;
}

/** A node that is dead in one life is dead in those before it. */
function covers(result: Victim, victim: Victim): boolean {
  if (result.nodeid !== victim.nodeid) return false;
  return result.incarnation === victim.incarnation || result.failingView.epoch > victim.failingView.epoch;
}

export class FenceGate {
  readonly lockspaces: ReadonlySet<string>;
  readonly #host: FenceGateHost;
  #open: readonly Victim[];
  #fenced: readonly Victim[];

  constructor(lockspaces: readonly string[], { open, fenced }: KeptFences, host: FenceGateHost) {
    this.lockspaces = new Set(lockspaces);
    this.#host = host;
    this.#open = open;
    this.#fenced = fenced;
  }

  /** Nodes that are not yet known to be dead. */
  get open(): readonly Victim[] {
    return this.#open;
  }

  get fenced(): readonly Victim[] {
    return this.#fenced;
  }

  blocks(lockspace: string): boolean {
    return this.#open.length > 0 && this.lockspaces.has(lockspace);
  }

  /** Left without having said so, or were reported by another member. */
  failed(victims: readonly Victim[]): void {
    if (this.lockspaces.size === 0) return;
    for (const victim of victims) {
      if (this.#open.some((one) => covers(one, victim)) || this.#fenced.some((one) => covers(one, victim))) continue;
      this.#open = [...this.#open.filter((one) => one.nodeid !== victim.nodeid), victim];
      this.#host.waits(victim);
      this.#keep();
    }
  }

  /** What another member knows to be dead. */
  learn(fenced: readonly Victim[]): void {
    for (const victim of fenced) this.#close(victim);
  }

  /** "": taken. Else why not. */
  result(victim: Victim, members: readonly Member[]): string {
    const name = `node ${victim.nodeid} of incarnation ${victim.incarnation}`;
    if (hasMember(members, victim.nodeid, victim.incarnation)) return `${name} is a member of the view: fence it before saying so`;
    const open = this.#open.find((one) => one.nodeid === victim.nodeid && one.incarnation === victim.incarnation);
    if (open === undefined) return `nobody waits for ${name} to be fenced`;
    if (!sameView(open.failingView, victim.failingView)) {
      return `${name} failed in view ${viewName(open.failingView)}, the result is for ${viewName(victim.failingView)}`;
    }
    this.#close(open);
    return "";
  }

  #close(victim: Victim): void {
    const open = this.#open.filter((one) => !covers(victim, one));
    const isKnown = this.#fenced.some((one) => one.nodeid === victim.nodeid && one.incarnation === victim.incarnation);
    if (isKnown && open.length === this.#open.length) return;
    this.#open = open;
    if (!isKnown) this.#fenced = [...this.#fenced, victim].slice(-rememberedResults);
    this.#host.known(victim);
    this.#keep();
  }

  #keep(): void {
    this.#host.keep({ open: this.#open, fenced: this.#fenced });
  }
}
