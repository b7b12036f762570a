/** A program connected to this node's dlmd, as the lock manager sees it. */
import type { ClientRequest } from "../node-api.ts";
import type { Lkb, Lockspace } from "./lkb.ts";

/** Who a program is; it keeps its orphans by (uid, owner). */
export interface ClientIdentity {
  readonly uid: number;
  readonly pid: number;
  /** A key that the program chose; "": none. */
  readonly owner: string;
  /** What it is called, for people. */
  readonly program?: string;
  /** It answers blocking ASTs within that time, or hangs; 0 or not given: it need not answer (hazard H13). */
  readonly bastLimitMs?: number;
}

export interface Client {
  readonly id: number;
  readonly uid: number;
  readonly pid: number;
  readonly owner: string;
  readonly program: string;
  bastLimitMs: number;
  readonly lockspaces: Map<number, Lockspace>;
  readonly locks: Map<number, Lkb>;
  /** Requests that wait for lock service, in order. */
  saved: ClientRequest[];
  paused: boolean;
  /** "gone" asks that it has not answered: until then its socket must be read, whatever is saved. */
  asked: number;
  /** Its socket closed: no events go to it. */
  gone: boolean;
  /** It hangs and is being killed: nothing of it stays behind. */
  ending: boolean;
  /** While gone: members of the view whose clients have not yet answered (hazard C7); null: not asked in this view. */
  awaited: Set<number> | null;
  /** Lockspaces in which its orphans go too. */
  purged: Set<Lockspace> | null;
}

export const nobody: ClientIdentity = { uid: 0, pid: 0, owner: "" };

export function newClient(id: number, { uid, pid, owner, program = "", bastLimitMs = 0 }: ClientIdentity = nobody): Client {
  const locks = new Map();
  const lockspaces = new Map();
  const who = { id, uid, pid, owner, program, bastLimitMs };
  return { ...who, lockspaces, locks, saved: [], paused: false, asked: 0, gone: false, ending: false, awaited: null, purged: null };
}
