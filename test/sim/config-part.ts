/** What a simulated node does about the configuration, as driver/config-keeper.ts does it: the core of a change, its disk, and who may talk to whom. */
import { changeObjection } from "../../dlmd/config/allowed-change.ts";
import { decodeConfigMessage, encodeConfigMessage } from "../../dlmd/config/change-codec.ts";
import type { ConfigEffect, ConfigEvent } from "../../dlmd/config/change-event.ts";
import { ConfigChange } from "../../dlmd/config/change.ts";
import { type ClusterConfig, decodeClusterConfig } from "../../dlmd/config/cluster-config.ts";
import { type ConfigRecord, isAgreed, type KeptConfig } from "../../dlmd/config/record.ts";
import { countedBy } from "../../dlmd/driver/config-keeper.ts";
import type { NodeConfiguration } from "../../dlmd/engine/boot.ts";
import type { SimNode } from "./cluster-node.ts";
import { addressIn, drawnChange } from "./config-draw.ts";
import type { ConfigHistory } from "./config-history.ts";
import type { Random } from "./random.ts";

/** What follows from a text alone is worked out once: the checks after each step ask for it again and again. */
function remembered<T>(workOut: (record: ConfigRecord, former: ConfigRecord | null) => T): typeof workOut {
  const known = new Map<string, T>();
  return (record, former) => {
    const key = `${record.text}\0${former?.text ?? ""}`;
    const before = known.get(key);
    if (before !== undefined) return before;
    const result = workOut(record, former);
    if (known.size >= 1000) known.clear();
    known.set(key, result);
    return result;
  };
}
const counted = remembered(countedBy);
const decoded = remembered((record): ClusterConfig => decodeClusterConfig(record.text, "simulation", 1));
const decode = (record: ConfigRecord): ClusterConfig => decoded(record, null);

export class ConfigPart {
  readonly #node: SimNode;
  readonly #history: ConfigHistory;
  readonly #random: Random;
  /** null: the process does not run. */
  #core: ConfigChange | null = null;
  #disk: KeptConfig;
  #writes: { readonly serial: number; readonly kept: KeptConfig }[] = [];
  #writtenAtMs = 0;
  #process = 0;
  #asked = new Set<number>();
  #requests = 0;
  /** What its handshakes say. */
  inForce: ConfigRecord;
  /** Of the machine; others reach it by the configuration's. */
  address: string;
  #stray: ConfigRecord | null = null;

  constructor(node: SimNode, history: ConfigHistory) {
    this.#node = node;
    this.#history = history;
    this.#random = node.cluster.streams.of(`config ${node.nodeid}`);
    this.#disk = { committed: history.latest, agreedBy: [], trail: [], pending: null, counting: null };
    this.inForce = history.latest;
    this.address = addressIn(history.latest, node.nodeid) ?? "";
  }

  /** It came back with a file that nobody had agreed on. */
  get isStray(): boolean {
    return this.#stray !== null;
  }
  get kept(): KeptConfig {
    return this.#core?.kept ?? this.#disk;
  }
  /** Its disk knows that this was in force in a quorate view. */
  vouchesFor({ fingerprint }: ConfigRecord): boolean {
    const { committed, agreedBy } = this.#disk;
    return agreedBy.length > 0 && committed.fingerprint === fingerprint;
  }
  get asks(): number {
    return this.#asked.size;
  }
  get counted(): NodeConfiguration & { readonly quorum: NonNullable<NodeConfiguration["quorum"]> } {
    const { committed, pending, counting } = this.kept;
    const found = {
      ...(pending === null ? counted(committed, null) : counted(pending.record, committed)),
      counting,
      agreed: isAgreed(this.kept),
    };
    // cluster.yaml would have to name fence devices: cluster.ts fences.
    return this.#node.cluster.twoNode ? { ...found, quorum: { ...found.quorum, twoNode: true, waitForAll: true } } : found;
  }

  /** Who may be talked to: at the address where the machine is. */
  knows(nodeid: number): boolean {
    const { committed, pending } = this.kept;
    const address = this.#node.cluster.nodes[nodeid - 1]?.config.address;
    return addressIn(committed, nodeid) === address || (pending !== null && addressIn(pending.record, nodeid) === address);
  }

