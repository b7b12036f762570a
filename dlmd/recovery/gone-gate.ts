/**
 * Nothing is granted in a lockspace in which clients, of whichever node, have not yet let go of nodes that are gone (hazards C7, R7). Recovery
 * itself waits for none of them: each member says before DONE 1 which lockspaces wait for clients of its own, and again when that changes. So
 * a program that hangs, or waits for a hung disk, holds up the lockspaces that it has open and no others.
 */
import { type GoneWait } from "../clients/death-barrier.ts";
import { waitedSince } from "../wire/peer-field.ts";
import { type GoneWaitRow, type GoneWaitsMessage, MAX_GONE_LOCKSPACES, MAX_GONE_ROWS } from "../wire/peer-gone.ts";

/** A client that some lockspaces wait for. */
export interface GoneWaiter extends Omit<GoneWaitRow, "waitedMs"> {
  readonly nodeid: number;
  readonly sinceMs: number;
}

/** Of a program's name, the end. */
const programChars = 64;

interface Said {
  readonly all: boolean;
  readonly lockspaces: ReadonlySet<string>;
  readonly clients: readonly GoneWaiter[];
}

export class GoneGate {
  readonly #nodeid: number;
  readonly #own: () => readonly GoneWait[];
  /** Of the other members of the view. */
  readonly #said: Map<number, Said> = new Map();
  /** What `change` has given last. */
  #told = "";
  #ownLockspaces: ReadonlySet<string> = new Set();

  constructor(nodeid: number, own: () => readonly GoneWait[]) {
    this.#nodeid = nodeid;
    this.#own = own;
  }

  /** Everybody says anew what waits. */
  enterView(): void {
    this.#said.clear();
    this.#told = "";
    this.review();
  }

  /** What this node's clients have let go of may have changed. */
  review(): void {
    this.#ownLockspaces = new Set(this.#own().flatMap(({ lockspaces }) => lockspaces));
  }

  blocks(lockspace: string): boolean {
    if (this.#ownLockspaces.has(lockspace)) return true;
    for (const { all, lockspaces } of this.#said.values()) if (all || lockspaces.has(lockspace)) return true;
    return false;
  }

  /** What the others are to be told, if they were not told just that in this view. */
  news(nowMs: number): GoneWaitsMessage | null {
    const lockspaces = [...this.#ownLockspaces];
    const all = lockspaces.length > MAX_GONE_LOCKSPACES;
    const rows = this.#own().slice(0, MAX_GONE_ROWS);
    const told =
      lockspaces.length === 0
        ? ""
        : JSON.stringify([lockspaces, rows.map(({ client, lockspaces: its }) => [client.id, client.ending, its])]);
    if (told === this.#told) return null;
    this.#told = told;
    const clients = rows.map((wait) => {
      const { sinceMs, ...row } = rowOf(wait);
      return { ...row, waitedMs: waitedSince(sinceMs, nowMs) };
    });
    return { kind: "gone-waits", all, lockspaces: all ? [] : lockspaces, clients };
  }

  receive(nodeid: number, { all, lockspaces, clients }: GoneWaitsMessage, nowMs: number): void {
    const rows = clients.map(({ waitedMs, ...client }) => ({ ...client, nodeid, sinceMs: nowMs - waitedMs }));
    this.#said.set(nodeid, { all, lockspaces: new Set(lockspaces), clients: rows });
  }

  /** Who is waited for; of other nodes as they said it last. */
  waiters(): GoneWaiter[] {
    const own = this.#own().map((wait) => ({ ...rowOf(wait), nodeid: this.#nodeid }));
    return [...own, ...[...this.#said.values()].flatMap(({ clients }) => clients)];
  }

  /** In words, for people; "": nobody is waited for. */
  explain(nowMs: number): string {
    const waiters = this.waiters();
    const [first] = waiters;
    if (first === undefined) return "";
    const { nodeid, clientId, pid, program, lockspaces, sinceMs, ending } = first;
    const name = program === "" ? "" : `, ${program.split("/").at(-1) ?? ""}`;
    const more = waiters.length > 1 ? `, and for ${waiters.length - 1} more` : "";
    const since = `since ${(Math.max(0, nowMs - sinceMs) / 1000).toFixed(1)} s`;
    const who = `client ${clientId} of node ${nodeid} (pid ${pid}${name})`;
    const killed = ending ? " (its process is to end, and has not yet)" : "";
    return `lockspaces ${lockspaces.join(" ")} wait ${since} until ${who} has let go of nodes that are gone${killed}${more}`;
  }
}

export function rowOf({ client: { id, pid, program, ending }, lockspaces, sinceMs }: GoneWait): Omit<GoneWaiter, "nodeid"> {
  return { clientId: id, pid, program: program.slice(-programChars), lockspaces, ending, sinceMs };
}
