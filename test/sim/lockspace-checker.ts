/**
 * What must hold of who has which lockspace open (dlmd/lockspaces/README.md): what a node may be granted in is known everywhere, nodes that went
 * together agree, and a death concerns the lockspaces that the dead node had open, and no others.
 */
import { viewName } from "../../dlmd/wire/view-id.ts";
import type { EngineView } from "../../dlmd/engine/engine.ts";
import type { OpenVictim } from "../../dlmd/wire/peer-message.ts";
import type { SimClient } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import type { SimNode } from "./cluster-node.ts";

export class LockspaceChecker {
  readonly #cluster: Cluster;
  /** By node, as "nodeid.incarnation": lockspaces that any program of that life has opened. */
  readonly #opened: Map<string, Set<string>> = new Map();
  /** By view and member: what a member of the view, which was in the one before, says that it had open when the view began. */
  readonly #agreed: Map<string, string> = new Map();
  /** Programs asked about a node that had their lockspace open; asked because that was not known; not asked. */
  asked = 0;
  askedUnknown = 0;
  spared = 0;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  opens({ key, space }: SimClient): void {
    this.#opened.set(key, (this.#opened.get(key) ?? new Set()).add(space));
  }

  /** Each member of its view knows that its node has the lockspace open, or does not know what it has. */
  granted({ node, key, space, name }: SimClient): void {
    const { recovery, boot } = node.core;
    for (const { nodeid, incarnation } of recovery.view?.members ?? []) {
      const member = this.#cluster.nodes[nodeid - 1];
      if (member?.alive !== true || member.incarnation !== incarnation) continue;
      const opened = member.core.lockspaces.openedBy(boot);
      if (opened?.has(space) !== false) continue;
      this.#cluster.fail(`${name} was granted a lock in ${space}, and node ${nodeid} does not know that ${key} has it open`);
    }
  }

  /** A quorate view begins, and what was ordered before it has been delivered. */
  entered(node: SimNode, { id, members, together }: EngineView): void {
    const dead = new Set([...this.#opened.keys()].filter((key) => !members.some((one) => `${one.nodeid}.${one.incarnation}` === key)));
    for (const key of [...members.map((one) => `${one.nodeid}.${one.incarnation}`), ...dead]) {
      const [nodeid = "", incarnation = ""] = key.split(".");
      if (members.some((one) => one.nodeid === Number(nodeid)) && !together.includes(Number(nodeid)) && !dead.has(key)) continue;
      const opened = node.core.lockspaces.openedBy({ nodeid: Number(nodeid), incarnation });
      if (opened === null) continue;
      const found = [...opened].sort().join(" ");
      const mark = `${viewName(id)} ${key}`;
      const before = this.#agreed.get(mark) ?? found;
      this.#agreed.set(mark, before);
      if (before !== found) this.#cluster.fail(`node ${node.nodeid} says that ${key} has "${found}" open, another said "${before}"`);
      if (!dead.has(key)) continue;
      for (const { space } of node.clients.values()) this.spared += opened.has(space) ? 0 : 1;
    }
  }

  /** A program is asked to let go of nodes that are gone. */
  goneAsked(client: SimClient, gone: readonly { readonly nodeid: number; readonly incarnation: string }[]): void {
    const opened = gone.map((member) => client.node.core.lockspaces.openedBy(member));
    const had = gone.some(({ nodeid, incarnation }) => this.#opened.get(`${nodeid}.${incarnation}`)?.has(client.space) === true);
    if (opened.includes(null)) this.askedUnknown++;
    else if (had) this.asked++;
    else this.#cluster.fail(`${client.name} is asked about nodes that never had ${client.space} open`);
  }

  /** The second lockspace waits for that node to be dead: for any life of it that had it open (FenceGate, withVictim). */
  waits(node: SimNode, { nodeid, lockspaces }: OpenVictim): void {
    const lives = [...this.#opened].filter(([key]) => key.startsWith(`${nodeid}.`));
    if (lockspaces === null || lives.some(([, opened]) => opened.has("second"))) return;
    this.#cluster.fail(`node ${node.nodeid} waits for a fence of node ${nodeid}, which never had the lockspace open`);
  }

  /** All is healed and quiet: every node knows what every node has open. */
  atRest(): void {
    for (const node of this.#cluster.nodes) {
      for (const { core, nodeid, incarnation } of this.#cluster.nodes) {
        const own = [...core.locks.tables.lockspaces.values()].filter(({ opens }) => opens > 0).map(({ name }) => name);
        const known = node.core.lockspaces.openedBy({ nodeid, incarnation });
        const [wanted, found] = [own.sort().join(" "), known === null ? "unknown" : [...known].sort().join(" ")];
        if (wanted !== found) this.#cluster.fail(`node ${nodeid} has "${wanted}" open, node ${node.nodeid} says "${found}"`);
      }
    }
  }
}
