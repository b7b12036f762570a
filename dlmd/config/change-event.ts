/** What goes into the core of a configuration change (change.ts), what comes out, and what its nodes say to each other. Pure. */
import type { Counting } from "../wire/view-id.ts";
import type { ConfigRecord, KeptConfig, OfferedConfig } from "./record.ts";

export interface ConfigView {
  readonly epoch: number;
  readonly id: string;
  readonly members: readonly number[];
  readonly quorate: boolean;
  /** Who counts from it on; null: it is not quorate. */
  readonly counting: Counting | null;
}

/** How the cluster came to a configuration, as the sender knows it. */
export type Trail = KeptConfig["trail"];
type InView = { readonly epoch: number; readonly view: string };
export type ConfigMessage = InView &
  (
    | ({ readonly kind: "report" } & Pick<KeptConfig, "committed" | "trail" | "pending" | "counting">)
    | { readonly kind: "propose"; readonly record: ConfigRecord }
    | { readonly kind: "stored"; readonly version: number; readonly fingerprint: string }
    | { readonly kind: "commit"; readonly record: ConfigRecord; readonly trail: Trail; readonly counting: Counting | null }
    /** To the coordinator: propose this. */
    | { readonly kind: "request"; readonly requestId: number; readonly record: ConfigRecord }
    | { readonly kind: "refuse"; readonly requestId: number; readonly reason: string }
  );

export type ConfigEvent =
  | { readonly kind: "view"; readonly view: ConfigView }
  /** A new life of this node begins, and is in no view: what was under way in the last one is not known here any more. */
  | { readonly kind: "no-view" }
  | { readonly kind: "message"; readonly from: number; readonly message: ConfigMessage }
  /** No lease runs that was given by a configuration before that version, by which that view was counted. */
  | { readonly kind: "settled"; readonly view: string; readonly version: number }
  /** That "persist" is on stable storage. */
  | { readonly kind: "persisted"; readonly serial: number }
  /** Somebody on this node wants that configuration. Answered by one "applied" or "refused". */
  | { readonly kind: "apply"; readonly requestId: number; readonly record: ConfigRecord }
  /** Another connection to that node was made; what was said on the one before may be lost. */
  | { readonly kind: "connected"; readonly nodeid: number }
  | ({ readonly kind: "offered" } & OfferedConfig)
  /** A person says that those who count and are away are gone for good. */
  | { readonly kind: "count-all" };

export type ConfigEffect =
  | { readonly kind: "send"; readonly to: number; readonly message: ConfigMessage }
  /** In order; "persisted" when it is on stable storage. */
  | { readonly kind: "persist"; readonly serial: number; readonly kept: KeptConfig }
  /** From now on votes are counted by `record`, and by `former` as well where there is one. */
  | {
      readonly kind: "count";
      readonly record: ConfigRecord;
      readonly former: ConfigRecord | null;
      readonly counting: Counting | null;
    }
  /** That configuration is in force here. */
  | { readonly kind: "inForce"; readonly record: ConfigRecord }
  /** An offered one is not taken. */
  | { readonly kind: "declined"; readonly reason: string }
  | { readonly kind: "applied"; readonly requestId: number; readonly record: ConfigRecord }
  | { readonly kind: "refused"; readonly requestId: number; readonly reason: string };
