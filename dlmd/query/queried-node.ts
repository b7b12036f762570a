/** The parts of a node that queries look at. They change none of them. */
import type { Clients } from "../clients/clients.ts";
import type { ClientDeathBarrier } from "../clients/death-barrier.ts";
import type { NodeConfiguration } from "../engine/boot.ts";
import type { SteppedEngine } from "../engine/engine.ts";
import type { Fencing } from "../fencing/fencing.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import type { LockspaceGroup } from "../lockspaces/lockspace-group.ts";
import type { NodeBoot } from "../node-api.ts";
import type { PlockService } from "../plock/service.ts";
import type { Recovery } from "../recovery/recovery.ts";
import type { ViewHistory } from "./view-history.ts";

export interface QueriedNode {
  readonly boot: NodeBoot;
  readonly configuration: NodeConfiguration;
  readonly clients: Clients;
  readonly locks: LockManager;
  readonly plocks: PlockService;
  readonly engine: SteppedEngine;
  readonly recovery: Recovery;
  readonly deaths: ClientDeathBarrier;
  readonly lockspaces: LockspaceGroup;
  readonly fencing: Fencing;
  readonly views: ViewHistory;
}
