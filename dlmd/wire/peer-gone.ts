/** What nodes say to each other about clients that are asked to let go of the dead (hazard C7; recovery/gone-gate.ts). */
import { type Field, flag, list, record, type Rows, row, text, u16, u32, u8 } from "./field.ts";
import { name } from "./peer-field.ts";

/** Lockspaces that one message names. A node with more of them that wait says that all wait. */
export const MAX_GONE_LOCKSPACES = 4096;
/** Clients that one message names, for people: those that were asked first. */
export const MAX_GONE_ROWS = 8;
/** Lockspaces that a client may have open. */
export const lockspacesPerClient = 64;
/** UTF-8. */
const programBytes = 256;

/** A client of the sender is gone, with those lockspaces open: ask yours that have one of them to stop serving it. */
export interface ClientGoneMessage {
  readonly kind: "client-gone";
  readonly clientId: number;
  readonly lockspaces: readonly string[];
}
export interface ClientGoneAckMessage {
  readonly kind: "client-gone-ack";
  readonly clientId: number;
}
export interface GoneWaitRow {
  readonly clientId: number;
  readonly pid: number;
  readonly program: string;
  readonly waitedMs: number;
  /** Its process is to end, and has not yet. */
  readonly ending: boolean;
  readonly lockspaces: readonly string[];
}
/** Lockspaces that wait for clients of the sender: they have not let go of nodes that are gone. In place of what it said before. */
export interface GoneWaitsMessage {
  readonly kind: "gone-waits";
  /** Every lockspace waits: there are too many to name. */
  readonly all: boolean;
  readonly lockspaces: readonly string[];
  readonly clients: readonly GoneWaitRow[];
}
export type GoneMessage = ClientGoneMessage | ClientGoneAckMessage | GoneWaitsMessage;

const lockspaces = (most: number): Field<readonly string[]> => list(u16, name, most, "lockspaces");
const waits: Field<GoneWaitRow> = record({
  clientId: u32,
  pid: u32,
  program: text(programBytes),
  waitedMs: u32,
  ending: flag,
  lockspaces: lockspaces(lockspacesPerClient),
});

export const goneRows: Rows<GoneMessage> = {
  "client-gone": row("client-gone", 3, { clientId: u32, lockspaces: lockspaces(lockspacesPerClient) }),
  "client-gone-ack": row("client-gone-ack", 4, { clientId: u32 }),
  "gone-waits": row("gone-waits", 60, {
    all: flag,
    lockspaces: lockspaces(MAX_GONE_LOCKSPACES),
    clients: list(u8, waits, MAX_GONE_ROWS, "clients"),
  }),
};
