/**
 * Nothing is granted in a lockspace that needs fencing before every node that died in it is known to be dead. What makes that sure comes
 * from outside: a fence device's result, or, where there is no device, a person's acknowledgement. A result is bound to
 * (nodeid, incarnation) and to the view that went on without that node (hazard M2); it is refused for a member (hazard C11).
 *
 * Which lockspaces need it is configuration; those that do not go on at once, on the lease alone (hazards C4, M1), and so do those that the dead
 * node had not open (hazard M6). Who waits and what is known is on disk: a restart forgets neither.
 */
import { MAX_VICTIM_LOCKSPACES, type OpenVictim, type Victim } from "../wire/peer-message.ts";
import { hasMember, type Member, sameView, viewName } from "../wire/view-id.ts";

/** Results that are remembered, so that a node which has not heard yet can be told; the oldest goes first. */
const rememberedResults = 64;

/** What is kept on disk. */
export interface KeptFences {
  /** Not yet known to be dead; at most one life of a node, the last. */
  readonly open: readonly OpenVictim[];
  readonly fenced: readonly Victim[];
}

export const noFences: KeptFences = { open: [], fenced: [] };

export interface FenceGateHost {
  /** A lockspace waits for that from now on. */
  waits(victim: OpenVictim): void;
  /** Known to be dead. */
  known(victim: Victim): void;
  keep(fences: KeptFences): void;
}

/** A node that is dead in one life is dead in those before it. Of two views with one epoch neither is known to be the earlier one. */
function covers(result: Victim, victim: Victim): boolean {
  if (result.nodeid !== victim.nodeid) return false;
  return result.incarnation === victim.incarnation || result.failingView.epoch > victim.failingView.epoch;
}

function isSameLife(a: Member, b: Member): boolean {
  return a.nodeid === b.nodeid && a.incarnation === b.incarnation;
}

/** Of one node there is one entry, for its last life, with what was open in any of them. */
export function withVictim(victims: readonly OpenVictim[], victim: OpenVictim): readonly OpenVictim[] {
  const before = victims.find(({ nodeid }) => nodeid === victim.nodeid);
  const isAll = before?.lockspaces === null || victim.lockspaces === null;
  const both = [...new Set([...(before?.lockspaces ?? []), ...(victim.lockspaces ?? [])])];
  const lockspaces = isAll || both.length > MAX_VICTIM_LOCKSPACES ? null : both;
  return [...victims.filter((one) => one !== before), { ...victim, lockspaces }];
}

export class FenceGate {
  readonly lockspaces: ReadonlySet<string>;
  /** All lockspaces do: with two_node both halves are quorate, and only the fence tells them apart. */
  all = false;
  readonly #host: FenceGateHost;
  #open: readonly OpenVictim[];
  #fenced: readonly Victim[];
  /** Of the last quorate view. */
  #members: readonly Member[] = [];

  constructor(lockspaces: readonly string[], { open, fenced }: KeptFences, host: FenceGateHost) {
    this.lockspaces = new Set(lockspaces);
    this.#host = host;
    this.#open = open;
    this.#fenced = fenced;
  }

  /** Nodes that are not yet known to be dead. */
  get open(): readonly OpenVictim[] {
    return this.#open;
  }

  get fenced(): readonly Victim[] {
    return this.#fenced;
  }

  /** In words, for people; "": nobody is waited for. */
  explain(): string {
    const waits = this.#open
      .map((victim) => `lockspaces ${this.lockspacesOf(victim).join(" ")} wait until node ${victim.nodeid} is known to be dead`)
      .join("; ");
    return waits === "" ? "" : `${waits} (coverlay fence show)`;
  }

  /** Whether any does. */
  get isUsed(): boolean {
    return this.all || this.lockspaces.size > 0;
  }

