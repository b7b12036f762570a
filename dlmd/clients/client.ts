/** A program connected to this node's dlmd. */
import type { LockClient } from "../lock/lkb.ts";
import type { ClientIdentity, ClientRequest } from "../wire/program.ts";

export interface Client extends LockClient {
  /** Requests that wait for lock service, in order. */
  saved: ClientRequest[];
  /** Lockspaces that it has opened, and of which not every member knows that this node has them open: its requests wait. */
  readonly opening: Set<string>;
  /** "gone" asks that it has not answered: until then its socket must be read, whatever is saved. */
  asked: number;
  /** It sent so much that a request of it was dropped: it is to end, and only its end counts. */
  flooded: boolean;
  /** It wants to be kept for an heir for so long if its connection breaks (hazard C12); 0: not. */
  keepMs: number;
  /** Only as long as another connection of its owner is there. */
  keepHeld: boolean;
  /** While gone: members of the view whose clients have not yet answered (hazard C7); null: not asked in this view. */
  awaited: Set<number> | null;
}

export const nobody: ClientIdentity = { uid: 0, pid: 0, owner: "" };

export function newClient(id: number, { uid, pid, owner, program = "", bastLimitMs = 0 }: ClientIdentity = nobody): Client {
  const locks = new Map();
  const lockspaces = new Map();
  const who = { id, uid, pid, owner, program, bastLimitMs, promptLimitMs: bastLimitMs };
  return {
    ...who,
    lockspaces,
    locks,
    opening: new Set<string>(),
    saved: [],
    paused: false,
    asked: 0,
    flooded: false,
    keepMs: 0,
    keepHeld: false,
    gone: false,
    kept: false,
    ending: false,
    awaited: null,
    purged: null,
  };
}
