/** A program connected to this node's dlmd, as the lock manager sees it. */
import type { ClientRequest } from "../node-api.ts";
import type { Lkb, Lockspace } from "./lkb.ts";

export interface Client {
  readonly id: number;
  readonly lockspaces: Map<number, Lockspace>;
  readonly locks: Map<number, Lkb>;
  /** Requests that wait for lock service, in order. */
  saved: ClientRequest[];
  paused: boolean;
  /** "gone" asks that it has not answered: until then its socket must be read, whatever is saved. */
  asked: number;
  /** Its socket closed: no events go to it. */
  gone: boolean;
  /** While gone: members of the view whose clients have not yet answered (hazard C7); null: not asked in this view. */
  awaited: Set<number> | null;
}

export function newClient(id: number): Client {
  return { id, lockspaces: new Map(), locks: new Map(), saved: [], paused: false, asked: 0, gone: false, awaited: null };
}
