/** What all nodes together do about the configuration: what the checks of config-part.ts are made of, and what happened when. */
import type { ConfigRecord, KeptConfig } from "../../dlmd/config/record.ts";
import type { QuorumOptions } from "../../dlmd/engine/boot.ts";
import { type Cluster, timeoutMs } from "./cluster.ts";
import type { SimNode } from "./cluster-node.ts";
import { addressIn, type ChangeKind, firstConfig, kindOf, strayConfig, withVotes } from "./config-draw.ts";
import { quorateHalves } from "./halves.ts";

export class ConfigHistory {
  readonly #cluster: Cluster;
  /** What each version is: one configuration for ever. */
  readonly #decided: Map<number, ConfigRecord> = new Map();
  /** Files that no quorate view ever had. */
  readonly #strays: Set<string> = new Set();
  /** In force on some disk: the file that a new machine gets. */
  latest: ConfigRecord;
  changes = 0;
  refused = 0;
  /** How often each kind of change came into force in the midst of trouble, and what was so at that moment. */
  readonly beside: Map<string, number> = new Map();
  /** In force once; then the last disk of a node that knew so was lost. */
  #lost: ConfigRecord | null = null;
  /** Nodes that lost what they kept of the configuration; those that came back with a file that nobody had agreed on. */
  forgotten = 0;
  strays = 0;
  /** Counted is by something else, or of something else is known which views there were, than when it was looked at last. */
  changed = true;

  constructor(cluster: Cluster, options: Partial<QuorumOptions>) {
    this.#cluster = cluster;
    this.latest = firstConfig(cluster.script.nodes, timeoutMs, options);
    this.#decided.set(1, this.latest);
  }

  /** Changes of any kind that came into force while a program of a living node held a lock. */
  get underLocks(): number {
    return [...this.beside].reduce((sum, [words, count]) => sum + (words.endsWith("locks were held") ? count : 0), 0);
  }

  stray(before: ConfigRecord, nodeid: number): ConfigRecord | null {
    const record = strayConfig(before, nodeid, this.#strays.size + 1);
    if (record === null) return null;
    this.#strays.add(record.fingerprint);
    this.strays++;
    return record;
  }

  written(node: SimNode, { committed, agreedBy }: KeptConfig): void {
    this.changed = true;
    if (this.#strays.has(committed.fingerprint)) {
      if (agreedBy.length > 0) this.#cluster.fail(`node ${node.nodeid}: its own file became what nodes ${agreedBy.join()} agreed on`);
      return;
    }
    if (committed.version > this.latest.version) this.latest = committed;
  }

  inForce(node: SimNode, record: ConfigRecord): void {
    const { version, fingerprint } = record;
    const decided = this.#decided.get(version);
    if (decided !== undefined && decided.fingerprint !== fingerprint) {
      this.#cluster.fail(`version ${version} is ${decided.fingerprint}, and at node ${node.nodeid} ${fingerprint}`);
    }
    if (this.#strays.has(fingerprint)) this.#cluster.fail(`node ${node.nodeid} took version ${version}, which nobody had agreed on`);
    if (decided !== undefined) return;
    this.#decided.set(version, record);
    this.#olderLeasesAreOver(version);
    this.changes++;
    const former = this.#decided.get(version - 1);
    if (former !== undefined && !this.#cluster.quiet) this.#note(kindOf(former, record));
  }

  #note(kind: ChangeKind): void {
    const { nodes, network } = this.#cluster;
    const holds = nodes.some(
      ({ alive, clients }) => alive && [...clients.values()].some(({ locks }) => [...locks.values()].some(({ mode }) => mode !== null)),
    );
    const note = (words: string): void => {
      const name = `changes of ${kind} while ${words}`;
      this.beside.set(name, (this.beside.get(name) ?? 0) + 1);
    };
    if (holds) note("locks were held");
    if (holds && network.cut.size > 0) note("links were cut");
    if (holds && nodes.some(({ alive, nodeid }) => !alive && addressIn(this.latest, nodeid) !== undefined)) note("a node was down");
  }

  /** Votes of two versions in a row have common majorities; those of others need not (hazard C8). */
  #olderLeasesAreOver(version: number): void {
    const { nowMs } = this.#cluster.agenda;
    for (const { nodeid, alive, leaseEndMs, leaseVersion } of this.#cluster.nodes) {
      if (!alive || leaseEndMs <= nowMs || leaseVersion >= version - 1) continue;
      const leftMs = leaseEndMs - nowMs;
      this.#cluster.fail(`version ${version} is in force, and node ${nodeid} has a lease by version ${leaseVersion} for ${leftMs} ms`);
    }
  }

  /** After a step: no two sets of nodes without a common one could both make a quorate view (hazard C8). */
  look(): void {
    if (!this.changed) return;
    this.changed = false;
    if (this.#cluster.twoNode) return;
    const halves = quorateHalves(this.#cluster.nodes);
    if (halves !== null) this.#cluster.fail(`nodes ${halves[0].join()} and nodes ${halves[1].join()} could both be quorate`);
  }

  /** Once all is healed a person puts right what only a person can: machines that moved, files that nobody agreed on, nodes that were removed. */
  restore(): void {
    const { nodes } = this.#cluster;
    for (const node of nodes) {
      const address = addressIn(this.latest, node.nodeid);
      if (node.config.isStray || (address !== undefined && node.alive && address !== node.config.address)) node.config.putRight();
      if (address !== undefined) node.start();
    }
    const missing = nodes.find(({ nodeid }) => addressIn(this.latest, nodeid) === undefined);
    const asked = nodes.find(
      ({ alive, config, core }) => alive && config.asks === 0 && core.engine.membership.view?.quorum.quorate === true,
    );
    // Without votes, as is allowed always.
    if (missing !== undefined && asked !== undefined) asked.config.propose(withVotes(asked.config.inForce, missing.nodeid, 0));
  }

  /** Some node of the cluster can tell the others that the latest was in force. */
  get #isKnown(): boolean {
    const { latest } = this;
    return this.#cluster.nodes.some(({ nodeid, config }) => addressIn(latest, nodeid) !== undefined && config.vouchesFor(latest));
  }

  diskLost(lose: () => void): void {
    const { latest } = this;
    const wasKnown = this.#isKnown;
    lose();
    if (wasKnown && !this.#isKnown) this.#lost = latest;
  }

  /**
   * Nodes do not believe each other's files. What was in force and was lost with its last disk cannot come back by itself if the nodes with
   * its file are no quorum: a person stops every node and starts each with that file (dlmd/README.md, "What no majority can bear").
   * False: that was not needed.
   */
  startAnew(): boolean {
    const { nodes } = this.#cluster;
    if (this.#lost !== this.latest || this.#isKnown) return false;
    if (nodes.some(({ alive, core }) => alive && core.engine.membership.view?.quorum.quorate === true)) return false;
    for (const { config } of nodes) config.takeNew(this.latest);
    return true;
  }

  atRest(): void {
    for (const { nodeid, config } of this.#cluster.nodes) {
      const { committed, pending } = config.kept;
      if (committed.fingerprint !== this.latest.fingerprint || pending !== null) {
        const open = pending === null ? "nothing" : `version ${pending.record.version}`;
        this.#cluster.fail(
          `node ${nodeid} has version ${committed.version} at rest, and ${open} is open; ${this.latest.version} is in force`,
        );
      }
      if (config.asks > 0) this.#cluster.fail(`node ${nodeid}: a change was asked for, and never answered`);
    }
  }
}