  /** A process that runs goes on through its lives. False: the cluster has no such node, and nobody starts it. */
  begin(): boolean {
    if (this.#core !== null) return true;
    const { nodeid } = this.#node;
    const { latest } = this.#history;
    // The machine is where the cluster looks for it. A node that kept another address, or is in no configuration that it kept, gets the new file.
    this.address = addressIn(latest, nodeid) ?? this.address;
    if (addressIn(this.#disk.committed, nodeid) !== this.address) {
      if (addressIn(latest, nodeid) === undefined) return false;
      this.#takeFile(latest);
    }
    this.#core = new ConfigChange(nodeid, this.#disk, (from, to, members) => changeObjection(decode(from), decode(to), members));
    this.inForce = this.#disk.committed;
    return true;
  }

  #takeFile(committed: ConfigRecord): void {
    this.#disk = { committed, agreedBy: [], trail: [], pending: null, counting: null };
    this.#history.changed = true;
  }

  /**
   * The state directory is lost. cluster.yaml is there still, or, now and then, one that a person wrote for the next version. A proposal that
   * is open here may be decided by its being here: of a majority no disk may be lost.
   */
  forget(): void {
    if (this.#disk.pending !== null || this.isStray) return;
    this.#history.forgotten++;
    const { committed } = this.#disk;
    const another = this.#node.cluster.nodes.some(({ config }) => config.isStray);
    this.#stray = another || this.#random.chance(0.5) ? null : this.#history.stray(committed, this.#node.nodeid);
    this.#history.diskLost(() => this.#takeFile(this.#stray ?? committed));
    const stray = this.#stray;
    const { agenda } = this.#node.cluster;
    if (stray !== null) agenda.at(agenda.nowMs + this.#random.between(500, 2500), () => this.#stray === stray && this.putRight());
  }

  /** A person stops it, gives it the file of the others and what address the machine shall have, and starts it. */
  putRight(): void {
    const runs = this.#node.alive;
    this.#node.crash();
    if (this.isStray) this.#takeFile(this.#history.latest);
    this.#stray = null;
    if (runs) this.#node.start();
  }

  /** A person stops it, and gives it that file, to be started with --new-config. */
  takeNew(record: ConfigRecord): void {
    this.#node.crash();
    this.#takeFile(record);
    this.#stray = null;
  }

  /** The process ends: what was on its way to the disk may have got there, in order. */
  end(): void {
    if (this.#core === null) return;
    const written = this.#random.int(this.#writes.length + 1);
    for (const { kept } of this.#writes.slice(0, written)) this.#wrote(kept);
    this.#core = null;
    this.#process++;
    this.#writes = [];
    this.#asked.clear();
  }

  #wrote(kept: KeptConfig): void {
    this.#disk = kept;
    this.#history.written(this.#node, kept);
  }

  step(event: ConfigEvent): void {
    if (this.#core === null) return;
    const process = this.#process;
    for (const effect of this.#core.step(event)) {
      // A node that is removed ends with the configuration without it, and says nothing more.
      if (this.#process !== process) return;
      this.#perform(effect);
    }
  }

  propose(record: ConfigRecord): void {
    if (this.#core === null) return;
    const requestId = ++this.#requests;
    this.#asked.add(requestId);
    this.#node.inputConfig({ kind: "apply", requestId, record });
  }

  proposeDrawn(seed: number): void {
    const record = drawnChange(this.kept.committed, this.#node.cluster.nodes, seed);
    if (record !== null) this.propose(record);
  }

  /** As handshake.ts: null: the connection may be; otherwise what the one with the older configuration is offered, if anything. */
  static objection(a: SimNode, b: SimNode): { readonly to: SimNode; readonly event: ConfigEvent } | "refused" | null {
    // The lower nodeid connects.
    if (!a.config.knows(b.nodeid)) return "refused";
    const [mine, theirs] = [a.config.inForce, b.config.inForce];
    if (mine.fingerprint === theirs.fingerprint) return b.config.knows(a.nodeid) ? null : "refused";
    if (mine.version === theirs.version) return "refused";
    const [newer, to] = mine.version > theirs.version ? [a, b] : [b, a];
    const { committed: record, agreedBy, trail, counting } = newer.config.kept;
    return agreedBy.length === 0 ? "refused" : { to, event: { kind: "offered", record, agreedBy, trail, counting } };
  }

  #perform(effect: ConfigEffect): void {
    const node = this.#node;
    const { cluster } = node;
    cluster.trace(`${node.nodeid} config`, effect);
    switch (effect.kind) {
      case "send": {
        const bytes = encodeConfigMessage(effect.message);
        return cluster.network.sendConfig(node, effect.to, () => ({
          kind: "message",
          from: node.nodeid,
          message: decodeConfigMessage(bytes),
        }));
      }
      case "persist":
        return this.#persist(effect.serial, effect.kept);
      case "count":
        this.#history.changed = true;
        for (const other of cluster.nodes) if (!this.knows(other.nodeid)) cluster.network.break(node, other);
        return node.counts({ ...counted(effect.record, effect.former), counting: effect.counting, agreed: isAgreed(this.kept) });
      case "inForce": {
        const { record } = effect;
        if (record.version <= this.inForce.version)
          cluster.fail(`node ${node.nodeid}: version ${record.version} after version ${this.inForce.version}`);
        const former = this.inForce;
        this.inForce = record;
        this.#stray = null;
        this.#history.inForce(node, record);
        this.#renew();
        if (!record.nodes.some(({ nodeid }) => nodeid === node.nodeid)) return node.crash();
        // A node that is new is started by a person.
        for (const { nodeid } of record.nodes) {
          const other = cluster.nodes.find((each) => each.nodeid === nodeid);
          if (former.nodes.some((each) => each.nodeid === nodeid) || other === undefined) continue;
          cluster.agenda.at(cluster.agenda.nowMs + this.#random.between(5, 200), () => other.start());
        }
        return;
      }
      case "declined":
        return;
      case "applied":
      case "refused":
        if (effect.kind === "refused") this.#history.refused++;
        if (!this.#asked.delete(effect.requestId)) cluster.fail(`node ${node.nodeid}: request ${effect.requestId} has two answers`);
    }
  }

  /** As driver/peer-network.ts. */
  #renew(): void {
    const { nodeid, cluster, core } = this.#node;
    const members = core.engine.membership.view?.members ?? [];
    for (const other of cluster.nodes) {
      if (other.nodeid !== nodeid && !members.some((member) => member.nodeid === other.nodeid)) cluster.network.break(this.#node, other);
    }
  }

  #persist(serial: number, kept: KeptConfig): void {
    const { agenda } = this.#node.cluster;
    this.#writes.push({ serial, kept });
    const process = this.#process;
    this.#writtenAtMs = Math.max(this.#writtenAtMs, this.#node.diskUntilMs, agenda.nowMs + this.#random.between(0, 3));
    agenda.at(this.#writtenAtMs, () => {
      const next = process === this.#process ? this.#writes.shift() : undefined;
      if (next === undefined) return;
      this.#wrote(next.kept);
      this.#node.inputConfig({ kind: "persisted", serial: next.serial });
    });
  }
}
