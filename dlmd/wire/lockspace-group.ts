/**
 * What nodes say in order of the lockspaces that they have open (lockspaces/lockspace-group.ts): ordered messages of the engine in a group of
 * the daemons alone. A message: u8 type and its body. That a node has delivered them is said on the channel of the pair.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { list, type Row, type Rows, row, rowsByType, u16, u64 } from "./field.ts";
import { maxMessageBytes } from "./group.ts";
import { name } from "./peer-field.ts";

/** Lockspaces that a node has open; one more is refused. All their names fit into one ordered message. */
export const MAX_OPEN_LOCKSPACES = 4096;
/** No program can join it: names of programs' groups do not begin like this. */
export const DAEMON_GROUP_PREFIX = "\0";
export const LOCKSPACE_GROUP: string = `${DAEMON_GROUP_PREFIX}lockspaces`;

/** The sender has that lockspace open from now on. `no` counts such messages of one life. */
export interface LockspaceOpenedMessage {
  readonly kind: "lockspace-opened";
  readonly no: number;
  readonly lockspace: string;
}
/** It has not any more: no program has it open there, and no lock of it is left. */
export interface LockspaceClosedMessage {
  readonly kind: "lockspace-closed";
  readonly lockspace: string;
}
/** All that the sender has open; `no` of the last one that it opened. */
export interface LockspaceListMessage {
  readonly kind: "lockspace-list";
  readonly no: number;
  readonly lockspaces: readonly string[];
}
export type LockspaceMessage = LockspaceOpenedMessage | LockspaceClosedMessage | LockspaceListMessage;

/** The sender has delivered what that node had opened up to `no`. */
export interface LockspacesKnownMessage {
  readonly kind: "lockspaces-known";
  readonly no: number;
}

export const lockspaceRows: Rows<LockspacesKnownMessage> = {
  "lockspaces-known": row("lockspaces-known", 61, { no: u64 }),
};

const table: Rows<LockspaceMessage> = {
  "lockspace-opened": row("lockspace-opened", 1, { no: u64, lockspace: name }),
  "lockspace-closed": row("lockspace-closed", 2, { lockspace: name }),
  "lockspace-list": row("lockspace-list", 3, {
    no: u64,
    lockspaces: list(u16, name, MAX_OPEN_LOCKSPACES, "lockspaces"),
  }),
};
const byType = rowsByType(table);

export function encodeLockspaceMessage(message: LockspaceMessage): Uint8Array {
  const { type, write } = table[message.kind] as Row<LockspaceMessage>;
  const w = new ByteWriter(64, maxMessageBytes);
  write(w.u8(type), message);
  return w.copy();
}

/** Throws WireError. */
export function decodeLockspaceMessage(bytes: Uint8Array): LockspaceMessage {
  const r = new ByteReader(bytes);
  const type = r.u8();
  const known = byType.get(type);
  if (known === undefined) throw new WireError(`message about lockspaces of unknown type ${type}`);
  const message = known.read(r);
  r.end();
  return message;
}
