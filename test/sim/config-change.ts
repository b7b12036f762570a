/**
 * Configuration changes (dlmd/config/change.ts) under views that form at random, lost messages, slow disks and crashes between any two steps.
 * After each step: no two disjoint sets of nodes could both be quorate, counting as membership does (hazard C8), and a version
 * means one configuration for ever. And what hazard C8 says in so many words: what is in force was first on the disks of majorities of the
 * old and of the new votes; a view with an open proposal has both majorities.
 *
 * And the order in which configurations are distributed, though they do not go through the ordered channel: every node sees those in force in
 * one order, each once, whoever applies what at the same time; an apply has one answer, and "applied" means that this very one is in force there.
 */
import type { ConfigEffect, ConfigEvent, ConfigMessage, ConfigView } from "../../dlmd/config/change-event.ts";
import { ConfigChange } from "../../dlmd/config/change.ts";
import type { ConfigRecord, KeptConfig } from "../../dlmd/config/record.ts";
import { plainQuorum, quorumOf } from "../../dlmd/membership/quorum.ts";
import { Random } from "./random.ts";

const UNIVERSE = 6;

interface Basis {
  readonly record: ConfigRecord;
  readonly former: ConfigRecord | null;
}
interface SimNode {
  readonly nodeid: number;
  /** null: it is off. */
  core: ConfigChange | null;
  /** null: it was never on. */
  disk: KeptConfig | null;
  basis: Basis | null;
  persists: { serial: number; kept: KeptConfig }[];
  promised: number;
  install: ConfigView | null;
  /** The quorate view that it is in. */
  view: ConfigView | null;
  /** In force here in this life, in order. */
  seen: ConfigRecord[];
  /** Asked for here in this life, and not answered. */
  readonly asked: Map<number, ConfigRecord>;
}
/** How often what happens, relative to each other: other seeds find other things. */
interface Rates {
  readonly deliver: number;
  readonly sync: number;
  readonly install: number;
  readonly form: number;
  readonly apply: number;
  readonly crash: number;
  readonly boot: number;
  readonly offer: number;
  readonly duel: number;
  readonly connect: number;
  readonly settled: number;
}

function recordOf(version: number, nodes: ReadonlyMap<number, number>): ConfigRecord {
  const list = [...nodes].sort(([a], [b]) => a - b).map(([nodeid, votes]) => ({ nodeid, votes }));
  const text = list.map(({ nodeid, votes }) => `${nodeid}:${votes}`).join(" ");
  return { version, fingerprint: `${version} ${text}`, text, nodes: list };
}
const basisOf = ({ committed, pending }: KeptConfig): Basis =>
  pending === null ? { record: committed, former: null } : { record: pending.record, former: committed };

export interface ConfigSimResult {
  readonly committedVersion: number;
  readonly views: number;
}

