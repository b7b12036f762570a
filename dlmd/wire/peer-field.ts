/** Fields that several messages between nodes have: names, modes, value blocks, lives of nodes. */
import { WireError } from "../base/error.ts";
import { type Field, record, text, u16, u64 } from "./field.ts";
import { isMode, type Mode } from "./mode.ts";
import { type Member, readEpoch, readIncarnation, type ViewId, writeIncarnation } from "./view-id.ts";

export const maxNameBytes = 64;
export const maxLvbBytes = 256;

const noMode = 0xff;

export const mode: Field<Mode> = {
  write: (w, value) => w.u8(value),
  read: (r) => {
    const value = r.u8();
    if (!isMode(value)) throw new WireError(`lock mode ${value} at offset ${r.offset - 1}: 0 to 5 expected`);
    return value;
  },
};

export const modeOrNull: Field<Mode | null> = {
  write: (w, value) => w.u8(value ?? noMode),
  read: (r) => {
    const value = r.u8();
    if (value === noMode) return null;
    if (!isMode(value)) throw new WireError(`lock mode ${value} at offset ${r.offset - 1}: 0 to 5 or 255 expected`);
    return value;
  },
};

/** It may be empty. */
export const anyName: Field<string> = text(maxNameBytes);

export const name: Field<string> = {
  write: anyName.write,
  read: (r) => {
    const value = r.string(maxNameBytes);
    if (value === "") throw new WireError(`empty name at offset ${r.offset}: 1 to ${maxNameBytes} bytes expected`);
    return value;
  },
};

/** A copy: the frame's buffer is not kept alive by a lock. */
export const lvb: Field<Uint8Array | null> = {
  write: (w, value) => (value === null ? w.u16(0xffff) : w.u16(value.byteLength).bytes(value)),
  read: (r) => {
    const bytes = r.u16();
    if (bytes === 0xffff) return null;
    if (bytes > maxLvbBytes) throw new WireError(`value block of ${bytes} bytes, at most ${maxLvbBytes} allowed`);
    return r.bytes(bytes).slice();
  },
};

export const incarnation: Field<string> = { write: writeIncarnation, read: readIncarnation };
export const nodeid: Field<number> = {
  write: (w, value) => w.u16(value),
  read: (r) => {
    const value = r.u16();
    if (value === 0) throw new WireError(`nodeid 0 at offset ${r.offset - 2}: 1 to 65535 expected`);
    return value;
  },
};
export const member: Field<Member> = record({ nodeid, incarnation });
/** Of a view, also of one that is only promised. */
export const epoch: Field<number> = { write: u64.write, read: readEpoch };
/** 18 bytes. */
export const viewId: Field<ViewId> = record({ epoch, proposer: u16, incarnation });

/** Milliseconds since then, whole and as wide as the field is; null: it is not known since when. */
export function ageOf(sinceMs: number | null, nowMs: number): number | null {
  return sinceMs === null ? null : Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.round(nowMs - sinceMs)));
}

/** Milliseconds since then, whole and as wide as the field is. */
export function waitedSince(sinceMs: number, nowMs: number): number {
  return Math.min(0xffffffff, Math.max(0, Math.round(nowMs - sinceMs)));
}
