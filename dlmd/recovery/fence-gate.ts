/**
 * Nothing is granted in a lockspace that needs fencing before every node that died in it is known to be dead. What makes that sure comes
 * from outside: a fence device's result, or, where there is no device, a person's acknowledgement. A result is bound to
 * (nodeid, incarnation) and to the view that went on without that node (hazard M2); it is refused for a member (hazard C11).
 *
 * Which lockspaces need it is configuration; those that do not go on at once, on the lease alone (hazards C4, M1). A dead node is taken
 * to have been in every lockspace that needs fencing.
 */
import type { Victim } from "../wire/peer-message.ts";
import { hasMember, type Member, sameView, viewName } from "../wire/view-id.ts";

/** Results that are remembered, so that a node which has not heard yet can be told; the oldest goes first. */
const rememberedResults = 64;

export class FenceGate {
  readonly #lockspaces: ReadonlySet<string>;
  #open: Victim[] = [];
  #fenced: Victim[] = [];

  constructor(lockspaces: readonly string[]) {
    this.#lockspaces = new Set(lockspaces);
  }

  /** Nodes that are not yet known to be dead. */
  get open(): readonly Victim[] {
    return this.#open;
  }

  get fenced(): readonly Victim[] {
    return this.#fenced;
  }

  blocks(lockspace: string): boolean {
    return this.#open.length > 0 && this.#lockspaces.has(lockspace);
  }

  /** Left without having said so, or were reported by another member. */
  failed(victims: readonly Victim[]): void {
    if (this.#lockspaces.size === 0) return;
    for (const victim of victims) {
      const same = (one: Victim): boolean => one.nodeid === victim.nodeid && one.incarnation === victim.incarnation;
      if (!this.#open.some(same) && !this.#fenced.some(same)) this.#open.push(victim);
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
    this.#open = this.#open.filter((one) => one.nodeid !== victim.nodeid || one.incarnation !== victim.incarnation);
    if (this.#fenced.some((one) => one.nodeid === victim.nodeid && one.incarnation === victim.incarnation)) return;
    this.#fenced.push(victim);
    if (this.#fenced.length > rememberedResults) this.#fenced.shift();
  }
}
