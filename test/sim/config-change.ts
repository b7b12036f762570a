/**
 * Configuration changes (dlmd/config/change.ts) under views that form at random, lost messages, slow disks and crashes between any two steps.
 * After each step: no two disjoint sets of nodes could both be quorate, counting as membership does (hazard C8), and a version
 * means one configuration for ever.
 */
import {
  type ConfigEffect,
  type ConfigEvent,
  type ConfigMessage,
  type ConfigRecord,
  type ConfigView,
  ConfigChange,
  type KeptConfig,
  isMajority,
} from "../../dlmd/config/change.ts";
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
  #epoch = 0;
  #requests = 0;
  readonly story: string[] = [];

  constructor(seed: number) {
    this.#random = new Random(seed);
    const first = recordOf(1, new Map([1, 2, 3].map((nodeid) => [nodeid, 1])));
    this.#nodes = Array.from({ length: UNIVERSE }, (_, at) => ({
      nodeid: at + 1,
      core: null,
      disk: at < 3 ? { committed: first, pending: null } : null,
      basis: null,
      persists: [],
      promised: 0,
      install: null,
    }));
    for (const node of this.#nodes) if (node.disk !== null) this.#boot(node);
  }

  run(steps: number): ConfigSimResult {
    for (let step = 0; step < steps; step++) {
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
    const roll = this.#random.next();
    const node = this.#random.pick(this.#nodes);
    if (roll < 0.5) this.#deliver();
    else if (roll < 0.72) this.#sync(node);
    else if (roll < 0.88) this.#install(node);
    else if (roll < 0.9) this.#formView();
    else if (roll < 0.96) this.#apply(node);
    else if (roll < 0.965) this.#crash(node);
    else if (roll < 0.995) this.#boot(node);
    else this.#offer(node);
  }

  #boot(node: SimNode): void {
    if (node.core !== null) return;
    if (node.disk === null) {
      // A new machine gets the file that names it.
      const latest = this.#latest();
      if (!latest.nodes.some(({ nodeid }) => nodeid === node.nodeid)) return;
      node.disk = { committed: latest, pending: null };
    }
    node.core = new ConfigChange(node.nodeid, node.disk, () => null);
    node.basis = basisOf(node.disk);
    this.story.push(`boot ${node.nodeid} v${node.disk.committed.version}`);
  }

  /** What was on its way to the disk may have got there, in order. */
  #crash(node: SimNode): void {
    if (node.core === null) return;
    const written = this.#random.int(node.persists.length + 1);
    const last = node.persists[written - 1];
    if (last !== undefined) node.disk = last.kept;
    Object.assign(node, { core: null, basis: null, persists: [], install: null });
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
    node.disk = next.kept;
    this.#step(node, { kind: "persisted", serial: next.serial });
  }

  #install(node: SimNode): void {
    const view = node.install;
    node.install = null;
    if (view !== null && view.epoch === node.promised) this.#step(node, { kind: "view", view });
  }

  #offer(node: SimNode): void {
    const other = this.#random.pick(this.#nodes);
    if (other.disk !== null && node.core !== null) this.#step(node, { kind: "offered", record: other.disk.committed });
  }

  #apply(node: SimNode): void {
    if (node.core === null) return;
    const { committed } = node.core.kept;
    const votes = new Map(committed.nodes.map((each) => [each.nodeid, each.votes]));
    // Now and then more than one at a time: to be refused.
    do this.#change(votes);
    while (this.#random.chance(0.2));
    if ([...votes.values()].every((each) => each === 0)) return;
    this.#step(node, { kind: "apply", requestId: ++this.#requests, record: recordOf(committed.version + 1, votes) });
  }

  #change(votes: Map<number, number>): void {
    const nodeid = 1 + this.#random.int(UNIVERSE);
    const has = votes.get(nodeid);
    if (has === undefined) votes.set(nodeid, 1);
    else if (has < 2 && this.#random.chance(0.3)) votes.set(nodeid, has + 1);
    else if (has > 1) votes.set(nodeid, has - 1);
    else votes.delete(nodeid);
  }

  /** As the agreement does: whose configuration is the latest counts. */
  #formView(wanted: readonly SimNode[] = this.#nodes.filter(() => this.#random.chance(0.7))): void {
    const alive = wanted.filter(({ core }) => core !== null);
    const highest = Math.max(0, ...alive.map(({ basis }) => basis?.record.version ?? 0));
    const proposers = alive.filter(({ basis }) => basis?.record.version === highest);
    if (proposers.length === 0) return;
    const { basis } = this.#random.pick(proposers);
    const configured = new Set([...(basis as Basis).record.nodes, ...((basis as Basis).former?.nodes ?? [])].map(({ nodeid }) => nodeid));
    const members = alive.filter(({ nodeid }) => configured.has(nodeid));
    if (members.length === 0) return;
    const nodeids = members.map(({ nodeid }) => nodeid);
    const epoch = ++this.#epoch;
    const view: ConfigView = { epoch, id: `view ${epoch}`, members: nodeids, quorate: quorateBy(basis as Basis, nodeids) };
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
        // A connection that breaks takes all that is on it with it; the view that follows starts again.
        if (this.#random.chance(0.01)) messages.length = 0;
        else messages.push(effect.message);
        this.#wires.set(wire, messages);
        return;
      }
      case "persist":
        node.persists.push({ serial: effect.serial, kept: effect.kept });
        return;
      case "count":
        node.basis = { record: effect.record, former: effect.former };
        return;
      case "inForce": {
        const { version, fingerprint } = effect.record;
        const before = this.#decided.get(version) ?? fingerprint;
        if (before !== fingerprint) throw new Error(`version ${version} is "${before}" and "${fingerprint}"`);
        this.#decided.set(version, fingerprint);
        this.story.push(`in force at ${node.nodeid}: ${fingerprint}`);
        return;
      }
      case "applied":
      case "refused":
        this.story.push(`${effect.kind} ${effect.requestId} at ${node.nodeid}`);
    }
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

  #check(): void {
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
        this.#step(node, { kind: "offered", record: this.#latest() });
      }
      this.#formView(this.#nodes);
      for (const node of this.#nodes) this.#install(node);
      let busy = true;
      while (busy) {
        busy = [...this.#wires.values()].some((messages) => messages.length > 0) || this.#nodes.some(({ persists }) => persists.length > 0);
        this.#deliver();
        for (const node of this.#nodes) this.#sync(node);
        this.#check();
      }
    }
    const latest = this.#latest();
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

function quorateBy({ record, former }: Basis, members: readonly number[]): boolean {
  return isMajority(record.nodes, members) && (former === null || isMajority(former.nodes, members));
}