export class ConfigSim {
  readonly #random: Random;
  readonly #nodes: SimNode[];
  readonly #wires = new Map<string, ConfigMessage[]>();
  /** What each version was decided to be. */
  readonly #decided = new Map<number, string>();
  /** By version: what is in force then. */
  readonly #former = new Map<number, ConfigRecord>();
  /** Pairs without a connection. */
  readonly #broken = new Set<string>();
  applied = 0;
  refused = 0;
  /** Versions that are in force on somebody's disk. */
  readonly #written = new Set<number>([1]);
  readonly #rates: Rates;
  readonly #there: number;
  /** Somebody counts by something else than when it was looked at last. */
  #changed = true;
  #epoch = 0;
  /** By epoch of a view: the version that its votes were counted by. */
  readonly #counted = new Map<number, number>();
  #requests = 0;
  readonly story: string[] = [];
  steps = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    const random = this.#random;
    this.#rates = {
      deliver: random.between(0.3, 0.6),
      sync: random.between(0.1, 0.3),
      install: random.between(0.05, 0.3),
      form: random.between(0.005, 0.04),
      apply: random.between(0.02, 0.08),
      crash: random.between(0, 0.01),
      boot: random.between(0.01, 0.05),
      offer: 0.005,
      duel: random.between(0, 0.02),
      connect: random.between(0.01, 0.05),
      settled: random.between(0.02, 0.2),
    };
    this.#there = random.between(0.4, 0.9);
    const first = recordOf(1, new Map([1, 2, 3].map((nodeid) => [nodeid, 1])));
    this.#former.set(1, first);
    this.#nodes = Array.from({ length: UNIVERSE }, (_, at) => ({
      nodeid: at + 1,
      core: null,
      disk: at < 3 ? { committed: first, agreedBy: [], trail: [], pending: null, counting: null } : null,
      basis: null,
      persists: [],
      promised: 0,
      install: null,
      view: null,
      seen: [],
      asked: new Map(),
    }));
    for (const node of this.#nodes) if (node.disk !== null) this.#boot(node);
  }

  run(steps: number): ConfigSimResult {
    for (let step = 0; step < steps; step++) {
      this.steps++;
      this.#one();
      this.#check();
    }
    this.#settle();
    const latest = this.#latest();
    return { committedVersion: latest.version, views: this.#epoch };
  }

  #latest(): ConfigRecord {
    const records = this.#nodes.flatMap(({ disk }) => (disk === null ? [] : [disk.committed]));
    return records.reduce((a, b) => (b.version > a.version ? b : a));
  }

  // ---------------------------------------------------------------------------------------------------------- steps

  #one(): void {
    const { deliver, sync, install, form, apply, crash, boot, offer, duel, connect, settled } = this.#rates;
    const node = this.#random.pick(this.#nodes);
    let roll = this.#random.next() * (deliver + sync + install + form + apply + crash + boot + offer + duel + connect + settled);
    const falls = (rate: number): boolean => {
      roll -= rate;
      return roll < 0;
    };
    if (falls(deliver)) this.#deliver();
    else if (falls(sync)) this.#sync(node);
    else if (falls(install)) this.#install(node);
    else if (falls(form)) this.#formView();
    else if (falls(apply)) this.#apply(node);
    else if (falls(crash)) this.#crash(node);
    else if (falls(boot)) this.#boot(node);
    else if (falls(duel)) this.#duel();
    else if (falls(settled)) this.#settled(node);
    else if (falls(connect)) for (const pair of this.#broken) this.#connect(pair);
    else this.#offer(node);
  }

  #boot(node: SimNode): void {
    if (node.core !== null) return;
    if (node.disk === null) {
      // A new machine gets the file that names it.
      const latest = this.#latest();
      if (!latest.nodes.some(({ nodeid }) => nodeid === node.nodeid)) return;
      node.disk = { committed: latest, agreedBy: [], trail: [], pending: null, counting: null };
    }
    node.core = new ConfigChange(node.nodeid, node.disk, () => null);
    node.basis = basisOf(node.disk);
    node.seen = [node.disk.committed];
    node.asked.clear();
    this.#changed = true;
    this.story.push(`boot ${node.nodeid} v${node.disk.committed.version}`);
  }

  /** What was on its way to the disk may have got there, in order. */
  #crash(node: SimNode): void {
    if (node.core === null) return;
    const written = this.#random.int(node.persists.length + 1);
    for (const write of node.persists.slice(0, written)) this.#wrote(node, write.kept);
    this.#changed = true;
    Object.assign(node, { core: null, basis: null, persists: [], install: null, view: null });
    for (const wire of this.#wires.keys()) if (wire.split(" ").includes(String(node.nodeid))) this.#wires.delete(wire);
    this.story.push(`crash ${node.nodeid}`);
  }

  #deliver(): void {
    const ready = [...this.#wires].filter(([, messages]) => messages.length > 0);
    if (ready.length === 0) return;
    const [wire, messages] = this.#random.pick(ready);
    const [from, to] = wire.split(" ").map(Number) as [number, number];
    const message = messages.shift() as ConfigMessage;
    const node = this.#nodes[to - 1] as SimNode;
    this.#step(node, { kind: "message", from, message });
  }

  #sync(node: SimNode): void {
    const next = node.persists.shift();
    if (next === undefined || node.core === null) return;
    this.#wrote(node, next.kept);
    this.#step(node, { kind: "persisted", serial: next.serial });
  }

  #install(node: SimNode): void {
    const view = node.install;
    node.install = null;
    if (view === null || view.epoch !== node.promised) return;
    node.view = view.quorate ? view : null;
    this.#step(node, { kind: "view", view });
  }

  /** Its view has lasted, and was counted by what counts now, as membership says it. */
  #settled(node: SimNode): void {
    const { view, basis, promised } = node;
    if (view === null || basis === null || basis.former !== null || promised !== view.epoch) return;
    const { version } = basis.record;
    if (this.#counted.get(view.epoch) === version) this.#step(node, { kind: "settled", view: view.id, version });
  }

  #offer(node: SimNode): void {
    const other = this.#random.pick(this.#nodes);
    if (other.disk !== null && node.core !== null) this.#offerOf(other.disk, node);
  }

  /** What was never agreed on is never offered. */
  #offerOf({ committed: record, agreedBy, trail, counting }: KeptConfig, to: SimNode): void {
    if (agreedBy.length > 0) this.#step(to, { kind: "offered", record, agreedBy, trail, counting });
  }

  /** At several nodes different changes of the same version at the same moment. */
  #duel(): void {
    for (const node of this.#nodes) if (this.#random.chance(0.6)) this.#apply(node);
  }

  /** A connection that breaks takes all that is on it with it, both ways. No view need follow. */
  #break(a: number, b: number): void {
    this.#broken.add(pairOf(a, b));
    for (const wire of [`${a} ${b}`, `${b} ${a}`]) this.#wires.get(wire)?.splice(0);
  }

  #connect(pair: string): void {
    this.#broken.delete(pair);
    const [a, b] = pair.split(" ").map(Number) as [number, number];
    this.#step(this.#nodes[a - 1] as SimNode, { kind: "connected", nodeid: b });
    this.#step(this.#nodes[b - 1] as SimNode, { kind: "connected", nodeid: a });
  }

  #apply(node: SimNode): void {
    if (node.core === null) return;
    const { committed } = node.core.kept;
    const votes = new Map(committed.nodes.map((each) => [each.nodeid, each.votes]));
    // Now and then more than one at a time: to be refused.
    do this.#change(votes);
    while (this.#random.chance(0.2));
    if ([...votes.values()].every((each) => each === 0)) return;
    const [requestId, record] = [++this.#requests, recordOf(committed.version + 1, votes)];
    node.asked.set(requestId, record);
    this.#step(node, { kind: "apply", requestId, record });
  }

  #change(votes: Map<number, number>): void {
    const nodeid = 1 + this.#random.int(UNIVERSE);
    const has = votes.get(nodeid);
    if (has === undefined) votes.set(nodeid, 1);
    else if (has < 2 && this.#random.chance(0.3)) votes.set(nodeid, has + (this.#random.chance(0.2) ? 2 : 1));
    else if (has > 1) votes.set(nodeid, has - 1);
    else votes.delete(nodeid);
  }

  /** As the agreement does: whose configuration is the latest counts. */
  #formView(wanted: readonly SimNode[] = this.#nodes.filter(() => this.#random.chance(this.#there))): void {
    const alive = wanted.filter(({ core }) => core !== null);
    const highest = Math.max(0, ...alive.map(({ basis }) => basis?.record.version ?? 0));
    // Whoever proposes is a member: one that was removed counts for nobody.
    const proposers = alive.filter(({ nodeid, basis }) => basis?.record.version === highest && configuredBy(basis).has(nodeid));
    if (proposers.length === 0) return;
    const { basis } = this.#random.pick(proposers);
    const configured = configuredBy(basis as Basis);
    const members = alive.filter(({ nodeid }) => configured.has(nodeid));
    if (members.length === 0) return;
    const nodeids = members.map(({ nodeid }) => nodeid);
    const epoch = ++this.#epoch;
    const view: ConfigView = { epoch, id: `view ${epoch}`, members: nodeids, quorate: quorateBy(basis as Basis, nodeids), counting: null };
    this.#counted.set(epoch, highest);
    if (view.quorate) this.#bothMajorities(members, nodeids);
    for (const member of members) {
      member.promised = epoch;
      member.install = view;
    }
    this.story.push(`view ${epoch} ${nodeids.join()} ${view.quorate}`);
  }

  #step(node: SimNode, event: ConfigEvent): void {
    if (node.core === null) return;
    for (const effect of node.core.step(event)) this.#perform(node, effect);
  }

  #perform(node: SimNode, effect: ConfigEffect): void {
    switch (effect.kind) {
      case "send": {
        const wire = `${node.nodeid} ${effect.to}`;
        const messages = this.#wires.get(wire) ?? [];
        if (this.#random.chance(0.01)) this.#break(node.nodeid, effect.to);
        else if (!this.#broken.has(pairOf(node.nodeid, effect.to))) messages.push(effect.message);
        this.#wires.set(wire, messages);
        return;
      }
      case "persist":
        node.persists.push({ serial: effect.serial, kept: effect.kept });
        return;
      case "count":
        node.basis = { record: effect.record, former: effect.former };
        this.#changed = true;
        return;
      case "inForce": {
        const { version, fingerprint } = effect.record;
        const before = this.#decided.get(version) ?? fingerprint;
        if (before !== fingerprint) throw new Error(`version ${version} is "${before}" and "${fingerprint}"`);
        this.#decided.set(version, fingerprint);
        const last = node.seen.at(-1);
        if (last !== undefined && last.version >= version)
          throw new Error(`node ${node.nodeid} has version ${version} in force after version ${last.version}`);
        node.seen.push(effect.record);
        this.story.push(`in force at ${node.nodeid}: ${fingerprint}`);
        return;
      }
      case "declined":
        this.story.push(`declined at ${node.nodeid}: ${effect.reason}`);
        return;
      case "applied":
      case "refused":
        this.story.push(`${effect.kind} ${effect.requestId} at ${node.nodeid}`);
        return this.#answered(node, effect.requestId, effect.kind === "applied");
    }
  }

  #answered(node: SimNode, requestId: number, applied: boolean): void {
    const record = node.asked.get(requestId);
    if (!node.asked.delete(requestId) || record === undefined)
      throw new Error(`request ${requestId} at node ${node.nodeid} has two answers`);
    if (!applied) {
      this.refused++;
      return;
    }
    this.applied++;
    const here = node.seen.at(-1);
    if (here?.fingerprint !== record.fingerprint)
      throw new Error(`node ${node.nodeid} says that "${record.fingerprint}" is applied, "${here?.fingerprint}" is in force there`);
  }

  // ------------------------------------------------------------------------------------------------------ invariants

  /** Whether that set of nodes could make a quorate view now; bit n - 1 stands for node n. */
  #couldBeQuorate(set: number): boolean {
    const members = this.#nodes.filter(({ nodeid }) => (set & (1 << (nodeid - 1))) !== 0);
    const bases = members.map((node) => node.basis ?? (node.disk === null ? null : basisOf(node.disk)));
    const known = bases.filter((basis) => basis !== null);
    const highest = Math.max(0, ...known.map(({ record }) => record.version));
    const nodeids = members.map(({ nodeid }) => nodeid);
    return known.some((basis) => basis.record.version === highest && quorateBy(basis, nodeids));
  }

  /** A view of whose members one keeps an open proposal. */
  #bothMajorities(members: readonly SimNode[], nodeids: readonly number[]): void {
    const kept = members.flatMap(({ basis, disk }) => (basis === null || disk === null ? [] : [disk]));
    const latest = Math.max(...kept.map(({ committed, pending }) => pending?.record.version ?? committed.version));
    if (kept.some(({ committed }) => committed.version === latest)) return;
    // Of two that are open, that of the proposer counts.
    const both = kept.some(
      ({ committed, pending }) =>
        pending?.record.version === latest && isMajority(committed.nodes, nodeids) && isMajority(pending.record.nodes, nodeids),
    );
    const open = kept.some(({ pending }) => pending?.record.version === latest);
    if (open && !both) throw new Error(`view of ${nodeids.join()} is quorate, without both majorities of version ${latest}, which is open`);
  }

  /** On stable storage now. */
  #wrote(node: SimNode, kept: KeptConfig): void {
    node.disk = kept;
    this.#changed = true;
    const { committed } = kept;
    if (this.#written.has(committed.version)) return;
    this.#written.add(committed.version);
    const has = ({ disk }: SimNode): boolean =>
      disk?.committed.fingerprint === committed.fingerprint || disk?.pending?.record.fingerprint === committed.fingerprint;
    const holders = this.#nodes.filter(has).map(({ nodeid }) => nodeid);
    const former = this.#former.get(committed.version - 1);
    const told = `version ${committed.version} is in force, on the disks of ${holders.join()}:`;
    if (!isMajority(committed.nodes, holders)) throw new Error(`${told} no majority of the new votes`);
    if (former !== undefined && !isMajority(former.nodes, holders)) throw new Error(`${told} no majority of the old votes`);
    this.#former.set(committed.version, committed);
  }

  #check(): void {
    if (!this.#changed) return;
    this.#changed = false;
    const quorate = Array.from({ length: 1 << UNIVERSE }, (_, set) => this.#couldBeQuorate(set));
    for (let a = 1; a < quorate.length; a++) {
      if (quorate[a] !== true) continue;
      const others = (quorate.length - 1) & ~a;
      for (let b = others; b > 0; b = (b - 1) & others) {
        if (quorate[b] === true) throw new Error(`two quorums: ${a.toString(2)} and ${b.toString(2)}`);
      }
    }
  }

  /** All is well for a while: every configured node has the same configuration, and nothing is open. */
  #settle(): void {
    for (let round = 0; round < 6; round++) {
      for (const node of this.#nodes) {
        this.#boot(node);
        for (const { disk } of this.#nodes) if (disk !== null) this.#offerOf(disk, node);
      }
      this.#formView(this.#nodes);
      for (const node of this.#nodes) this.#install(node);
      let busy = true;
      while (busy) {
        busy = [...this.#wires.values()].some((messages) => messages.length > 0) || this.#nodes.some(({ persists }) => persists.length > 0);
        this.#deliver();
        for (const node of this.#nodes) this.#sync(node);
        for (const node of this.#nodes) this.#settled(node);
        this.#check();
        if (busy) continue;
        busy = this.#broken.size > 0;
        for (const pair of this.#broken) this.#connect(pair);
      }
    }
    const latest = this.#latest();
    for (const node of this.#nodes) {
      const waiting = [...node.asked.keys()].filter(() => latest.nodes.some(({ nodeid }) => nodeid === node.nodeid));
      if (waiting.length > 0) throw new Error(`after a rest requests ${waiting.join()} at node ${node.nodeid} have no answer`);
    }
    for (const { nodeid } of latest.nodes) {
      const kept = this.#nodes[nodeid - 1]?.core?.kept;
      if (kept?.committed.fingerprint !== latest.fingerprint || kept.pending !== null) {
        throw new Error(
          `after a rest node ${nodeid} has ${kept?.committed.fingerprint} and ${kept?.pending?.record.fingerprint ?? "nothing open"}`,
        );
      }
    }
  }
}

function pairOf(a: number, b: number): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}

/** Of its own, so that it does not believe what it judges. */
function isMajority(nodes: ConfigRecord["nodes"], members: readonly number[]): boolean {
  const votesOf = (those: ConfigRecord["nodes"]): number => those.reduce((sum, { votes }) => sum + votes, 0);
  return votesOf(nodes.filter(({ nodeid }) => members.includes(nodeid))) * 2 > votesOf(nodes);
}

function configuredBy({ record, former }: Basis): Set<number> {
  return new Set([...record.nodes, ...(former?.nodes ?? [])].map(({ nodeid }) => nodeid));
}

/** As the proposer of a view counts. */
function quorateBy({ record, former }: Basis, members: readonly number[]): boolean {
  const basis = { version: record.version, nodes: record.nodes, options: plainQuorum, former: former?.nodes };
  const there = members.map((nodeid) => ({ nodeid }));
  return quorumOf(basis, there, true).quorate;
}
