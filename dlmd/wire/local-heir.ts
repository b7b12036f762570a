/** What a dead program had and its heir takes over (hazard C12), on the local socket (local.ts), as types and codec. */
import { type Field, flag, list, maybe, oneOf, record, type Row, type Rows, row, u32 } from "./field.ts";
import type { Mode } from "./mode.ts";
import { mode, name } from "./peer-field.ts";

/** Locks in one "inherited": the rest is asked for with another "inherit". */
export const MAX_INHERITED_ROWS = 16_384;

/** Request ids are the client's, u32, unique while in use. */
export type HeirClientRequest =
  /**
   * From now on: if the connection breaks, all that the client has is kept for an heir for that time; 0: not. `held`: only as long as another connection of its
   * owner is there. Answered by "heir-result".
   */
  | { readonly kind: "keep-locks"; readonly requestId: number; readonly limitMs: number; readonly held: boolean }
  /**
   * Which clients of this owner are kept, and their locks in that lockspace: those of the clients from `fromClientId` on, without the first `skip`
   * of that one. Answered by "inherited" when nothing of them is outstanding and no earlier connection of this owner is left that wants to be
   * kept; or by "heir-result".
   */
  | {
      readonly kind: "inherit";
      readonly requestId: number;
      readonly lockspace: string;
      readonly fromClientId: number;
      readonly skip: number;
    }
  /** What is left of that client goes as if it had died just now. Answered by "heir-result". */
  | { readonly kind: "end-kept"; readonly requestId: number; readonly clientId: number };

export type HeirResult = "done" | "no-owner" | "too-long" | "not-kept" | "busy";
const results: readonly HeirResult[] = ["done", "no-owner", "too-long", "not-kept", "busy"];

export interface InheritedLock {
  readonly resource: string;
  readonly mode: Mode;
}

export interface InheritedClient {
  readonly clientId: number;
  readonly locks: readonly InheritedLock[];
}

/** Where the next "inherit" goes on. */
export interface InheritedNext {
  readonly fromClientId: number;
  readonly skip: number;
}

export type HeirEvent =
  | { readonly kind: "heir-result"; readonly requestId: number; readonly result: HeirResult }
  /** A client of which more is to come is named again in the next one. next null: that was all. */
  | {
      readonly kind: "inherited";
      readonly requestId: number;
      readonly clients: readonly InheritedClient[];
      readonly next: InheritedNext | null;
    };

export const heirRequestRows: Rows<HeirClientRequest> = {
  "keep-locks": row("keep-locks", 11, { requestId: u32, limitMs: u32, held: flag }),
  inherit: row("inherit", 12, { requestId: u32, lockspace: name, fromClientId: u32, skip: u32 }),
  "end-kept": row("end-kept", 13, { requestId: u32, clientId: u32 }),
};

const locks = list(u32, record<InheritedLock>({ resource: name, mode }), MAX_INHERITED_ROWS, "locks of a client");
const clients: Field<readonly InheritedClient[]> = list(
  u32,
  record<InheritedClient>({ clientId: u32, locks }),
  MAX_INHERITED_ROWS,
  "clients that are kept",
);

const heirResultRow: Row<Extract<HeirEvent, { kind: "heir-result" }>> = row("heir-result", 138, {
  requestId: u32,
  result: oneOf(results, "result of an heir"),
});
export const heirEventRows: Rows<HeirEvent> = {
  "heir-result": heirResultRow,
  inherited: row("inherited", 139, { requestId: u32, clients, next: maybe(record<InheritedNext>({ fromClientId: u32, skip: u32 })) }),
};
