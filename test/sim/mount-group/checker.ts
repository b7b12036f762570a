/** What must hold of mounters after every step, against what happened in truth: jids, recovery, who is blocked, and one state for all. */
import { decodeMountGroupMessage, encodeMountGroupMessage, type MountGroupState } from "../../../dlmd/wire/mount-group.ts";
import { notReopened, servingOwner } from "../../../dlmd/mount-group/group-state.ts";
import type { MountGroupSim } from "./mount-group-sim.ts";
import { nameOf, type SimMounter } from "./sim-mounter.ts";

/** An unclean end of a mounter that had a jid. */
interface Wreck {
  readonly name: string;
  readonly jid: number;
  /** Of the owner that it was when it ended; 0: it was not. */
  readonly claimedEpoch: number;
}

/** As it travels, so that what does not is not compared. */
function textOf(state: MountGroupState): string {
  return JSON.stringify(decodeMountGroupMessage(encodeMountGroupMessage({ kind: "state", state })));
}

export class MountGroupChecker {
  /** How much happened. */
  readonly counts = {
    "events delivered": 0,
    "jids given": 0,
    "unclean ends": 0,
    "unclean ends of owners": 0,
    recoveries: 0,
    "recoveries begun anew": 0,
    "times that all had opened their files again": 0,
    "mounters that went on while files were not open again": 0,
    "times that a mounter went on": 0,
    "groups founded": 0,
    "groups founded by a mounter that waited for the state": 0,
  };
  readonly #sim: MountGroupSim;
  readonly #agreed: Map<string, string> = new Map();
  readonly #wrecks: Map<string, Wreck> = new Map();
  /** Those that have the disk, or may have. */
  readonly #owners: Map<SimMounter, number> = new Map();
  readonly #known: Set<string> = new Set();
  readonly #last: Map<SimMounter, MountGroupState> = new Map();
  readonly #founders: Set<SimMounter> = new Set();
  /** What they left is in order. */
  readonly #recovered: Set<string> = new Set();
  /** By owner: the epoch of its claim in which all had their files open. */
  readonly #settled: Map<SimMounter, number> = new Map();
  /** By mounter: the dead that it has let go of. */
  readonly #letGo: Map<SimMounter, Set<string>> = new Map();

  constructor(sim: MountGroupSim) {
    this.#sim = sim;
  }

  // ----------------------------------------------------------------------------------------------------- what happens

  claimed(mounter: SimMounter, epoch: number): void {
    this.#sweep();
    this.#owners.set(mounter, epoch);
  }

  released(mounter: SimMounter): void {
    this.#owners.delete(mounter);
  }

  letGo(mounter: SimMounter, dead: string): void {
    const known = this.#letGo.get(mounter) ?? new Set();
    this.#letGo.set(mounter, known.add(dead));
  }

