/**
 * The way of a lock between two nodes, shortened by a hop: who asks a master for a lock and has good reason to know who has it tells that node
 * straight away, so that its program hears while the master is asked (DESIGN, "Locks": the invalidation is a hint). The reason is the last
 * blocking AST for the resource: it says for which grant this node had to give up.
 *
 * A hint is ignored unless it names the very grant that its lock has (hazard H5), changes no lock, and is told to a program at most once; the
 * master's own blocking AST for the same grant and mode is then not told again, and it alone begins the time that the program has to
 * answer in (hazard H13). One that is lost, late or mistaken costs a blocking AST at most.
 */
import type { HintMessage } from "../wire/peer-message.ts";
import { NOQUEUE, NOQUEUEBAST } from "./flag.ts";
import type { Lkb, Resource } from "./lkb.ts";
import { joinModes, Mode, modeCovers, modesCompatible } from "./mode.ts";

/** Resources of which it is known who has them; of the one that was heard of longest ago it is forgotten, and its master alone is asked. */
export const knownHolders = 4096;
/** Locks whose programs heard a hint; of the oldest it is forgotten, and its program may hear the same from the master. */
export const hintedLocks = 4096;
/** For so long what this node gave up is on its way to the next one: a hint would come before it, and the master's word comes with it. */
export const grantTravelMs = 0.5;

/** A lock of another node, at one of its grants. */
export interface GrantName {
  readonly nodeid: number;
  readonly lkbId: number;
  readonly grantNo: number;
}

interface Successor {
  readonly grant: GrantName;
  readonly mode: Mode;
  /** When this node gave something up for it; Infinity: not yet. */
  gaveUpMs: number;
}

interface Told {
  readonly grantNo: number;
  readonly mode: Mode;
}

export interface HintCounts {
  sent: number;
  received: number;
  /** Of those received, told to a program. */
  told: number;
  /** Of those told, what the master said as well, later. */
  confirmed: number;
}

const keyOf = ({ lockspace, name }: Resource): string => `${lockspace.name}\0${name}`;

export class Hints {
  readonly counts: HintCounts = { sent: 0, received: 0, told: 0, confirmed: 0 };
  readonly #self: number;
  readonly #successors: Map<string, Successor> = new Map();
  readonly #told: Map<Lkb, Told> = new Map();

  constructor(self: number) {
    this.#self = self;
  }

  /** This node is to give up what it has of that resource, so that this grant can be made. */
  makesWayFor(resource: Resource, grant: GrantName, mode: Mode): void {
    const key = keyOf(resource);
    this.#successors.delete(key);
    // The master knows by itself what its own node has.
    if (grant.nodeid === this.#self || grant.nodeid === resource.masterNodeid) return;
    this.#successors.set(key, { grant, mode, gaveUpMs: Number.POSITIVE_INFINITY });
    if (this.#successors.size > knownHolders) this.#successors.delete(this.#successors.keys().next().value as string);
  }

  /** A lock of this node got a lower mode, or went. */
  gaveUp(lkb: Lkb, nowMs: number): void {
    if (this.#told.size > 0) this.#told.delete(lkb);
    const successor = this.#successors.size === 0 ? undefined : this.#successors.get(keyOf(lkb.resource));
    if (successor !== undefined) successor.gaveUpMs = nowMs;
  }

  /** Who is to be told that this lock, of this node, asks its master for that mode; null: nobody, or the master alone. */
  holderFor(lkb: Lkb, mode: Mode, flags: number, nowMs: number): GrantName | null {
    if (this.#successors.size === 0 || ((flags & NOQUEUE) !== 0 && (flags & NOQUEUEBAST) === 0)) return null;
    const key = keyOf(lkb.resource);
    const successor = this.#successors.get(key);
    if (successor === undefined || modesCompatible(successor.mode, mode)) return null;
    // Known for one question: after it somebody else has the lock, or the master's answer says who.
    this.#successors.delete(key);
    return nowMs - successor.gaveUpMs >= grantTravelMs ? successor.grant : null;
  }

  /** A hint came for a lock that has this very grant. True: its program is to be told. */
  tells(lkb: Lkb, wanted: Mode): boolean {
    const before = this.#toldMode(lkb);
    if (modeCovers(lkb.bastMode, wanted) || modeCovers(before, wanted)) return false;
    this.#told.delete(lkb);
    this.#told.set(lkb, { grantNo: lkb.grantNo, mode: joinModes(before, wanted) });
    if (this.#told.size > hintedLocks) this.#told.delete(this.#told.keys().next().value as Lkb);
    this.counts.told++;
    return true;
  }

  /** The master says what a hint has told the lock's program already, for this very grant. */
  confirms(lkb: Lkb, wanted: Mode): boolean {
    if (!modeCovers(this.#toldMode(lkb), wanted)) return false;
    this.counts.confirmed++;
    return true;
  }

  #toldMode(lkb: Lkb): Mode {
    const told = this.#told.get(lkb);
    return told !== undefined && told.grantNo === lkb.grantNo ? told.mode : Mode.NL;
  }

  /** It has another program from now on, which has heard nothing. */
  adopted(lkb: Lkb): void {
    this.#told.delete(lkb);
  }

  /** Lock service begins: others have what they have by other names. */
  clear(): void {
    this.#successors.clear();
    this.#told.clear();
  }
}

/** What goes to the node that has `grant`. */
export function hintFor({ lkbId, grantNo }: GrantName, lkb: Lkb, wanted: Mode): HintMessage {
  return { kind: "hint", lkbId, grantNo, wanted, asker: { lkbId: lkb.id, grantNo: nextGrantOf(lkb).grantNo } };
}

/** The grant that answers what this lock asks for. A lock that is demoted on the way has yet another: no hint will find that. */
export function nextGrantOf({ nodeid, id, grantNo }: Lkb): GrantName {
  return { nodeid, lkbId: id, grantNo: (grantNo + 1) >>> 0 };
}
