/**
 * What "who has this lock?" must say (dlmd/query/inspect.ts), asked of simulated nodes in the midst of trouble: one answer to each question, with a
 * row for each configured node; what a master that serves says it granted goes together; and at rest it says what programs hold.
 */
import type { InspectAnswer, ResourceAnswer } from "../../dlmd/wire/inspect-answer.ts";
import { Mode, modeNames, modesCompatible } from "../../dlmd/wire/mode.ts";
import type { SimClient } from "./client.ts";
import type { Cluster } from "./cluster.ts";

export class SightChecker {
  answers = 0;
  readonly #cluster: Cluster;
  readonly #asked: Map<number, SimClient> = new Map();
  #nextQueryId = 1;
  /** The question of the end, and what was said to it. */
  #last: { readonly queryId: number; data: InspectAnswer | null } | null = null;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** A question's number. */
  asked(client: SimClient): number {
    this.#asked.set(this.#nextQueryId, client);
    return this.#nextQueryId++;
  }

  answered(client: SimClient, queryId: number, data: unknown): void {
    const fail = (what: string): never => this.#cluster.fail(what);
    if (this.#asked.get(queryId) !== client) return fail(`${client.name}: an answer to question ${queryId}, which has none coming`);
    this.#asked.delete(queryId);
    this.answers++;
    const answer = data as InspectAnswer;
    const rows = answer.nodes.map(({ nodeid }) => nodeid).join();
    const { configured, met, removing } = client.node;
    // A node that is being removed may be in the view still, or once more, and is asked.
    // Nor is the node itself a stranger, which may be the one.
    const strangers = answer.nodes.filter(
      ({ nodeid }) => nodeid !== client.node.nodeid && !removing.has(nodeid) && ![...met].some((life) => life.startsWith(`${nodeid}.`)),
    );
    const isOf = (nodes: string): boolean => {
      const ids = nodes.split(",").map(Number);
      return ids.every((id) => answer.nodes.some(({ nodeid }) => nodeid === id)) && strangers.every(({ nodeid }) => ids.includes(nodeid));
    };
    if (![...configured].some(isOf)) return fail(`${client.name}: rows of nodes ${rows}, ${[...configured].join(" or ")} expected`);
    for (const row of answer.nodes) {
      if ("answer" in row && row.answer.serving) for (const resource of row.answer.resources) this.#together(row.nodeid, resource);
    }
    if (this.#last?.queryId === queryId) this.#last.data = answer;
  }

  #together(nodeid: number, { resource, masterNodeid, grantQueue }: ResourceAnswer): void {
    if (masterNodeid !== nodeid) return;
    const modes = grantQueue.map(({ granted }) => modeOf(granted));
    for (const [at, mode] of modes.entries()) {
      const other = modes.slice(at + 1).find((later) => !modesCompatible(mode, later));
      if (other !== undefined) this.#cluster.fail(`node ${nodeid} says of ${resource}: ${modeNames[mode]} beside ${modeNames[other]}`);
    }
  }

  clientAtRest(client: SimClient): void {
    for (const [queryId, asking] of this.#asked) {
      if (asking === client) this.#cluster.fail(`${client.name}: question ${queryId} was never answered`);
    }
  }

  /** At rest: everything, of everybody. */
  ask(): void {
    const [client] = this.#cluster.nodes.flatMap((node) => [...node.clients.values()]);
    if (client === undefined) return;
    const queryId = this.asked(client);
    this.#last = { queryId, data: null };
    client.node.input({
      kind: "client-requests",
      clientId: client.id,
      requests: [{ kind: "inspect", queryId, lockspace: "", resource: "", nodeid: 0, waitingMs: null }],
    });
  }

  atRest(): void {
    if (this.#last === null) return;
    const { data } = this.#last;
    const { nodes } = this.#cluster;
    const fail = (what: string): never => this.#cluster.fail(what);
    if (data === null) return fail("the question at rest was not answered");
    const missing = data.nodes.find((row) => "missing" in row);
    if (missing !== undefined)
      return fail(`node ${missing.nodeid} does not answer at rest: ${"missing" in missing ? missing.missing : ""}`);
    const said = new Set<string>();
    for (const row of data.nodes) {
      if (!("answer" in row)) continue;
      for (const { resource, masterNodeid, grantQueue } of row.answer.resources) {
        if (masterNodeid !== row.nodeid) continue;
        for (const { nodeid, clientId, granted } of grantQueue) said.add(`${resource} ${nodeid}/${clientId} ${granted}`);
      }
    }
    for (const node of nodes) {
      for (const client of node.clients.values()) {
        for (const lock of client.locks.values()) {
          const words = `${lock.resource} ${node.nodeid}/${client.id} ${modeNames[lock.mode as Mode]}`;
          if (lock.asked === null && lock.mode !== null && !said.has(words))
            fail(`nobody says at rest: ${words}, but ${[...said].join(", ")}`);
        }
      }
    }
  }
}

function modeOf(name: string | null): Mode {
  return Math.max(0, modeNames.indexOf(name as never)) as Mode;
}