  #needs(lockspace: string): boolean {
    return this.all || this.lockspaces.has(lockspace);
  }

  /** What waits for that one. */
  lockspacesOf({ lockspaces }: OpenVictim): readonly string[] {
    return lockspaces ?? (this.all ? ["(all)"] : [...this.lockspaces]);
  }

  blocks(lockspace: string): boolean {
    if (!this.#needs(lockspace)) return false;
    return this.#open.some(({ lockspaces }) => lockspaces === null || lockspaces.includes(lockspace));
  }

  /** Of what a node had open, what needs fencing; null: all does. */
  guarded(opened: ReadonlySet<string> | null): readonly string[] | null {
    const found = opened === null ? null : [...opened].filter((lockspace) => this.#needs(lockspace));
    return found === null || found.length > MAX_VICTIM_LOCKSPACES ? null : found;
  }

  /**
   * A quorate view begins. Who is a member of it in that very life is not dead, whatever a former life of this node, or of another one, has stored: with
   * two_node each half waits for the fence of the other one, and the half that was fenced comes back with that.
   */
  enterView(members: readonly Member[]): void {
    this.#members = members;
    this.#forget(members);
  }

  /** Left without having said so. One that had none of our lockspaces open is nobody to wait for. */
  failed(victims: readonly OpenVictim[]): void {
    for (const victim of victims) {
      if (hasMember(this.#members, victim.nodeid, victim.incarnation)) continue;
      // With two_node it may open others after it was cut off, and be granted locks there.
      const opened = this.all ? null : victim.lockspaces;
      const lockspaces = opened === null ? null : opened.filter((lockspace) => this.lockspaces.has(lockspace));
      if (!this.isUsed || lockspaces?.length === 0) continue;
      if (this.#open.some((one) => covers(one, victim)) || this.#fenced.some((one) => covers(one, victim))) continue;
      this.#open = withVictim(this.#open, { ...victim, lockspaces });
      this.#host.waits(this.#open.at(-1) as OpenVictim);
      this.#keep();
    }
  }

  /**
   * By what each member of a view says. With two_node a half that was fenced was granted nothing, and the winner answers for itself: a wait for it
   * in a view of that half, of which only the next life of that half says something, is over.
   */
  agreeOf(words: ReadonlyMap<number, { readonly unfenced: readonly OpenVictim[]; readonly fenced: readonly Victim[] }>): void {
    const fenced = [...words.values()].flatMap((word) => word.fenced);
    const hasLost = (nodeid: number, incarnation: string): boolean =>
      this.all && hasMember(fenced, nodeid, incarnation) && !hasMember(this.#members, nodeid, incarnation);
    const isOfLoser = (from: number, { failingView: { proposer, incarnation } }: Victim): boolean =>
      proposer === from && hasLost(from, incarnation);
    const said = [...words].flatMap(([from, { unfenced }]) => unfenced.filter((victim) => !isOfLoser(from, victim)));
    const lost = [...words].flatMap(([from, { unfenced }]) => unfenced.filter((victim) => isOfLoser(from, victim)));
    this.#forget(lost.filter((victim) => !said.some((one) => isSameLife(one, victim))));
    this.agree(said);
  }

  #forget(victims: readonly Member[]): void {
    const open = this.#open.filter((victim) => !victims.some((one) => isSameLife(one, victim)));
    if (open.length === this.#open.length) return;
    this.#open = open;
    this.#keep();
  }

  /** What all members of a view say of those that failed: one that knows what a node had open is believed by those that do not. */
  agree(said: readonly OpenVictim[]): void {
    const known = said.filter(({ lockspaces }) => lockspaces !== null);
    this.failed(known);
    this.failed(said.filter((victim) => victim.lockspaces === null && !known.some((one) => isSameLife(one, victim))));
  }

  /** What another member knows to be dead. */
  learn(fenced: readonly Victim[]): void {
    for (const victim of fenced) this.#close(victim);
  }

  /** "": taken. Else why not. */
  result(victim: Victim, members: readonly Member[]): string {
    const name = `node ${victim.nodeid} of incarnation ${victim.incarnation}`;
    if (hasMember(members, victim.nodeid, victim.incarnation)) return `${name} is a member of the view: fence it before saying so`;
    const open = this.#open.find((one) => isSameLife(one, victim));
    if (open === undefined) return `nobody waits for ${name} to be fenced`;
    if (!sameView(open.failingView, victim.failingView)) {
      return `${name} failed in view ${viewName(open.failingView)}, the result is for ${viewName(victim.failingView)}`;
    }
    this.#close(open);
    return "";
  }

  #close(victim: Victim): void {
    const open = this.#open.filter((one) => !covers(victim, one));
    const isKnown = this.#fenced.some((one) => isSameLife(one, victim));
    if (isKnown && open.length === this.#open.length) return;
    this.#open = open;
    const { nodeid, incarnation, failingView } = victim;
    if (!isKnown) this.#fenced = [...this.#fenced, { nodeid, incarnation, failingView }].slice(-rememberedResults);
    this.#host.known(victim);
    this.#keep();
  }

  #keep(): void {
    this.#host.keep({ open: this.#open, fenced: this.#fenced });
  }
}
