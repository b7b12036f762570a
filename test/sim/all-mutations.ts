/** Every list of mutations. */
import { checkMutations } from "./check-mutations.ts";
import { configMutations } from "./config-mutations.ts";
import { corosyncMutations } from "./engine/corosync-mutations.ts";
import { engineMutations } from "./engine/mutations.ts";
import { failoverMutations } from "./failover-mutations.ts";
import { fencingMutations } from "./fencing-mutations.ts";
import { heirMutations } from "./heir-mutations.ts";
import { leaseMutations } from "./lease-mutations.ts";
import { lockMutations } from "./lock-mutations.ts";
import { lockspaceMutations } from "./lockspace-mutations.ts";
import { mountGroupMutations } from "./mount-group/mutations.ts";
import type { Mutation } from "./mutation.ts";
import { overlayCrashMutations } from "./overlay-crash-mutations.ts";
import { overlayAheadMutations } from "./overlay-ahead-mutations.ts";
import { overlayAloneMutations } from "./overlay-alone-mutations.ts";
import { overlayDlmdDeathMutations } from "./overlay-dlmd-death-mutations.ts";
import { overlayBehindMutations } from "./overlay-behind-mutations.ts";
import { overlayLocalMutations } from "./overlay-local-mutations.ts";
import { overlayCacheMutations } from "./overlay-cache-mutations.ts";
import { overlayHandleMutations } from "./overlay-handle-mutations.ts";
import { overlayLockMutations } from "./overlay-lock-mutations.ts";
import { overlayFuseNativeMutations } from "./overlay-fuse-native-mutations.ts";
import { overlayLowerMutations } from "./overlay-lower-mutations.ts";
import { overlayNamelessMutations } from "./overlay-nameless-mutations.ts";
import { overlayMovedMutations } from "./overlay-moved-mutations.ts";
import { overlayOpMutations } from "./overlay-op-mutations.ts";
import { overlayOwnerMutations } from "./overlay-owner-mutations.ts";
import { overlayOrphanMutations } from "./overlay-orphan-mutations.ts";
import { overlayOwnershipMutations } from "./overlay-ownership-mutations.ts";
import { overlaySetIdMutations } from "./overlay-set-id-mutations.ts";
import { overlaySharedLocksMutations } from "./overlay-shared-locks-mutations.ts";
import { overlayPauseMutations } from "./overlay-pause-mutations.ts";
import { overlayRestartMutations } from "./overlay-restart-mutations.ts";
import { overlayVolumeMutations } from "./overlay-volume-mutations.ts";
import { ownerDiskMutations } from "./owner-disk/mutations.ts";
import { plockMutations } from "./plock-mutations.ts";
import { recoveryMutations } from "./recovery-mutations.ts";

export const allMutations: readonly Mutation[] = [
  ...lockMutations,
  ...heirMutations,
  ...recoveryMutations,
  ...lockspaceMutations,
  ...fencingMutations,
  ...failoverMutations,
  ...mountGroupMutations,
  ...plockMutations,
  ...engineMutations,
  ...corosyncMutations,
  ...overlayPauseMutations,
  ...overlayRestartMutations,
  ...overlayCrashMutations,
  ...overlayDlmdDeathMutations,
  ...overlayAheadMutations,
  ...overlayAloneMutations,
  ...overlaySharedLocksMutations,
  ...overlayMovedMutations,
  ...checkMutations,
  ...configMutations,
  ...leaseMutations,
  ...overlayLockMutations,
  ...overlayCacheMutations,
  ...overlayOpMutations,
  ...overlayOwnershipMutations,
  ...overlaySetIdMutations,
  ...overlayHandleMutations,
  ...overlayFuseNativeMutations,
  ...overlayLowerMutations,
  ...overlayBehindMutations,
  ...overlayLocalMutations,
  ...overlayVolumeMutations,
  ...overlayOwnerMutations,
  ...ownerDiskMutations,
  ...overlayOrphanMutations,
  ...overlayNamelessMutations,
];