  /** That one is told that another one is in the group no more. */
  leftSeen(mounter: SimMounter, name: string): void {
    this.#sweep();
    if (this.#wrecks.has(name)) mounter.deadSeen.add(name);
  }

  /** That owner drops files without a name that are open nowhere, now and at each last close. */
  settled(owner: SimMounter): void {
    this.counts["times that all had opened their files again"]++;
    this.#sweep();
    const epoch = this.#owners.get(owner);
    // It has just given the disk back, or is about to hear so: then it drops nothing.
    if (epoch === undefined) return;
    this.#settled.set(owner, epoch);
    for (const other of this.#sim.mounters) {
      if (other.hasFiles && other.filesAt !== epoch && this.#acts(other) && this.#isInView(other, owner))
        this.#sim.fail(`${owner.name} drops at epoch ${epoch} what ${other.name} has open, which was last at epoch ${other.filesAt}`);
    }
  }

  recovered(mounter: SimMounter, jid: number | null): void {
    this.counts.recoveries++;
    this.#sweep();
    if (!this.#owners.has(mounter)) this.#sim.fail(`${mounter.name} puts jid ${jid ?? "all"} in order without the disk`);
    if (this.#settled.get(mounter) !== this.#owners.get(mounter))
      this.#sim.fail(`${mounter.name} puts jid ${jid ?? "all"} in order before all have their files open there`);
    for (const name of this.#meant(mounter, jid)) {
      const one = this.#sim.mounters.find((other) => other.name === name);
      if (one !== undefined && this.#acts(one)) this.#sim.fail(`${mounter.name} puts in order what ${name} left, which goes on`);
      this.#recovered.add(name);
      this.#mustHaveLetGo(mounter, name);
    }
  }

  /** Whose ends that recovery is for. All: of everybody who is not a member, whether this group knew it or the one before. */
  #meant(mounter: SimMounter, jid: number | null): readonly string[] {
    const { members = [], dirty = [] } = mounter.core.state ?? {};
    const known = dirty.filter((one) => jid === null || one.jid === jid).map(nameOf);
    if (jid !== null) return known;
    const isMember = (name: string): boolean => members.some((one) => nameOf(one) === name);
    return [...this.#wrecks.keys(), ...this.#sim.mounters.map(({ name }) => name)].filter((name) => !isMember(name));
  }

  /** It runs, in a view that serves; one that is cut off, until its lease ends. */
  #acts(mounter: SimMounter): boolean {
    return mounter.isLiving && mounter.usesJid !== null && !mounter.leaving && mounter.node.leaseEndMs > this.#sim.engines.agenda.nowMs;
  }

  /** Each mounter of the group that was there when that one died has let go of it. */
  #mustHaveLetGo(owner: SimMounter, name: string): void {
    for (const mounter of this.#sim.mounters) {
      if (!mounter.isLiving || mounter.leaving || !mounter.deadSeen.has(name) || mounter.node !== owner.node) continue;
      if (mounter.core.state?.dirty.some((one) => nameOf(one) === name) !== true) continue;
      if (this.#letGo.get(mounter)?.has(name) !== true)
        this.#sim.fail(`${owner.name} is done with ${name}, and ${mounter.name} has not let go of it`);
    }
  }

  // ------------------------------------------------------------------------------------------------------ what must hold

  /** Ends that nobody reported: of nodes, by crash or eviction. */
  #sweep(): void {
    for (const mounter of this.#sim.mounters) this.#noteEnd(mounter);
  }

  #noteEnd(mounter: SimMounter): void {
    if (mounter.isLiving || this.#known.has(mounter.name)) return;
    this.#known.add(mounter.name);
    // One that said "bye" had ended cleanly by then.
    const claimedEpoch = this.#owners.get(mounter) ?? 0;
    this.#owners.delete(mounter);
    if (mounter.usesJid === null || mounter.leaving) return;
    this.counts["unclean ends"]++;
    if (claimedEpoch > 0) this.counts["unclean ends of owners"]++;
    this.#wrecks.set(mounter.name, { name: mounter.name, jid: mounter.usesJid, claimedEpoch });
  }

  jidGiven(mounter: SimMounter, jid: number): void {
    this.counts["jids given"]++;
    this.#sweep();
    const { state } = mounter.core;
    for (const wreck of this.#wrecks.values()) {
      if (wreck.jid !== jid || this.#recovered.has(wreck.name)) continue;
      // A new group puts all in order, and is blocked until then.
      if (state?.allDirty === true) continue;
      this.#sim.fail(`${mounter.name} is given jid ${jid}, which ${wreck.name} left dirty`);
    }
  }

  /** It works with its owner: owners before that one are over, and all that were there have let go of them. */
  goesOn(mounter: SimMounter): void {
    this.counts["times that a mounter went on"]++;
    this.#sweep();
    for (const { name, jid, claimedEpoch } of this.#wrecks.values()) {
      if (this.#recovered.has(name)) continue;
      if (claimedEpoch > 0 && mounter.deadSeen.has(name)) {
        const { epoch = 0 } = mounter.core.state ?? {};
        if (epoch <= claimedEpoch) this.#sim.fail(`${mounter.name} goes on without an owner after ${name}`);
        this.counts["mounters that went on while files were not open again"]++;
        this.#mustHaveLetGo(mounter, name);
      } else if (claimedEpoch > 0 && claimedEpoch < mounter.ownerEpoch) this.#mustHaveLetGo(mounter, name);
      if (jid === mounter.usesJid) this.#sim.fail(`${mounter.name} goes on with jid ${jid}, which ${name} left dirty`);
    }
  }

  /** After each step of a mounter. */
  stepped(mounter: SimMounter): void {
    const { state } = mounter.core;
    if (state === null) return;
    for (const other of this.#sim.mounters) {
      if (other === mounter || other.usesJid !== mounter.usesJid || !this.#acts(other) || !this.#acts(mounter)) continue;
      // A new group does not know those of nodes that it has declared dead and whose leases run: it is blocked until all is in order.
      if (state.allDirty || other.core.state?.allDirty === true) continue;
      this.#sim.fail(`${mounter.name} and ${other.name} both have jid ${other.usesJid}`);
    }
  }

  /** `event`: its place in the order, and what it is. */
  delivered(mounter: SimMounter, event: string): void {
    const { state } = mounter.core;
    if (state === null) return;
    this.counts["events delivered"]++;
    const before = this.#last.get(mounter);
    if (before !== undefined && before.step !== "idle" && state.round > before.round) this.counts["recoveries begun anew"]++;
    this.#last.set(mounter, state);
    if (state.position === 0 || (state.allDirty && state.round === 1 && state.members.length === 1)) this.#founded(mounter, state);
    const key = `${event} at ${state.position}`;
    const text = textOf(state);
    const known = this.#agreed.get(key) ?? text;
    this.#agreed.set(key, known);
    if (known !== text) this.#sim.fail(`after ${key.slice(0, 200)} ${mounter.name} has ${text}, another one ${known}`);
  }

  /** Its node was not declared dead, as the node of `seenBy` knows. */
  #isInView({ id: { nodeid, incarnation } }: SimMounter, seenBy: SimMounter): boolean {
    const { view } = seenBy.node.engine.ordering;
    return view?.members.some((one) => one.nodeid === nodeid && one.incarnation === incarnation) === true;
  }

  /** The node of `other` has entered a later view: the node of `mounter` was out of that one, and delivers what came before it. */
  #isBehind(mounter: SimMounter, other: SimMounter): boolean {
    const epochOf = ({ node }: SimMounter): number => node.engine.ordering.view?.id.epoch ?? 0;
    return epochOf(other) > epochOf(mounter);
  }

  /** Nobody who goes on in this view had the state. That all deliver the same in it is looked at in `delivered`. */
  #founded(mounter: SimMounter, state: MountGroupState): void {
    if (this.#founders.has(mounter) || nameOf(state.members[0] as SimMounter["id"]) !== mounter.name) return;
    this.#founders.add(mounter);
    this.counts["groups founded"]++;
    if (state.position > 0) this.counts["groups founded by a mounter that waited for the state"]++;
    // It hears late of its own join; its leave, which it has asked for, may be ordered before the join of who founds the next group.
    if (mounter.leaving) return;
    for (const other of this.#sim.mounters) {
      if (other === mounter || !other.isLiving || other.leaving || other.core.state === null) continue;
      if (!this.#isInView(other, mounter) || this.#isBehind(mounter, other)) continue;
      const isKnown = state.members.some((one) => nameOf(one) === other.name);
      if (!isKnown) this.#sim.fail(`${mounter.name} founds the group anew, and ${other.name} has the state`);
    }
  }

  /** Long after everything was healed: all are mounted, nobody is blocked, nothing is dirty. */
  atRest(): void {
    const living = this.#sim.mounters.filter((one) => one.isLiving && !one.leaving);
    if (living.length < this.#sim.engines.nodes.length) this.#sim.fail(`${living.length} mounters at rest`);
    const states = new Set<string>();
    for (const mounter of living) {
      const { state } = mounter.core;
      if (state === null) return this.#sim.fail(`${mounter.name} has no state at rest`);
      states.add(textOf(state));
      const own = state.members.find((one) => nameOf(one) === mounter.name);
      if (mounter.blocked || mounter.usesJid === null || own?.phase !== "mounted")
        this.#sim.fail(
          `${mounter.name} at rest: blocked ${mounter.blocked}, jid ${mounter.usesJid}, ${own?.phase}; ${JSON.stringify(state)}`,
        );
      if (state.step !== "idle" || state.dirty.length > 0 || servingOwner(state) === null || notReopened(state).length > 0)
        this.#sim.fail(`${mounter.name} at rest: ${JSON.stringify(state)}`);
    }
    if (states.size !== 1) this.#sim.fail(`${states.size} states at rest: ${[...states].join(" | ")}`);
  }
}
