/** What goes into the engine over corosync, and what it asks of its host. */
import type { EnginePort } from "../engine.ts";
import type { BeatContent } from "../../membership/heartbeater.ts";
import type { Lineage } from "../../wire/view-id.ts";
import type { RingId, Seat } from "./message.ts";

/** What a connection to corosync says. Of CPG in its order; of the quorum service in that one's. */
export type CorosyncEvent =
  /** cpg_confchg_fn: the processes of the group. */
  | { readonly kind: "seats"; readonly seats: readonly Seat[] }
  /** cpg_totem_confchg_fn. */
  | { readonly kind: "ring"; readonly ring: RingId }
  /** cpg_deliver_fn. */
  | { readonly kind: "message"; readonly from: Seat; readonly data: Uint8Array }
  /** quorum_v1_quorum_notification_fn. */
  | { readonly kind: "quorum"; readonly ring: RingId; readonly quorate: boolean }
  /** There is no connection any more: what was in flight may be lost. */
  | { readonly kind: "lost"; readonly reason: string };

export interface CorosyncPort extends EnginePort {
  /** What heartbeats say from now on, null: there are none any more; `now`: one is due at once. */
  beat(content: BeatContent | null, now: boolean): void;
  /** Store both, then `persisted`, one for each and in order. */
  persist(promisedEpoch: number, lineage: Lineage): void;
  /** To all processes of the group, this one included, in this order. */
  multicast(data: Uint8Array): void;
}

/** What corosync knows this process by. */
export interface CorosyncSelf {
  readonly pid: number;
}
